"""Train the learned refinement of `distill_core.mel.MelAdapter`, and write its weights.

    python -m training.mel_refinement --target hifigan-22khz-80band --minutes 15

Needs the recordings that `python tools/recordings.py` fetches, and `espeak-ng` (apt-get install espeak-ng)
for speech: no recorded speech is trained on, so that all there is can be tested on. Every sound is varied
in speed, level and colour, mixed, and analysed in both formats; then the source gets a decoder's noise.
"""

from __future__ import annotations

import argparse
import copy
import math
import random
import subprocess
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor
from torch.nn import functional as F

from distill_core.mel import MelSpec, refine
from distill_core.mel.inversion import Inversion, band_values, finish
from distill_core.mel.timing import FrameClock

from . import recordings

RATE = 48_000
CD_RATE = 44_100
BIAS_WEIGHT = 4.0
CROP = 32
SENTENCES = (
    "The birch canoe slid on the smooth planks.",
    "Front left, front right, rear centre, side left.",
    "Four hours of steady work faced us, said the measured voice.",
    "A large size in stockings is hard to sell; why not ask for cheese?",
    "Zero, one, two, three, four, five, six, seven, eight, nine.",
    "She had your dark suit in greasy wash water all year.",
    "Thick fog hushed the harbour, and nobody saw the ships go by.",
    "Judge my vow: quick foxes jump over lazy dwarves, boxing with pizza.",
)
VOICES = ("en-gb", "en-us", "de", "fr", "es", "it", "en-us+f3", "en-gb+f4", "de+f2", "en-us+m7", "fr+f5", "en-gb+m3")


def speech(rng: random.Random) -> list[np.ndarray]:
    """espeak-ng's voices reading, each at its own speed and pitch, `[samples]` at 48 kHz."""
    waves = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        for index, voice in enumerate(VOICES * 3):
            text = SENTENCES[index % len(SENTENCES)] + " " + SENTENCES[(index * 5 + 3) % len(SENTENCES)]
            speed, pitch = str(rng.randint(110, 190)), str(rng.randint(20, 80))
            command = ["espeak-ng", "-v", voice, "-s", speed, "-p", pitch, "-w", str(path), text]
            try:
                subprocess.run(command, check=True, capture_output=True)
            except FileNotFoundError:
                raise SystemExit("error: espeak-ng is needed: apt-get install espeak-ng") from None
            wave, rate = soundfile.read(path)
            waves.append(soxr.resample(wave, rate, RATE))
    return waves


def synthesis(rng: np.random.Generator, seconds: float = 4.0) -> np.ndarray:
    """Tones, harmonic glides, clicks and coloured noise in a random mixture."""
    t = np.arange(int(seconds * RATE)) / RATE
    wave = np.zeros_like(t)
    kinds = rng.random(4) < 0.5
    if kinds[0] or not kinds.any():
        for _ in range(rng.integers(1, 5)):
            frequency = 40 * 500 ** rng.random()
            wave += 10 ** rng.uniform(-2, 0) * np.sin(2 * np.pi * frequency * t + 6 * rng.random())
    if kinds[1]:
        pitch = 60 * 12 ** rng.random() * 2 ** (rng.uniform(-1, 1) * t / seconds + 0.02 * np.sin(2 * np.pi * 5 * t))
        phase = 2 * np.pi * np.cumsum(pitch) / RATE
        tilt = rng.uniform(0.5, 1.6)
        for harmonic in range(1, 40):
            if pitch.max() * harmonic < RATE / 2:
                wave += 0.5 * harmonic**-tilt * np.sin(harmonic * phase)
    if kinds[2]:
        for at in rng.integers(0, t.size - 10, rng.integers(1, 12)):
            wave[at] += rng.uniform(-1, 1) * 3
    if kinds[3]:
        wave += 10 ** rng.uniform(-3, -0.5) * coloured(rng, t.size, rng.uniform(0, 1.2))
    decay = np.exp(-((t * rng.uniform(0.5, 4)) % 1.0) * rng.uniform(0, 6))
    return wave * decay


