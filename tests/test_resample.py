"""Resampling: what is heard stays, what is not does not appear, streams equal the whole."""

from __future__ import annotations

import builtins
import math

import numpy as np
import pytest
import torch

from distill_core.errors import InvalidAudioError, MissingDependencyError
from distill_core.resample import Resampler, out_samples, resample

pytest.importorskip("soxr", reason="soxr is not installed")

RATES = [(44100, 48000), (22050, 48000), (24000, 44100), (48000, 8000), (44100, 44101), (44100, 44100)]


def sine(frequency: float, rate: int, seconds: float = 2.0) -> torch.Tensor:
    return torch.sin(2 * math.pi * frequency * torch.arange(int(rate * seconds)).double() / rate).float()


@pytest.mark.parametrize(("source", "target"), RATES)
@pytest.mark.parametrize("samples", [1, 2, 5, 100, 4410, 40_003])
def test_length_is_the_duration_rounded_up(source: int, target: int, samples: int) -> None:
    wave = torch.randn(2, 1, samples, generator=torch.Generator().manual_seed(0)) * 0.1
    made = resample(wave, source, target)
    assert made.shape == (2, 1, math.ceil(samples * target / source - 1e-12))
    assert made.shape[-1] == out_samples(samples, source, target)


@pytest.mark.parametrize(("source", "target"), RATES)
def test_a_stream_is_the_whole(source: int, target: int) -> None:
    wave = torch.randn(2, 50_000, generator=torch.Generator().manual_seed(1)) * 0.3
    whole = resample(wave, source, target)
    for sizes in ([50_000], [1] * 40 + [49_960], [512] * 97 + [336, 0]):
        stream = Resampler(source, target, channels=2)
        pieces = [stream.process(chunk) for chunk in wave.split(sizes, dim=1)]
        pieces.append(stream.flush())
        assert torch.equal(torch.cat(pieces, dim=1), whole)


def test_44100_to_48000_is_flat_to_20_khz() -> None:
    for frequency in (20, 100, 1000, 5000, 10000, 15000, 18000, 19000, 20000):
        made = resample(sine(frequency, 44100), 44100, 48000)[20_000:-20_000].double()
        # The projection on the sine itself, so that neither images nor noise count for it.
        time = torch.arange(20_000, 20_000 + made.numel()).double() / 48000
        basis = torch.exp(-2j * math.pi * frequency * time)
        level = 2 * float((made * basis).mean().abs())
        assert abs(20 * math.log10(level)) <= 0.1, frequency


def test_44100_to_48000_has_no_images_above_minus_100_db() -> None:
    for frequency in (1000, 9000, 15000, 19000, 20000):
        made = resample(sine(frequency, 44100, 4.0), 44100, 48000)[48_000:-48_000].double().numpy()
        window = np.blackman(made.size) ** 2
        spectrum = np.abs(np.fft.rfft(made * window))
        decibels = 20 * np.log10(spectrum / spectrum.max() + 1e-15)
        own = round(frequency * made.size / 48000)
        decibels[own - 20 : own + 21] = -200
        assert decibels.max() <= -100, (frequency, decibels.max(), decibels.argmax() * 48000 / made.size)


def test_the_delay_is_compensated() -> None:
    wave = torch.zeros(44100)
    wave[22050] = 1.0
    made = resample(wave, 44100, 48000)
    assert int(made.argmax()) == 24000
    wave = sine(440, 44100)
    expected = sine(440, 48000)
    torch.testing.assert_close(resample(wave, 44100, 48000)[4800:-4800], expected[4800:-4800], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("source", "target", "seconds"), [(44_100, 48_000, 0.02), (22_050, 48_000, 0.04), (44_100, 16_000, 0.09)]
)
def test_a_stream_is_no_further_behind_than_the_docs_say(source: int, target: int, seconds: float) -> None:
    resampler = Resampler(source, target)
    made, behind = 0, []
    for taken in range(256, source, 256):
        made += resampler.process(torch.zeros(1, 256)).shape[1]
        behind.append(taken / source - made / target)
    assert max(behind) == pytest.approx(seconds, abs=0.01)


def test_levels_are_left_alone() -> None:
    """A full-scale square wave overshoots between its samples: that is kept, and nothing is turned down."""
    square = torch.sign(sine(441, 44100) + 1e-9)
    made = resample(square, 44100, 48000)
    assert float(made.abs().max()) > 1.02
    assert abs(float(made.square().mean().sqrt()) - 1.0) < 0.02


