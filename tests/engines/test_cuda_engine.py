"""The GPU engine with BigVGAN: its data flow on the CPU, its self-test against planted faults, and on a GPU."""

from __future__ import annotations

import contextlib
import itertools
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from distill_bigvgan._vendor.bigvgan import CONFIGS, BigVGAN
from distill_bigvgan.engines import cuda
from distill_bigvgan.engines.snake import SnakeParameters
from distill_core.device import empty_caches
from distill_core.engines.channels_last import EngineUnavailable
from distill_core.engines.gpu import engine as gpu_engine
from distill_core.engines.gpu import graphs, self_test
from distill_core.engines.gpu.graphs import ReplayCache
from distill_core.engines.gpu.ops import Extent, TorchOps
from tests.engines import gpu_models
from tests.engines.gpu_models import CPU, error, vocode

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
LIMITS = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 2e-2}
CHOICES = {"resblock": ("1", "2"), "activation": ("snake", "snakebeta"), "snake_logscale": (True, False)}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tensors are tiny here, and threads that wait for each other on a busy machine cost a hundred times more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# The data flow


@pytest.mark.parametrize(("number", "name"), list(enumerate(CONFIGS)))
@pytest.mark.parametrize("dtype", list(LIMITS))
def test_rows_compute_what_the_model_does(number, name, dtype) -> None:
    width = 1 + number % 3
    model = gpu_models.model(name, channels=width << len(CONFIGS[name]["upsample_rates"]), seed=number)
    generator = cuda.rows(model, dtype=dtype, device=CPU, ops=TorchOps())
    for batch, frames in ((1, 1), (2, 3)) if dtype == torch.float32 else ((1, 2),):
        mel = gpu_models.mel(model, batch, frames)
        assert error(vocode(generator, mel), gpu_models.wave(model, mel)) <= LIMITS[dtype]


@pytest.mark.parametrize("choice", list(itertools.product(*CHOICES.values())))
def test_rows_of_other_blocks_activations_and_odd_rates(choice) -> None:
    model = gpu_models.model(
        "bigvgan_24khz_100band",
        channels=52,
        upsample_rates=[3, 5, 1],
        upsample_kernel_sizes=[7, 5, 3],
        hop_size=15,
        resblock_kernel_sizes=[5, 1],
        resblock_dilation_sizes=[[1, 4], [2]],
        **dict(zip(CHOICES, choice, strict=True)),
    )
    generator = cuda.rows(model, dtype=torch.float32, device=CPU, ops=TorchOps())
    for frames in (1, 2, 7, 31):
        mel = gpu_models.mel(model, 2, frames)
        assert error(vocode(generator, mel), gpu_models.wave(model, mel)) <= 1e-5


def test_a_batch_is_its_items() -> None:
    model = gpu_models.model("bigvgan_base_24khz_100band", channels=32)
    generator = cuda.rows(model, dtype=torch.float32, device=CPU, ops=TorchOps())
    mel = gpu_models.mel(model, 3, 9)
    together = vocode(generator, mel)
    for row in range(3):
        assert error(together[row : row + 1], vocode(generator, mel[row : row + 1])) <= 1e-6


def test_filters_that_the_closed_form_does_not_know_are_refused() -> None:
    model = gpu_models.tiny()
    model.activation_post.upsample.filter[0, 0, 2] += 1e-3
    with pytest.raises(ValueError, match="filters"):
        cuda.rows(model, dtype=torch.float32, device=CPU, ops=TorchOps())
    with pytest.raises(EngineUnavailable, match="filters"):
        cuda.engine(model, CPU, "fp32", ops=TorchOps())


def test_blocks_are_added_up_in_fp32() -> None:
    sums: list[torch.dtype] = []

    class Noting(TorchOps):
        def accumulate(self, *arguments, dtype, **named):
            sums.append(dtype)
            return super().accumulate(*arguments, dtype=dtype, **named)

    model = gpu_models.model("bigvgan_base_24khz_100band", channels=16)
    vocode(cuda.rows(model, dtype=torch.float16, device=CPU, ops=Noting()), gpu_models.mel(model, 1, 3))
    blocks, stages = len(model.config.block_kernels), len(model.ups)
    want = ([torch.float32] * (blocks - 1) + [torch.float16]) * stages
    assert sums == [*want[:-1], torch.float32]  # what the last convolution makes samples of


