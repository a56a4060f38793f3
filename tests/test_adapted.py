"""Vocoders that take other mels and give other rates: the same promises hold through the adapter."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator

import pytest
import torch
import tqdm.std
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode

from distill_core import MelSpec, Registry, Variant, VocoderBase, errors
from distill_core.adapted import AdaptedVocoder
from distill_core.discovery import Discovery
from distill_core.resample import resample
from tests import toy
from tests.toy import MEL, ToyVocoder

pytest.importorskip("soxr")

SOURCE = MelSpec(9600, 128, 20, 128, 16, 0.0, None, "htk", None, 2.0, "log1p", 0.0, True)


def adapted(*, mel: MelSpec | None = SOURCE, sample_rate: int | None = None, **arguments):
    return AdaptedVocoder.around(ToyVocoder(**arguments), mel=mel, sample_rate=sample_rate)


def source_mel(batch: int = 2, frames: int = 60) -> torch.Tensor:
    return torch.rand(batch, SOURCE.n_mels, frames, generator=torch.Generator().manual_seed(2)) * 3


def assert_same(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


class Silence(VocoderBase):
    def _vocode(self, mel: torch.Tensor) -> torch.Tensor:
        return torch.zeros(mel.shape[0], mel.shape[-1] * self.hop_length)


def test_nothing_to_adapt_gives_the_vocoder_itself() -> None:
    vocoder = ToyVocoder()
    assert AdaptedVocoder.around(vocoder, mel=MEL, sample_rate=8000) is vocoder


def test_the_adapter_stands_before_the_model() -> None:
    vocoder = adapted()
    mel = source_mel()
    converted = vocoder._adapter(mel)
    wave = vocoder.mel_to_waveform(mel)
    assert vocoder.mel == SOURCE
    assert wave.shape[-1] == vocoder._adapter.out_frames(60) * MEL.hop_length
    assert_same(wave, ToyVocoder().mel_to_waveform(converted, check_format=False))
    # T centred frames last T - 1 hops, and nothing of that is trimmed.
    assert wave.shape[-1] / vocoder.sample_rate >= 59 * SOURCE.hop_length / SOURCE.sample_rate


def test_a_mel_that_is_only_written_in_another_way_is_what_the_model_takes() -> None:
    written = dataclasses.replace(MEL, log=None, floor=0.0)
    vocoder = adapted(mel=written)
    wave = torch.randn(1, 4000, generator=torch.Generator().manual_seed(4)) * 0.1
    assert_same(vocoder.mel_to_waveform(written.analyze(wave)), ToyVocoder().mel_to_waveform(MEL.analyze(wave)))
    pieces = list(vocoder.stream(written.analyze(wave).split(7, dim=-1)))
    assert_same(torch.cat(pieces, dim=-1), ToyVocoder().mel_to_waveform(MEL.analyze(wave)))
    assert "value by value" in str(vocoder.report())
    assert "analytically" in str(adapted().report())


@settings(max_examples=25, deadline=None)
@given(chunk=st.integers(1, 40), lengths=st.lists(st.integers(1, 30), min_size=1, max_size=4))
def test_ragged_batches_and_chunks_change_nothing(chunk: int, lengths: list[int]) -> None:
    mel = source_mel(len(lengths), max(lengths))
    vocoder = adapted(chunk_frames=chunk, sample_rate=11025)
    wave = vocoder.mel_to_waveform(mel, lengths=lengths, check_format=False)
    for row, length in enumerate(lengths):
        alone = adapted(sample_rate=11025).mel_to_waveform(mel[row : row + 1, :, :length], check_format=False)
        assert_same(wave[row : row + 1, :, : alone.shape[-1]], alone)
        assert not wave[row, :, alone.shape[-1] :].any()


@settings(max_examples=25, deadline=None)
@given(pieces=st.lists(st.integers(1, 20), min_size=1, max_size=6), chunk=st.integers(1, 40))
def test_a_stream_equals_one_shot_through_adapter_and_resampler(pieces: list[int], chunk: int) -> None:
    mel = source_mel(2, sum(pieces))
    vocoder = adapted(chunk_frames=chunk, sample_rate=11025)
    want = vocoder.mel_to_waveform(mel, check_format=False)
    waves = list(vocoder.stream(mel.split(pieces, dim=-1), check_format=False))
    assert_same(torch.cat(waves, dim=-1), want)


class _NoHalo(VocoderBase):
    """Each frame by itself."""

    def _vocode(self, mel: torch.Tensor) -> torch.Tensor:
        return (mel.mean(dim=1) / 20).repeat_interleave(self.hop_length, dim=1)


@pytest.mark.parametrize("size", [1, 3, 10])
@pytest.mark.parametrize("frames", [2, 41])
def test_a_stream_into_longer_frames_without_a_halo_equals_one_shot(size: int, frames: int) -> None:
    """What is certain may end before frames that have arrived, and behind the last of them stands that one."""
    longer = dataclasses.replace(MEL, n_fft=256, hop_length=128, win_length=256)
    vocoder = AdaptedVocoder.around(_NoHalo(Variant("long", longer, 8000), halo=0), mel=SOURCE)
    mel = source_mel(2, frames)
    waves = list(vocoder.stream(mel.split(size, dim=-1), check_format=False))
    assert_same(torch.cat(waves, dim=-1), vocoder.mel_to_waveform(mel, check_format=False))


def test_of_a_stream_nothing_is_compiled_with_the_program_around_it() -> None:
    """Conversion and resampling least of all: for each piece anew, that took minutes."""
    vocoder, mel = adapted(sample_rate=16000), source_mel()
    want = torch.cat(list(vocoder.stream(mel.split(7, dim=-1), check_format=False)), dim=-1)
    compiled: list[str] = []

    def backend(graph: torch.fx.GraphModule, _: object):
        compiled.extend(str(node.stack_trace) for node in graph.graph.nodes if node.op.startswith("call"))
        return graph

    def pieces(mel):
        return [2 * piece for piece in vocoder.stream((mel + 0).split(7, dim=-1), check_format=False)]

    try:
        assert_same(torch.cat(torch.compile(pieces, backend=backend)(mel), dim=-1), 2 * want)
        assert not [where for where in compiled if f"{os.sep}distill_core{os.sep}" in where]
    finally:
        torch.compiler.reset()


@pytest.mark.parametrize("sample_rate", [None, 4000, 16000])
def test_a_progress_bar_counts_seconds_of_audio_whatever_the_rate_asked_for(sample_rate, capsys, monkeypatch) -> None:
    monkeypatch.setattr("tqdm.tqdm", lambda **about: tqdm.std.tqdm(**{**about, "delay": 0, "mininterval": 0}))
    vocoder, mel = adapted(mel=None, sample_rate=sample_rate), toy.mel(1, 500)
    wave = vocoder.mel_to_waveform(mel, progress=True)
    assert wave.shape[-1] == vocoder.sample_rate  # a second
    assert "1.0/1.0 s of audio" in capsys.readouterr().err


@pytest.mark.parametrize("lengths", [None, [30, 60, 60], [20, 40, 60]])
def test_what_no_sound_has_is_refused_with_its_place_before_anything_is_computed(lengths: list[int] | None) -> None:
    vocoder = adapted(chunk_frames=16)
    mel = source_mel(3)
    mel[2, 5, 50] = 100.0
    seen: list[int] = []
    with pytest.raises(errors.InvalidMelError, match="item 2, band 5, frame 50: beyond"):
        vocoder.mel_to_waveform(mel, lengths=lengths, progress=lambda done, _: seen.append(done))
    assert not seen
    assert vocoder.mel_to_waveform(mel, lengths=[60, 60, 50]).isfinite().all()  # in the padding it is nobody's


def test_what_no_sound_has_is_refused_when_its_piece_arrives() -> None:
    vocoder = adapted()
    mel = source_mel(2)
    mel[1, 5, 1] = 100.0
    arrived: list[int] = []

    def pieces() -> Iterator[torch.Tensor]:
        for piece in mel.split(1, dim=-1):
            arrived.append(1)
            yield piece

    with pytest.raises(errors.InvalidMelError, match="item 1, band 5, frame 1: beyond"):
        list(vocoder.stream(pieces()))
    assert sum(arrived) == 2


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float16, torch.bfloat16, torch.float64])
def test_any_floating_point_mel_will_do(dtype: torch.dtype) -> None:
    mel = source_mel().to(dtype)
    assert_same(adapted().mel_to_waveform(mel), adapted().mel_to_waveform(mel.float()))


def test_another_rate_is_the_native_waveform_resampled() -> None:
    mel = toy.mel()
    wave = adapted(mel=None, sample_rate=48000).mel_to_waveform(mel)
    assert_same(wave, resample(ToyVocoder().mel_to_waveform(mel), 8000, 48000))


def test_a_stream_through_the_adapter_keeps_only_what_it_needs() -> None:
    vocoder = adapted()
    feed = vocoder._stream_feed()
    vocoder._stream_feed = lambda: feed
    sizes = [
        feed.source._buffer.shape[-1]
        for _ in vocoder.stream((source_mel(1, 5) for _ in range(100)), check_format=False)
    ]
    assert max(sizes) <= 5 + 4 * toy.HALO + 2 * vocoder._adapter.context + 4


@pytest.mark.parametrize(
    ("preset", "converting"), [("hifigan-22khz-80band", 0.18), ("bigvgan-22khz-80band-256x", 0.02)]
)
def test_a_stream_is_no_further_behind_than_the_docs_say(preset: str, converting: float) -> None:
    source, spec = MelSpec.preset("distill-vae"), MelSpec.preset(preset)
    inner = Silence(Variant("silence", spec, spec.sample_rate), halo=3)
    vocoder = AdaptedVocoder.around(inner, mel=source, sample_rate=48_000)
    behind = []
    arrived = made = 0

    def frames() -> Iterator[torch.Tensor]:
        nonlocal arrived
        for _ in range(60):
            if made:  # all that can be made of what has arrived
                behind.append(arrived * source.hop_length / source.sample_rate - made / vocoder.sample_rate)
            arrived += 1
            yield torch.zeros(1, source.n_mels, 1)

    for wave in vocoder.stream(frames()):
        made += wave.shape[-1]
    halo = 3 * spec.hop_length / spec.sample_rate
    assert max(behind) - halo == pytest.approx(converting + 0.04, abs=0.01)


def test_out_of_range_formats_are_refused_with_the_reason() -> None:
    far = dataclasses.replace(MEL, fmin=3900.0)
    with pytest.raises(errors.MelMismatch, match="cannot be converted"):
        adapted(mel=far)


@pytest.mark.parametrize("rate", [-1, 8000 * 65_537])
def test_a_sample_rate_that_cannot_be_is_refused_at_once(rate: int) -> None:
    with pytest.raises(errors.InvalidAudioError, match=str(rate)):
        adapted(sample_rate=rate)


def test_a_mel_that_plainly_is_in_another_format_is_refused() -> None:
    loud = source_mel(1, 100) + 2
    with pytest.raises(errors.MelMismatch, match="not in the format"):
        ToyVocoder().mel_to_waveform(loud[:, :5])
    with pytest.raises(errors.MelMismatch, match="not in the format"):
        list(ToyVocoder().stream(loud[:, :5].split(10, dim=-1)))
    assert ToyVocoder().mel_to_waveform(loud[:, :5], check_format=False).shape == (1, 1, 1600)


def test_each_item_of_a_batch_is_judged_as_it_would_be_alone() -> None:
    quiet = source_mel(3, 100)[:, :5] - 5
    batch = torch.cat([quiet, source_mel(1, 100)[:, :5] + 2])
    with pytest.raises(errors.MelMismatch, match="The mel of item 3 is not in the format"):
        ToyVocoder().mel_to_waveform(batch)
    for size in (10, 100):
        with pytest.raises(errors.MelMismatch, match="The mel of item 3 is not in the format"):
            list(ToyVocoder().stream(batch.split(size, dim=-1)))
    # What lies behind an item's end is nobody's.
    batch[3, :, :60] -= 7
    ToyVocoder().mel_to_waveform(batch, lengths=[100, 100, 100, 60])


def test_a_stream_that_ends_early_is_judged_by_what_there_was() -> None:
    loud = source_mel(1, 40)[:, :5] + 2
    with pytest.raises(errors.MelMismatch, match="not in the format"):
        ToyVocoder().mel_to_waveform(loud)
    for size in (3, 40):
        with pytest.raises(errors.MelMismatch, match="not in the format"):
            list(ToyVocoder().stream(loud.split(size, dim=-1)))
    assert list(ToyVocoder().stream(loud.split(3, dim=-1), check_format=False))


def test_a_stream_that_opens_loudly_is_not_judged_by_one_frame() -> None:
    mel = toy.mel(1, 100) - 3
    mel[:, :, :2] = 1.0
    assert list(ToyVocoder().stream(mel.split(1, dim=-1)))


def test_a_mel_in_float64_is_in_float32_before_it_goes_to_the_device() -> None:
    """MPS has no float64, and numpy makes little else."""
    vocoder = adapted()
    elsewhere = [vocoder._adapter.device, vocoder._inner._device]

    class WithoutFloat64(TorchFunctionMode):
        def __torch_function__(self, function, types, arguments=(), named=None):
            if function is torch.Tensor.to and arguments[0].dtype == torch.float64:
                assert not any(where is arguments[1] for where in elsewhere), "the device has no float64"
            return function(*arguments, **(named or {}))

    mel = source_mel()
    want = vocoder.mel_to_waveform(mel)
    with WithoutFloat64():
        assert_same(vocoder.mel_to_waveform(mel.double().numpy()), want)
        assert_same(torch.cat(list(vocoder.stream(mel.double().split(7, dim=-1))), dim=-1), want)


def test_mels_are_converted_where_the_model_is() -> None:
    inner = ToyVocoder()
    inner._device = torch.device("meta")
    assert AdaptedVocoder.around(inner, mel=SOURCE)._adapter.device == inner.device


def test_moving_is_left_to_the_vocoder_inside(monkeypatch) -> None:
    vocoder = adapted()
    asked = []
    monkeypatch.setattr(vocoder._inner, "to", asked.append)
    assert vocoder.to("cpu") is vocoder
    assert asked == ["cpu"]


@pytest.mark.parametrize("mel", [SOURCE, None], ids=["with an adapter", "another rate alone"])
def test_where_memory_runs_out_what_is_inside_goes_to_the_cpu_and_back(mel: MelSpec | None, monkeypatch) -> None:
    vocoder = adapted(mel=mel, sample_rate=16000)
    inner, compute = vocoder._inner, vocoder._compute
    given = toy.mel(2, 30) if mel is None else source_mel()
    want = vocoder.mel_to_waveform(given)
    moved, heard = [], []

    def full(mel: torch.Tensor, context: tuple[int, int]) -> torch.Tensor:
        if inner.device.type == "cuda":
            raise torch.OutOfMemoryError("planted")
        return compute(mel, context)

    monkeypatch.setattr(inner, "_device", torch.device("cuda", 0))
    monkeypatch.setattr(inner, "_move", lambda device: moved.append(("model", device.type)))
    monkeypatch.setattr(inner, "_was_full", lambda: heard.append(inner.device.type))
    monkeypatch.setattr(vocoder, "_compute", full)
    monkeypatch.setattr(vocoder, "_waveform", lambda *shape: torch.zeros(shape))
    parts = ["model"]
    if mel is not None:
        parts.append("adapter")
        monkeypatch.setattr(vocoder._adapter, "to", lambda device: moved.append(("adapter", device.type)))
    assert_same(vocoder.mel_to_waveform(given), want)
    assert moved == [(part, device) for device in ("cpu", "cuda") for part in parts]
    assert heard == ["cuda"]


def test_the_model_and_its_chunk_are_those_of_the_vocoder_inside() -> None:
    vocoder = adapted()
    inner = vocoder._inner
    assert vocoder.model is inner.model
    inner.chunk_frames = 5
    assert vocoder.chunk_frames == 5
    vocoder.chunk_frames = 7
    assert inner.chunk_frames == 7
    model = toy.ToyModel()
    vocoder.model = model
    assert inner.model is model


def test_get_adapts_without_loading_twice() -> None:
    registry = Registry(find=Discovery)
    registry.register(toy.plugin(toy.card("toy")))
    plain = registry.get("toy", device="cpu")
    other = registry.get("toy", device="cpu", mel=SOURCE, sample_rate=48000)
    assert other is registry.get("toy", device="cpu", mel=SOURCE, sample_rate=48000)
    assert other._inner is plain
    assert other.sample_rate == 48000
    text = str(other.report())
    assert "converted" in text
    assert "8000 to 48000 Hz by soxr" in text
    assert registry.get("toy", device="cpu", mel=SOURCE).mel == SOURCE
    assert registry.get("toy", device="cpu", sample_rate=48000).sample_rate == 48000


def test_of_the_callers_own_weights_their_format_counts_and_not_the_variants(monkeypatch) -> None:
    far = Variant("far", dataclasses.replace(MEL, fmin=3900.0), MEL.sample_rate)
    loaded = []

    def load(card, variant, *, device, precision, weights=None):
        loaded.append(weights)
        return ToyVocoder(device=device)

    monkeypatch.setattr(toy, "load", load)
    registry = Registry(find=Discovery)
    registry.register(toy.plugin(toy.card("toy", variants=(far,))))
    with pytest.raises(errors.MelMismatch, match="cannot be converted"):
        registry.get("toy", device="cpu", mel=SOURCE)
    assert not loaded
    assert registry.get("toy", device="cpu", mel=SOURCE, weights={"w": torch.zeros(1)}).mel == SOURCE


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_after_a_fork_a_vocoder_and_its_adapted_twin_still_take_turns() -> None:
    inner = ToyVocoder()
    twin = AdaptedVocoder.around(inner, sample_rate=2 * inner.sample_rate)
    assert twin._turn is inner._turn
    child = os.fork()
    if child == 0:
        inner.after_fork()  # in whichever order they are told
        os._exit(0 if twin._turn is inner._turn else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