def tones(rng: np.random.Generator, seconds: float = 2.0) -> np.ndarray:
    """One to three steady sines from 40 Hz to 21 kHz, half of them bare, half in noise."""
    t = np.arange(int(seconds * RATE)) / RATE
    wave = np.zeros_like(t)
    for _ in range(rng.integers(1, 4)):
        frequency = 40 * 525 ** rng.random()
        wave += 10 ** rng.uniform(-1.5, 0) * np.sin(2 * np.pi * frequency * t + 6 * rng.random())
    if rng.random() < 0.5:
        wave += 10 ** rng.uniform(-4, -1) * coloured(rng, t.size, rng.uniform(0, 1.2))
    return wave * (10 ** rng.uniform(-1.5, -0.02) / np.abs(wave).max())


def coloured(rng: np.random.Generator, samples: int, tilt: float) -> np.ndarray:
    """Noise whose amplitude falls as f ** -tilt above 100 Hz, of unit variance."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    frequencies = np.maximum(np.fft.rfftfreq(samples, 1 / RATE), 100.0)
    noise = np.fft.irfft(spectrum * frequencies**-tilt, samples)
    return noise / max(noise.std(), 1e-12)


def varied(wave: np.ndarray, rng: np.random.Generator, other: np.ndarray) -> np.ndarray:
    """A sound at another speed, in another colour and room, at another level, perhaps with another one."""
    if rng.random() < 0.7:
        wave = soxr.resample(wave, RATE, RATE / 2 ** rng.uniform(-0.5, 0.5))
    if rng.random() < 0.3:
        start = rng.integers(0, wave.size)
        part = other[: wave.size - start] * 10 ** rng.uniform(-1.5, 0)
        wave = wave.copy()
        wave[start : start + part.size] += part
    if rng.random() < 0.4:
        spectrum = np.fft.rfft(wave)
        octaves = np.log2(np.maximum(np.fft.rfftfreq(wave.size, 1 / RATE), 20.0) / 1000.0)
        decibels = rng.uniform(-3, 2) * octaves + rng.uniform(0, 6) * np.sin(octaves * 2 + 6 * rng.random())
        wave = np.fft.irfft(spectrum * 10 ** (decibels / 20), wave.size)
    if rng.random() < 0.3:
        tail = rng.standard_normal(RATE // 4) * np.exp(-np.arange(RATE // 4) / rng.uniform(300, 4000))
        size = wave.size + tail.size
        echo = np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(tail, size), size)[: wave.size]
        wave = wave + echo * rng.uniform(0.05, 0.4) * wave.std() / max(echo.std(), 1e-12)
    if rng.random() < 0.7:
        # The hiss and rumble of a recording, of which espeak-ng and samples have less than life.
        background = coloured(rng, wave.size, rng.uniform(0, 1.2))
        wave = wave + 10 ** rng.uniform(-4.3, -2) * np.abs(wave).max() * background
    wave = np.pad(wave, rng.integers(0, RATE // 10, 2))
    level = 0.95 if rng.random() < 0.6 else 10 ** rng.uniform(-1.3, 0)
    return wave * (level / max(np.abs(wave).max(), 1e-9))


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
        """A third clean, most others with noise as decoders have it, some with less or more."""
        size = len(self)
        sigma = torch.exp(torch.empty(size).uniform_(math.log(0.004), math.log(0.1)))
        common = torch.exp(torch.empty(size).uniform_(math.log(0.015), math.log(0.06)))
        kind = torch.rand(size)
        sigma = torch.where(kind < 0.7, common, sigma)
        sigma[kind < 0.35] = 0.0
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


Sound = tuple[np.ndarray, int]
"""Samples, and their rate in Hz."""


def pairs(made: list[Sound], source: MelSpec, target: MelSpec) -> list[tuple[Tensor, Tensor]]:
    """Sounds as (source mel, target mel), `[n, T]` each.

    At whichever rate a sound is, one of the formats, or both, see it resampled: what lies next to the lower
    Nyquist frequency depends on it, as in real collections.
    """
    clips = []
    for wave, rate in made:
        if wave.size < rate // 4 or not np.isfinite(wave).all():
            continue
        mine = source.analyze(recordings.at_rate(wave, rate, source.sample_rate))[0]
        theirs = target.analyze(recordings.at_rate(wave, rate, target.sample_rate))[0]
        clips.append((mine, theirs))
    return clips


def cut(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A sound between digital silence, which it meets without a fade, as samples do."""
    if rng.random() < 0.5:
        start = rng.integers(0, max(1, wave.size // 4))
        wave = wave[start : start + rng.integers(wave.size // 4, wave.size + 1)]
    before = rng.integers(0, RATE // 4) if rng.random() < 0.3 else 0
    return np.pad(wave, (before, rng.integers(RATE // 8, RATE // 2)))


def sounds(rounds: int, seed: int) -> list[Sound]:
    """The training material: recordings, speech and synthesis, varied `rounds` times."""
    rng = np.random.default_rng(seed)
    found = recordings.find()
    spoken = speech(random.Random(seed))
    native = [recordings.read(path) for path in found.training]
    recorded = [wave[: 20 * rate] for wave, rate in native]
    made: list[Sound] = []

    def any_of(waves: list[np.ndarray]) -> np.ndarray:
        return waves[rng.integers(len(waves))]

    def either() -> int:
        return RATE if rng.random() < 0.5 else CD_RATE

    for number in range(rounds):
        for wave, rate in native:
            wave = wave[: 20 * rate]
            if number:
                wave = varied(wave, rng, any_of(spoken))
            made.append((cut(wave, rng) if rng.random() < 0.4 or wave.size < rate // 2 else wave, rate))
        for wave in spoken:
            wave = varied(wave, rng, any_of(recorded))
            made.append((cut(wave, rng) if rng.random() < 0.3 else wave, RATE if rng.random() < 0.7 else CD_RATE))
        made += [(varied(synthesis(rng), rng, any_of(recorded)), either()) for _ in range(25)]
        made += [(tones(rng), either()) for _ in range(80)]
    return made


def kept_clips(args: argparse.Namespace, target_name: str) -> list[tuple[Tensor, Tensor]]:
    """Pairs of mels, from the folder named by `--keep` if they are there; else made, and kept there."""
    kept = args.keep / f"{target_name}-{args.seed}-{args.rounds}.pt" if args.keep else None
    if kept and kept.exists():
        return torch.load(kept, weights_only=True)  # type: ignore[no-any-return]
    made = sounds(args.rounds, args.seed)
    clips = pairs(made, MelSpec.preset(args.source), MelSpec.preset(target_name))
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        torch.save(clips, kept)
    return clips


def train(target_name: str, minutes: float, out: Path, args: argparse.Namespace) -> None:
    """Train the refinement of one pair of formats for so long, and write it to `out`."""
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
    optimizer = torch.optim.AdamW(model.net.parameters(), lr=args.rate, weight_decay=1e-3)
    smooth = torch.optim.swa_utils.get_ema_multi_avg_fn(0.995)
    mean = torch.optim.swa_utils.AveragedModel(model.net, multi_avg_fn=smooth)
    began, step, shown, losses = time.monotonic(), 0, 0.0, []
    while (progress := (time.monotonic() - began) / (60 * minutes)) < 1.0:
        for group in optimizer.param_groups:
            group["lr"] = args.rate * min(1.0, step / 50) * (0.02 + 0.49 * (1 + math.cos(math.pi * progress)))
        batch = pool.batch(args.batch).decoded()
        loss = error(model(batch), batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.net.parameters(), 1.0)
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


def error(made: Tensor, batch: Batch) -> Tensor:
    """Mean |Δ ln mel| of `[B, CROP, m]` against the truth; what is nearly silent counts less.

    The least such error is at the median, which in noise lies below the mean: so the mean error of what is heard
    counts, too, of all clean crops together, and of those in little and in much noise.
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
    return loss


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
    parser.add_argument("--minutes", type=float, default=15.0, help="for each target")
    parser.add_argument("--rounds", type=int, default=6, help="variations of each sound")
    parser.add_argument("--keep", type=Path, help="a folder to keep the pairs of mels in between runs")
    parser.add_argument("--resume", action="store_true", help="begin with the weights that are there")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=2e-3)
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
