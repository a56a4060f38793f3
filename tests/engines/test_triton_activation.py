"""The Triton kernels: what they compute, in Triton's interpreter; what they become, compiled for real cards."""

from __future__ import annotations

import os

import pytest
import torch

from tests.engines import gpu_models

triton = pytest.importorskip("triton", reason="Triton is not installed: pip install triton (Linux)")

compiled_only = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET", "0") != "0", reason="TRITON_INTERPRET is set for this whole run"
)


def test_the_kernels_in_tritons_interpreter() -> None:
    gpu_models.run_interpreted("activation_cases.py")


@compiled_only
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(("dtype", "residual"), [("fp16", None), ("bf16", "fp32")])
def test_the_activation_compiles_for_cards_that_are_not_here(capability, dtype, residual, tmp_path) -> None:
    """To machine code, with nothing in local or shared memory, and loads of more than one channel."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from distill_bigvgan.engines.triton_activation import activation_kernel

    constants = {"C": 24, "HAS_BIAS": True, "HAS_RESIDUAL": residual is not None, "KEEP_SUM": residual is not None}
    constants["LANES"] = 256
    pointers = {"x_ptr": dtype, "out_ptr": dtype, "residual_ptr": residual or dtype}
    integers = ("length", "segments", "walks", "walk_rows")
    names = activation_kernel.arg_names
    signature = {
        name: "constexpr"
        if name in constants
        else "i32"
        if name in integers
        else f"*{pointers.get(name, 'fp32')}"
        if name.endswith("_ptr")
        else "fp32"
        for name in names
    }
    aligned = {(index,): [["tt.divisibility", 16]] for index, name in enumerate(names) if name.endswith("_ptr")}
    values = {(names.index(name),): value for name, value in constants.items()}
    try:
        source = ASTSource(fn=activation_kernel, signature=signature, constexprs=values, attrs=aligned)
    except TypeError as error:  # the arguments of ASTSource are not a public interface
        pytest.skip(f"Triton {triton.__version__} is compiled ahead in another way: {error}")
    target = GPUTarget("cuda", capability, 32)
    kernel = triton.compile(source, target=target, options={"num_warps": 4, "enable_fp_fusion": True})
    assert kernel.metadata.shared == 0
    ptx = kernel.asm["ptx"]
    assert ".local" not in ptx
    assert "ld.global.b32" in ptx or "ld.global.v2" in ptx
    assert len(kernel.asm["cubin"]) > 1000


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@compiled_only
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 1, 24), (2, 37, 3), (1, 4099, 96), (3, 1024, 768)])
def test_the_kernels_on_this_gpu(dtype, shape) -> None:
    from distill_bigvgan._vendor.bigvgan import Activation1d, SnakeBeta
    from distill_bigvgan.engines.gpu_ops import SnakeParameters, TorchOps
    from distill_bigvgan.engines.triton_activation import TritonOps

    device, channels = torch.device("cuda"), shape[-1]
    module = Activation1d(SnakeBeta(channels, logscale=True))
    gpu_models.randomise(module.act)
    draw = torch.Generator().manual_seed(1)
    x, stream = (torch.randn(shape, generator=draw).to(dtype) for _ in range(2))
    bias = torch.randn(channels, generator=draw)
    want = TorchOps().activate(
        x, SnakeParameters.of(module, gpu_models.CPU), bias=bias, residual=stream, keep=True, dtype=dtype
    )
    got = TritonOps().activate(
        x.to(device),
        SnakeParameters.of(module, device),
        bias=bias.to(device),
        residual=stream.to(device),
        keep=True,
        dtype=dtype,
    )
    for one, other, limit in zip(got, want, ({torch.float32: 1e-6}.get(dtype, 5e-3), 1e-6), strict=True):
        assert one is not None
        assert other is not None
        assert gpu_models.error(one.cpu(), other) <= limit
