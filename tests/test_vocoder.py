"""VocoderBase: checks, chunks, batches, streams, memory running out, threads."""

from __future__ import annotations

import copy
import functools
import itertools
import logging
import os
import pickle
import signal
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import tqdm.std
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_core import MelSpec, ModuleVocoder, VocoderBase, device, errors, forking
from distill_core.audio import write_audio
from distill_core.engines import selection
from distill_core.resample import resample
from distill_core.turns import Turn
from tests import toy
from tests.toy import HALO, MEL, ToyVocoder

HOP = MEL.hop_length


def direct(mel: torch.Tensor) -> torch.Tensor:
    """What the model gives for the whole mel at once, with nothing of ours around it."""
    with torch.no_grad():
        return toy.ToyModel()(mel)


def assert_same(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("frames", [1, 2, HALO, 2 * HALO - 1, 2 * HALO + 1, 97])
@pytest.mark.parametrize("chunk", [1, 2, 5, 96, 10_000])
def test_no_chunk_size_changes_the_result(frames: int, chunk: int) -> None:
    mel = toy.mel(2, frames)
    vocoder = ToyVocoder(chunk_frames=chunk)
    wave = vocoder.mel_to_waveform(mel)
    assert wave.shape == (2, 1, frames * HOP)
    assert wave.dtype == torch.float32
    assert_same(wave, direct(mel))
    assert max(rows * (width - 2 * HALO) for rows, width in vocoder.runs) <= max(chunk, 1) or frames <= 2 * HALO


def test_a_mel_with_a_channel_axis_is_the_same_mel() -> None:
    mel = toy.mel()
    assert_same(ToyVocoder().mel_to_waveform(mel[:, None]), direct(mel))


def test_numpy_and_other_float_types_are_taken() -> None:
    mel = toy.mel().half()
    want = direct(mel.float())
    for each in (mel, mel.double(), mel.float().numpy(), mel.numpy().astype(np.float64)):
        assert_same(ToyVocoder().mel_to_waveform(each), want)


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    chunk=st.integers(1, 50),
)
def test_each_item_of_a_ragged_batch_gets_what_it_would_get_alone(lengths: list[int], chunk: int) -> None:
    mel = toy.mel(len(lengths), max(lengths) + 2)
    for row, length in enumerate(lengths):
        mel[row, :, length:] = float("nan")  # padding must not be looked at
    wave = ToyVocoder(chunk_frames=chunk).mel_to_waveform(mel, lengths=torch.tensor(lengths))
    assert wave.shape == (len(lengths), 1, max(lengths) * HOP)
    for row, length in enumerate(lengths):
        assert_same(wave[row : row + 1, :, : length * HOP], direct(mel[row : row + 1, :, :length]))
        assert not wave[row, :, length * HOP :].any()


@settings(max_examples=30, deadline=None)
@given(pieces=st.lists(st.integers(1, 30), min_size=1, max_size=8), chunk=st.integers(1, 40))
def test_a_stream_in_ragged_pieces_equals_one_shot(pieces: list[int], chunk: int) -> None:
    mel = toy.mel(2, sum(pieces))
    waves = list(ToyVocoder(chunk_frames=chunk).stream(iter(mel.split(pieces, dim=-1))))
    assert_same(torch.cat(waves, dim=-1), direct(mel))


def test_the_memory_of_a_piece_may_be_used_again_for_the_next() -> None:
    mel = toy.mel(1, 64) - 3
    mel[:, :, 60:] = 4.0  # in every band: were it all there is, it would not be in the format
    piece = torch.empty(1, mel.shape[1], 4)
    pieces = (piece.copy_(each) for each in mel.split(4, dim=-1))
    assert_same(torch.cat(list(ToyVocoder().stream(pieces)), dim=-1), direct(mel))


def test_a_stream_is_no_further_behind_than_the_halo() -> None:
    vocoder = ToyVocoder()
    arrived = 0

    def pieces():
        nonlocal arrived
        for piece in toy.mel(1, 30).split(1, dim=-1):
            arrived += 1
            yield piece

    heard = 0
    for wave in vocoder.stream(pieces()):
        heard += wave.shape[-1] // HOP
        assert arrived == 30 or heard == arrived - HALO


