"""Convolutions with fewer multiplications against plain ones: error, ends, items joined to one signal, dilation."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from distill_core.engines import channels_last, selection, winograd, winograd_schemes, winograd_torch
from distill_core.engines.channels_last import Conv, Layout, why_no_onednn
from distill_core.engines.workspace import Workspace
from distill_hifigan._vendor.hifigan import CONFIGS, HiFiGAN
from distill_hifigan.hifigan_vocoder import HiFiGANVocoder
from distill_hifigan.plugin import CARD
from tests.conformance.generator_checks import random_mel, randomise

pytestmark = pytest.mark.skipif(why_no_onednn() is not None, reason="oneDNN is not available in this torch")


KINDS = ["torch", "numba"]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Any:
    """A class of convolutions."""
    if request.param == "numba":
        pytest.importorskip("numba")
    return winograd._kind(compiled=request.param == "numba")


def layer(kind: Any, channels: int, kernel: int, dilation: int, slope: float | None = None) -> tuple[Conv, Any]:
    """A convolution, and the same in fp64 on [items, length, C]."""
    torch.manual_seed(0)
    weight = torch.randn(channels, channels, kernel) / (channels * kernel) ** 0.5
    bias = torch.randn(channels)
    scratch = {"scratch": Workspace()} if isinstance(kind, type) else {}
    conv = kind(weight, bias, **scratch, dilation=dilation, negative_slope=slope)

    def plain(x: torch.Tensor) -> torch.Tensor:
        padding = dilation * (kernel - 1) // 2
        y = F.conv1d(x.double().transpose(1, 2), weight.double(), bias.double(), padding=padding, dilation=dilation)
        return (y if slope is None else F.leaky_relu(y, slope)).transpose(1, 2)

    return conv, plain


def signal(conv: Conv, items: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, Layout]:
    """Items [items, length, C] in a room full of NaN, another of its kind, and their layout."""
    count, length, channels = items.shape
    layout = Layout(count, length, conv.ahead(length) if count > 1 else 0)
    space = channels_last.room(conv.reach)
    made = [space.take(name, torch.float32, layout.rows, channels) for name in ("x", "out")]
    for buffer in space._buffers.values():
        buffer.fill_(255)
    layout.split(made[0]).copy_(items)
    return made[0], made[1], layout


@pytest.mark.parametrize("kernel", range(1, 20, 2))
def test_every_scheme_is_exact(kernel: int) -> None:
    scheme = winograd_schemes.scheme_for(kernel)
    blocks = scheme.blocks(kernel)
    assert scheme.cost(kernel) < max(2, kernel)
    rng = np.random.default_rng(0)
    taps = np.pad(rng.standard_normal(kernel), (0, blocks * scheme.taps - kernel)).reshape(blocks, scheme.taps)
    signal = rng.standard_normal((blocks - 1) * scheme.group + scheme.points)
    products = sum(
        (scheme.filter @ taps[block]) * (scheme.signal @ signal[block * scheme.group :][: scheme.points])
        for block in range(blocks)
    )
    expected = np.correlate(signal, taps.flatten(), "valid")
    np.testing.assert_allclose(scheme.out_of @ products, expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(scheme.out_of @ scheme.constant, np.ones(scheme.group), rtol=1e-10)


# Of the signal. The plain sum's are 2.5e-7.
ERRORS = {3: 1.2e-6, 5: 2.5e-6, 7: 2.5e-6, 11: 4e-6}


@pytest.mark.parametrize("dilation", [1, 3, 5])
@pytest.mark.parametrize("kernel", ERRORS)
def test_error_at_any_length(kind: Any, kernel: int, dilation: int) -> None:
    conv, plain = layer(kind, 64, kernel, dilation)
    bound = ERRORS[kernel]
    for length in (1, 2, 3, 4, 5, 59, 60, 61, 319, 320, 321, 2500):
        items = torch.randn(1, length, 64)
        x, out, layout = signal(conv, items)
        expected = plain(items)
        conv(x, out, layout)
        assert (layout.split(out) - expected).norm() <= bound * expected.norm()
        before = torch.randn_like(items)
        layout.split(out).copy_(before)
        conv.add(x, out, layout)
        assert (layout.split(out) - before - expected).norm() <= bound * expected.norm()
        sum_ = layout.split(out).clone()
        base = torch.full_like(out, float("nan"))
        layout.split(base).copy_(before)
        assert torch.equal(layout.split(conv.add(x, out, layout, base)), sum_)


@pytest.mark.parametrize("kernel", [7, 11])
def test_torch_makes_long_sums_in_parts(kernel: int) -> None:
    """In one go the errors are twice as large with oneDNN on x86."""
    conv, plain = layer(winograd_torch.TorchConv, 896, kernel, dilation=3)
    items = torch.randn(2, 200, 896)
    x, out, layout = signal(conv, items)
    conv(x, out, layout)
    expected = plain(items)
    assert (layout.split(out) - expected).norm() <= ERRORS[kernel] * expected.norm()


def test_channels_that_few_divide_are_not_summed_up_in_one_go() -> None:
    pytest.importorskip("numba")
    kind = winograd._kind(compiled=True)
    inputs = 131 * kind.MULTIPLE
    torch.manual_seed(0)
    weight, items = torch.randn(kind.MULTIPLE, inputs, 11) / (inputs * 11) ** 0.5, torch.randn(1, 100, inputs)
    conv = kind(weight, None, scratch=Workspace())
    made = conv(items[0], torch.empty(100, kind.MULTIPLE), Layout(1, 100))
    expected = F.conv1d(items.double().mT, weight.double(), padding=5)[0].T
    assert (made - expected).norm() <= 6e-6 * expected.norm()


def test_with_a_leaky_relu_and_without_a_bias(kind: Any) -> None:
    conv, plain = layer(kind, 64, 7, 3, slope=0.1)
    items = torch.randn(1, 100, 64)
    x, out, layout = signal(conv, items)
    assert (layout.split(conv(x, out, layout)) - plain(items)).abs().max() < 1e-4
    bare = kind(torch.randn(64, 64, 3), None, scratch=Workspace())
    x, out, layout = signal(bare, torch.zeros(1, 9, 64))
    assert not bare(x, out, layout).any()


def test_what_is_added_goes_through_no_leaky_relu(kind: Any) -> None:
    torch.manual_seed(0)
    weight, items, before = torch.randn(64, 64, 7) / 21, torch.randn(1, 100, 64), torch.randn(1, 100, 64)
    sums = []
    for conv in (
        Conv(weight, None, dtype=torch.float32, negative_slope=0.1),
        kind(weight, None, scratch=Workspace(), negative_slope=0.1),
    ):
        x, out, layout = signal(conv, items)
        layout.split(out).copy_(before)
        sums.append(layout.split(conv.add(x, out, layout)).clone())
    assert (sums[0] - sums[1]).abs().max() < 1e-4


@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (7, 3), (11, 5)])
def test_joined_items_come_out_as_alone_bit_for_bit(
    kind: Any, kernel: int, dilation: int
) -> None:
    conv, _ = layer(kind, 64, kernel, dilation)
    for length in (1, 40, 61, 333):
        items = torch.randn(9, length, 64)
        x, out, layout = signal(conv, items)
        together = layout.split(conv(x, out, layout)).clone()
        for item, result in zip(items, together, strict=True):
            x, out, layout = signal(conv, item[None])
            assert torch.equal(layout.split(conv(x, out, layout))[0], result)


@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (7, 3), (11, 5)])
def test_a_part_of_a_signal_comes_out_as_in_the_whole(kind: Any, kernel: int, dilation: int) -> None:
    made: list[Any] = [layer(each, 64, kernel, dilation)[0] for each in (kind, partial(Conv, dtype=torch.float32))]
    convolutions = winograd.Convolutions()
    convolutions._kind = kind
    made.append(convolutions.upsampling(torch.randn(64, 32, 4), torch.randn(32), stride=2, dtype=torch.float32))
    made.append(channels_last.TransposedConv(torch.randn(64, 32, 8), None, stride=4, dtype=torch.float32))
    length = 200
    for conv in made:
        stride = getattr(conv, "stride", 1)
        space = channels_last.room(conv.reach)
        for start, stop in ((0, length), (0, 1), (0, 60), (7, 80), (120, 200), (199, 200), (30, 170)):
            x = space.take("x", torch.float32, length, 64)
            out = space.take("out", torch.float32, length * stride, conv.channels)
            part = space.take("part", torch.float32, (stop - start) * stride, conv.channels)
            for buffer in space._buffers.values():
                buffer.fill_(255)
            x.copy_(torch.randn(length, 64, generator=torch.Generator().manual_seed(0)))
            whole = conv(x, out, Layout(1, length))[start * stride : stop * stride].clone()
            conv(x[start:stop], part, Layout(1, stop - start, before=start, after=length - stop))
            assert (part - whole).norm() <= 5e-6 * whole.norm(), (conv, start, stop)


def test_it_is_taken_where_it_is_worth_it_and_fits(kind: Any) -> None:
    convolutions = winograd.Convolutions()
    convolutions._kind = kind

    def made(channels: int, kernel: int, dtype: torch.dtype = torch.float32) -> type:
        return type(convolutions(torch.zeros(channels, channels, kernel), None, dtype=dtype))

    assert made(192, 3) is made(128, 7) is made(64, 7) is kind
    assert made(8, 11) is made(204, 11) is made(192, 1) is Conv
    if selection.why_not_channels_last("bf16") is None:
        assert made(192, 11, torch.bfloat16) is Conv
    narrow = Conv if kind is winograd_torch.TorchConv else kind
    assert made(128, 3) is made(64, 3) is made(32, 11) is made(16, 3) is narrow


def test_a_model_in_bf16_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    asked = []
    monkeypatch.setattr(winograd, "_prepare", lambda: asked.append(True))
    monkeypatch.setattr(winograd, "Conv", lambda *_, **__: None)
    convolutions = winograd.Convolutions()
    convolutions(torch.zeros(64, 64, 7), None, dtype=torch.bfloat16)
    assert convolutions.notes == ()
    assert not asked
    convolutions(torch.zeros(64, 64, 7), None, dtype=torch.float32)
    assert asked


def test_more_channels_out_than_in(kind: Any) -> None:
    weight, bias = torch.randn(96, 32, 7), torch.randn(96)
    conv = kind(weight, bias, scratch=Workspace(), dilation=3)
    items = torch.randn(2, 77, 32)
    x, _, layout = signal(conv, items)
    out = torch.full((layout.rows, 96), float("nan"))
    expected = F.conv1d(items.double().mT, weight.double(), bias.double(), padding=9, dilation=3).mT
    assert (layout.split(conv(x, out, layout)) - expected).norm() <= ERRORS[7] * expected.norm()
    assert out.isnan().sum() == 2 * layout.gap * 96, "nothing but the items is written"


@pytest.mark.parametrize(("kernel", "stride"), [(4, 2), (8, 4), (16, 8), (3, 3), (11, 5)])
def test_upsampling_is_a_transposed_convolution_and_joined_items_come_out_as_alone(kernel: int, stride: int) -> None:
    pytest.importorskip("numba")
    torch.manual_seed(0)
    weight, bias = torch.randn(64, 32, kernel), torch.randn(32)
    up = winograd.Convolutions().upsampling(weight, bias, stride=stride, dtype=torch.float32)
    assert isinstance(up, winograd.PlainUpsampling)
    for length in (1, 7, 300):
        items = torch.randn(5, length, 64)
        expected = F.conv_transpose1d(
            items.double().mT, weight.double(), bias.double(), stride=stride, padding=(kernel - stride) // 2
        ).mT
        together = upsampled(up, items)
        assert together.shape == expected.shape
        assert (together - expected).norm() <= 2e-6 * expected.norm()
        for item, result in zip(items, together, strict=True):
            assert torch.equal(upsampled(up, item[None])[0], result)


def upsampled(up: channels_last.Upsampling, items: torch.Tensor) -> torch.Tensor:
    count, length, channels = items.shape
    layout = Layout(count, length, up.ahead(length) if count > 1 else 0)
    space = channels_last.room(up.reach)
    x = space.take("x", torch.float32, layout.rows, channels)
    space._buffers["x"].fill_(255)
    layout.split(x).copy_(items)
    wide = Layout(count, length * up.stride, layout.gap * up.stride)
    return wide.split(up(x, space.take("out", torch.float32, wide.rows, up.channels), layout)).clone()


def test_upsampling_by_a_wide_weight_or_of_odd_channels_stays_a_transposed_convolution() -> None:
    make = winograd.Convolutions().upsampling
    assert isinstance(
        make(torch.zeros(512, 256, 16), None, stride=8, dtype=torch.float32), channels_last.TransposedConv
    )
    assert isinstance(make(torch.zeros(20, 10, 4), None, stride=2, dtype=torch.float32), channels_last.TransposedConv)


def test_several_threads_make_what_one_makes() -> None:
    pytest.importorskip("numba")
    results = []
    for threads in (1, 4):
        torch.set_num_threads(threads)
        conv, _ = layer(winograd._kind(compiled=True), 128, 11, 5)  # its weights are packed by as many, too
        items = torch.randn(3, 2003, 128)
        x, out, layout = signal(conv, items)
        results.append(layout.split(conv(x, out, layout)).clone())
    assert torch.equal(*results)


OTHER_REGISTERS = """
import sys
from importlib.util import find_spec, module_from_spec
from pathlib import Path
import torch
import torch.nn.functional as F

