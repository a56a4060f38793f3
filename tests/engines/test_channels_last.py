"""The channels-last engine against the eager one: every configuration, awkward lengths, fallbacks, processes.

Threads: one, but where threads are the subject. On a busy machine two threads spend most of their time
waiting for each other at the end of tiny operations.
"""

from __future__ import annotations

import builtins
import itertools
import multiprocessing
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from distill_bigvgan._vendor.bigvgan import CONFIGS, BigVGAN
from distill_bigvgan.bigvgan_vocoder import BigVGANVocoder
from distill_bigvgan.engines import channels_last as wiring
from distill_bigvgan.variants import VARIANTS
from distill_core import errors
from distill_core.adapted import AdaptedVocoder
from distill_core.engines import channels_last, residual_stack, selection, streaming, winograd
from distill_core.engines.channels_last import why_no_onednn
from distill_core.engines.workspace import Workspace
from distill_hifigan._vendor.hifigan import CONFIGS as HIFIGAN_CONFIGS
from distill_hifigan._vendor.hifigan import HiFiGAN
from distill_hifigan.hifigan_vocoder import HiFiGANVocoder
from distill_hifigan.plugin import CARD as HIFIGAN_CARD
from tests.checkpoints import bigvgan_config
from tests.conformance.generator_checks import random_mel, randomise
from tests.engines import gpu_models, plain_convolutions

FP32, BF16 = 1e-5, 1e-2

pytestmark = pytest.mark.skipif(why_no_onednn() is not None, reason="oneDNN is not available in this torch")
needs_bf16 = pytest.mark.skipif(
    selection.why_not_channels_last("bf16") is not None, reason="this processor has no instructions for bf16"
)


@pytest.fixture
def anywhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """bf16 on processors without instructions for it too, its convolutions in plain torch."""
    asked = request.node.callspec.params.get("precision", "bf16")
    if asked == "bf16" and selection.why_not_channels_last("bf16") is not None:
        plain_convolutions.instead_of_onednn(monkeypatch)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def vocoder(config: dict[str, Any], seed: int = 0, **options: Any) -> BigVGANVocoder:
    variant = VARIANTS[0].with_config(config, own=True)
    module = BigVGAN(config)
    randomise(module, seed)
    return BigVGANVocoder(BigVGAN.from_state_dict(config, module.state_dict()), variant, **options)


@pytest.fixture(autouse=True)
def fresh_memory_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an engine reads has to have been written, though memory mostly happens to be finite."""
    real = Workspace.take

    def take(self: Workspace, name: str, *shape: Any) -> torch.Tensor:
        before = self._buffers.get(name)
        taken = real(self, name, *shape)
        if self._buffers[name] is not before:
            self._buffers[name].fill_(255)  # NaN, in either precision
        return taken

    monkeypatch.setattr(Workspace, "take", take)


def sound(vocoder: Any, mel: torch.Tensor, **options: Any) -> torch.Tensor:
    wave: torch.Tensor = vocoder.mel_to_waveform(mel, check_format=False, **options)
    return wave


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert ours.shape == theirs.shape
    assert theirs.norm() > 1e-3, "the reference is silent"
    return float((ours - theirs).norm() / theirs.norm())


def both(config: dict[str, Any], mel: torch.Tensor, **options: Any) -> tuple[float, BigVGANVocoder]:
    """Error of the engine against the eager module, and the vocoder that ran it."""
    eager = sound(vocoder(config, engine="eager"), mel)
    fast = vocoder(config, **options)
    error = relative(sound(fast, mel), eager)
    assert fast.report().engine == "channels-last"
    return error, fast


CHANGES: dict[str, dict[str, Any]] = {
    **{name: {"upsample_initial_channel": 96} for name in CONFIGS},
    "wide layers": {"upsample_initial_channel": 256},
    "resblock 2": {"resblock": "2", "resblock_dilation_sizes": [[1, 3], [1, 3, 5], [2]]},
    "snake": {"activation": "snake"},
    "snake, no logarithm": {"activation": "snake", "snake_logscale": False},
    "no logarithm": {"snake_logscale": False},
    "odd channels": {"upsample_initial_channel": 109},
    "wide and odd": {"upsample_initial_channel": 286},
    "one channel": {"upsample_initial_channel": 16},
    "odd rates": {"upsample_rates": [3, 5], "upsample_kernel_sizes": [7, 5], "hop_size": 15},
    "two blocks": {"resblock_kernel_sizes": [3, 5], "resblock_dilation_sizes": [[1, 2], [1, 7]]},
}


def changed(name: str) -> dict[str, Any]:
    base = CONFIGS.get(name) or bigvgan_config(48)
    return {**base, **CHANGES[name]}


@pytest.mark.parametrize("name", CHANGES)
def test_every_configuration_equals_the_eager_engine(name: str) -> None:
    config = changed(name)
    error, _ = both(config, random_mel(config["num_mels"], 19, batch=2))
    assert error <= FP32


@pytest.mark.usefixtures("anywhere")
@pytest.mark.parametrize("name", CHANGES)
def test_bf16_error(name: str) -> None:
    config = changed(name)
    error, fast = both(config, random_mel(config["num_mels"], 19), precision="bf16")
    assert 1e-5 < error <= BF16
    assert fast.report().precision == "bf16"


@pytest.fixture(scope="module")
def small() -> dict[str, Any]:
    return bigvgan_config(32)


@pytest.mark.parametrize("frames", [1, 2, 3, "halo", "2 * halo - 1", "2 * halo + 1", 29, 53])
def test_lengths_and_chunk_sizes(small: dict[str, Any], frames: int | str) -> None:
    fast, eager = vocoder(small), vocoder(small, engine="eager")
    length = eval(str(frames), {"halo": fast.halo})
    mel = random_mel(80, length)
    expected = sound(eager, mel)
    for chunk in (1, 5, 16, length):
        if length // chunk > 12:
            continue  # one frame at a time is tried on the shorter ones
        fast.chunk_frames = chunk
        assert relative(sound(fast, mel), expected) <= FP32, chunk


@pytest.mark.usefixtures("anywhere")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", CHANGES)
def test_a_chunk_with_context_on_both_sides_is_as_in_the_whole(name: str, precision: str) -> None:
    config = changed(name)
    fast = vocoder(config, precision=precision)
    mel = random_mel(config["num_mels"], 2 * fast.halo + 2)
    middle = slice(fast.halo * fast.hop_length, (fast.halo + 2) * fast.hop_length)
    fast.report()
    stack: Any = fast._fast and fast._fast.run
    with torch.inference_mode():
        whole = sound(fast, mel)[..., middle]
        for buffer in stack.space._buffers.values():
            buffer.fill_(255)  # what was left out must not be read
        chunk = fast._compute(mel, context=(fast.halo, fast.halo))[:, None, middle]
    assert relative(chunk, whole) <= (FP32 if precision == "fp32" else BF16)


@pytest.mark.parametrize("name", CHANGES)
def test_the_engine_wants_the_context_that_the_model_has(name: str) -> None:
    fast = vocoder(changed(name), engine="channels-last")
    fast.report()
    stack: Any = fast._fast and fast._fast.run
    assert stack.context == fast.halo


def test_what_nobody_depends_on_is_left_out(small: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    fast = vocoder(small)
    work = 0
    plain = wiring.FusedSnake._run

    def counted(self: Any, kernel: str, x: torch.Tensor, *rest: Any) -> None:
        nonlocal work
        work += x.numel()
        plain(self, kernel, x, *rest)

    mel = random_mel(80, 2 * fast.halo + 4)
    sound(fast, mel)
    monkeypatch.setattr(wiring.FusedSnake, "_run", counted)
    spent = []
    for context in ((0, 0), (fast.halo, fast.halo)):
        work = 0
        fast._compute(mel, context=context)
        spent.append(work)
    assert spent[1] < 0.35 * spent[0]


def test_chunks_of_one_frame(small: dict[str, Any]) -> None:
    fast = vocoder(small, chunk_frames=1)
    mel = random_mel(80, 2 * fast.halo + 1)
    assert relative(sound(fast, mel), sound(vocoder(small, engine="eager"), mel)) <= FP32


def streamed(fast: Any, pieces: Any) -> torch.Tensor:
    return torch.cat(list(fast.stream(pieces, check_format=False)), dim=-1)


def flowing(fast: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The vocoder, which from now on computes no frame twice."""
    fast.report()
    monkeypatch.setattr(fast, "_compute", lambda *_: pytest.fail("computed with a halo"))
    return fast


