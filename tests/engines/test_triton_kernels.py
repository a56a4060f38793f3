"""The Triton kernels: what they compute, in Triton's interpreter; what they become, compiled for real cards."""

from __future__ import annotations

import os
import re
from typing import Any

import pytest
import torch

from tests.engines import gpu_models

triton = pytest.importorskip("triton", reason="Triton is not installed: pip install triton (Linux)")

compiled_only = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET", "0") != "0", reason="TRITON_INTERPRET is set for this whole run"
)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("cases", ["snake_cases.py", "convolution_cases.py"])
def test_the_kernels_in_tritons_interpreter(cases) -> None:
    gpu_models.run_interpreted(cases)


def compiled_for(
    capability: int, kernel: Any, constants: dict[str, object], types: dict[str, str], **options: object
) -> Any:
    """A kernel as machine code for a card that is not here, its pointers aligned as torch's memory is."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else types[name] for name in names}
    aligned = {(names.index(name),): [["tt.divisibility", 16]] for name in names if name.endswith("_ptr")}
    values = {(names.index(name),): value for name, value in constants.items()}
    try:
        source = ASTSource(fn=kernel, signature=signature, constexprs=values, attrs=aligned)
    except TypeError as error:  # the arguments of ASTSource are not a public interface
        pytest.skip(f"Triton {triton.__version__} is compiled ahead in another way: {error}")
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


@compiled_only
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(("dtype", "residual"), [("fp16", None), ("bf16", "fp32")])
def test_the_activation_compiles_for_cards_that_are_not_here(capability, dtype, residual, tmp_path) -> None:
    """To machine code, with nothing in local or shared memory, and loads of more than one channel."""
    from distill_bigvgan.engines.triton_snake import activation_kernel

    constants = {"C": 24, "HAS_BIAS": True, "HAS_RESIDUAL": residual is not None, "KEEP_SUM": residual is not None}
    constants |= {"LANES": 256, "COSINE": True}
    types = {name: "*fp32" if name.endswith("_ptr") else "fp32" for name in activation_kernel.arg_names}
    types |= {"x_ptr": f"*{dtype}", "out_ptr": f"*{dtype}", "residual_ptr": f"*{residual or dtype}"}
    types["frames_ptr"] = "*i32"
    types |= dict.fromkeys(("each", "padded", "segments", "walks", "walk_rows"), "i32")
    kernel = compiled_for(capability, activation_kernel, constants, types, num_warps=4, enable_fp_fusion=True)
    assert kernel.metadata.shared == 0
    ptx = kernel.asm["ptx"]
    assert ".local" not in ptx
    assert "ld.global.b32" in ptx or "ld.global.v2" in ptx
    assert len(kernel.asm["cubin"]) > 1000


@compiled_only
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(("dtype", "residual"), [("fp16", None), ("bf16", "fp32")])
def test_hifigans_activation_compiles_for_cards_that_are_not_here(capability, dtype, residual) -> None:
    """With loads and stores of 16 bytes wherever a program is not at the end of a signal."""
    from distill_hifigan.triton_leaky import leaky_kernel

    constants = {"C": 32, "HAS_BIAS": True, "HAS_RESIDUAL": residual is not None, "KEEP_SUM": residual is not None}
    types = {name: "*fp32" if name.endswith("_ptr") else "i32" for name in leaky_kernel.arg_names}
    types |= {"x_ptr": f"*{dtype}", "out_ptr": f"*{dtype}", "residual_ptr": f"*{residual or dtype}"}
    types |= {"frames_ptr": "*i32", "slope": "fp32"}
    kernel = compiled_for(capability, leaky_kernel, constants | {"BLOCK": 1024}, types, num_warps=4)
    ptx = kernel.asm["ptx"]
    assert ".local" not in ptx
    assert ptx.count("ld.global.v4.b32") >= (3 if residual else 1)
    assert ptx.count("st.global.v4.b32") >= (3 if residual else 1)


SHARED_MEMORY = {80: 163 << 10, 86: 99 << 10, 90: 227 << 10}
"""Bytes that a program may have."""


@compiled_only
@pytest.mark.parametrize("capability", list(SHARED_MEMORY))
@pytest.mark.parametrize(("channels", "group"), [(24, 4), (48, 1), (48, 2), (96, 1), (384, 1), (768, 1)])
def test_the_convolution_compiles_for_cards_that_are_not_here(capability, channels, group) -> None:
    """To products on tensor cores, of rows and weights that are copied 16 bytes at a time."""
    from distill_core.engines.gpu.triton_convolution import Tile, convolution_kernel

    tile = Tile.suited(group * channels, group * channels)
    constants = {"INPUTS": channels, "OUTPUTS": channels, "GROUP": group}
    constants |= {"ROWS": tile.rows, "COLUMNS": tile.columns, "DEPTH": tile.depth}
    types = {name: "*fp16" if name.endswith("_ptr") else "i32" for name in convolution_kernel.arg_names}
    options = {"num_warps": tile.warps, "num_stages": tile.stages}
    kernel = compiled_for(capability, convolution_kernel, constants, types, **options)
    assert kernel.metadata.shared <= SHARED_MEMORY[capability]
    ptx = kernel.asm["ptx"]
    assert ("wgmma.mma_async" if capability >= 90 else "mma.sync") in ptx
    copies = re.findall(r"cp\.async\.c[ag]\.shared\.global \[[^\]]*\], \[[^\]]*\], (\w+)", ptx)
    assert copies and set(copies) == {"0x10"}


@needs_cuda
@compiled_only
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("channels", "taps", "dilation"), [(24, 11, 5), (48, 3, 1), (48, 7, 3), (96, 11, 1), (384, 3, 5), (768, 3, 3)]
)
def test_the_convolution_on_this_gpu(channels, taps, dilation, dtype) -> None:
    from distill_core.engines.gpu.triton_convolution import GroupedConvolution

    draw = torch.Generator().manual_seed(1)
    weight = torch.randn(channels, channels, taps, generator=draw).to("cuda", dtype)
    x = torch.randn(2, 4 * dilation * 333, channels, generator=draw).to("cuda", dtype)
    own = GroupedConvolution.suited(weight, dilation)
    assert own is not None
    padding = dilation * (taps // 2)
    want = torch.nn.functional.conv1d(x.double().mT, weight.double(), padding=padding, dilation=dilation).mT
    assert gpu_models.error(own(x), want) <= 5e-3


@needs_cuda
@compiled_only
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 1, 24), (2, 37, 3), (1, 4099, 96), (3, 1024, 768)])
def test_the_kernels_on_this_gpu(dtype, shape) -> None:
    from distill_bigvgan._vendor.bigvgan import Activation1d, SnakeBeta
    from distill_bigvgan.engines.snake import SnakeParameters
    from distill_bigvgan.engines.triton_snake import TritonSnakeOps
    from distill_core.engines.gpu.ops import Extent, TorchOps

    device, channels = torch.device("cuda"), shape[-1]
    module = Activation1d(SnakeBeta(channels, logscale=True))
    gpu_models.randomise(module.act)
    draw = torch.Generator().manual_seed(1)
    x, stream = (torch.randn(shape, generator=draw).to(dtype) for _ in range(2))
    bias = torch.randn(channels, generator=draw)
    extent = Extent(torch.tensor([max(1, shape[1] - 3)], dtype=torch.int32))
    want = TorchOps().activate(
        x, SnakeParameters.of(module, gpu_models.CPU), extent, bias=bias, residual=stream, keep=True, dtype=dtype
    )
    got = TritonSnakeOps().activate(
        x.to(device),
        SnakeParameters.of(module, device),
        Extent(extent.frames.to(device)),
        bias=bias.to(device),
        residual=stream.to(device),
        keep=True,
        dtype=dtype,
    )
    for one, other, limit in zip(got, want, ({torch.float32: 1e-6}.get(dtype, 5e-3), 1e-6), strict=True):
        assert one is not None
        assert other is not None
        assert gpu_models.error(one.cpu(), other) <= limit
