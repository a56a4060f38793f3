"""Which engine a vocoder takes on an accelerator, what it says of it, and, where one is, what it does there."""

from __future__ import annotations

import logging

import pytest
import torch

from distill_bigvgan._vendor.bigvgan import BigVGAN
from distill_bigvgan.bigvgan_vocoder import BigVGANVocoder
from distill_bigvgan.engines import cuda
from distill_bigvgan.variants import VARIANTS
from distill_core.adapted import AdaptedVocoder
from distill_core.engines import selection
from distill_core.engines.channels_last import EngineUnavailable
from distill_core.engines.gpu.engine import CudaEngine
from distill_core.engines.gpu.ops import TorchOps
from distill_core.errors import EngineError
from tests.engines import gpu_models
from tests.engines.gpu_models import CPU, error

NAME = "bigvgan_base_22khz_80band"
VARIANT = next(variant for variant in VARIANTS if NAME.endswith(variant.name))
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
needs_mps = pytest.mark.skipif(not torch.backends.mps.is_available(), reason="needs an MPS device")


class Engine(CudaEngine):
    """The engine, for a card whose memory is good for 777 frames."""

    chunk_frames = 777


def engine(model: BigVGAN, precision: str, ops: TorchOps) -> Engine:
    return Engine(model, cuda.rows, CPU, precision, triton=cuda._triton, ops=ops)


class Pretending(BigVGANVocoder):
    """On a CPU, with the engine that would run on CUDA; `trouble` is why that engine is not to be had."""

    trouble = ""

    def _cuda(self, precision: str):
        if self.trouble:
            raise EngineUnavailable(self.trouble)
        return engine(self.model, precision, TorchOps())

    def pretend(self):
        self._home = torch.device("cuda:0")
        self._accelerate()
        return self


def vocoder(kind: type[BigVGANVocoder] = Pretending, channels: int = 32, **arguments) -> BigVGANVocoder:
    return kind(gpu_models.model(NAME, channels=channels), VARIANT, **arguments)


@pytest.mark.parametrize(("asked", "runs"), [("fp32", "fp32"), ("bf16", "bf16"), ("auto", "fp16")])
def test_on_cuda_the_cuda_engine_runs_and_reports_what_it_measured(asked, runs, monkeypatch) -> None:
    monkeypatch.setattr(selection, "bf16_instructions", lambda: "AMX")  # for it to be made on any CPU
    pretending = vocoder(precision=asked).pretend()
    report = pretending.report()
    assert (report.engine, report.precision) == ("cuda", runs)
    assert any("self-test" in note for note in report.notes)
    assert pretending.chunk_frames == 777


def test_a_model_that_is_set_gets_an_engine_of_its_own() -> None:
    pretending = vocoder().pretend()
    first = pretending._accelerated
    pretending.model = gpu_models.model(NAME, channels=32, seed=1)
    assert pretending._accelerated is not None
    assert pretending._accelerated is not first


def test_a_chunk_that_was_asked_for_stays() -> None:
    assert vocoder(chunk_frames=33).pretend().chunk_frames == 33


def test_a_chunk_that_nobody_asked_for_follows_the_memory_that_others_take(monkeypatch) -> None:
    chosen, asked = vocoder().pretend(), vocoder(chunk_frames=333).pretend()
    for free, chunk in ((99, 99), (1000, 99)):
        monkeypatch.setattr(Engine, "chunk_frames", free)
        AdaptedVocoder.around(chosen, sample_rate=8000)._was_full()
        assert chosen.chunk_frames == chunk
    asked._was_full()
    assert asked.chunk_frames == 333