@pytest.mark.parametrize("name", CONFIGS)
def test_the_widest_stage_decides_how_much_memory_a_frame_takes(name) -> None:
    model = gpu_models.model(name, channels=64)
    counted = CountingOps()
    rows = {dtype: cuda.rows(model, dtype=dtype, device=CPU, ops=counted) for dtype in (torch.float32, torch.float16)}
    each = {dtype: generator.bytes_per_frame() for dtype, generator in rows.items()}
    vocode(rows[torch.float32], gpu_models.mel(model, 1, 4))
    assert each[torch.float32] == 4 * 4 * 6 * counted.largest
    assert each[torch.float16] < each[torch.float32]


class CountingOps(TorchOps):
    """Notes the largest activation, in numbers per mel frame, for mels of 4 frames."""

    largest = 0

    def activate(self, x, snake, extent, **arguments):
        self.largest = max(self.largest, x.shape[0] * 4 * extent.rows_per_frame * x.shape[2] // 4)
        return super().activate(x, snake, extent, **arguments)


# The engine, and what its self-test catches


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_the_engine_reports_the_error_it_measured(precision) -> None:
    model = gpu_models.tiny()
    engine = cuda.engine(model, CPU, precision, ops=TorchOps())
    assert engine.precision == precision
    mel = gpu_models.mel(model, 2, 17)
    want = gpu_models.wave(model, mel)
    assert error(vocode(engine, mel), want) <= LIMITS[gpu_engine.DTYPES[precision]]
    assert any(f"{engine.error:.1e}" in note for note in engine.notes)


@pytest.mark.parametrize("patience", [0.0, 600.0])
def test_who_waits_for_the_compiler_is_told(patience, monkeypatch) -> None:
    told = threading.Event()
    monkeypatch.setattr(gpu_engine, "PATIENCE", patience)
    monkeypatch.setattr(gpu_engine.log, "warning", lambda words, *_: told.set() if "compiled" in words else None)
    checked = self_test.check

    def check(*arguments):
        assert told.wait(60 if patience == 0 else 0) == (patience == 0)
        return checked(*arguments)

    monkeypatch.setattr(self_test, "check", check)
    cuda.engine(gpu_models.tiny(), CPU, "fp32", ops=TorchOps())
    assert told.is_set() == (patience == 0)
    assert all(thread.finished.is_set() for thread in threading.enumerate() if isinstance(thread, threading.Timer))


class Faulty(TorchOps):
    """One thing wrong with the kernels."""

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def activate(self, x, snake, extent, *, bias=None, residual=None, keep=False, dtype):
        length = int(extent.frames) * extent.rows_per_frame
        if self.fault == "raises" or (self.fault == "raises in fp16" and dtype == torch.float16):
            raise RuntimeError("no kernel image is\navailable for execution on the device")
        if self.fault == "drops the bias":
            bias = None
        if self.fault == "takes one snake for all channels":
            first = slice(None, 1)
            snake = SnakeParameters(
                snake.frequency[first].expand(x.shape[2]), snake.amplitude[first].expand(x.shape[2]), snake.taps
            )
        a, kept = super().activate(x, snake, extent, bias=bias, residual=residual, keep=keep, dtype=dtype)
        if self.fault == "misses the last row":
            a[:, length - 1] = 0
        if self.fault == "goes on behind the last row":
            a[:, length:] = a[:, length - 1 : length]
        if self.fault == "gives NaN for single rows" and length == 1:
            a = a * float("nan")
        if self.fault == "keeps the wrong sum" and kept is not None:
            kept = kept - residual
        return a, kept

    def accumulate(self, x, residual, bias, extent, *, total, scale, dtype):
        if self.fault == "forgets the total":
            total = None
        if self.fault == "sums behind the last row":
            extent = Extent(torch.tensor([x.shape[1]], dtype=torch.int32))
        return super().accumulate(x, residual, bias, extent, total=total, scale=scale, dtype=dtype)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "fault",
    [
        "drops the bias",
        "takes one snake for all channels",
        "misses the last row",
        "goes on behind the last row",
        "sums behind the last row",
        "gives NaN for single rows",
        "keeps the wrong sum",
        "forgets the total",
    ],
)
def test_a_kernel_that_is_wrong_is_found_out(fault, precision) -> None:
    with pytest.raises(EngineUnavailable, match="self-test"):
        cuda.engine(gpu_models.tiny(), CPU, precision, ops=Faulty(fault))


