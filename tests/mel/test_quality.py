"""How close converted mels come to true ones, on held-out recordings; `benchmarks.mel_adapter` has the table."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from distill_core.mel import MelAdapter, MelSpec, compare
from distill_core.mel.analysis import expand
from distill_core.mel.filters import band_edges

PAIRS = [
    (source, target)
    for source in MelSpec.presets()
    for target in MelSpec.presets()
    if compare(MelSpec.preset(source), MelSpec.preset(target)).kind == "convertible"
]


@pytest.fixture(scope="module")
def clips(music_files: list[Path], speech_files: list[Path]) -> list[Path]:
    """Two of the held-out sounds and one spoken."""
    from training import recordings

    found = recordings.find()
    return [found.held_out[0], found.held_out[20], found.speech[3]]


def distance(made: torch.Tensor, true: torch.Tensor, source: MelSpec, target: MelSpec) -> float:
    """Mean |Δ| in nats of magnitude, over bands the source reaches, where the truth is not next to silence.

    That is above -9 for Slaney-normalised filters; those that peak at 1 sum about 20 times, 3 nats, more.
    """
    assert source.fmax is not None
    audible = -9.0 if target.norm else -6.0
    frames = min(made.shape[-1], true.shape[-1])
    reached = torch.from_numpy(band_edges(target)[2:] <= source.fmax + 1e-6)
    levels = [expand(mel[:, reached, :frames], target).clamp(min=1e-12).log() / target.power for mel in (made, true)]
    return float((levels[0] - levels[1])[levels[1] > audible].abs().mean())


@pytest.mark.parametrize(("source", "target"), PAIRS, ids=[f"{source} to {target}" for source, target in PAIRS])
def test_every_convertible_pair_beats_the_pseudo_inverse(source: str, target: str, clips: list[Path]) -> None:
    from benchmarks.mel_peers import pseudo_inverse
    from training import recordings

    first, second = MelSpec.preset(source), MelSpec.preset(target)
    analytic, full = MelAdapter(first, second, refine=False), MelAdapter(first, second)
    errors = []
    for path in clips:
        mel = first.analyze(recordings.load(path, first.sample_rate, seconds=1.0))
        true = second.analyze(recordings.load(path, second.sample_rate, seconds=1.0))
        ways = (analytic(mel), full(mel), pseudo_inverse(mel, first, second))
        errors.append([distance(made, true, first, second) for made in ways])
    mine, refined, plain = torch.tensor(errors).mean(0).tolist()
    assert mine < plain
    assert refined < plain


@pytest.mark.parametrize("target", ["bigvgan-44khz-128band-512x", "hifigan-22khz-80band"])
@pytest.mark.parametrize("sigma", [0.0, 0.02, 0.05])
def test_the_refinement_is_shipped_and_pays(target: str, sigma: float, clips: list[Path]) -> None:
    """On speech it never heard, in noise and out of it."""
    from benchmarks.mel_adapter import errors
    from training import recordings

    source, wanted = MelSpec.preset("distill-vae"), MelSpec.preset(target)
    refined = MelAdapter(source, wanted)
    assert refined.refined
    files = list(recordings.find().speech[:3])
    error, _ = errors(refined, files, source, wanted, sigma)
    analytic, _ = errors(MelAdapter(source, wanted, refine=False), files, source, wanted, sigma)
    assert error < (0.9 if sigma == 0 else 0.7) * analytic


def test_shipped_weights_are_small() -> None:
    from distill_core.mel import refine

    folder = Path(refine.__file__).parent
    for name in refine.WEIGHTS.values():
        assert 0 < (folder / name).stat().st_size < 1_000_000
