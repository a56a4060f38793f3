"""HiFi-GAN's Triton kernel, and the engine with it. Run by test_hifigan_cuda.py, in a process of its own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from distill_core.engines.gpu.ops import Extent, TorchOps
from distill_hifigan import cuda
from distill_hifigan.leaky import LeakyReLU
from distill_hifigan.triton_leaky import TritonLeakyOps
from tests.engines import gpu_models
from tests.engines.gpu_models import CPU, error

# Rounding of the result; the interpreter cuts bf16 off where GPUs round it, which is twice as coarse.
LIMITS = {torch.float32: 1e-6, torch.float16: 5e-4, torch.bfloat16: 6e-3}


def rows(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return (3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).to(dtype)


@pytest.mark.parametrize(("block", "behind"), [(64, 5), (1024, 0)])
@pytest.mark.parametrize("dtype", list(LIMITS))
def test_the_activation_with_what_is_added_and_kept(block, behind, dtype) -> None:
    x, bias = rows(2, 37, 3, dtype=dtype), rows(3, seed=1)
    x[:, 37 - behind :] = float("nan")
    extent = Extent(torch.tensor([37 - behind], dtype=torch.int32))
    for given in (None, bias):
        for residual in (None, rows(2, 37, 3, dtype=dtype, seed=2), rows(2, 37, 3, seed=2)):
            added = {"bias": given, "residual": residual, "keep": residual is not None, "dtype": dtype}
            got, kept = TritonLeakyOps(block).activate(x, LeakyReLU(0.1), extent, **added)
            want, sums = TorchOps().activate(x, LeakyReLU(0.1), extent, **added)
            assert got.dtype == dtype
            assert error(got, want) <= LIMITS[dtype]
            assert (kept is None) == (sums is None)
            assert kept is None or torch.equal(kept, sums)


@pytest.mark.parametrize(
    "wrong", [{"residual": torch.zeros(1, 4, 3)}, {"bias": torch.zeros(4)}, {"extent": Extent(torch.tensor([8]))}]
)
def test_memory_that_does_not_lie_as_told_is_refused(wrong) -> None:
    named = {"extent": Extent(torch.tensor([8], dtype=torch.int32)), "dtype": torch.float32, **wrong}
    with pytest.raises(ValueError, match="expected"):
        TritonLeakyOps().activate(rows(1, 8, 3), LeakyReLU(0.1), named.pop("extent"), **named)


@pytest.mark.parametrize(("precision", "limit"), [("fp32", 1e-5), ("fp16", 5e-3)])
def test_the_engine_with_nothing_but_kernels(precision, limit) -> None:
    model = gpu_models.hifigan(
        "v1",
        upsample_rates=[2],
        upsample_kernel_sizes=[4],
        hop_size=2,
        resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1, 3]],
    )
    engine = cuda.engine(model, CPU, precision, ops=TritonLeakyOps(4096))
    assert 0 < engine.error <= limit
    assert not any("cuDNN" in note for note in engine.notes)