def test_a_stream_keeps_only_what_it_needs() -> None:
    vocoder = ToyVocoder()
    sizes = []

    class Watched(type(vocoder._stream_feed())):
        def drop_before(self, frame: int) -> None:
            super().drop_before(frame)
            sizes.append(self._buffer.shape[-1])

    vocoder._stream_feed = Watched
    for _ in vocoder.stream(itertools.repeat(toy.mel(1, 7), 100)):
        pass
    assert max(sizes) <= 2 * HALO + 7


def test_a_stream_hands_out_a_long_piece_chunk_by_chunk() -> None:
    vocoder = ToyVocoder(chunk_frames=8)
    mel = toy.mel(2, 50)
    waves = list(vocoder.stream([mel]))
    assert max(wave.shape[-1] for wave in waves) <= 8 * vocoder.hop_length
    torch.testing.assert_close(torch.cat(waves, dim=-1), vocoder.mel_to_waveform(mel))


def test_an_empty_stream_gives_nothing() -> None:
    assert list(ToyVocoder().stream([])) == []


@pytest.mark.parametrize(
    ("mel", "words"),
    [
        (torch.zeros(1, 8, 10), ["5 bands", "8 bands", "[1, 8, 10]"]),
        (torch.zeros(1, 10, 5), ["looks transposed"]),
        (torch.zeros(5), ["[B, 5, T]", "[5]"]),
        (torch.zeros(1, 2, 5, 10), ["[B, 1, 5, T]", "[1, 2, 5, 10]"]),
        (torch.zeros(5, 10), ["mel[None]"]),
        (torch.zeros(1, 5, 10, dtype=torch.int64), ["floating-point", "int64"]),
        (np.zeros((1, 5, 10), dtype=np.int32), ["floating-point", "int32"]),
        (np.array([["a"]]), ["floating-point"]),
        (torch.zeros(1, 5, 10, dtype=torch.complex64), ["floating-point"]),
        (torch.zeros(1, 5, 0), ["at least one", "[1, 5, 0]"]),
        (torch.zeros(0, 5, 3), ["at least one"]),
        (np.zeros((1, 5, 10), dtype=object), ["floating-point", "object"]),
        (torch.zeros(1, 5, 10, device="meta"), ["plain tensor [B, 5, T]", "meta"]),
        (torch.zeros(1, 5, 10).to_sparse(), ["plain tensor", "to_dense()"]),
        ([[1.0]], ["torch tensor", "list"]),
        (None, ["torch tensor"]),
    ],
)
def test_what_is_no_mel_is_named(mel, words: list[str]) -> None:
    vocoder = ToyVocoder()
    for call in (vocoder.mel_to_waveform, lambda bad: list(vocoder.stream([bad]))):
        with pytest.raises(errors.InvalidMelError) as caught:
            call(mel)
        assert isinstance(caught.value, ValueError)
        assert "\n" not in str(caught.value)
        for word in words:
            assert word in str(caught.value)
    assert vocoder.runs == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_never_reach_the_model(value: float) -> None:
    mel = toy.mel(2, 20)
    mel[1, 3, 17] = value
    vocoder = ToyVocoder()
    with pytest.raises(errors.InvalidMelError, match=r"item 1, band 3, frame 17"):
        vocoder.mel_to_waveform(mel)
    assert vocoder.runs == []
    for size in (4, 20):
        with pytest.raises(errors.InvalidMelError, match=r"item 1, band 3, frame 17"):
            list(vocoder.stream(mel.split(size, dim=-1)))


@pytest.mark.parametrize(
    "lengths",
    [
        [20],
        [1, 2, 3],
        [0, 20],
        [21, 20],
        [1.5, 2],
        [True, 3],
        20,
        torch.tensor(20),
        torch.tensor([[20, 20]]),
        torch.tensor([float("nan"), 20]),
        [float("inf"), 20],
        [None, 20],
        ["20", "20"],
        torch.tensor([20, 20], device="meta"),
        torch.ones(2, 20, dtype=torch.bool),
    ],
)
def test_lengths_that_do_not_fit_are_named(lengths) -> None:
    with pytest.raises(errors.InvalidMelError, match="from 1 to 20 for each of 2 items"):
        ToyVocoder().mel_to_waveform(toy.mel(2, 20), lengths=lengths)


def test_a_mask_in_place_of_lengths_does_not_fill_the_screen() -> None:
    with pytest.raises(errors.InvalidMelError, match="each of 2 items") as caught:
        ToyVocoder().mel_to_waveform(toy.mel(2, 2000), lengths=torch.ones(2, 2000, dtype=torch.bool))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("lengths", [np.array([20, 13]), torch.tensor([20.0, 13.0]), [torch.tensor(20), np.int8(13)]])