def test_a_kernel_that_fails_is_a_reason_in_one_line() -> None:
    with pytest.raises(EngineUnavailable, match="no kernel image is available") as caught:
        cuda.engine(gpu_models.tiny(), CPU, "fp32", ops=Faulty("raises"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Failed to find C compiler. Please specify via CC environment variable."),
        subprocess.CalledProcessError(1, ["/usr/bin/gcc", "/tmp/tmp1/cuda_utils.c", "-O3"]),
    ],
)
def test_where_triton_cannot_build_its_launcher_the_reason_says_what_to_install(error: Exception, monkeypatch) -> None:
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(TorchOps, "activate", fail)
    with pytest.raises(EngineUnavailable, match=r"install gcc and Python's headers \(python3-dev\)"):
        cuda.engine(gpu_models.tiny(), CPU, "fp32", ops=TorchOps())


def test_a_wrong_convolution_is_found_out(monkeypatch) -> None:
    """Kernels right, waveform wrong: the comparison of the whole sees it."""
    convolve = torch.nn.functional.conv2d

    def shifted(x: Tensor, *arguments, **named) -> Tensor:
        return convolve(x, *arguments, **named).roll(1, dims=-1)

    monkeypatch.setattr(torch.nn.functional, "conv2d", shifted)
    with pytest.raises(EngineUnavailable, match="waveform"):
        cuda.engine(gpu_models.tiny(), CPU, "fp32", ops=TorchOps())


def test_auto_takes_the_first_precision_that_works_and_says_what_it_passed_over() -> None:
    assert cuda.engine(gpu_models.tiny(), CPU, "auto", ops=TorchOps()).precision == "fp16"
    engine = cuda.engine(gpu_models.tiny(), CPU, "auto", ops=Faulty("raises in fp16"))
    assert engine.precision == "bf16"
    assert any("fp16" in note and "no kernel image" in note for note in engine.notes)
    with pytest.raises(EngineUnavailable, match="fp16.*bf16.*fp32"):
        cuda.engine(gpu_models.tiny(), CPU, "auto", ops=Faulty("raises"))


def test_what_overflows_fp16_is_computed_again_in_fp32() -> None:
    model = gpu_models.tiny()
    model.conv_pre.bias += 3e4  # rows within fp16's range that the next convolution takes beyond it
    model.ups[0][0].weight *= 100
    model.conv_post.weight /= 1e6
    engine = cuda.engine(gpu_models.tiny(), CPU, "fp16", ops=TorchOps())
    engine._model = model
    engine._generator = cuda.rows(model, dtype=torch.float16, device=CPU, ops=TorchOps())
    mel = gpu_models.mel(model, 1, 5)
    assert not bool(vocode(engine._generator, mel).isfinite().all())
    with torch.inference_mode():
        assert torch.equal(engine(mel), model(mel)[:, 0])
    assert any("range of fp16" in note for note in engine.notes)


def test_the_callers_autocast_is_left_outside() -> None:
    model = gpu_models.tiny()
    engine, mel = cuda.engine(model, CPU, "fp32", ops=TorchOps()), gpu_models.mel(model, 1, 9)
    want = vocode(engine, mel)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(vocode(engine, mel), want)