@pytest.mark.parametrize(("engine", "words"), [("auto", "Triton cannot be imported"), ("eager", "was asked for")])
def test_without_it_the_eager_engine_runs_and_says_why(engine, words, monkeypatch, caplog) -> None:
    monkeypatch.setattr(Pretending, "trouble", "Triton cannot be imported")
    with caplog.at_level(logging.WARNING):
        pretending = vocoder(engine=engine).pretend()
    report = pretending.report()
    assert report.engine == "eager"
    assert any(words in note and "cuda" in note for note in report.notes)
    assert pretending.chunk_frames == pretending.default_chunk_frames
    assert ("slower" in caplog.text) == (engine == "auto")


def test_asked_for_by_name_it_runs_or_says_why_not(monkeypatch) -> None:
    with pytest.raises(EngineError, match="cannot run on cpu"):
        vocoder(BigVGANVocoder, engine="cuda")
    pretending = vocoder()
    pretending._engine = "cuda"
    monkeypatch.setattr(Pretending, "trouble", "an old card")
    with pytest.raises(EngineError, match="an old card"):
        pretending.pretend()


class FailsOnLong(TorchOps):
    """Passes the self-test, as a library may that has no kernel for long rows."""

    error: Exception = RuntimeError("GET was unable to find an engine to execute this computation")

    def activate(self, x, snake, extent, **arguments):
        if x.shape[1] > 20 * 256:
            raise self.error
        return super().activate(x, snake, extent, **arguments)


class PretendingHere(Pretending):
    """So that its mels are on the device of the engine."""

    def _cuda(self, precision: str):
        return engine(self.model, precision, FailsOnLong())

    def pretend(self):
        super().pretend()
        self._home, self._passed_over = CPU, "it is on CUDA"
        return self


def test_an_engine_that_fails_in_a_run_gives_way_to_the_eager_one(caplog) -> None:
    pretending = vocoder(PretendingHere).pretend()
    mel = gpu_models.mel(pretending.model, 1, 30)
    eager = vocoder(BigVGANVocoder, engine="eager")
    for frames in (5, 30):
        assert pretending._accelerated is not None
        with caplog.at_level(logging.WARNING):
            got = pretending.mel_to_waveform(mel[:, :, :frames], check_format=False)
        assert error(got, eager.mel_to_waveform(mel[:, :, :frames], check_format=False)) <= 1e-5
    assert pretending._accelerated is None
    assert "runs eagerly from now on" in caplog.text and "unable to find an engine" in caplog.text
    assert any("unable to find an engine" in note for note in pretending.report().notes)
    assert pretending.chunk_frames == pretending.default_chunk_frames


def test_the_precision_that_the_engine_chose_goes_with_it() -> None:
    pretending = vocoder(PretendingHere, precision="auto").pretend()
    assert pretending.precision == "fp16"
    pretending.mel_to_waveform(gpu_models.mel(pretending.model, 1, 30), check_format=False)
    assert pretending.precision != "fp16"