def test_lengths_may_be_any_whole_numbers(lengths) -> None:
    mel = toy.mel(2, 20)
    want = ToyVocoder().mel_to_waveform(mel, lengths=[20, 13])
    assert torch.equal(ToyVocoder().mel_to_waveform(mel, lengths=lengths), want)


@pytest.mark.parametrize("kind", ["backwards", "big-endian", "read-only", "long double", "transposed"])
def test_numpy_arrays_of_any_kind_go_in(kind: str, recwarn: pytest.WarningsRecorder) -> None:
    mel = toy.mel(1, 20).numpy()
    array, same = {
        "backwards": lambda: (mel[:, :, ::-1], mel[:, :, ::-1].copy()),
        "big-endian": lambda: (mel.astype(">f4"), mel),
        "read-only": lambda: (np.broadcast_to(mel, (2, 5, 20)), np.concatenate([mel, mel])),
        "long double": lambda: (mel.astype(np.longdouble), mel),
        "transposed": lambda: (np.ascontiguousarray(mel.transpose(0, 2, 1)).transpose(0, 2, 1), mel),
    }[kind]()
    want = ToyVocoder().mel_to_waveform(torch.from_numpy(same))
    assert torch.equal(ToyVocoder().mel_to_waveform(array), want)
    streamed = torch.cat(list(ToyVocoder().stream([array[..., :9], array[..., 9:]])), dim=-1)
    torch.testing.assert_close(streamed, want)
    assert not recwarn.list


def test_what_a_mask_hides_is_not_taken_for_values(tmp_path) -> None:
    mel = np.ma.masked_array(toy.mel(1, 20).numpy(), mask=False)
    mel.mask[0, 2, 3:5] = True
    words = "2 of 100 are masked. .*filled"
    for call in (ToyVocoder().mel_to_waveform, lambda bad: list(ToyVocoder().stream([bad]))):
        with pytest.raises(errors.InvalidMelError, match=f"A mel .*{words}"):
            call(mel)
    wave = mel.reshape(-1)
    written = tmp_path / "out.wav"
    takers = (toy.MEL.analyze, lambda bad: resample(bad, 8000, 16000), lambda bad: write_audio(written, bad, 8000))
    for call in takers:
        with pytest.raises(errors.InvalidAudioError, match=f"waveform .*{words}"):
            call(wave)
    unmasked = np.ma.masked_array(mel.data)
    assert torch.equal(ToyVocoder().mel_to_waveform(unmasked), ToyVocoder().mel_to_waveform(mel.data))


def test_numbers_beyond_float32_never_reach_the_model() -> None:
    mel = toy.mel(2, 20).double()
    mel[1, 3, 17] = 1e300
    vocoder = ToyVocoder()
    with pytest.raises(errors.InvalidMelError, match=r"\(1e\+300\) in item 1, band 3, frame 17"):
        vocoder.mel_to_waveform(mel)
    assert vocoder.runs == []
    with pytest.raises(errors.InvalidMelError, match=r"\(1e\+300\) in item 1, band 3, frame 17"):
        list(vocoder.stream(mel.split(4, dim=-1)))


@pytest.mark.parametrize("mels", [None, 3, toy.mel])
def test_a_stream_of_nothing_to_go_through_is_refused_at_once(mels) -> None:
    with pytest.raises(errors.InvalidMelError, match=r"iterable of pieces \[B, 5, t\]"):
        ToyVocoder().stream(mels)


def test_an_asynchronous_stream_is_refused_with_what_to_do() -> None:
    async def pieces():
        yield toy.mel()

    with pytest.raises(errors.InvalidMelError, match="in a thread"):
        ToyVocoder().stream(pieces())


@pytest.mark.parametrize("mel", [toy.mel(3, 20), toy.mel(1, 20).numpy()], ids=["tensor", "array"])
def test_a_stream_of_one_mel_instead_of_pieces_is_refused(mel) -> None:
    vocoder = ToyVocoder()
    with pytest.raises(errors.InvalidMelError, match=r"mel\.split"):
        vocoder.stream(mel)
    assert vocoder.runs == []


def test_pieces_of_a_stream_must_have_one_batch_size() -> None:
    with pytest.raises(errors.InvalidMelError, match="began with 2, now comes 3"):
        list(ToyVocoder().stream([toy.mel(2), toy.mel(3)]))