def test_the_model_stays_where_and_as_it_was() -> None:
    model = gpu_models.tiny()
    before = {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in model.state_dict().items()}
    vocode(cuda.engine(model, CPU, "fp16", ops=TorchOps()), gpu_models.mel(model, 1, 3))
    for name, tensor in model.state_dict().items():
        assert tensor.data_ptr() == before[name][0]
        assert torch.equal(tensor, before[name][1])


# Where it cannot run


def test_a_device_that_is_no_cuda_device_is_refused() -> None:
    with pytest.raises(EngineUnavailable, match="not on cpu"):
        cuda.engine(gpu_models.tiny(), CPU, "fp32")


@pytest.fixture
def pretended_card(monkeypatch):
    """What torch would say of a card; nothing is computed on it."""

    def pretend(capability: tuple[int, int], version: str | None = "12.8") -> torch.device:
        monkeypatch.setattr(torch.version, "cuda", version)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla P100")
        return torch.device("cuda:0")

    return pretend


@pytest.mark.parametrize(
    ("capability", "version", "precision", "words"),
    [
        ((6, 0), "12.8", "fp16", "Tesla P100 has compute capability 6.0.*needs 7.0"),
        ((7, 5), "12.8", "bf16", "compute capability 7.5.*bf16 needs 8.0"),
        ((9, 0), None, "fp32", "ROCm"),
    ],
)
def test_old_cards_and_rocm_get_a_reason(pretended_card, capability, version, precision, words) -> None:
    with pytest.raises(EngineUnavailable, match=words):
        cuda.engine(gpu_models.tiny(), pretended_card(capability, version), precision)


def test_without_triton_the_reason_says_where_it_comes_from(pretended_card, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "distill_bigvgan.engines.triton_snake", raising=False)
    with pytest.raises(EngineUnavailable, match=r"Triton cannot be imported.*pip install triton"):
        cuda.engine(gpu_models.tiny(), pretended_card((9, 0)), "fp32")


@pytest.mark.parametrize(("free", "frames"), [(80e9, 2048), (1e9, 1000), (100e6, 100), (1e6, 64), (0, 64)])
def test_the_chunk_follows_the_free_memory(free, frames) -> None:
    assert gpu_engine.suited_chunk(int(free), 500_000) == frames


# Graphs, with a recorder that stands in for CUDA's


class Recorder:
    """Counts recordings; a replay computes with `function` unless it is told to go wrong."""

    def __init__(self, wrong: str = "") -> None:
        self.wrong = wrong
        self.recorded: list[tuple[int, ...]] = []
        self.replayed: list[tuple[int, ...]] = []

    def __call__(self, function, example, frames):
        if self.wrong == "fails":
            raise RuntimeError("operation not permitted when stream is capturing")
        self.recorded.append(tuple(example.shape))

        def replay(mel: Tensor, frames: Tensor) -> Tensor:
            assert mel.shape == example.shape
            self.replayed.append(tuple(mel.shape))
            return function(mel, frames) * (1.1 if self.wrong == "differs" else 1.0)

        return replay


def double(mel: Tensor, frames: Tensor | None = None) -> Tensor:
    """What lies behind the frames must be zeros."""
    assert frames is None or not bool(mel[:, :, int(frames) :].any())
    return mel.sum(1) * 2


def shaped(frames: int, batch: int = 1) -> Tensor:
    return torch.full((batch, 3, frames), float(frames))


def test_a_shape_is_recorded_when_it_comes_again_and_replayed_from_then_on() -> None:
    recorder = Recorder()
    cache = ReplayCache(double, recorder=recorder)
    for call, mel in enumerate([shaped(5), shaped(5), shaped(5), shaped(6), shaped(5)]):
        assert torch.equal(cache(mel), double(mel)), call
    assert recorder.recorded == [(1, 3, 5)]
    assert len(recorder.replayed) == 3  # the second time to compare, then instead