spec = find_spec("distill_core.engines.kernels")
source = Path(spec.origin).read_text()
asked = 'AVX512 = bool(llvm.get_host_cpu_features().get("avx512f"))'
assert source.count(asked) == 1
kernels = sys.modules[spec.name] = module_from_spec(spec)
exec(compile(source.replace(asked, "AVX512 = " + sys.argv[1]), spec.origin, "exec"), kernels.__dict__)

from distill_core.engines.channels_last import Layout
from distill_core.engines.winograd_compiled import LANES, CompiledConv
from distill_core.engines.workspace import Workspace

torch.manual_seed(0)
for inputs, outputs, kernel, dilation in ((192, 48, 3, 1), (48, 96, 7, 3), (208, 80, 11, 5)):
    weight, bias = torch.randn(outputs, inputs, kernel) / (inputs * kernel) ** 0.5, torch.randn(outputs)
    conv = CompiledConv(weight, bias, scratch=Workspace(), dilation=dilation)
    for length in (1, 7, 100, 999):
        x, base = torch.randn(2, length, inputs), torch.randn(2, length, outputs)
        out = torch.full((2 * length, outputs), float("nan"))
        conv.add(x.flatten(0, 1), out, Layout(2, length), base.flatten(0, 1))
        padding = dilation * (kernel - 1) // 2
        made = F.conv1d(x.double().mT, weight.double(), bias.double(), padding=padding, dilation=dilation).mT
        expected = made.flatten(0, 1) + base.flatten(0, 1)
        assert (out - expected).norm() <= 4e-6 * expected.norm(), (inputs, outputs, kernel, length)