def test_the_result_can_be_used_like_any_tensor() -> None:
    mel = toy.mel().requires_grad_()
    wave = ToyVocoder().mel_to_waveform(mel)
    assert not wave.requires_grad
    scale = torch.ones(1, requires_grad=True)
    (wave * scale).sum().backward()  # an inference-mode tensor would refuse this
    wave += 1.0


def test_the_callers_mel_is_left_as_it_was() -> None:
    mel = toy.mel()
    before = mel.clone()
    ToyVocoder(chunk_frames=7).mel_to_waveform(mel)
    assert torch.equal(mel, before)


def test_progress_is_reported_to_a_callable() -> None:
    calls = []
    ToyVocoder(chunk_frames=8).mel_to_waveform(
        toy.mel(2, 20), lengths=[20, 13], progress=lambda done, total: calls.append((done, total))
    )
    assert calls[-1] == (33, 33)
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})


def test_a_progress_bar_goes_to_stderr(capsys, monkeypatch, recwarn: pytest.WarningsRecorder) -> None:
    monkeypatch.setattr("tqdm.tqdm", lambda **about: tqdm.std.tqdm(**{**about, "delay": 0, "mininterval": 0}))
    vocoder, mel = ToyVocoder(chunk_frames=10), toy.mel(1, 500)
    vocoder.mel_to_waveform(mel)
    assert capsys.readouterr() == ("", "")
    vocoder.mel_to_waveform(mel, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "vocoding:  50%" in err and "0.5/1.0 s of audio" in err and "100%" in err
    assert not recwarn.list  # such as tqdm's, where seconds add up to more than all


def test_without_stderr_there_is_no_progress_bar(monkeypatch) -> None:
    """As in an app with windows, frozen, or run by pythonw."""
    mel = toy.mel()
    expected = ToyVocoder().mel_to_waveform(mel)
    monkeypatch.setattr("tqdm.tqdm", lambda **about: tqdm.std.tqdm(**{**about, "delay": 0, "mininterval": 0}))
    monkeypatch.setattr("sys.stderr", None)
    assert torch.equal(ToyVocoder().mel_to_waveform(mel, progress=True), expected)


@pytest.mark.parametrize("frames", [0, -1, 1.5])
def test_a_chunk_size_must_be_a_number_of_frames(frames) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        ToyVocoder().chunk_frames = frames


def test_a_factory_hands_on_its_chunk_frames_as_it_got_it() -> None:
    """None where nobody said one, as the factory in docs/plugins.md has it."""
    assert Bare(toy.VARIANT, halo=0, chunk_frames=None).chunk_frames == Bare(toy.VARIANT, halo=0).chunk_frames > 1
    assert Bare(toy.VARIANT, halo=0, chunk_frames=3).chunk_frames == 3


def test_a_back_end_that_breaks_the_contract_is_named() -> None:
    vocoder = ToyVocoder()
    vocoder._vocode = lambda mel: torch.zeros(1, 3)
    with pytest.raises(errors.PluginError, match=r"returned \[1, 3\] of .* for a mel of \[2, 5, 50\].*\[2, 800\]"):
        vocoder.mel_to_waveform(toy.mel())


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (lambda wave: wave[:, 0], r"ToyModel returned \[2, 800\] of torch.float32 .*\[2, 1, 800\]"),
        (lambda wave: wave.expand(-1, 2, -1), r"returned \[2, 2, 800\]"),
        (lambda wave: (wave * 32767).to(torch.int16), "returned .* of torch.int16 .*floating-point"),
        (lambda wave: wave > 0, "returned .* of torch.bool"),
        (lambda wave: (wave, None), "returned a tuple"),
        (lambda wave: None, "returned a NoneType"),
    ],
)
def test_a_model_that_makes_no_waveform_is_named(returned, words: str) -> None:
    vocoder = ToyVocoder()
    right = vocoder.model.forward
    vocoder.model.forward = lambda mel: returned(right(mel))
    with pytest.raises(errors.PluginError, match=words):
        vocoder.mel_to_waveform(toy.mel())