def test_graphs_are_bounded_and_the_one_used_longest_ago_goes() -> None:
    recorder = Recorder()
    cache = ReplayCache(double, recorder=recorder, most_graphs=2)
    for frames in (1, 1, 2, 2, 1, 3, 3):
        cache(shaped(frames))
    assert recorder.recorded == [(1, 3, 1), (1, 3, 2)]
    for _ in range(14):
        cache(shaped(3))
    assert recorder.recorded == [(1, 3, 1), (1, 3, 2), (1, 3, 3)]
    assert len(cache) == 2
    recorder.replayed.clear()
    for frames in (1, 3, 2):
        cache(shaped(frames))
    assert recorder.replayed == [(1, 3, 1), (1, 3, 3)]
    for frames in range(1000):
        cache(shaped(frames + 1))
    assert len(cache) <= 2
    assert len(cache._met) <= 64


@pytest.mark.parametrize("lengths", [[*range(9)] * 40, [7 * n % 101 for n in range(400)]])
def test_lengths_that_come_and_go_are_not_recorded_over_and_over(lengths: list[int]) -> None:
    recorder = Recorder()
    cache = ReplayCache(double, recorder=recorder)
    for frames in lengths:
        assert torch.equal(cache(shaped(frames + 1)), double(shaped(frames + 1)))
    assert len(recorder.recorded) <= graphs.MOST_GRAPHS + len(lengths) / 16


def test_mels_of_like_lengths_share_a_recording() -> None:
    recorder = Recorder()
    cache = ReplayCache(double, multiple=15, recorder=recorder)
    for frames in (241, 250, 270, 255, 30, 17, 16):
        assert torch.equal(cache(shaped(frames)), double(shaped(frames)))
    assert recorder.recorded == [(1, 3, 270), (1, 3, 30)]
    assert recorder.replayed == [(1, 3, 270)] * 3 + [(1, 3, 30)] * 2


def test_a_mel_becomes_longer_by_an_eighth_at_most_and_only_a_little_longer_if_it_is_short() -> None:
    for multiple in (1, 15):
        for frames in range(1, 1200):
            there = graphs.places(frames, multiple)
            assert there % multiple == 0
            assert frames <= there < max(frames + multiple, frames * 1.125 + multiple)
    assert len({graphs.places(frames, 15) for frames in range(1, graphs.MOST_FRAMES + 1)}) <= 25


def test_what_overflows_says_nothing_of_graphs() -> None:
    recorder = Recorder()
    cache = ReplayCache(double, recorder=recorder)
    loud = torch.full((1, 3, 5), torch.inf)
    for _ in range(3):
        assert not bool(cache(loud).isfinite().any())
    assert recorder.recorded == [] and cache.trouble is None
    cache(shaped(5))
    assert recorder.recorded == [(1, 3, 5)] and len(cache) == 1


class Card:
    """What torch does with streams and graphs, as far as it needs a card; torch.cuda.graph is torch's own."""

    def __init__(self, monkeypatch) -> None:
        self.current: object = Card.Stream()
        self.pools = itertools.count()
        self.used: list[object] = []  # the pools of graphs, and the streams that read an input
        card = self

        class Graph:
            def capture_begin(self, pool: int, **_: object) -> None:
                card.used.append(pool)

            def capture_end(self) -> None:
                if sys.exc_info()[0] is not None:
                    raise RuntimeError("operation failed due to a previous error during capture")

            def replay(self) -> None:
                pass

        made = {
            "current_stream": lambda: card.current,
            "stream": lambda stream: Card.Within(card, stream),
            "Stream": Card.Stream,
            "Event": lambda: SimpleNamespace(record=lambda stream: None),
            "device": lambda device: contextlib.nullcontext(),
            "graph_pool_handle": lambda: next(card.pools),
            "CUDAGraph": Graph,
            "synchronize": lambda: None,
            "empty_cache": lambda: None,
        }
        for name, value in made.items():
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(torch._C, "_host_emptyCache", lambda: None, raising=False)
        monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: card.used.append(stream))

    class Stream:
        def wait_stream(self, stream: object) -> None: ...

        def wait_event(self, event: object) -> None: ...

    class Within:
        def __init__(self, card: Card, stream: object) -> None:
            self.card, self.stream = card, stream

        def __enter__(self) -> None:
            self.before, self.card.current = self.card.current, self.stream

        def __exit__(self, *_: object) -> None:
            self.card.current = self.before


