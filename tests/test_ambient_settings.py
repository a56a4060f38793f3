"""What a caller has set for torch changes nothing here: autocast, default dtype and device, inference mode."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from distill_core import MelSpec, Registry
from distill_core.engines import selection
from distill_core.mel import MelAdapter
from distill_core.pictures import spectrogram
from distill_core.resample import Resampler, resample
from distill_core.vocoder import VocoderBase

from . import checkpoints

APP, FULL = MelSpec.preset("distill-vae"), MelSpec.preset("bigvgan-44khz-128band-512x")
WAVE = torch.sin(torch.arange(22050) * (torch.arange(22050) / 4e5)) * 0.3


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


SETTINGS = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "default dtype float64": lambda: default_dtype(torch.float64),
    "default dtype bfloat16": lambda: default_dtype(torch.bfloat16),
    "default device": lambda: torch.device("meta"),  # stands for an accelerator: what lands there is not on the CPU
    "inference mode": torch.inference_mode,
}


@pytest.fixture(autouse=True)
def nothing_made_before() -> Iterator[None]:
    """What is made once a process is made under the setting, and is gone afterwards."""
    _forget()
    yield
    _forget()


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return checkpoints.write(tmp_path / "weights", checkpoints.bigvgan_files(checkpoints.bigvgan_config(64)))


@pytest.mark.parametrize("name", SETTINGS)
def test_analysis_conversion_resampling_and_pictures(name: str) -> None:
    def made() -> dict[str, Tensor]:
        mel = APP.analyze(WAVE)
        stream = Resampler(44100, 48000)
        return {
            "mel": mel,
            "of numpy": APP.analyze(WAVE.numpy()),
            "refined": MelAdapter(APP, FULL)(mel),
            "analytic": MelAdapter(APP, FULL, refine=False)(mel),
            "resampled": resample(WAVE, 44100, 22050),
            "of nothing": resample(WAVE[:0], 44100, 22050),
            "streamed": torch.cat([stream.process(WAVE[None]), stream.flush()], dim=1),
            "picture": torch.from_numpy(spectrogram(WAVE, 44100).level),
        }

    _check_the_same(made, name)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("how", ["eager fp32", "channels-last fp32", "channels-last bf16"])
def test_a_vocoder(name: str, how: str, weights: Path) -> None:
    engine, precision = how.split()
    if engine == "channels-last" and (reason := selection.why_not_channels_last(precision)):
        pytest.skip(reason)

    def made() -> dict[str, Tensor]:
        vocoder = _get(weights, engine=engine, precision=precision)
        mel = vocoder.mel.analyze(WAVE)
        return {"mel": mel, **_all_ways(vocoder, mel)}

    _check_the_same(made, name)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_vocoder_with_other_mels_going_in_and_another_rate_coming_out(name: str, weights: Path) -> None:
    mel = APP.analyze(WAVE)
    _check_the_same(lambda: _all_ways(_get(weights, mel=APP, sample_rate=44100), mel), name)


def test_gradients_pass_through_an_analysis_under_autocast() -> None:
    """As in the loss of a training."""
    wave = WAVE.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mel = FULL.analyze(wave)
    assert mel.dtype == torch.float32
    mel.mean().backward()
    assert wave.grad is not None
    assert wave.grad.abs().sum() > 0


def _get(weights: Path, **arguments: object) -> VocoderBase:
    return Registry().get("bigvgan", variant=checkpoints.VARIANT, weights=weights, device="cpu", **arguments)  # type: ignore[arg-type]


def _all_ways(vocoder: VocoderBase, mel: Tensor) -> dict[str, Tensor]:
    frames = mel.shape[-1]
    return {
        "wave": vocoder.mel_to_waveform(mel),
        "padded": vocoder.mel_to_waveform(mel.expand(2, -1, -1), lengths=[frames, frames // 2]),
        "streamed": torch.cat(list(vocoder.stream(mel.split(9, dim=-1))), dim=-1),
    }


def _check_the_same(make: Callable[[], dict[str, Tensor]], setting: str) -> None:
    expected = make()
    _forget()
    with SETTINGS[setting]():
        got = make()
    for name, value in expected.items():
        assert got[name].device == value.device, name
        assert got[name].dtype == value.dtype == torch.float32, name
        assert torch.equal(got[name], value), name


def _forget() -> None:
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in ("distill_core", "distill_bigvgan"):
            for value in list(vars(module).values()):
                if callable(getattr(value, "cache_clear", None)):
                    value.cache_clear()