def test_a_model_that_makes_no_numbers_is_named_with_the_place() -> None:
    vocoder = ToyVocoder(chunk_frames=8)

    def spoil(module: torch.nn.Module, given: object, wave: torch.Tensor) -> torch.Tensor:
        if len(vocoder.runs) == 3:  # of frames 16 to 23, with a halo of 3 before them
            wave[-1, 0, 5 * HOP + 1] = float("nan")
        return wave

    vocoder.model.register_forward_hook(spoil)
    with pytest.raises(errors.PluginError, match="plain makes NaN or infinity .* in fp32, first in item 0, frame 18"):
        vocoder.mel_to_waveform(toy.mel(1, 48))
    vocoder.runs.clear()
    pieces = vocoder.stream([toy.mel(1, 48)])
    with pytest.raises(errors.PluginError, match="first in item 0, frame 17"):  # of frames 15 to 22
        list(pieces)


@pytest.mark.parametrize("halo", [2.9, -1, "3", None, True])
def test_a_halo_is_a_number_of_frames(halo) -> None:
    with pytest.raises(ValueError, match="halo must be a whole number"):
        ModuleVocoder(toy.ToyModel(), toy.VARIANT, halo=halo)


class Bare(VocoderBase):
    def _vocode(self, mel: torch.Tensor) -> torch.Tensor:
        return mel.new_zeros(mel.shape[0], mel.shape[2] * self.hop_length)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"variant": MEL}, TypeError, "takes the Variant it is loaded as, not a MelSpec"),
        ({"variant": toy.card()}, TypeError, r"not a VocoderCard: .*Variant\(name, mel, sample_rate\)"),
        ({"precision": "bogus"}, errors.PrecisionError, "no precision 'bogus': write fp32"),
        ({"device": "gpu"}, errors.DeviceError, "no device 'gpu': write cuda"),
        ({"device": None}, errors.DeviceError, "no device None"),
        ({"device": "auto"}, errors.DeviceError, r"select_device\('auto'\) chooses one"),
    ],
)
def test_arguments_that_no_vocoder_can_have_are_refused_at_once(arguments, error, words) -> None:
    arguments = {"variant": toy.VARIANT, "halo": 0, **arguments}
    for make in (Bare, functools.partial(ModuleVocoder, toy.ToyModel())):
        with pytest.raises(error, match=words):
            make(**arguments)


def test_a_back_end_that_does_not_call_super_is_told_so() -> None:
    class Forgetful(Bare):
        def __init__(self) -> None:
            pass

    words = r"Forgetful.__init__ does not call super\(\).__init__\(variant, halo=…\)"
    for use in (lambda vocoder: vocoder.mel_to_waveform(toy.mel()), lambda vocoder: vocoder.device):
        with pytest.raises(errors.PluginError, match=words):
            use(Forgetful())


def test_a_program_that_is_compiled_gets_what_it_got_before() -> None:
    """The vocoder runs as ever; only what is around it is compiled."""
    vocoder, mel = ToyVocoder(), toy.mel(2, 20)
    traced: list[bool] = []
    vocoder.model.register_forward_hook(lambda *_: traced.append(torch.compiler.is_compiling()))
    spec, sound = MelSpec.preset("bigvgan-24khz-100band-256x"), torch.randn(1, 3000)

    def whole(mel):
        return 2 * vocoder.mel_to_waveform(mel + 0)

    def pieces(mel):
        return [2 * piece for piece in vocoder.stream((mel + 0).split(7, dim=-1))]

    def mel_loss(sound):
        return (spec.analyze(sound + 0) ** 2).mean()

    want, loss = vocoder.mel_to_waveform(mel), mel_loss(sound)
    try:
        assert torch.equal(torch.compile(whole, backend="eager")(mel), 2 * want)
        assert torch.allclose(torch.cat(torch.compile(pieces, backend="eager")(mel), dim=-1), 2 * want, atol=1e-6)
        assert torch.allclose(torch.compile(mel_loss, backend="eager")(sound), loss)
        assert traced and not any(traced)
    finally:
        torch.compiler.reset()


def test_a_back_end_computes_in_the_precision_that_it_has_under_the_callers_autocast() -> None:
    made: list[torch.Tensor] = []

    class Multiplying(Bare):
        def _vocode(self, mel: torch.Tensor) -> torch.Tensor:
            made.append(mel @ mel.transpose(1, 2))
            return super()._vocode(mel)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        Multiplying(toy.VARIANT, halo=0).mel_to_waveform(toy.mel())
    assert [each.dtype for each in made] == [torch.float32]