def test_a_capture_that_fails_leaves_the_caller_on_his_stream(monkeypatch) -> None:
    """torch leaves him on the capture's: what he does next would not wait for the waveform he was given."""
    card = Card(monkeypatch)
    mine, runs = card.current, itertools.count(1)

    def fails(mel: Tensor, frames: Tensor) -> Tensor:
        if card.current is not mine and next(runs) == 2:  # after the warm-up
            raise RuntimeError("operation not permitted when stream is capturing")
        return double(mel)

    cache = ReplayCache(fails)
    for _ in range(3):
        assert torch.equal(cache(shaped(5)), double(shaped(5)))
        assert card.current is mine
    assert cache.trouble is not None


def test_one_graph_is_captured_at_a_time_whichever_vocoder_it_is_for(monkeypatch) -> None:
    card = Card(monkeypatch)
    mine, free = card.current, []

    def asks(mel: Tensor, frames: Tensor) -> Tensor:
        if card.current is not mine:
            with ThreadPoolExecutor(1) as other:
                free.append(other.submit(graphs._capturing.acquire, blocking=False).result())
        return double(mel)

    cache = ReplayCache(asks)
    for _ in range(2):
        cache(shaped(5))
    assert cache.trouble is None
    assert free == [False, False]  # to warm up, and to capture
    with ThreadPoolExecutor(1) as other:
        assert other.submit(graphs._capturing.acquire, blocking=False).result()
        other.submit(graphs._capturing.release).result()


def test_a_pool_is_not_taken_again_when_its_last_graph_is_gone(monkeypatch) -> None:
    """torch's allocator then fails with an internal assertion."""
    card = Card(monkeypatch)
    cache = ReplayCache(double)
    for frames in (5, 5, 6, 6):
        cache(shaped(frames))
    cache.clear()
    for _ in range(2):
        cache(shaped(7))
    assert cache.trouble is None
    assert [each for each in card.used if isinstance(each, int)] == [0, 0, 1]


def test_recording_and_replaying_wait_for_what_they_read_and_for_one_another(monkeypatch) -> None:
    card, order = Card(monkeypatch), []
    mine = card.current

    def name(stream: object) -> str:
        return "mine" if stream is mine else "other"

    def run(mel: Tensor, frames: Tensor) -> Tensor:
        order.append(f"run on {name(card.current)}")
        return double(mel)

    monkeypatch.setattr(
        Card.Stream, "wait_stream", lambda one, first: order.append(f"{name(one)} waits for {name(first)}")
    )
    monkeypatch.setattr(Card.Stream, "wait_event", lambda one, event: order.append(f"{name(one)} waits for the last"))
    done = SimpleNamespace(record=lambda stream: order.append(f"done on {name(stream)}"))
    monkeypatch.setattr(torch.cuda, "Event", lambda: done)
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda graph: order.append("replay"))
    cache = ReplayCache(run)
    for _ in range(3):
        cache(shaped(5))
    replay = ["mine waits for the last", "replay", "done on mine"]
    record = ["other waits for mine", "run on other", "mine waits for other", "run on other"]
    assert order == ["run on mine", "run on mine", *record, *replay, *replay]


def test_a_graphs_input_is_known_to_be_read_by_the_stream_that_replays_it(monkeypatch) -> None:
    card = Card(monkeypatch)
    cache = ReplayCache(double)
    for _ in range(2):
        cache(shaped(5))
    other = card.current = Card.Stream()
    cache(shaped(5))
    assert card.used[-1] is other


def test_long_runs_are_not_recorded() -> None:
    recorder = Recorder()
    cache = ReplayCache(double, recorder=recorder, most_frames=20)
    for _ in range(3):
        cache(shaped(11, batch=2))
        cache(shaped(10, batch=2))
    assert recorder.recorded == [(2, 3, 10)]


