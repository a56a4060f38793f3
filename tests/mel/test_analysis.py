"""analyze: shapes, edges, refusals."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from distill_core.errors import InvalidAudioError, InvalidMelError
from distill_core.mel import MelAdapter, MelSpec

SPECS = [MelSpec.preset(name) for name in MelSpec.presets()]
NVIDIA = MelSpec.preset("bigvgan-44khz-128band-512x")


@pytest.mark.parametrize("spec", SPECS, ids=MelSpec.presets())
def test_rank_batch_and_frames(spec: MelSpec) -> None:
    wave = torch.randn(2, 7001, generator=torch.Generator().manual_seed(0))
    mel = spec.analyze(wave)
    assert mel.shape == (2, spec.n_mels, spec.frames(7001))
    torch.testing.assert_close(spec.analyze(wave[:, None]), mel)
    torch.testing.assert_close(spec.analyze(wave[1]), mel[1:])
    torch.testing.assert_close(spec.analyze(wave.numpy()), mel)


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize(("n_fft", "hop"), [(1024, 256), (1000, 333), (999, 250), (7, 7)])
def test_frames_is_what_analyze_returns_for_odd_sizes_too(center: bool, n_fft: int, hop: int) -> None:
    spec = dataclasses.replace(NVIDIA, n_fft=n_fft, win_length=n_fft, hop_length=hop, center=center, n_mels=3)
    for samples in range(n_fft, 3 * n_fft, max(1, n_fft // 7)):
        assert spec.analyze(torch.zeros(samples)).shape[-1] == spec.frames(samples)


@pytest.mark.parametrize("count", ["a", None, 2.5, float("nan"), True, [4]])
def test_only_whole_numbers_are_counted(count) -> None:
    with pytest.raises(InvalidAudioError, match="number of samples must be a whole number, not "):
        NVIDIA.frames(count)
    with pytest.raises(InvalidMelError, match="number of frames must be a whole number, not "):
        MelAdapter(NVIDIA, NVIDIA).out_frames(count)


def test_any_whole_number_is_counted_as_an_int() -> None:
    for count in (44100, 44100.0, np.int32(44100), torch.tensor(44100)):
        assert (frames := NVIDIA.frames(count)) == 86 and type(frames) is int
    assert type(MelAdapter(NVIDIA, NVIDIA).out_frames(np.float64(7))) is int
    assert NVIDIA.frames(-1) == 0


@pytest.mark.parametrize("spec", SPECS, ids=MelSpec.presets())
def test_a_click_sits_in_the_frame_centred_on_it(spec: MelSpec) -> None:
    """The time base that adapters rely on: frame k is centred at `first_center + k * hop_length`."""
    wave = torch.zeros(spec.hop_length * 60)
    frame = 30
    wave[round(spec.first_center) + frame * spec.hop_length] = 1.0
    assert spec.analyze(wave)[0].mean(0).argmax() == frame


def test_the_shortest_audio_is_analysed_and_shorter_refused_with_the_number() -> None:
    for spec in SPECS:
        shortest = next(n for n in range(spec.n_fft + 1) if spec.frames(n))
        assert spec.analyze(torch.zeros(shortest)).shape[-1] == spec.frames(shortest) > 0
        with pytest.raises(InvalidAudioError, match=rf"at least {shortest}\b"):
            spec.analyze(torch.zeros(shortest - 1))


@pytest.mark.parametrize(
    ("wave", "message"),
    [
        (torch.zeros(8000, dtype=torch.int16), "32768"),
        (torch.zeros(2, 2, 8000), "shape"),
        (torch.zeros(()), "shape"),
        (torch.zeros(0, 8000), "empty"),
        (torch.zeros(0), "samples"),
        (torch.full((8000,), float("nan")), "NaN"),
        (torch.full((8000,), float("-inf")), "infinite"),
        (torch.zeros(8000, dtype=torch.complex64), "floating"),
        (torch.full((8000,), 1e30), r"up to 1\.0e\+30, where full scale is 1"),
        ("a.wav", "str"),
        (torch.zeros(8000, device="meta"), "plain tensor.*meta"),
        (torch.zeros(8000).to_sparse(), "plain tensor.*sparse"),
        (torch.zeros(8000, 2), r"waveform\.T"),
        (np.zeros((8000, 2)), r"waveform\.T"),
        (torch.zeros(10, 2), "Pad with zeros"),
        (np.array([object()]), "array of numbers"),
    ],
)
def test_what_is_no_audio_is_refused(wave: object, message: str) -> None:
    with pytest.raises(InvalidAudioError, match=message):
        NVIDIA.analyze(wave)  # type: ignore[arg-type]


def test_numpy_arrays_of_any_kind_are_analysed(recwarn: pytest.WarningsRecorder) -> None:
    wave = np.random.default_rng(0).standard_normal(8000)
    want = NVIDIA.analyze(torch.from_numpy(wave.astype(np.float32)))
    assert NVIDIA.analyze(wave).dtype == torch.float64  # type: ignore[arg-type]
    single = wave.astype(np.float32)
    for array in (wave.astype(">f4"), single[::-1].copy()[::-1], np.broadcast_to(single, 8000)):
        assert torch.equal(NVIDIA.analyze(array), want)  # type: ignore[arg-type]
    assert not recwarn.list


def test_precision_and_gradients() -> None:
    wave = torch.randn(1, 8000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.1
    exact = NVIDIA.analyze(wave)
    assert exact.dtype == torch.float64
    assert NVIDIA.analyze(wave.half()).dtype == torch.float32
    torch.testing.assert_close(NVIDIA.analyze(wave.float()), exact.float(), atol=1e-4, rtol=1e-5)
    for spec in SPECS:
        leaf = torch.zeros(1, 8000, requires_grad=True)
        spec.analyze(leaf + 0.0).sum().backward()
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()


def test_analysis_under_inference_mode_does_not_poison_later_training() -> None:
    spec = dataclasses.replace(NVIDIA, n_mels=17)  # a format nothing else has cached
    with torch.inference_mode():
        spec.analyze(torch.zeros(8000))
    leaf = torch.randn(8000, requires_grad=True)
    spec.analyze(leaf).sum().backward()
    assert leaf.grad is not None


def test_numpy_integers_are_refused_like_torch_integers() -> None:
    with pytest.raises(InvalidAudioError, match="floating"):
        NVIDIA.analyze(np.zeros(8000, dtype=np.int32))  # type: ignore[arg-type]
