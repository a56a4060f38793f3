"""Train the learned refinement of `distill_core.mel.MelAdapter`, and write its weights.

    python -m training.mel_refinement --target hifigan-22khz-80band --minutes 30

Needs the recordings that `python tools/recordings.py --training` fetches, and `espeak-ng` (apt-get install
espeak-ng). Sounds are analysed in both formats (see training/material.py), then the source gets a decoder's noise.
"""

from __future__ import annotations

import argparse
import copy
import math
import random
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from distill_core.mel import MelSpec, refine
from distill_core.mel.inversion import Inversion, band_values, finish
from distill_core.mel.timing import FrameClock

from . import material, recordings

BIAS_WEIGHT, LEVEL_WEIGHT = 4.0, 0.3
CROP = 32
# Steps of the kernels, whose singular values are all about this, and of everything else: from nothing, and going on.
RATES = {False: (0.02, 2e-3), True: (0.006, 7e-4)}


class Pool:
    """Clips as pairs of mels, kept as one long row of frames each, with where each clip begins."""

    def __init__(self, clips: list[tuple[Tensor, Tensor]], clock: FrameClock) -> None:
        self.source = torch.cat([source for source, _ in clips], dim=1)
        self.target = torch.cat([target for _, target in clips], dim=1)
        self.frames = torch.tensor([source.shape[1] for source, _ in clips])
        self.target_frames = torch.tensor([target.shape[1] for _, target in clips])
        self.offsets = self.frames.cumsum(0) - self.frames
        self.target_offsets = self.target_frames.cumsum(0) - self.target_frames
        self.clock = clock

    def batch(self, size: int) -> Batch:
        """Random crops of as many clips, a longer one more often."""
        clips = torch.multinomial(self.target_frames.float(), size, replacement=True)
        found: list[tuple[Tensor, ...]] = []
        width = self.clock.before(CROP) - self.clock.before(0) + refine.BEFORE + refine.AFTER + 2
        for clip in clips.tolist():
            last = max(1, int(self.target_frames[clip]) - CROP + 1)
            # The ends of clips are few, and begin and stop as nothing else does.
            start = int(torch.randint(-last // 8, last + last // 8 + 1, ()).clamp(0, last - 1))
            whole, phase = self.clock.positions(start, start + CROP)
            first = int(whole[0]) - refine.BEFORE
            columns = torch.arange(first, first + width).clamp(0, int(self.frames[clip]) - 1)
            wanted = torch.arange(start, start + CROP).clamp(max=int(self.target_frames[clip]) - 1)
            found.append(
                (
                    self.source[:, self.offsets[clip] + columns],
                    # Beyond its ends a mel stays as it is there, with its noise.
                    (columns - first).clamp(0, width - 1),
                    whole - first,
                    phase,
                    self.target[:, self.target_offsets[clip] + wanted],
                )
            )
        return Batch(*(torch.stack(each) for each in zip(*found, strict=True)), sigma=torch.zeros(size))


@dataclass(frozen=True)
class Batch:
    """Crops: source `[B, n, S]`, its own columns `[B, S]`, index and phase `[B, CROP]`, truth `[B, m, CROP]`.

    And the noise on each, `[B]`.
    """

    source: Tensor
    columns: Tensor
    index: Tensor
    phase: Tensor
    truth: Tensor
    sigma: Tensor

    def __len__(self) -> int:
        return self.source.shape[0]

    def noisy(self, sigma: Tensor, white: Tensor) -> Batch:
        """With a decoder's noise of a level each, `[B]`, white or smooth in time and band (`[B]` of bool)."""
        noise = torch.randn_like(self.source)
        smooth = F.avg_pool2d(F.pad(noise[:, None], (1, 1, 1, 1), mode="reflect"), 3, stride=1)[:, 0] * 3.0
        noise = torch.where(white[:, None, None], noise, smooth)
        noise = noise.gather(2, self.columns[:, None].expand_as(noise))
        return replace(self, source=(self.source + sigma[:, None, None] * noise).clamp(min=0.0), sigma=sigma)

    def decoded(self) -> Batch:
        """Nearly half of them clean, most others with noise as decoders have it, some with less or more."""
        size = len(self)
        sigma = torch.exp(torch.empty(size).uniform_(math.log(0.004), math.log(0.1)))
        common = torch.exp(torch.empty(size).uniform_(math.log(0.017), math.log(0.058)))
        kind = torch.rand(size)
        sigma = torch.where(kind < 0.78, common, sigma)
        sigma[kind < 0.45] = 0.0
        return self.noisy(sigma, torch.rand(size) < 0.85)


def _has_bf16() -> bool:
    try:
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


class Model:
    """The network with the analytic part it corrects, on crops."""

    net: torch.nn.Module

    def __init__(self, source: MelSpec, target: MelSpec, width: int, depth: int) -> None:
        self.source, self.target = source, target
        self.inversion = Inversion(source, target, torch.device("cpu"))
        self.view = refine.View(source, target, torch.device("cpu"))
        self.lowest = finish(torch.zeros(()), target)
        # Where the CPU has instructions for bfloat16, it halves the time.
        self.half = _has_bf16()
        self.net = refine.Refinement(target.n_mels, width, depth)

    @classmethod
    def of(cls, other: Model, net: torch.nn.Module) -> Model:
        """The same with another network."""
        made = copy.copy(other)
        made.net = net
        return made

    def __call__(self, batch: Batch) -> Tensor:
        """The target's ln mel, `[B, CROP, m]`."""
        with torch.no_grad():
            near = refine.looked_at(batch.source.shape[2])
            bands = self.inversion(band_values(batch.source[:, :, near], self.source))
            seen = self.view(batch.source, bands, batch.index)
            row = torch.arange(len(batch))[:, None]
            own, bands = batch.index - near.start, bands.transpose(1, 2)
            here, after = bands[row, own], bands[row, own + 1]
            base = finish(here + (after - here) * batch.phase[:, :, None], self.target)
        with torch.autocast("cpu", torch.bfloat16, enabled=torch.is_grad_enabled() and self.half):
            correction = self.net(seen, batch.phase.flatten()).float().unflatten(0, base.shape[:2])
        made = torch.maximum(base + correction, self.lowest)
        return torch.where(seen.sounding.unflatten(0, base.shape[:2])[..., None], made, base)


def pairs(count: int, source: MelSpec, target: MelSpec, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Sounds as (source mel, target mel), `[n, T]` each.

    At whichever rate a sound is, one of the formats, or both, see it resampled: what lies next to the lower
    Nyquist frequency depends on it, as in real collections.
    """
    clips = []
    for wave, rate in material.sounds(count, seed):
        if wave.size < rate // 4 or not np.isfinite(wave).all():
            continue
        mine = source.analyze(recordings.at_rate(wave, rate, source.sample_rate))[0]
        theirs = target.analyze(recordings.at_rate(wave, rate, target.sample_rate))[0]
        clips.append((mine, theirs))
    return clips


def kept_clips(args: argparse.Namespace, target_name: str) -> list[tuple[Tensor, Tensor]]:
    """Pairs of mels, from the folder named by `--keep` if they are there; else made, and kept there."""
    kept = args.keep / f"{target_name}-{args.seed}-{args.sounds}.pt" if args.keep else None
    if kept and kept.exists():
        return torch.load(kept, weights_only=True)  # type: ignore[no-any-return]
    clips = pairs(args.sounds, MelSpec.preset(args.source), MelSpec.preset(target_name), args.seed)
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        torch.save(clips, kept)
    return clips


def train(target_name: str, minutes: float, out: Path, args: argparse.Namespace) -> None:
    """Train the refinement of one pair of formats for so many minutes of CPU time, and write it to `out`."""
    torch.manual_seed(args.seed)
    source, target = MelSpec.preset(args.source), MelSpec.preset(target_name)
    clips = kept_clips(args, target_name)
    random.Random(args.seed).shuffle(clips)
    clock = FrameClock(source, target)
    aside = max(1, len(clips) // 30)
    check, pool = Pool(clips[:aside], clock), Pool(clips[aside:], clock)
    hours = pool.source.shape[1] * source.hop_length / source.sample_rate / 3600
    model = Model(source, target, args.width, args.depth)
    if args.resume and out.exists():
        model.net = refine.read(out).requires_grad_()
    parameters = sum(p.numel() for p in model.net.parameters())
    print(f"{target_name}: {len(clips)} clips, {hours:.2f} h, {parameters} parameters", flush=True)
    held = check.batch(64)
    held_noisy = held.noisy(torch.full((64,), 0.03), torch.ones(64, dtype=torch.bool))
    optimizers = optimizers_of(model.net, *RATES[args.resume])
    smooth = torch.optim.swa_utils.get_ema_multi_avg_fn(0.995)
    mean = torch.optim.swa_utils.AveragedModel(model.net, multi_avg_fn=smooth)
    began, step, shown, losses = time.process_time(), 0, 0.0, []
    while (progress := (time.process_time() - began) / (60 * minutes * args.threads)) < 1.0:
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["most"] * min(1.0, (step + 1) / 20) * min(1.0, 0.01 + 1.6 * (1.0 - progress))
        batch = pool.batch(args.batch).decoded()
        loss = error(model(batch), batch)
        model.net.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.net.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        mean.update_parameters(model.net)
        losses.append(float(loss.detach()))
        step += 1
        if progress - shown > 0.05:
            shown = progress
            write(mean.module, out)
            found = [measure(Model.of(model, mean.module), each) for each in (held, held_noisy)]
            average = sum(losses) / len(losses)
            print(f"{progress:4.0%} step {step}, loss {average:.4f}, set aside: {'; '.join(found)}", flush=True)
            losses.clear()
    write(mean.module, out)
    print(f"{out.name}: {step} steps; set aside: {measure(Model.of(model, mean.module), held)}", flush=True)


def optimizers_of(net: torch.nn.Module, kernel_rate: float, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the kernels, which learns in a fraction of Adam's steps; Adam for the rest."""
    kernels: list[torch.nn.Parameter] = []
    rest: list[torch.nn.Parameter] = []
    for parameter in net.parameters():
        (kernels if parameter.ndim == 4 and parameter.shape[0] > 1 else rest).append(parameter)
    return [
        Muon(kernels, kernel_rate),
        torch.optim.AdamW([{"params": rest, "most": rate}], lr=rate, weight_decay=0.0, betas=(0.9, 0.98)),
    ]


class Muon(torch.optim.Optimizer):
    """Momentum whose singular values are all made about 1, by Newton and Schulz's iteration (Jordan, 2024).

    Args:
        kernels: of convolutions; each counts as a matrix `[outputs, the rest]`.
        rate: how far a step goes.
    """

    def __init__(self, kernels: list[torch.nn.Parameter], rate: float) -> None:
        super().__init__([{"params": kernels, "most": rate, "lr": rate}], {})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step."""
        for group in self.param_groups:
            for kernel in group["params"]:
                if kernel.grad is None:
                    continue
                momentum = self.state[kernel].setdefault("momentum", torch.zeros_like(kernel))
                momentum.lerp_(kernel.grad, 0.05)
                step = kernel.grad.lerp(momentum, 0.95).flatten(1)
                x = step / (step.norm() + 1e-12)
                for _ in range(5):
                    square = x @ x.T
                    x = 3.4445 * x + (2.0315 * square @ square - 4.7750 * square) @ x
                scale = max(1.0, x.shape[0] / x.shape[1]) ** 0.5
                kernel.add_(x.view_as(kernel), alpha=-group["lr"] * scale)


def error(made: Tensor, batch: Batch) -> Tensor:
    """Mean |Δ ln mel| of `[B, CROP, m]` against the truth; what is nearly silent counts less.

    The least such error is at the median, which in noise lies below the mean: so the mean error of what is heard
    counts, too, of all clean crops together, and of those in little and in much noise. And how loud a sound is, its few
    strongest values decide, which count little in either: so each clean crop's level counts.
    """
    truth = batch.truth.transpose(1, 2)
    difference = made - truth
    heard = (truth > -9.0).float()
    weight = 0.25 + 0.75 * heard
    loss = (difference.abs() * weight).sum() / weight.sum()
    for low, high in ((-1.0, 0.0), (0.0, 0.03), (0.03, 1.0)):
        alike = heard * ((batch.sigma > low) & (batch.sigma <= high))[:, None, None]
        count = alike.sum()
        mean = (difference * alike).sum() / count.clamp(min=1.0)
        loss = loss + BIAS_WEIGHT * mean.square() * count / heard.sum().clamp(min=1.0)
    clean = (batch.sigma == 0) & heard.any(dim=2).any(dim=1)
    levels = [0.5 * torch.logsumexp(2.0 * mel[clean].flatten(1), dim=1) for mel in (made, truth)]
    return loss + LEVEL_WEIGHT * (levels[0] - levels[1]).abs().sum() / len(batch)


@torch.no_grad()
def measure(model: Model, batch: Batch) -> str:
    """Mean |Δ ln mel| and mean Δ over what is above -9."""
    truth = batch.truth.transpose(1, 2)
    difference = (model(batch) - truth)[truth > -9.0]
    return f"{float(difference.abs().mean()):.4f}, bias {float(difference.mean()):+.4f}"


def write(net: torch.nn.Module, path: Path) -> None:
    """Weights in half precision as safetensors, whole or not at all."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file({name: tensor.half().contiguous() for name, tensor in net.state_dict().items()}, partial)
    partial.chmod(0o644)  # safetensors writes for the owner alone
    partial.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="distill-vae")
    parser.add_argument("--target", nargs="+", default=[pair[1] for pair in refine.WEIGHTS])
    parser.add_argument("--out", type=Path, help="a folder; default: where distill_core keeps them")
    parser.add_argument("--minutes", type=float, default=15.0, help="of CPU time on a core, for each target")
    parser.add_argument("--sounds", type=int, default=2400, help="how many, of some three seconds each")
    parser.add_argument("--keep", type=Path, help="a folder to keep the pairs of mels in between runs")
    parser.add_argument("--resume", action="store_true", help="begin with the weights that are there")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--width", type=int, default=48)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    folder = args.out or Path(refine.__file__).parent
    unknown = [name for name in args.target if (args.source, name) not in refine.WEIGHTS]
    if unknown:
        parser.error(f"no refinement is shipped from {args.source} to {', '.join(unknown)}: see refine.WEIGHTS")
    torch.set_num_threads(args.threads)
    for name in args.target:
        train(name, args.minutes, folder / refine.WEIGHTS[args.source, name], args)


if __name__ == "__main__":
    main()