@pytest.mark.parametrize(("wrong", "words"), [("fails", "not permitted"), ("differs", "differed.*1.0e-01")])
def test_a_recording_that_fails_or_differs_is_never_used(wrong, words, caplog) -> None:
    recorder = Recorder(wrong)
    cache = ReplayCache(double, recorder=recorder)
    for _ in range(4):
        assert torch.equal(cache(shaped(5)), double(shaped(5)))
    assert len(recorder.recorded) <= 1
    assert len(cache) == 0
    assert cache.trouble is not None
    assert re.search(words, cache.trouble)
    assert "without CUDA graphs" in caplog.text


# With Triton's kernels, and on a GPU


def test_the_engine_in_tritons_interpreter() -> None:
    gpu_models.run_interpreted("generator_cases.py")


@pytest.fixture(scope="module")
def large() -> BigVGAN:
    return gpu_models.model("bigvgan_v2_44khz_128band_512x", channels=512)


@needs_gpu
@pytest.mark.parametrize(("precision", "limit"), [("fp32", 1e-3), ("fp16", 1e-2), ("bf16", 1e-2)])
def test_the_engine_on_this_gpu(large, precision, limit) -> None:
    gpu_models.check_on_this_gpu(cuda.engine(large, torch.device("cuda:0"), precision), large, limit)


@needs_gpu
def test_a_hundred_calls_do_not_grow(large) -> None:
    engine = cuda.engine(large, torch.device("cuda:0"), "fp16")
    sizes = [(1, 50), (2, 64), (1, 333), (4, 100), (1, 1000), *((1, 20 + n) for n in range(15))]
    peaks = []
    for number in range(200):
        batch, frames = sizes[number % len(sizes)]
        vocode(engine, gpu_models.mel(large, batch, frames).cuda())
        peaks.append(torch.cuda.memory_reserved())
    assert max(peaks[100:]) <= max(peaks[:100])


@needs_gpu
def test_graphs_come_and_go_on_this_gpu(large) -> None:
    """Their pool is shared, runs empty, and is begun anew."""
    generator = cuda.engine(large, torch.device("cuda:0"), "fp32")._generator
    cache = ReplayCache(generator.padded, multiple=generator.multiple, most_graphs=2)
    for frames in (20, 21, 31, 32, *[50] * 17, 20, 31, 51):
        mel = gpu_models.mel(large, 1, frames).cuda()
        assert error(vocode(cache, mel).cpu(), vocode(generator, mel).cpu()) <= 1e-4
    assert len(cache) == 2
    cache.clear()
    for _ in range(3):
        mel = gpu_models.mel(large, 1, 23).cuda()  # and an eager run has another number of rows
        assert error(vocode(cache, mel).cpu(), vocode(generator, mel).cpu()) <= 1e-4
    assert len(cache) == 1 and cache.trouble is None


@needs_gpu
def test_a_capture_that_fails_on_this_gpu_leaves_the_thread_as_it_was() -> None:
    def waits(mel: Tensor, frames: Tensor | None = None) -> Tensor:
        return mel.sum(1) * float(mel.mean())  # for the device, which a capture may not

    cache, mel, mine = ReplayCache(waits), shaped(5).cuda(), torch.cuda.current_stream()
    for _ in range(3):
        assert torch.equal(cache(mel), waits(mel))
        assert torch.cuda.current_stream() == mine
    assert cache.trouble is not None
    empty_caches()
    assert float(torch.ones(1 << 20, device="cuda").sum()) == 1 << 20


@needs_gpu
def test_two_streams_and_two_threads_share_an_engine(large) -> None:
    engine, turn = cuda.engine(large, torch.device("cuda:0"), "fp32"), threading.Lock()
    mels = [gpu_models.mel(large, 1, 40, seed).cuda() for seed in range(2)]
    want = [vocode(engine, mel) for mel in mels]
    torch.cuda.synchronize()
    wrong: list[float] = []

    def work(number: int) -> None:
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(20):
                with turn:  # as VocoderBase does
                    wave = vocode(engine, mels[number])
                wrong.append(error(wave.cpu(), want[number].cpu()))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 40
    assert max(wrong) <= 1e-4