@pytest.mark.parametrize("halo", [3.0, np.int8(3), torch.tensor(3)])
def test_a_halo_may_be_any_whole_number(halo) -> None:
    vocoder = ModuleVocoder(toy.ToyModel(), toy.VARIANT, halo=halo)
    assert type(vocoder.halo) is int
    assert_same(torch.cat(list(vocoder.stream(toy.mel().split(20, dim=-1))), dim=-1), direct(toy.mel()))


def test_what_has_no_model_says_what_it_needs_to_be_moved() -> None:
    vocoder = Bare(toy.VARIANT, halo=0)
    assert vocoder.mel_to_waveform(toy.mel()).shape == (2, 1, 800)
    with pytest.raises(errors.PluginError, match="Bare cannot be moved.*`_move`"):
        vocoder._place(torch.device("cpu"))


def test_a_vocoder_stays_in_its_process() -> None:
    for leave in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=r"arguments of registry\.get"):
            leave(ToyVocoder())


def test_a_run_within_a_run_is_refused() -> None:
    """As from a signal handler: the two would share their buffers."""
    vocoder = ToyVocoder()
    vocoder.model.register_forward_hook(lambda *_: vocoder.mel_to_waveform(toy.mel()))
    with pytest.raises(errors.DistillError, match="in the middle of a run"):
        vocoder.mel_to_waveform(toy.mel())
    again = ToyVocoder()
    inner = iter(again.stream(toy.mel().split(10, dim=-1)))
    again.mel_to_waveform(toy.mel(), progress=lambda *_: next(inner, None))  # between runs it is nobody's business


class Accelerated(ToyVocoder):
    """Pretends to be on an accelerator with room for `room` frames at once; the CPU takes any number."""

    def __init__(self, room: int, error: Exception | None = None, **arguments) -> None:
        super().__init__(**arguments)
        self.room = room
        self.error = error or torch.OutOfMemoryError("planted")
        self.moves: list[str] = []
        self._device = torch.device("cuda", 0)

    def _compute(self, mel: torch.Tensor, context: tuple[int, int]) -> torch.Tensor:
        if self._device.type == "cuda":
            if mel.shape[0] * mel.shape[2] > self.room:
                raise type(self.error)(*self.error.args)
            home, self._device = self._device, torch.device("cpu")
            try:
                return super()._compute(mel, context)
            finally:
                self._device = home
        return super()._compute(mel, context)

    def _move(self, device: torch.device) -> None:
        self.moves.append(device.type)

    def _waveform(self, *shape: int) -> torch.Tensor:
        return torch.zeros(shape)


@pytest.mark.parametrize("room", [2 * HALO + 1, 2 * HALO + 9, 40])
def test_out_of_memory_halves_the_chunk_with_a_warning(room: int, caplog) -> None:
    mel = toy.mel(3, 64)
    vocoder = Accelerated(room)
    with caplog.at_level(logging.WARNING):
        wave = vocoder.mel_to_waveform(mel)
    assert_same(wave, direct(mel))
    assert "Out of memory on cuda:0" in caplog.text
    assert vocoder.moves == []
    assert vocoder.device == torch.device("cuda", 0)


def test_out_of_memory_for_one_frame_falls_back_to_the_cpu_and_comes_back(caplog) -> None:
    mel = toy.mel(2, 30)
    vocoder = Accelerated(room=0)
    with caplog.at_level(logging.WARNING):
        wave = vocoder.mel_to_waveform(mel)
    assert_same(wave, direct(mel))
    assert vocoder.moves == ["cpu", "cuda"]
    assert vocoder.device == torch.device("cuda", 0)
    assert "goes on on the CPU" in caplog.text


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("MPS backend out of memory (MPS allocated: 18.10 GB, other allocations: 3.22 MB)"),
        RuntimeError("Invalid buffer size: 20.00 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError('NVML_SUCCESS == r INTERNAL ASSERT FAILED at "c10/cuda/CUDACachingAllocator.cpp":995'),  # Jetson
        NotImplementedError("Output channels > 65536 not supported at the MPS device. "),
    ],
)
def test_out_of_memory_has_many_names(error: Exception) -> None:
    mel = toy.mel(3, 64)
    vocoder = Accelerated(40, error)
    assert_same(vocoder.mel_to_waveform(mel), direct(mel))
    assert vocoder.moves == []


