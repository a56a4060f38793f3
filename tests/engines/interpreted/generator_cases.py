"""The GPU engine's whole data flow with Triton's kernels. Run by test_cuda_engine.py, in a process of its own."""

from __future__ import annotations

import pytest
import torch

from distill_bigvgan._vendor.bigvgan import CONFIGS, BigVGAN
from distill_bigvgan.engines import cuda
from distill_bigvgan.engines.triton_snake import TritonSnakeOps, Walk
from distill_core.engines.gpu.engine import DTYPES
from distill_core.engines.gpu.ops import TorchOps
from distill_core.engines.gpu.triton_convolution import GroupedConvolution
from tests.engines import gpu_models
from tests.engines.gpu_models import CPU, error

LIMITS = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 3e-2}
WALK = Walk(rows=8, lanes=4096)


class EachOnce:
    """Triton's kernels for the first call of each kind (sizes, types, what is added), plain torch for repeats.

    The blocks of a stage make the same calls again and again; the interpreter takes a second for twenty.
    """

    def __init__(self) -> None:
        self.trouble: str | None = None
        self.kinds: set[object] = set()
        self.convolutions = 0

    def _ops(self, *kind: object) -> TritonSnakeOps | TorchOps:
        if kind in self.kinds:
            return TorchOps()
        self.kinds.add(kind)
        return TritonSnakeOps(WALK)

    def activate(self, x, snake, extent, *, bias=None, residual=None, keep=False, dtype):
        ops = self._ops("activate", x.shape, x.dtype, bias is None, getattr(residual, "dtype", None), keep, dtype)
        return ops.activate(x, snake, extent, bias=bias, residual=residual, keep=keep, dtype=dtype)

    def accumulate(self, x, residual, bias, extent, *, total, scale, dtype):
        ops = self._ops("accumulate", x.shape, x.dtype, residual.dtype, total is None, scale, dtype)
        return ops.accumulate(x, residual, bias, extent, total=total, scale=scale, dtype=dtype)

    def convolution(self, weight, dilation):
        """The kernel's once of each kind, then the library's."""
        ops = self._ops("convolution", weight.shape, weight.dtype, dilation)
        own = ops.convolution(weight, dilation)
        self.convolutions += own is not None
        self.trouble = self.trouble or ops.trouble
        return own


def check(model: BigVGAN, ops: TritonSnakeOps | EachOnce, dtype: torch.dtype, batch: int, frames: int) -> None:
    generator = cuda.rows(model, dtype=dtype, device=CPU, ops=ops)
    mel = gpu_models.mel(model, batch, frames)
    with torch.inference_mode():
        got = generator(mel)
    assert got.dtype == torch.float32
    assert error(got, gpu_models.wave(model, mel)) <= LIMITS[dtype]


@pytest.mark.parametrize(("number", "name"), list(enumerate(CONFIGS)))
def test_every_configuration(number, name) -> None:
    ops = EachOnce()
    stages = len(CONFIGS[name]["upsample_rates"])
    model = gpu_models.model(name, channels=(1 + number) << stages, seed=number)  # 1 to 9 in the last stage
    check(model, ops, torch.float32, batch=1 + number % 2, frames=1 + number % 3)
    assert sum(kind[0] != "convolution" for kind in ops.kinds) == stages * 5 + 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_half_precision(dtype) -> None:
    """The interpreter multiplies the bits of bf16: what comes of it is noticed, and the library convolves."""
    ops = EachOnce()
    model = gpu_models.model(
        "bigvgan_base_24khz_100band", channels=96, upsample_rates=[2, 2], upsample_kernel_sizes=[4, 4], hop_size=4
    )
    check(model, ops, dtype, batch=2, frames=2)
    assert ops.convolutions == (18 if dtype == torch.float16 else 0)
    assert (ops.trouble is None) == (dtype == torch.float16)


def test_other_blocks_and_activations_with_nothing_but_kernels() -> None:
    model = gpu_models.model(
        "bigvgan_base_22khz_80band",
        channels=80,
        resblock="2",
        activation="snake",
        snake_logscale=False,
        resblock_kernel_sizes=[3, 5],
        resblock_dilation_sizes=[[1], [2, 6]],
    )
    check(model, TritonSnakeOps(WALK), torch.float32, batch=1, frames=3)


@pytest.mark.parametrize("wrong", ["off", "raises"])
def test_convolutions_that_fail_their_trial_are_left_to_the_library(wrong, monkeypatch) -> None:
    def fails(own, x):
        if wrong == "raises":
            raise RuntimeError("out of resource: shared memory")
        return torch.zeros(*x.shape[:2], 16, dtype=x.dtype)

    monkeypatch.setattr(GroupedConvolution, "__call__", fails)
    engine = cuda.engine(gpu_models.tiny(channels=32), CPU, "fp16", ops=TritonSnakeOps(WALK))
    assert any("run by cuDNN" in note and ("is off by" in note or "shared" in note) for note in engine.notes)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_the_self_test_passes(precision) -> None:
    engine = cuda.engine(gpu_models.tiny(), CPU, precision, ops=TritonSnakeOps(WALK))
    assert 0 < engine.error <= LIMITS[DTYPES[precision]]