@pytest.mark.parametrize("frames", [1, 2, 3, "halo", "halo + 1", "2 * halo - 1", "2 * halo + 1", 61])
def test_stream_of_ragged_pieces(small: dict[str, Any], frames: int | str, monkeypatch: pytest.MonkeyPatch) -> None:
    fast = vocoder(small, chunk_frames=16)
    mel = random_mel(80, eval(str(frames), {"halo": fast.halo}), batch=2)
    expected = sound(vocoder(small, engine="eager"), mel)
    flowing(fast, monkeypatch)
    for sizes in ([1], [1, 7, 2, 30], [100]):
        ends = itertools.takewhile(lambda end: end < mel.shape[-1], itertools.accumulate(itertools.cycle(sizes)))
        pieces = torch.tensor_split(mel, list(ends), dim=-1)
        assert relative(streamed(fast, pieces), expected) <= FP32, sizes


@pytest.mark.usefixtures("anywhere")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", CHANGES)
def test_a_stream_of_every_configuration(name: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = changed(name)
    fast = vocoder(config, precision=precision)
    mel = random_mel(config["num_mels"], 2 * fast.halo + 7)
    expected = sound(fast, mel)
    bound = FP32 if precision == "fp32" else BF16
    assert relative(streamed(flowing(fast, monkeypatch), mel.split(5, dim=-1)), expected) <= bound


@pytest.mark.usefixtures("anywhere")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_stream_without_numba(small: dict[str, Any], precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiring.compiled, "why_not", lambda prepare: "there is none.")
    fast = vocoder(changed("wide layers"), precision=precision)
    mel = random_mel(80, 2 * fast.halo + 7)
    expected = sound(fast, mel)
    assert "plain torch" in str(fast.report())
    bound = FP32 if precision == "fp32" else BF16
    assert relative(streamed(flowing(fast, monkeypatch), mel.split(5, dim=-1)), expected) <= bound


def test_all_in_one_piece_is_the_whole_bit_for_bit(small: dict[str, Any]) -> None:
    fast = vocoder(small)
    fast.report()
    engine: Any = fast._fast
    mel = random_mel(80, 61, batch=2)
    with torch.inference_mode():
        assert torch.equal(engine.flow()(mel, last=True), engine.run(mel))


def test_streams_and_calls_take_turns(small: dict[str, Any]) -> None:
    fast = vocoder(small)
    mels = [random_mel(80, frames, seed=frames) for frames in (45, 57)]
    expected = [sound(fast, mel) for mel in mels]
    first, second = (fast.stream(mel.split(4, dim=-1), check_format=False) for mel in mels)
    made: list[list[torch.Tensor]] = [[], []]
    for pieces in itertools.zip_longest(first, second):
        for each, piece in zip(made, pieces, strict=True):
            each += [] if piece is None else [piece]
        assert torch.equal(sound(fast, mels[0]), expected[0])
    for each, whole in zip(made, expected, strict=True):
        assert relative(torch.cat(each, dim=-1), whole) <= FP32


def test_a_stream_goes_on_with_another_engine(small: dict[str, Any]) -> None:
    fast, other = vocoder(small), vocoder(small, seed=1)
    mel = random_mel(80, 3 * fast.halo)
    before, after = sound(fast, mel), sound(other, mel)

    def pieces() -> Iterator[torch.Tensor]:
        for number, piece in enumerate(mel.split(6, dim=-1)):
            if number == 5:
                fast.model = other.model
            yield piece

    made = streamed(fast, pieces())
    heard = (5 * 6 - fast.halo) * fast.hop_length
    assert relative(made[..., :heard], before[..., :heard]) <= FP32
    assert relative(made[..., heard:], after[..., heard:]) <= FP32


def test_what_a_subclass_makes_of_the_sound_is_in_its_streams(small: dict[str, Any]) -> None:
    class Quieter(BigVGANVocoder):
        def _vocode(self, mel: torch.Tensor) -> torch.Tensor:
            return 0.5 * super()._vocode(mel)

    plain = vocoder(small)
    quieter = Quieter(plain.model, plain.variant)
    mel = random_mel(80, 30)
    assert relative(streamed(quieter, mel.split(7, dim=-1)), 0.5 * sound(plain, mel)) <= FP32


def test_a_piece_of_a_stream_is_the_callers_to_write_to(small: dict[str, Any]) -> None:
    fast = vocoder(small)
    for piece in fast.stream([random_mel(80, 30)], check_format=False):
        assert not piece.is_inference()
        piece.mul_(0.5)


@pytest.mark.parametrize("compiled", [True, False])
def test_an_activation_of_a_part_of_a_signal(compiled: bool) -> None:
    from distill_bigvgan._vendor.bigvgan.activation import Activation1d, SnakeBeta
    from distill_bigvgan.engines.matmul_snake import MatmulSnake

    channels, length = 24, 90
    activation = Activation1d(SnakeBeta(channels, logscale=True))
    snake = (wiring.FusedSnake if compiled else MatmulSnake)(activation)
    kinds = [(torch.float32, torch.float32), (torch.bfloat16, torch.bfloat16), (torch.float32, torch.bfloat16)]
    with torch.inference_mode():
        for one, other in kinds:
            rows = random_mel(channels, length)[0].t().to(one)
            whole = snake(rows.contiguous(), torch.empty(length, channels, dtype=other))
            for start, stop in ((0, 1), (0, 40), (3, 50), (48, 90), (89, 90), (6, 84)):
                part = torch.empty(stop - start, channels, dtype=other)
                snake(rows.contiguous()[start:stop], part, start, length - stop)
                assert torch.equal(part, whole[start:stop]) if compiled else torch.allclose(part, whole[start:stop])


@pytest.mark.parametrize("piece", [1, 7])
def test_first_sample_of_a_stream_comes_within_halo_and_one_piece(small: dict[str, Any], piece: int) -> None:
    fast = vocoder(small)
    pushed = 0

    def arriving() -> Iterator[torch.Tensor]:
        nonlocal pushed
        for part in random_mel(80, 3 * fast.halo).split(piece, dim=-1):
            pushed += part.shape[-1]
            yield part

    first = next(fast.stream(arriving(), check_format=False))
    assert pushed <= fast.halo + piece
    assert first.shape[-1] == (pushed - fast.halo) * 256


def test_ragged_batch_equals_its_items_alone(small: dict[str, Any]) -> None:
    fast = vocoder(small)
    mel = random_mel(80, 23, batch=4)
    lengths = [23, 1, 11, 23]
    together = sound(fast, mel, lengths=lengths)
    for row, length in enumerate(lengths):
        alone = sound(fast, mel[row : row + 1, :, :length])
        assert relative(together[row : row + 1, :, : length * 256], alone) <= FP32


@pytest.mark.parametrize("name", ["v1", "v2", "v3"])
@pytest.mark.usefixtures("anywhere")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_hifigan_on_the_same_road(name: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {**HIFIGAN_CONFIGS[name], "upsample_initial_channel": 72}
    module = HiFiGAN(config)
    randomise(module)
    variant = HIFIGAN_CARD.variants[0].with_config(config, own=True)
    made = [
        HiFiGANVocoder(HiFiGAN.from_state_dict(config, module.state_dict()), variant, engine=engine, precision=p)
        for engine, p in (("eager", "fp32"), ("auto", precision))
    ]
    mel = random_mel(80, 31, batch=2)
    bound = FP32 if precision == "fp32" else BF16
    expected = sound(made[0], mel)
    assert relative(sound(made[1], mel), expected) <= bound
    assert made[1].report().engine == "channels-last"
    assert relative(streamed(flowing(made[1], monkeypatch), mel.split(3, dim=-1)), expected) <= bound


def test_items_stay_apart_behind_an_upsampling_that_looks_at_nothing() -> None:
    config = {
        **HIFIGAN_CONFIGS["v1"],
        "upsample_initial_channel": 64,
        "upsample_rates": [2, 1],
        "upsample_kernel_sizes": [4, 1],
        "hop_size": 2,
    }
    module = HiFiGAN(config)
    randomise(module)
    variant = HIFIGAN_CARD.variants[0].with_config(config, own=True)
    fast = HiFiGANVocoder(HiFiGAN.from_state_dict(config, module.state_dict()), variant, engine="channels-last")
    mel = random_mel(80, 5, batch=3)
    assert relative(sound(fast, mel), torch.cat([sound(fast, item[None]) for item in mel])) <= FP32


@pytest.mark.parametrize("name", ["v1", "v3"])
@pytest.mark.usefixtures("anywhere")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_batch_joined_to_one_signal_equals_its_items_alone(name: str, precision: str) -> None:
    config = {**HIFIGAN_CONFIGS[name], "upsample_initial_channel": 72}
    module = HiFiGAN(config)
    randomise(module)
    variant = HIFIGAN_CARD.variants[0].with_config(config, own=True)
    folded = HiFiGAN.from_state_dict(config, module.state_dict())
    fast = HiFiGANVocoder(folded, variant, engine="channels-last", precision=precision)
    bound = FP32 if precision == "fp32" else BF16
    sound(fast, random_mel(80, 40, batch=6))
    stack: Any = fast._fast and fast._fast.run
    for frames, items in ((1, 9), (2, 5), (17, 3), (31, 2)):
        with torch.inference_mode():
            for buffer in stack.space._buffers.values():
                buffer.fill_(255)  # what lies between the items must not be read
        mel = random_mel(80, frames, batch=items)
        together = sound(fast, mel)
        for row in range(items):
            assert relative(together[row : row + 1], sound(fast, mel[row : row + 1])) <= bound, (frames, row)


# What can be missing


def test_without_numba_torch_does_the_activation_and_a_warning_says_so(
    small: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = builtins.__import__

    def no_numba(name: str, *args: Any, **kwargs: Any) -> Any:
        compiled = {"snake_kernels", "winograd_compiled"}
        if name.partition(".")[0] == "numba" or compiled & {name, *(args[2] or () if len(args) > 2 else ())}:
            raise ModuleNotFoundError("No module named 'numba'", name="numba")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_numba)
    for precision in ("fp32", *([] if selection.why_not_channels_last("bf16") else ["bf16"])):
        error, fast = both(small, random_mel(80, 31), precision=precision)
        assert error <= (FP32 if precision == "fp32" else BF16)
        assert "pip install 'distill-core[cpu]'" in str(fast.report())
        assert any("could be faster" in told and "pip install" in told for told in caplog.messages)


@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 34, 63, 65, 200])
def test_the_activation_in_torch(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from distill_bigvgan._vendor.bigvgan.activation import Activation1d, SnakeBeta
    from distill_bigvgan.engines import matmul_snake

    monkeypatch.setattr(matmul_snake, "_SLAB", 64 * 5)  # several slabs in so short a signal
    activation = Activation1d(SnakeBeta(5, logscale=True))
    x = random_mel(5, length)
    with torch.inference_mode():
        rows = x[0].t().contiguous()
        ours = matmul_snake.MatmulSnake(activation)(rows, torch.empty_like(rows)).t()
        torch.testing.assert_close(ours, activation(x)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3, 15, 16, 17, 24, 40, 70, 768])
