"""HiFi-GAN on the GPU engine: its data flow on the CPU, its kernels in Triton's interpreter, and on a GPU."""

from __future__ import annotations

import pytest
import torch

from distill_core.engines.channels_last import EngineUnavailable
from distill_core.engines.gpu.ops import TorchOps
from distill_hifigan import cuda
from distill_hifigan._vendor.hifigan import CONFIGS
from distill_hifigan.hifigan_vocoder import HiFiGANVocoder
from distill_hifigan.leaky import LeakyReLU
from distill_hifigan.plugin import CARD
from tests.engines import gpu_models
from tests.engines.gpu_models import CPU, error, vocode

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
LIMITS = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 2e-2}


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
@pytest.mark.parametrize("dtype", list(LIMITS))
def test_rows_compute_what_the_model_does(version, dtype) -> None:
    model = gpu_models.hifigan(version)
    generator = cuda.rows(model, dtype=dtype, device=CPU, ops=TorchOps())
    for batch, frames in ((1, 1), (2, 3)) if dtype == torch.float32 else ((1, 2),):
        mel = gpu_models.mel(model, batch, frames)
        assert error(vocode(generator, mel), gpu_models.wave(model, mel)) <= LIMITS[dtype]


@pytest.mark.parametrize("resblock", ["1", "2"])
def test_rows_of_odd_rates_and_one_block(resblock) -> None:
    model = gpu_models.hifigan(
        "v1",
        channels=52,
        upsample_rates=[3, 5, 1],
        upsample_kernel_sizes=[7, 5, 3],
        hop_size=15,
        resblock=resblock,
        resblock_kernel_sizes=[5],
        resblock_dilation_sizes=[[1, 4]],
    )
    generator = cuda.rows(model, dtype=torch.float32, device=CPU, ops=TorchOps())
    for frames in (1, 7, 31):
        mel = gpu_models.mel(model, 2, frames)
        assert error(vocode(generator, mel), gpu_models.wave(model, mel)) <= 1e-5


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
@pytest.mark.parametrize(("dtype", "last"), [(torch.float16, torch.float16), (torch.bfloat16, torch.float32)])
def test_in_bf16_the_last_stage_is_in_fp32(version, dtype, last) -> None:
    """Its rounding would be heard, as on a CPU."""
    uses = cuda.rows(gpu_models.hifigan(version), dtype=dtype, device=CPU, ops=TorchOps()).within()
    assert [use.dtype for use in uses] == [dtype] * (len(uses) - 1) + [last]


class Faulty(TorchOps):
    """One thing wrong with the kernels."""

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def activate(self, x, activation, extent, *, bias=None, **arguments):
        if self.fault == "a slope for all" and bias is None:
            activation = LeakyReLU(0.1)
        if self.fault == "no activation behind the bias" and bias is not None:
            activation = LeakyReLU(1.0)
        return super().activate(x, activation, extent, bias=bias, **arguments)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_the_engine_passes_its_self_test_and_a_wrong_kernel_does_not(precision) -> None:
    model = gpu_models.hifigan("v3")
    engine = cuda.engine(model, CPU, precision, ops=TorchOps())
    mel = gpu_models.mel(model, 1, 9)
    limit = {"fp32": 1e-5, "fp16": 5e-3, "bf16": 2e-2}[precision]
    assert error(vocode(engine, mel), gpu_models.wave(model, mel)) <= limit
    for fault in ("a slope for all", "no activation behind the bias"):
        with pytest.raises(EngineUnavailable, match="self-test"):
            cuda.engine(model, CPU, precision, ops=Faulty(fault))


def test_on_cuda_a_vocoder_takes_it() -> None:
    class Pretending(HiFiGANVocoder):
        def _cuda(self, precision):
            return cuda.engine(self.model, CPU, precision, ops=TorchOps())

    vocoder = Pretending(gpu_models.hifigan("v3"), CARD.variants[0], precision="auto", chunk_frames=50)
    with pytest.raises(EngineUnavailable, match="not on cpu"):
        HiFiGANVocoder._cuda(vocoder, "fp32")
    vocoder._home = torch.device("cuda:0")
    vocoder._accelerate()
    report = vocoder.report()
    assert (report.engine, report.precision) == ("cuda", "fp16")


def test_the_kernels_in_tritons_interpreter() -> None:
    gpu_models.run_interpreted("leaky_cases.py")


@needs_gpu
@pytest.mark.parametrize(("precision", "limit"), [("fp32", 1e-3), ("fp16", 1e-2), ("bf16", 2e-2)])
@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
def test_on_this_gpu(version, precision, limit) -> None:
    model = gpu_models.hifigan(version, channels=CONFIGS[version]["upsample_initial_channel"])
    gpu_models.check_on_this_gpu(cuda.engine(model, torch.device("cuda:0"), precision), model, limit)