def test_an_ended_stream_is_refused_and_an_empty_one_is_empty() -> None:
    stream = Resampler(44100, 48000)
    assert stream.flush().shape == (1, 0)
    with pytest.raises(RuntimeError, match="flushed"):
        stream.process(torch.zeros(1, 10))
    other = Resampler(44100, 48000)
    other.process(torch.zeros(1, 10))
    other.flush()
    with pytest.raises(RuntimeError, match="Resampler was flushed"):
        other.flush()


def test_numpy_goes_in_and_a_single_number_does_not() -> None:
    wave = torch.linspace(-1, 1, 500)
    assert torch.equal(resample(wave.numpy(), 48000, 44100), resample(wave, 48000, 44100))
    for wrong in (torch.tensor(1.0), np.float32(1.0), "x", torch.zeros(9, device="meta")):
        with pytest.raises(InvalidAudioError, match="waveform"):
            resample(wrong, 48000, 44100)  # type: ignore[arg-type]


def test_an_empty_batch_has_rates_as_well() -> None:
    assert resample(torch.zeros(0, 10), 8000, 16000).shape == (0, 20)
    with pytest.raises(InvalidAudioError, match="target_rate"):
        resample(torch.zeros(0, 10), 8000, 0)


@pytest.mark.parametrize(("source", "target"), [(1, 2**31 - 1), (2**31 - 1, 1), (22050, 2**31 - 1), (1, 65_537)])
def test_rates_too_far_apart_are_refused(source: int, target: int) -> None:
    """With them soxr does not come back, or ends the process."""
    with pytest.raises(InvalidAudioError, match=f"{source} Hz cannot be resampled to {target} Hz.*65536 times"):
        Resampler(source, target)


@pytest.mark.parametrize(("source", "target", "samples"), [(1, 65_536, 3), (65_536, 1, 200_000)])
def test_rates_just_not_too_far_apart_are_resampled(source: int, target: int, samples: int) -> None:
    made = resample(torch.zeros(samples), source, target)
    assert made.shape == (out_samples(samples, source, target),)


@pytest.mark.parametrize(("source", "target"), RATES)
@pytest.mark.parametrize("channels", [1, 2])
def test_soxr_is_never_asked_for_more_at_once_than_it_can_count(
    source: int, target: int, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than fit into a C int, taken or made by one call, end the process."""
    wave = torch.randn(channels, 20_000, generator=torch.Generator().manual_seed(2)) * 0.3
    whole = resample(wave, source, target)
    monkeypatch.setattr("distill_core.resample._AT_ONCE", 1000)
    taken = []
    original = Resampler._in

    def counted(self: Resampler, chunk: torch.Tensor):
        taken.append(chunk.shape[1])
        return original(self, chunk)

    monkeypatch.setattr(Resampler, "_in", counted)
    assert torch.equal(resample(wave, source, target), whole)
    assert max(taken, default=0) * max(source, target) <= 1000 / channels * source
    assert sum(taken) == (0 if source == target else 20_000)


def test_a_rate_beyond_what_the_libraries_count_in_is_refused() -> None:
    """Beyond it soxr ends the process."""
    for rate, words in ((2**31, "2147483647 Hz at most, not 2147483648"), (10**400, "2147483647 Hz at most")):
        with pytest.raises(InvalidAudioError, match=words):
            Resampler(48000, rate)


@pytest.mark.parametrize("rate", [0, -1, 44100.5, float("nan"), "48000", True, None])
def test_a_rate_that_is_none_is_refused(rate: object) -> None:
    with pytest.raises(InvalidAudioError, match="rate"):
        Resampler(44100, rate)  # type: ignore[arg-type]


@pytest.mark.parametrize("channels", [0, -1, True, 2.0, None])
def test_a_number_of_channels_that_is_none_is_refused(channels: object) -> None:
    with pytest.raises(InvalidAudioError, match="channels must be a positive whole number"):
        Resampler(44100, 48000, channels=channels)  # type: ignore[arg-type]


def test_what_is_no_chunk_is_refused() -> None:
    stream = Resampler(44100, 48000)
    for chunk in (torch.zeros(10), torch.zeros(2, 10), torch.zeros(1, 10, dtype=torch.int16), np.zeros((1, 10)), None):
        with pytest.raises(InvalidAudioError, match="chunk"):
            stream.process(chunk)


def test_without_soxr_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def refuse(name: str, *args: object, **kwargs: object) -> object:
        if name == "soxr":
            raise ModuleNotFoundError("No module named 'soxr'")
        return original(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingDependencyError, match=r"distill-core\[audio\]"):
        Resampler(44100, 48000)
    assert Resampler(44100, 44100).process(torch.ones(1, 3)).tolist() == [[1.0, 1.0, 1.0]]