def test_who_chose_the_chunk_hears_that_the_memory_was_full(monkeypatch) -> None:
    heard = []
    monkeypatch.setattr(Accelerated, "_was_full", lambda vocoder: heard.append(vocoder.device.type))
    vocoder = Accelerated(room=40)
    vocoder.mel_to_waveform(toy.mel(1, 30))
    assert heard == []
    vocoder.mel_to_waveform(toy.mel(1, 64))
    Accelerated(room=0).mel_to_waveform(toy.mel(1, 2))  # which goes to the CPU, and is back then
    assert heard == ["cuda", "cuda"]


def test_another_error_of_an_accelerator_is_not_taken_for_it() -> None:
    vocoder = Accelerated(0, RuntimeError("CUDA error: an illegal memory access was encountered"))
    with pytest.raises(RuntimeError, match="illegal memory access"):
        vocoder.mel_to_waveform(toy.mel())
    assert vocoder.moves == []


def test_what_a_run_held_that_found_no_memory_is_let_go_before_the_next_one(monkeypatch) -> None:
    held: list[weakref.ref[torch.Tensor]] = []
    alive: list[bool] = []

    class Holding(Accelerated):
        def _compute(self, mel: torch.Tensor, context: tuple[int, int]) -> torch.Tensor:
            layers = torch.zeros(1)
            held.append(weakref.ref(layers))
            return super()._compute(mel, context)

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: alive.append(held[-1]() is not None))
    Holding(2 * HALO + 9).mel_to_waveform(toy.mel(1, 64))
    assert alive and not any(alive)


def test_other_errors_on_the_cpu_fallback_still_bring_the_vocoder_home() -> None:
    vocoder = Accelerated(room=0)
    vocoder._vocode = lambda mel: 1 / 0
    with pytest.raises(ZeroDivisionError):
        vocoder.mel_to_waveform(toy.mel())
    assert vocoder.moves == ["cpu", "cuda"]
    with ThreadPoolExecutor(1) as other:
        assert other.submit(vocoder._turn.acquire, timeout=5).result()  # nobody holds the lock any more


@pytest.mark.parametrize("reason", ["CUDA error: out of memory", "CUDA error: unspecified launch failure"])
def test_where_there_is_no_way_back_from_the_cpu_it_stays_there_or_the_reason_is_told(
    reason: str, monkeypatch, caplog
) -> None:
    vocoder, mel = Accelerated(room=0), toy.mel(2, 30)
    moves = vocoder.moves

    def move(where: torch.device) -> None:
        moves.append(where.type)
        if where.type == "cuda":
            raise RuntimeError(reason)

    monkeypatch.setattr(vocoder, "_move", move)
    if "memory" in reason:
        assert_same(vocoder.mel_to_waveform(mel), direct(mel))
        assert (moves, vocoder.device.type) == (["cpu", "cuda", "cpu"], "cpu")
        assert "stays on the CPU: there is no memory left on cuda:0" in caplog.text
    else:
        with pytest.raises(RuntimeError, match=reason):
            vocoder.mel_to_waveform(mel)
        assert moves == ["cpu", "cuda"]
    with ThreadPoolExecutor(1) as other:
        assert other.submit(vocoder._turn.acquire, timeout=5).result()


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="POSIX signals")
def test_whoever_is_interrupted_while_he_waits_for_his_turn_gives_it_back() -> None:
    """Ctrl-C reaches a process, and its handler may run in the main thread just as that has got the turn."""
    turn, taken, wanted = Turn(), threading.Event(), threading.Event()

    def hold() -> None:
        with turn:
            taken.set()
            wanted.wait()
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    def wait() -> None:
        wanted.set()
        with turn.door, turn:
            pass

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    holder = threading.Thread(target=hold)
    try:
        holder.start()
        taken.wait()
        with pytest.raises(KeyboardInterrupt):
            wait()
    finally:
        signal.signal(signal.SIGUSR1, before)
        holder.join()
    with ThreadPoolExecutor(1) as other:
        assert other.submit(turn.door.acquire, timeout=5).result()
        assert other.submit(turn.acquire, timeout=5).result()


def test_a_long_call_lets_those_in_that_wait_after_each_chunk() -> None:
    vocoder, order = ToyVocoder(chunk_frames=4), []
    vocode = vocoder._vocode

    def noted(mel: torch.Tensor) -> torch.Tensor:
        order.append(threading.current_thread().name)
        if len(order) == 1:
            short.start()
            deadline = time.monotonic() + 30
            while vocoder._turn.door.acquire(blocking=False):  # until the other one stands there
                vocoder._turn.door.release()
                assert time.monotonic() < deadline
        return vocode(mel)

    vocoder._vocode = noted
    short = threading.Thread(target=lambda: vocoder.mel_to_waveform(toy.mel(1, 4)), name="short")
    long = threading.Thread(target=lambda: vocoder.mel_to_waveform(toy.mel(1, 12)), name="long")
    long.start()
    long.join()
    short.join()
    assert order == ["long", "short", "long", "long"]