def test_an_engine_does_not_give_way_where_the_eager_one_would_fail_as_well(monkeypatch) -> None:
    """Nor where it was asked for by name, nor for lack of memory."""
    pretending = vocoder(PretendingHere).pretend()
    mel = gpu_models.mel(pretending.model, 1, 30)

    def fails(*_: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    with monkeypatch.context() as capturing:
        capturing.setattr(pretending, "_run_eagerly", fails)
        with pytest.raises(RuntimeError, match="capturing"):
            pretending.mel_to_waveform(mel, check_format=False)
    pretending._engine = "cuda"
    with pytest.raises(RuntimeError, match="unable to find an engine"):
        pretending.mel_to_waveform(mel, check_format=False)
    pretending._engine = "auto"
    monkeypatch.setattr(FailsOnLong, "error", RuntimeError("CUDA error: out of memory"))
    with pytest.raises(RuntimeError, match="out of memory"), torch.inference_mode():
        pretending._vocode(mel)
    assert pretending._accelerated is not None


@pytest.mark.parametrize("new", [False, True])
def test_no_convolution_is_longer_than_an_old_mps_can_take(new: bool, monkeypatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda *_: new, raising=False)
    monkeypatch.setattr(BigVGAN, "to", lambda model, *_: model)
    there = vocoder(BigVGANVocoder, device="mps", engine="eager")
    assert vocoder(BigVGANVocoder, device="mps", engine="eager", chunk_frames=777).chunk_frames == 777
    if new:
        assert there.chunk_frames == there.default_chunk_frames
        return
    lengths = []

    def noted(convolve, longest):
        def run(x, *arguments, **named):
            made = convolve(x, *arguments, **named)
            lengths.append(longest(x, made))
            return made

        return run

    # As torch counts it: what a convolution makes, what a transposed one takes.
    for name, longest in (
        ("conv1d", lambda x, made: made.shape[-1]),
        ("conv_transpose1d", lambda x, made: x.shape[-1]),
    ):
        monkeypatch.setattr(torch.nn.functional, name, noted(getattr(torch.nn.functional, name), longest))
    frames = there.chunk_frames + 2 * there.halo
    with torch.inference_mode():
        assert there.model(gpu_models.mel(there.model, 1, frames)).shape[-1] == frames * there.hop_length
    assert 60_000 < max(lengths) <= 65_536


@pytest.mark.parametrize("frames", [1, 13, 700])
@pytest.mark.parametrize(("precision", "limit"), [("fp32", 1e-3), ("fp16", 1e-2), ("bf16", 1e-2)])
@needs_cuda
def test_on_this_gpu_in_chunks(frames, precision, limit) -> None:
    there = vocoder(BigVGANVocoder, device="cuda:0", precision=precision, engine="cuda", chunk_frames=100)
    here = vocoder(BigVGANVocoder, engine="eager")
    mel = gpu_models.mel(here.model, 2, frames)
    got = there.mel_to_waveform(mel, check_format=False)
    assert error(got.cpu(), here.mel_to_waveform(mel, check_format=False)) <= limit


@needs_cuda
def test_a_full_card_halves_the_chunk_or_goes_to_the_cpu_and_comes_back(caplog) -> None:
    device = torch.device("cuda:0")
    full = vocoder(BigVGANVocoder, channels=256, device=device, chunk_frames=2048)
    mel = gpu_models.mel(full.model, 1, 2048)
    want = full.mel_to_waveform(mel, check_format=False).cpu()
    for left in (256 << 20, 64 << 20, 4 << 20):
        caplog.clear()
        torch.cuda.empty_cache()
        filling = torch.empty(max(0, torch.cuda.mem_get_info(device)[0] - left), dtype=torch.uint8, device=device)
        try:
            got = full.mel_to_waveform(mel, check_format=False).cpu()
        finally:
            del filling
        assert error(got, want) <= 1e-3
        assert full.device == device
    assert "Out of memory" in caplog.text
    torch.cuda.empty_cache()
    assert error(full.mel_to_waveform(mel, check_format=False).cpu(), want) <= 1e-3


@needs_cuda
def test_a_hundred_calls_of_a_vocoder_do_not_grow() -> None:
    there = vocoder(BigVGANVocoder, channels=256, device="cuda:0", precision="fp16")
    reserved = []
    for number in range(200):
        mel = gpu_models.mel(there.model, 1 + number % 3, 10 + 37 * (number % 20))
        there.mel_to_waveform(mel, check_format=False)
        reserved.append(torch.cuda.memory_reserved())
    assert max(reserved[100:]) <= max(reserved[:100])


@needs_mps
@pytest.mark.parametrize(("precision", "limit"), [("fp32", 1e-3), ("fp16", 5e-2)])
def test_on_mps_in_chunks(precision, limit) -> None:
    there = vocoder(BigVGANVocoder, device="mps", precision=precision)
    here = vocoder(BigVGANVocoder, engine="eager")
    mel = gpu_models.mel(here.model, 1, 700).double()
    got = there.mel_to_waveform(mel, check_format=False)
    assert error(got.cpu(), here.mel_to_waveform(mel, check_format=False)) <= limit
    assert there.report().engine == "eager"