print(LANES)
"""


def test_registers_that_this_processor_has_or_not(tmp_path: Path) -> None:
    """The kernel for each size of registers, which numba makes of smaller ones where it has to.

    Kept in one folder, as by machines that share it and have numba compile for any processor.
    """
    pytest.importorskip("numba")
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    for avx512, lanes in ((False, 8), (True, 16), (False, 8)):
        command = [sys.executable, "-c", OTHER_REGISTERS, str(avx512)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{lanes}\n"
    assert len([*tmp_path.rglob("*.nbi")]) == 4  # two kernels


def test_without_numba_torch_transforms_and_the_report_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    for name in ("kernels", "winograd_kernels", "winograd_packing", "winograd_compiled"):
        monkeypatch.delitem(sys.modules, f"distill_core.engines.{name}", raising=False)
        monkeypatch.delattr(f"distill_core.engines.{name}", raising=False)
    convolutions = winograd.Convolutions()
    assert convolutions._kind is winograd_torch.TorchConv
    assert convolutions.notes == (), "as long as there is nothing to transform"
    convolutions(torch.zeros(64, 64, 7), None, dtype=torch.float32)
    assert "pip install 'distill-core[cpu]'" in convolutions.notes[0]


@pytest.mark.parametrize(("frames", "items"), [(5, 4), (13, 2)])
def test_a_whole_model_with_wide_layers(frames: int, items: int) -> None:
    config = CONFIGS["v1"]
    module = HiFiGAN(config)
    randomise(module)
    folded = HiFiGAN.from_state_dict(config, module.state_dict())
    variant = CARD.variants[0].with_config(config, own=True)
    fast, eager = (HiFiGANVocoder(folded, variant, engine=engine) for engine in ("channels-last", "eager"))
    mel = random_mel(80, frames, batch=items)
    together, expected = (vocoder.mel_to_waveform(mel, check_format=False) for vocoder in (fast, eager))
    assert (together - expected).norm() <= 1e-5 * expected.norm()
    stack: Any = fast._fast and fast._fast.run
    assert any(type(conv) is not Conv for stage in stack.stages for conv in stage.convs)
    for row in range(items):
        assert torch.equal(fast.mel_to_waveform(mel[row : row + 1], check_format=False), together[row : row + 1])