def test_threads_may_share_a_vocoder() -> None:
    vocoder = ToyVocoder(chunk_frames=4)
    mels = [toy.mel(1, 40, seed=seed) for seed in range(8)]
    waves: dict[int, torch.Tensor] = {}

    def work(index: int) -> None:
        for _ in range(5):
            waves[index] = vocoder.mel_to_waveform(mels[index])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, mel in enumerate(mels):
        assert_same(waves[index], direct(mel))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_forked_while_another_thread_computes_can_compute() -> None:
    vocoder, mel = ToyVocoder(), toy.mel()
    want = vocoder.mel_to_waveform(mel)
    torch.set_num_threads(2)
    with ThreadPoolExecutor(1) as other:
        other.submit(vocoder._turn.acquire).result()
        child = os.fork()
        if child == 0:
            signal.alarm(30)  # rather than waiting for a thread that is not in this process
            same = torch.equal(vocoder.mel_to_waveform(mel), want)
            os._exit(0 if same and torch.get_num_threads() == 1 else 1)
        other.submit(vocoder._turn.release).result()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_moving_to_a_device_that_is_not_there_changes_nothing() -> None:
    vocoder = ToyVocoder()
    with pytest.raises(errors.DeviceError):
        vocoder.to("cuda:99")
    assert vocoder.device == torch.device("cpu")
    assert vocoder.to("cpu") is vocoder


def test_what_has_no_room_on_a_device_stays_whole_where_it_was(monkeypatch) -> None:
    monkeypatch.setattr(device, "_present", lambda kind: kind in ("mps", "cpu"))
    monkeypatch.setattr(device, "why_unusable", lambda _: None)
    vocoder = ToyVocoder()
    moved = []

    def move(where: torch.device) -> None:
        moved.append(where.type)
        if where.type == "mps":
            raise RuntimeError("MPS backend out of memory")

    monkeypatch.setattr(vocoder, "_move", move)
    with pytest.raises(errors.DeviceError, match=r"not enough memory on mps for ToyVocoder.*out of memory") as caught:
        vocoder.to("mps")
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert moved == ["mps", "cpu"]
    assert vocoder.device == vocoder._home == torch.device("cpu")


def test_bf16_runs_and_is_close() -> None:
    wave = ToyVocoder(precision="bf16").mel_to_waveform(toy.mel())
    assert wave.dtype == torch.float32
    want = direct(toy.mel())
    error = ((wave - want).norm() / want.norm()).item()
    assert 1e-5 < error < 2e-2


def test_fp16_on_a_cpu_is_refused() -> None:
    with pytest.raises(errors.PrecisionError, match="bf16"):
        ToyVocoder(precision="fp16")


def test_an_engine_that_the_model_has_not_is_refused_at_once() -> None:
    with pytest.raises(errors.EngineError, match="engine='channels-last' cannot run here: this model has none"):
        ToyVocoder(engine="channels-last")


@pytest.mark.skipif(not hasattr(os, "register_at_fork"), reason="this system does not fork")
def test_forks_are_heard_of_once_however_many_vocoders_there_are(monkeypatch) -> None:
    monkeypatch.setattr(forking, "_watching", False)
    registered: list[dict] = []
    monkeypatch.setattr(os, "register_at_fork", lambda **calls: registered.append(calls))
    kept = [ToyVocoder(), ToyVocoder()]
    assert registered == [{"after_in_child": forking._in_child}]
    assert set(kept) <= set(forking._living)


def test_a_vocoder_says_what_it_is(monkeypatch) -> None:
    monkeypatch.setattr(selection, "bf16_instructions", lambda: "AMX")  # for which it has no engine
    vocoder = ToyVocoder(precision="auto")
    assert (vocoder.sample_rate, vocoder.hop_length, vocoder.halo) == (8000, 16, HALO)
    assert vocoder.precision == "fp32"
    assert "plain" in repr(vocoder)
    report = vocoder.report()
    assert report.engine == "eager"
    assert "fp32" in str(report)
    assert report.to_dict()["device"] == "cpu"
