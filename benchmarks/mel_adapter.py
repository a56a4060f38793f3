"""How close converted mels come to true ones, beside other ways, and what that costs.

    python -m benchmarks.mel_adapter
    python -m benchmarks.mel_adapter --bounds    # only what noise buries, and how well that would have to be known

Held-out recordings (see training/recordings.py: split by file; of these none was trained on) are
analysed in both formats. The figure is the mean over files of the mean |Δ ln mel| in nats (1 nat is
8.7 dB) over what is above -9 in the true mel; the bias is the same without the bars. Noise of a decoder is
white, on the log1p mel, which then is raised to 0. `python tools/recordings.py` fetches the recordings.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from distill_core.mel import MelAdapter, MelSpec
from distill_core.mel.refine import warp_matrix
from distill_core.mel.timing import FrameClock
from training import recordings

from . import mel_peers

Convert = Callable[[Tensor], Tensor]
AUDIBLE = -9.0
CONDITIONS = (("clean", 0.0), ("σ 0.02", 0.02), ("σ 0.05", 0.05))


def noisy(mel: Tensor, sigma: float, seed: int) -> Tensor:
    """A mel as a decoder makes it."""
    noise = torch.randn(mel.shape, generator=torch.Generator().manual_seed(seed))
    return (mel + sigma * noise).clamp(min=0.0) if sigma else mel


def errors(convert: Convert, files: list[Path], source: MelSpec, target: MelSpec, sigma: float) -> tuple[float, float]:
    """Mean |Δ ln mel| and mean Δ over files, for a target in ln."""
    found = []
    for index, path in enumerate(files):
        mel = noisy(source.analyze(recordings.load(path, source.sample_rate)), sigma, index)
        true = target.analyze(recordings.load(path, target.sample_rate))
        made = convert(mel)
        frames = min(made.shape[-1], true.shape[-1])
        heard = true[..., :frames] > AUDIBLE
        difference = (made[..., :frames] - true[..., :frames])[heard]
        if difference.numel():
            found.append((float(difference.abs().mean()), float(difference.mean())))
    return sum(each[0] for each in found) / len(found), sum(each[1] for each in found) / len(found)


def ways(source: MelSpec, target: MelSpec) -> dict[str, Convert]:
    """Every way that is compared, by name."""
    refined, analytic = MelAdapter(source, target), MelAdapter(source, target, refine=False)
    found: dict[str, Convert] = {
        "pseudo-inverse": lambda mel: mel_peers.pseudo_inverse(mel, source, target),
        "NNLS": lambda mel: mel_peers.nnls(mel, source, target),
        "Griffin-Lim": lambda mel: mel_peers.griffin_lim(mel, source, target),
        "MelAdapter(refine=False)": analytic,
    }
    if refined.refined:
        found["MelAdapter"] = refined
    return found


def table(source: MelSpec, target: MelSpec, count: int | None) -> None:
    split = recordings.find()
    groups = {"held-out": list(split.held_out)[:count], "speech": list(split.speech)[:count]}
    seconds = {
        name: sum(recordings.load(path, 48_000).numel() for path in files) / 48_000 for name, files in groups.items()
    }
    print(f"\n### {source.name} to {target.name}\n")
    print(
        "mean |Δ ln mel| in nats, bias in brackets; "
        + ", ".join(f"{name}: {len(groups[name])} files, {seconds[name]:.0f} s" for name in groups)
    )
    print("\n| way | " + " | ".join(f"{name}, {label}" for name in groups for label, _ in CONDITIONS) + " |")
    print("|---" * (1 + len(groups) * len(CONDITIONS)) + "|")
    for way, convert in ways(source, target).items():
        cells = []
        for files in groups.values():
            for _, sigma in CONDITIONS:
                error, bias = errors(convert, files, source, target, sigma)
                cells.append(f"{error:.3f} ({bias:+.3f})")
        print(f"| {way} | " + " | ".join(cells) + " |", flush=True)


def bounds(source: MelSpec, target: MelSpec) -> None:
    """What noise buries in the spoken files, and how well that would have to be known for a smaller figure.

    Buried is what has less of the source's values than the noise's deviation. All else is taken as converted without
    noise, and what is buried as the mean of the true values in the frames before and behind, its own left out.
    """
    files = recordings.find().speech
    adapter, clock = MelAdapter(source, target), FrameClock(source, target)
    warp = warp_matrix(source, target)
    print(f"\n### What noise buries: speech, {source.name} to {target.name}\n")
    beside = (1, 2, 3, 4)
    told = " | ".join(f"told {frames} on either side" for frames in beside)
    print(f"| noise | buried | error in it | error elsewhere | in all | {told} |")
    print("|---" * (5 + len(beside)) + "|")
    for label, sigma in CONDITIONS[1:]:
        rows = []
        for index, path in enumerate(files):
            mel = source.analyze(recordings.load(path, source.sample_rate))
            true = target.analyze(recordings.load(path, target.sample_rate))
            made, clean = adapter(noisy(mel, sigma, index)), adapter(mel)
            frames = min(made.shape[-1], true.shape[-1])
            made, clean, true = (each[..., :frames] for each in (made, clean, true))
            here, phase = clock.positions(0, frames)
            levels = warp @ torch.cat([mel, mel[..., -1:]], dim=2)
            here = here.clamp(0, mel.shape[-1] - 1)
            levels = torch.lerp(levels[..., here], levels[..., here + 1], phase)
            heard, buried = true > AUDIBLE, levels < sigma
            error, best = (made - true).abs(), (clean - true).abs()
            row = [buried[heard].float().mean(), error[heard & buried].mean(), error[heard & ~buried].mean()]
            row.append(error[heard].mean())
            for count in beside:
                around = F.pad(true, (count, count), mode="replicate").unfold(2, 2 * count + 1, 1)
                mean = (around.sum(dim=3) - true) / (2 * count)
                row.append(torch.where(buried, (mean - true).abs(), best)[heard].mean())
            rows.append(torch.stack(row))
        share, *found = torch.stack(rows).mean(dim=0).tolist()
        print(f"| {label} | {share:.0%} | " + " | ".join(f"{each:.3f}" for each in found) + " |", flush=True)


def per_frame(run: Callable[[], object], frames: int, repeats: int) -> float:
    """The median CPU time per frame in seconds, after one run to warm up."""
    run()
    times = []
    for _ in range(repeats):
        began = time.process_time()
        run()
        times.append(time.process_time() - began)
    return sorted(times)[len(times) // 2] / frames


@torch.no_grad()
def cost(repeats: int) -> None:
    """The adapter's time on one core of this CPU beside that of the default BigVGAN in fp32: eager, and its own engine.

    CPU time, so that a busy machine does not change it.
    """
    from distill_bigvgan._vendor.bigvgan import CONFIGS, BigVGAN
    from distill_bigvgan.bigvgan_vocoder import BigVGANVocoder
    from distill_bigvgan.variants import DEFAULT_VARIANT, VARIANTS

    torch.set_num_threads(1)
    source, target = MelSpec.preset("distill-vae"), MelSpec.preset("bigvgan-44khz-128band-512x")
    adapter = MelAdapter(source, target)
    mel = source.analyze(torch.randn(1, 4 * source.sample_rate) * 0.1)
    made = adapter.out_frames(mel.shape[-1])
    mine = per_frame(lambda: adapter(mel), made, 3 * repeats)
    generator = BigVGAN(CONFIGS["bigvgan_v2_44khz_128band_512x"]).eval()
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.normal_(std=0.01)  # speed does not depend on the weights, but must not meet NaN
    generator.remove_weight_norm()
    variant = next(each for each in VARIANTS if each.name == DEFAULT_VARIANT)
    print("\n### Cost on this CPU, one thread, fp32, CPU time per target frame\n")
    print(f"MelAdapter {1e3 * mine:.3f} ms")
    for engine, frames in (("eager", 32), ("auto", 256)):
        vocoder = BigVGANVocoder(generator, variant, engine=engine)
        mel = torch.randn(1, 128, frames) - 4.0
        theirs = per_frame(lambda mel=mel, run=vocoder.mel_to_waveform: run(mel, check_format=False), frames, repeats)
        print(f"BigVGAN, {vocoder.report().engine}: {1e3 * theirs:.1f} ms, of which that is {mine / theirs:.2%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", nargs="*", default=["bigvgan-44khz-128band-512x", "hifigan-22khz-80band"])
    parser.add_argument("--files", type=int, help="only so many of each group")
    parser.add_argument("--bounds", action="store_true", help="only what noise buries, and what that comes to")
    parser.add_argument("--repeats", type=int, default=3, help="timings to take the median of; 0: no timing")
    args = parser.parse_args()
    if args.bounds:
        for name in args.target:
            bounds(MelSpec.preset("distill-vae"), MelSpec.preset(name))
        return
    for name in args.target:
        table(MelSpec.preset("distill-vae"), MelSpec.preset(name), args.files)
    if args.repeats:
        cost(args.repeats)


if __name__ == "__main__":
    main()