def test_the_compiled_activation_in_any_shape(channels: int) -> None:
    from distill_bigvgan._vendor.bigvgan.activation import Activation1d, SnakeBeta
    from distill_bigvgan.engines import snake_kernels

    activation = Activation1d(SnakeBeta(channels, logscale=True))
    torch.nn.init.normal_(activation.act.alpha, std=0.5)
    torch.nn.init.normal_(activation.act.beta, std=0.5)
    snake = wiring.FusedSnake(activation)
    tile = max(snake_kernels.LEAST_ROWS, snake_kernels.VALUES // channels)
    with torch.inference_mode():
        for length in (1, 2, 3, 5, 6, 7, 23, 24, 25, 47, 48, 49, tile - 1, tile, tile + 1, 20 * 24 + 3):
            x, branch = random_mel(channels, length), random_mel(channels, length).mul(0.5).bfloat16()
            rows = x[0].t().contiguous()
            out, around_out = _framed(length, channels, torch.float32)
            torch.testing.assert_close(snake(rows, out).t(), activation(x)[0], rtol=1e-5, atol=1e-5)
            half, around_half = _framed(length, channels, torch.bfloat16)
            torch.testing.assert_close(
                snake(rows.bfloat16(), half).t().float(), activation(x.bfloat16().float())[0], rtol=5e-3, atol=1e-3
            )
            total, around_total = _framed(length, channels, torch.float32)
            snake.after(rows, branch[0].t().contiguous(), total, half)
            assert torch.equal(total.t(), x[0] + branch[0])
            torch.testing.assert_close(half.t().float(), activation(total.t()[None])[0], rtol=5e-3, atol=1e-3)
            for each in (around_out, around_half, around_total):
                assert each[[0, -1]].isnan().all()  # nothing beside it was written


@pytest.mark.parametrize("half", [False, True])
def test_a_sine_that_stands_still_or_turns_backwards(half: bool) -> None:
    from distill_bigvgan._vendor.bigvgan.activation import Activation1d, SnakeBeta

    activation = Activation1d(SnakeBeta(4, logscale=False))
    activation.act.alpha.data = torch.tensor([0.0, -1.5, 1e-30, 1.5])
    activation.act.beta.data = torch.tensor([0.0, 0.5, 1e-30, -0.5])
    x = random_mel(4, 50).mul(3.0)
    x = x.bfloat16() if half else x
    with torch.inference_mode():
        rows = x[0].t().contiguous()
        ours = wiring.FusedSnake(activation)(rows, torch.empty_like(rows)).t()
        tolerance = {"rtol": 5e-3, "atol": 1e-2} if half else {"rtol": 1e-5, "atol": 1e-5}
        torch.testing.assert_close(ours.float(), activation(x.float())[0], **tolerance)


@pytest.mark.parametrize("stream", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("length", "channels", "threads"), [(1, 3, 1), (50, 24, 1), (9001, 24, 3)])
def test_blocks_added_up_in_one_pass(stream: torch.dtype, length: int, channels: int, threads: int) -> None:
    torch.set_num_threads(threads)
    blocks = [(torch.randn(length, channels).to(stream), torch.randn(length, channels).bfloat16()) for _ in range(3)]
    expected = sum(x.double() + branch.double() for x, branch in blocks) / 3
    for add in (wiring._accumulate, residual_stack.accumulate):
        total, around_total = _framed(length, channels, torch.float32)
        for number, (x, branch) in enumerate(blocks):
            add(total, x, branch, first=number == 0, shares=3 if number == 2 else 1)
        torch.testing.assert_close(total.double(), expected, rtol=1e-6, atol=1e-6)
        assert around_total[[0, -1]].isnan().all()


def _framed(length: int, channels: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows to write to, and all of them, with a row of NaN before and behind."""
    frame = torch.full((length + 2, channels), torch.nan, dtype=dtype)
    return frame[1:-1], frame


def test_filters_of_ones_own_run_in_torch() -> None:
    model = gpu_models.tiny()
    model.activation_post.upsample.filter[0, 0, 2] += 1e-3
    fast = wiring.build(model, torch.float32)
    assert "filters are not symmetric" in str(fast.notes)
    mel = gpu_models.mel(model, 1, 9)
    with torch.inference_mode():
        assert relative(fast.run(mel), model(mel)[:, 0]) <= FP32


def test_a_numba_that_fails_is_told_and_done_without(small: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from distill_bigvgan.engines import snake_kernels

    def broken(name: str) -> int:
        raise TypeError("no such target")

    monkeypatch.setattr(snake_kernels.KERNELS, "address", broken)
    error, fast = both(small, random_mel(80, 9))
    assert error <= FP32
    assert "TypeError: no such target" in str(fast.report())


@pytest.fixture(params=["numba", "no numba"])
def no_onednn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a Mac's CPU."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    if request.param == "numba":
        pytest.importorskip("numba")
    else:
        monkeypatch.setattr(winograd.compiled, "why_not", lambda prepare: "numba is not installed.")


@pytest.mark.usefixtures("no_onednn")
@pytest.mark.parametrize("name", ["bigvgan_v2_44khz_128band_512x", *(name for name in CHANGES if name not in CONFIGS)])
def test_every_structure_without_onednn(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = changed(name)
    mel = random_mel(config["num_mels"], 19, batch=2)
    expected = sound(vocoder(config, engine="eager"), mel)
    fast = vocoder(config, engine="channels-last")
    assert relative(sound(fast, mel), expected) <= FP32
    assert ("numba is not installed" in str(fast.report())) == (request.node.callspec.params["no_onednn"] == "no numba")
    assert relative(streamed(flowing(fast, monkeypatch), mel.split(3, dim=-1)), expected) <= FP32


@pytest.mark.usefixtures("no_onednn")
@pytest.mark.parametrize("name", ["v1", "v2", "v3"])
def test_hifigan_without_onednn(name: str) -> None:
    config = {**HIFIGAN_CONFIGS[name], "upsample_initial_channel": 72}
    module = HiFiGAN(config)
    randomise(module)
    state, variant = module.state_dict(), HIFIGAN_CARD.variants[0].with_config(config, own=True)
    eager, fast = (
        HiFiGANVocoder(HiFiGAN.from_state_dict(config, state), variant, engine=engine) for engine in ("eager", "auto")
    )
    mel, lengths = random_mel(80, 31, batch=3), [31, 1, 12]
    expected = sound(eager, mel, lengths=lengths)
    for chunk_frames in (1000, 7):  # the items joined to one signal, and each by itself
        fast.chunk_frames = chunk_frames
        assert relative(sound(fast, mel, lengths=lengths), expected) <= FP32
    assert fast.report().engine == "channels-last"


def test_without_onednn_bf16_runs_eagerly_and_says_why(
    small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.setattr(selection, "bf16_instructions", lambda: "AMX")
    report = vocoder(small, precision="auto").report()
    assert (report.engine, report.precision) == ("channels-last", "fp32")
    report = vocoder(small, precision="bf16").report()
    assert (report.engine, report.precision) == ("eager", "bf16")
    assert "without oneDNN" in str(report)
    with pytest.raises(errors.EngineError, match="cannot run here.*without oneDNN"):
        vocoder(small, precision="bf16", engine="channels-last")


def test_an_engine_that_is_wrong_is_passed_over(small: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    right = wiring.build

    def wrong(model: Any, dtype: torch.dtype) -> selection.Fast:
        fast = right(model, dtype)
        return selection.Fast(lambda mel, left=0, right=0: fast.run(mel, left, right) * 1.001)

    monkeypatch.setattr(wiring, "build", wrong)
    fast = vocoder(small)
    mel = random_mel(80, 3)
    assert torch.equal(sound(fast, mel), sound(vocoder(small, engine="eager"), mel))
    assert "its trial was off by" in str(fast.report())


@pytest.mark.parametrize("trouble", [None, RuntimeError("could not create a primitive\nat line 7")])
def test_an_engine_is_made_once_whether_it_runs_or_not(
    small: dict[str, Any], trouble: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, made = wiring.build, []

    def build(model: Any, dtype: torch.dtype) -> selection.Fast:
        made.append(dtype)
        if trouble is not None:
            raise trouble
        return right(model, dtype)

    monkeypatch.setattr(wiring, "build", build)
    fast = vocoder(small)
    for _ in range(2):
        sound(fast, random_mel(80, 3))
        report = fast.report()
        assert report.engine == ("eager" if trouble else "channels-last")
        assert trouble is None or "does not run: could not create a primitive." in str(report)
    assert made == [torch.float32]
    fast.model = fast.model  # another, for all it knows
    fast.report()
    assert made == [torch.float32] * 2


def test_asked_for_by_name_it_runs_or_there_is_an_error_each_time(
    small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(model: Any, dtype: torch.dtype) -> selection.Fast:
        return selection.Fast(lambda mel, left=0, right=0: mel.new_zeros(len(mel), mel.shape[2] * 256))

    monkeypatch.setattr(wiring, "build", wrong)
    fast = vocoder(small, engine="channels-last")
    for _ in range(2):
        with pytest.raises(errors.EngineError, match="cannot run here: its trial was off by"):
            sound(fast, random_mel(80, 3))
        with pytest.raises(errors.EngineError, match="cannot run here: its trial was off by"):
            fast.report()
    monkeypatch.undo()
    monkeypatch.setattr(selection, "bf16_instructions", lambda: "AMX")
    late = vocoder(small, engine="channels-last", precision="bf16")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    with pytest.raises(errors.EngineError, match="without oneDNN"):
        sound(late, random_mel(80, 3))


@needs_bf16
def test_auto_tries_fp32_where_bf16_fails(small: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    right = wiring.build

    def build(model: Any, dtype: torch.dtype) -> selection.Fast:
        if dtype == torch.bfloat16:
            raise channels_last.EngineUnavailable("planted")
        return right(model, dtype)

    monkeypatch.setattr(wiring, "build", build)
    fast = vocoder(small, precision="auto")
    twin = AdaptedVocoder.around(fast, sample_rate=44100)
    sound(fast, random_mel(80, 3))
    assert (fast.report().engine, fast.report().precision) == ("channels-last", "fp32")
    assert fast.precision == twin.precision == "fp32"
    assert vocoder(small, precision="bf16").report().engine == "eager"  # who asks for bf16 gets bf16


@needs_bf16
@pytest.mark.parametrize(("kernel", "dilation"), [(5, 8), (9, 4), (33, 1)])
def test_bf16_of_odd_channels_that_reach_as_far_as_the_room_around(kernel: int, dilation: int) -> None:
    config = {
        **bigvgan_config(109),
        "resblock": "2",
        "resblock_kernel_sizes": [kernel],
        "resblock_dilation_sizes": [[dilation]],
    }
    error, _ = both(config, random_mel(80, 19), precision="bf16")
    assert error <= 2e-2  # a sum over 33 taps rounds more than one over 11


def test_without_bf16_instructions_auto_is_fp32(small: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "bf16_instructions", lambda: None)
    assert vocoder(small, precision="auto").report().precision == "fp32"


def test_a_precision_that_would_be_emulated_is_refused_unless_the_eager_engine_is_named(
    small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of BigVGAN a second of sound took minutes in bf16, on a processor without it."""
    monkeypatch.setattr(selection, "bf16_instructions", lambda: None)
    monkeypatch.setattr(selection.platform, "machine", lambda: "x86_64")
    for engine in ("auto", "channels-last"):
        with pytest.raises(errors.PrecisionError, match="no instructions for bf16.*'fp32'.*'auto'"):
            vocoder(small, precision="bf16", engine=engine)
    emulated = vocoder(small, precision="bf16", engine="eager")
    mel = random_mel(80, 3)
    assert 1e-4 < relative(sound(emulated, mel), sound(vocoder(small), mel)) < 5e-2
    assert (emulated.report().engine, emulated.precision) == ("eager", "bf16")
    monkeypatch.setattr(selection.platform, "machine", lambda: "aarch64")
    assert vocoder(small, precision="bf16").report().engine == "eager"  # nothing is known of its instructions


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_that_comes_back_from_an_accelerator_is_fp32_on_a_cpu_without_it(
    small: dict[str, Any], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "bf16_instructions", lambda: None)
    monkeypatch.setattr(selection.platform, "machine", lambda: "x86_64")
    moved = vocoder(small)
    moved._asked = moved._precision = precision  # as if it had been made there
    moved._home = torch.device("meta")
    assert torch.equal(sound(moved.to("cpu"), random_mel(80, 3)), sound(vocoder(small), random_mel(80, 3)))
    report = moved.report()
    assert (report.engine, report.precision) == ("channels-last", "fp32")
    assert f"precision='{precision}' is fp32 here." in report.notes


def test_eager_can_be_forced_and_a_misspelt_engine_is_refused(small: dict[str, Any]) -> None:
    assert vocoder(small, engine="eager").report().engine == "eager"
    with pytest.raises(errors.EngineError, match="channels-last"):
        vocoder(small, engine="onednn")
    with pytest.raises(errors.PrecisionError):
        vocoder(small, precision="fp16")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_reaches_no_kernel(
    small: dict[str, Any], value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = vocoder(small)
    fast.report()
    monkeypatch.setattr(fast, "_vocode", lambda mel: pytest.fail("computed"))
    mel = random_mel(80, 5)
    mel[0, 3, 2] = value
    with pytest.raises(errors.InvalidMelError):
        fast.mel_to_waveform(mel)


# What must not grow


def convolutions(fast: BigVGANVocoder) -> list[Any]:
    stack: Any = fast._fast and fast._fast.run
    convs = [stack.pre, stack.post, *(stage.up for stage in stack.stages)]
    return convs + [c for s in stack.stages for b in s.blocks for step in b for c in (step.first, step.second)]


LENGTHS = (1, 2, 3, 5, 7, 11, 13, 17, 40, 90)


@pytest.fixture
def all_by_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd.Convolutions, "_fits", lambda *_: False)


@pytest.mark.usefixtures("all_by_onednn")
def test_ten_lengths_compile_and_pack_once(small: dict[str, Any]) -> None:
    from distill_bigvgan.engines import snake_kernels

    fast = vocoder(small)
    fast.report()
    compiled = snake_kernels.KERNELS.ready()
    addresses = [snake_kernels.KERNELS.address(name) for name in compiled]
    convs = convolutions(fast)
    packed = [[id(weight) for weight in conv.packed._of.values()] for conv in convs]
    for length in LENGTHS:
        sound(fast, random_mel(80, length))
    assert snake_kernels.KERNELS.ready() == compiled
    assert [snake_kernels.KERNELS.address(name) for name in compiled] == addresses
    assert [[id(weight) for weight in conv.packed._of.values()] for conv in convs] == packed
    assert all(1 <= conv.packed.layouts <= len(conv._tiles) <= 10 for conv in convs)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_another_number_of_threads_packs_anew(precision: str) -> None:
    """A weight packed for two threads was measured to take one thread ten times as long."""
    if missing := selection.why_not_channels_last(precision):
        pytest.skip(missing)
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    weight = torch.randn(256, 256, 7)
    length = channels_last.tile_lengths(256, dtype)[-1]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        conv = channels_last.Conv(weight, None, dtype=dtype)
        kept = conv.packed[length]
        assert conv.packed[length] is kept
        torch.set_num_threads(1)
        assert conv.packed[length] is not kept
        fresh = channels_last.Conv(weight, None, dtype=dtype)
        assert channels_last._same_bytes(conv.packed[length], fresh.packed[length])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_who_does_not_get_to_pack_anew_still_has_a_weight(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = torch.randn(64, 64, 7)
    conv = channels_last.Conv(weight, None, dtype=torch.float32)
    length = conv._tiles[-1]

    def pack(*_: Any) -> Any:
        raise error

    torch.set_num_threads(2)
    with monkeypatch.context() as patch:
        patch.setattr(channels_last, "_pack", pack)
        with pytest.raises(error):
            conv.packed[length]
    fresh = channels_last.Conv(weight, None, dtype=torch.float32)
    assert channels_last._same_bytes(conv.packed[length], fresh.packed[length])


@pytest.mark.usefixtures("all_by_onednn")
def test_a_new_length_brings_no_new_shape_to_onednn(small: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    """oneDNN prints what it creates: once every tile has had every layer, nothing that it has not made before."""
    fast = vocoder(small)
    fast.report()
    stack: Any = fast._fast and fast._fast.run
    ups = [stage.up for stage in stack.stages]
    channels = [80, stack.pre.channels, *(up.channels for up in ups)]
    inputs = dict(zip([stack.pre, *ups, stack.post], channels, strict=True))
    with torch.inference_mode():
        for conv in convolutions(fast):
            for rows in conv._tiles:
                layout = channels_last.Layout(1, rows)
                x = stack.space.take("x", torch.float32, rows, inputs.get(conv, conv.channels))
                out = stack.space.take("spare", torch.float32, rows * getattr(conv, "stride", 1), conv.channels)
                conv(x, out, layout)
                if conv not in inputs:
                    conv.add(x, out, layout)
    capfd.readouterr()
    with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON_CREATION):
        for length in (89, 2, 3, 5, 7, 11, 13, 17, 40, 71):
            sound(fast, random_mel(80, length))
    lines = [line for line in capfd.readouterr().out.splitlines() if ",create:" in line]
    made = {line.split(",create:")[1].rsplit(",", 1)[0] for line in lines if "create:cache_miss" in line}
    shapes = {line.split(",create:")[1].rsplit(",", 1)[0] for line in lines}
    assert len(lines) > 500, "oneDNN did not tell"
    assert len(shapes) <= sum(2 * len(conv._tiles) for conv in convolutions(fast))
    assert not made


@pytest.mark.parametrize("channels", [1, 24, 96, 768, 1536, 5000])
def test_tiles_cover_every_row_once_in_few_lengths(channels: int) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        lengths = channels_last.tile_lengths(channels, dtype)
        assert 1 <= len(lengths) <= 10
        assert min(lengths) == 80
        for rows in (1, 2, 79, 80, 81, 343, 688, 4001, 3 * lengths[0] + 1):
            found = channels_last.tiles(rows, channels_last._CALL // channels, lengths)
            assert {length for _, length in found} <= set(lengths)
            assert found[0][0] == 0
            assert all(start + length == after for (start, length), (after, _) in itertools.pairwise(found))
            assert rows <= sum(found[-1]) < rows + found[-1][1]


def test_buffers_are_kept_and_do_not_grow(small: dict[str, Any]) -> None:
    fast = vocoder(small, chunk_frames=16)
    sound(fast, random_mel(80, 160))  # ten full windows
    stack: Any = fast._fast and fast._fast.run
    taken = {name: (buffer.data_ptr(), len(buffer)) for name, buffer in stack.space._buffers.items()}
    for length in (1, 57, 100, 320):
        sound(fast, random_mel(80, length))
    assert {name: (buffer.data_ptr(), len(buffer)) for name, buffer in stack.space._buffers.items()} == taken
    widest = (16 + 2 * fast.halo) * 256 * 4  # samples of a window, 2 channels in the last stage, and twice for bf16
    room = channels_last.TILE_BYTES + (1 << 20)
    assert stack.space.nbytes() <= 6 * (4 * widest + room)


def test_a_stream_keeps_no_more_the_longer_it_is(small: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    fast = vocoder(small)
    fast.report()
    kept: dict[Any, int] = {}
    plain = streaming._Signal.keep

    def keep(signal: Any, first: int) -> None:
        plain(signal, first)
        kept[signal] = len(signal.rows)

    monkeypatch.setattr(streaming._Signal, "keep", keep)
    pieces = random_mel(80, 2 * fast.halo + 12).split(3, dim=-1)
    rows = [sorted(kept.values()) for _ in fast.stream(pieces, check_format=False)]
    assert len(rows) > 4 and rows[-2] == rows[-3] == rows[-4]  # the last is of the end


# Threads and processes


def test_two_vocoders_in_threads_of_their_own(small: dict[str, Any]) -> None:
    torch.set_num_threads(2)
    vocoders = [vocoder(small, seed) for seed in (0, 1)]
    mels = [random_mel(80, 40, seed=i) for i in range(4)]
    expected = [[sound(one, mel) for mel in mels] for one in vocoders]
    assert relative(expected[0][0], expected[1][0]) > 0.1
    wrong: list[str] = []

    def work(index: int, item: int) -> None:
        differences = [relative(sound(vocoders[index], mels[item]), expected[index][item]) for _ in range(2)]
        wrong.extend(f"{index} {item}: {difference}" for difference in differences if not difference <= 1e-6)

    threads = [threading.Thread(target=work, args=(i % 2, i)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_where_torch_brings_no_libgomp_plain_threads_run_the_kernels(
    small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from distill_core.engines import team
    from distill_core.engines.winograd_compiled import CompiledConv

    helped: list[Any] = []
    pool = team._pool(os.getpid())

    class Pool:
        def submit(self, helper: Any) -> Any:
            helped.append(helper)
            return pool.submit(helper)

    fast, mel = vocoder(small), random_mel(80, 40)
    expected = sound(fast, mel)
    torch.set_num_threads(3)
    monkeypatch.setattr(team, "VALUES_PER_THREAD", 64)
    monkeypatch.setattr(team, "_gomp_parallel", lambda: None)
    monkeypatch.setattr(team, "_pool", lambda process: Pool())
    assert relative(sound(fast, mel), expected) <= 1e-6
    kernels = 4 * 18 + 1 + sum(isinstance(conv, CompiledConv) for conv in convolutions(fast))
    assert len(helped) == 2 * kernels, "two helpers for each of the model's activations and compiled convolutions"


def test_what_runs_is_told_while_another_thread_computes(small: dict[str, Any]) -> None:
    fast, told, release = vocoder(small), [], threading.Event()
    assert fast.report().engine == "channels-last"
    held = threading.Event()

    def hold() -> None:
        with fast._turn:
            held.set()
            release.wait()

    holder = threading.Thread(target=hold)
    asking = threading.Thread(target=lambda: told.append(fast.report().engine))
    holder.start()
    held.wait()
    asking.start()
    asking.join(timeout=30)  # rather than forever
    waits = asking.is_alive()
    release.set()
    holder.join()
    asking.join()
    assert not waits and told == ["channels-last"]


def _child(config: dict[str, Any], inherited: Any, mel: torch.Tensor, queue: Any) -> None:
    made = inherited or vocoder(config)
    queue.put((sound(made, mel).numpy(), made.report().engine))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers(small: dict[str, Any], method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system does not {method}")
    torch.set_num_threads(2)
    fast = vocoder(small)
    mel = random_mel(80, 40)
    expected = sound(fast, mel)  # and so the pools of threads are there before the fork
    context: Any = multiprocessing.get_context(method)
    queue = context.Queue()
    # a thread that computes while the fork happens holds the lock that the child needs
    held = threading.Event()
    release = threading.Event()

    def hold() -> None:
        with fast._turn:
            held.set()
            release.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    child = context.Process(target=_child, args=(small, fast if method == "fork" else None, mel, queue))
    child.start()
    release.set()
    holder.join()
    try:
        wave, engine = queue.get(timeout=120)
    finally:
        child.join(timeout=10)
        if child.is_alive():
            child.kill()
    assert engine == "channels-last"
    assert relative(torch.from_numpy(wave), expected) <= 1e-6
