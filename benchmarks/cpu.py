"""BigVGAN on this machine's CPU: NVIDIA's package and ways to speed it up, beside distill-bigvgan.

    python -m benchmarks.cpu --output docs/cpu-benchmark

Every way runs in a process of its own, with the same random weights (the full-size default variant) and the
same mels; the ways take turns. A way whose package is not installed is listed as such, and a length that
would not fit into `--budget` seconds is left out and said to be. Error is |ours - reference| / |reference|
against NVIDIA's package in fp32 at the shortest length. Memory is the process's peak, everything included.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

VARIANT = "v2_44khz_128band_512x"
RATE, HOP, BANDS = 44100, 512, 128
LENGTHS = (1.0, 4.0, 20.0)

Run = Callable[[Any], Any]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cpu", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, nargs="+", default=LENGTHS, metavar="S", help="lengths of audio")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="which to run (default: all)")
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="processes of each way, in turns")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="timed runs of each length at most")
    parser.add_argument("--budget", type=float, default=600, metavar="S", help="seconds for one process (default: 600)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), metavar="N")
    parser.add_argument("--output", type=Path, metavar="PATH", help="write PATH.md and PATH.png (matplotlib)")
    parser.add_argument("--child", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(args.child[0], Path(args.child[1]), args)
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_checkpoint(folder)
        for _ in range(args.rounds):
            for way in dict.fromkeys(["nvidia", *args.ways]):  # first: the others are compared with it
                results[way] = merged(results.get(way), measure(way, folder, args))
                print(f"{way}: {json.dumps(results[way])}", file=sys.stderr)
    text = report(results, args)
    print(text)
    if args.output:
        args.output.with_suffix(".md").write_text(text + "\n")
        plot(results, args.output.with_suffix(".png"))
    return 0


def write_checkpoint(folder: Path, channels: int | None = None) -> None:
    """Random weights whose signal neither fades nor overflows; snakes with parameters that matter."""
    import torch

    from distill_bigvgan._vendor.bigvgan import CONFIGS, BigVGAN

    config = dict(CONFIGS[f"bigvgan_{VARIANT}"])
    config["upsample_initial_channel"] = channels or config["upsample_initial_channel"]
    torch.manual_seed(0)
    model = BigVGAN(config)
    for name, parameter in model.named_parameters():
        if name.endswith((".alpha", ".beta")):
            torch.nn.init.normal_(parameter, std=0.3)
    torch.save({"generator": model.state_dict()}, folder / "bigvgan_generator.pt")
    (folder / "config.json").write_text(json.dumps(config))


def mel_of(seconds: float) -> Any:
    import torch

    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, BANDS, max(1, round(seconds * RATE / HOP)), generator=generator).mul_(2).sub_(4)


# The ways


def nvidia(folder: Path) -> Any:
    import torch
    from bigvgan.bigvgan import BigVGAN
    from bigvgan.env import AttrDict

    model = BigVGAN(AttrDict(json.loads((folder / "config.json").read_text())), use_cuda_kernel=False)
    state = torch.load(folder / "bigvgan_generator.pt", weights_only=True)
    model.load_state_dict(state["generator"])
    model.remove_weight_norm()
    return model.eval().requires_grad_(False)


def compiled(folder: Path) -> Run:
    import torch
    import torch._inductor.config

    torch._inductor.config.freezing = True
    model: Run = torch.compile(nvidia(folder))
    return model


def onnx_file(folder: Path, mel: Any) -> Path:
    """NVIDIA's module exported for mels of one length: with another one free it does not export."""
    import torch

    path = folder / f"model-{mel.shape[-1]}.onnx"
    if not path.exists():
        # the exporter that traces cannot see that the channels are constants, which the padding of its opsets needs
        torch.onnx.export(nvidia(folder), (mel,), str(path), input_names=["mel"], output_names=["wave"], dynamo=True)
    return path


def for_each_length(load: Callable[[Any], Run]) -> Run:
    """A run that loads what it needs when it meets a length first, which the untimed run is."""
    loaded: dict[int, Run] = {}

    def run(mel: Any) -> Any:
        if mel.shape[-1] not in loaded:
            loaded.clear()
            loaded[mel.shape[-1]] = load(mel)
        return loaded[mel.shape[-1]](mel)

    return run


def onnxruntime(folder: Path) -> Run:
    import onnxruntime as ort
    import torch

    def load(mel: Any) -> Run:
        options = ort.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        path = str(onnx_file(folder, mel))
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return lambda mel: torch.from_numpy(session.run(None, {"mel": mel.numpy()})[0])

    return for_each_length(load)


def openvino(folder: Path, precision: str) -> Run:
    import openvino
    import torch

    def load(mel: Any) -> Run:
        settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        converted = openvino.convert_model(nvidia(folder), example_input=mel, input=[list(mel.shape)])
        model = openvino.Core().compile_model(converted, "CPU", settings)
        return lambda mel: torch.from_numpy(model([mel.numpy()])[0])

    return for_each_length(load)


def ours(folder: Path, **options: Any) -> Run:
    from distill_core import registry

    vocoder = registry.get("bigvgan", device="cpu", weights=folder, **options)
    print(vocoder.report(), file=sys.stderr)
    return lambda mel: vocoder.mel_to_waveform(mel, check_format=False)


WAYS: dict[str, tuple[str, tuple[str, ...], Callable[[Path], Run]]] = {
    "nvidia": ("NVIDIA's package, fp32", ("bigvgan",), nvidia),
    "compiled": ("torch.compile of it, frozen, fp32", ("bigvgan",), compiled),
    "onnxruntime": ("ONNX Runtime, fp32", ("bigvgan", "onnx", "onnxscript", "onnxruntime"), onnxruntime),
    "openvino-f32": ("OpenVINO, f32", ("bigvgan", "openvino"), lambda f: openvino(f, "f32")),
    "openvino-bf16": ("OpenVINO, bf16", ("bigvgan", "openvino"), lambda f: openvino(f, "bf16")),
    "eager": ("distill-bigvgan, eager, fp32", (), lambda f: ours(f, engine="eager")),
    "fp32": ("distill-bigvgan, fp32", (), ours),
    "bf16": ("distill-bigvgan, bf16", (), lambda f: ours(f, precision="bf16")),
}


# One process


def child(way: str, folder: Path, args: argparse.Namespace) -> int:
    started = time.perf_counter()
    output, sys.stdout = sys.stdout, sys.stderr  # NVIDIA's package prints
    import torch

    from distill_core.errors import DistillError

    torch.set_num_threads(args.threads)
    try:
        run = WAYS[way][2](folder)
    except DistillError as error:  # such as a precision that this processor lacks
        print(json.dumps({"failed": str(error)}), file=output)
        return 0
    result: dict[str, Any] = {"seconds": {}, "memory": {}, "left out": []}
    reference = folder / "reference.pt"
    with torch.inference_mode():
        for index, seconds in enumerate(sorted(args.seconds)):
            previous = max(result["seconds"].values(), default=0.0)
            expected = previous * seconds / sorted(args.seconds)[index - 1] if index else 0.0
            if time.perf_counter() - started + 2 * expected > args.budget:
                result["left out"].append(seconds)
                continue
            mel = mel_of(seconds)
            wave = run(mel)  # warm: compiled, packed, allocated
            if index == 0:
                if way == "nvidia" and not reference.exists():
                    torch.save(wave.clone(), reference)
                theirs = torch.load(reference)
                result["error"] = float((wave.flatten() - theirs.flatten()).norm() / theirs.norm())
            times: list[float] = []
            while len(times) < args.repeat and (not times or time.perf_counter() - started + times[-1] < args.budget):
                before = time.perf_counter()
                run(mel)
                times.append(time.perf_counter() - before)
            result["seconds"][seconds] = min(times)
            result["memory"][seconds] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(result), file=output)
    return 0


def measure(way: str, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    missing = [name for name in WAYS[way][1] if importlib.util.find_spec(name) is None]
    if missing:
        return {"failed": f"not installed: {', '.join(missing)}"}
    command = [sys.executable, "-m", "benchmarks.cpu", "--child", way, str(folder)]
    command += ["--repeat", str(args.repeat), "--budget", str(args.budget), "--threads", str(args.threads)]
    command += ["--seconds", *map(str, args.seconds)]
    try:
        # what a single run takes is not known beforehand: a way that hangs is ended at three times the budget
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=3 * args.budget, check=False)
    except subprocess.TimeoutExpired:
        return {"failed": "ended: far over the budget"}
    if done.returncode:
        return {"failed": "failed, see above"}
    result: dict[str, Any] = json.loads(done.stdout)
    if "failed" in result:
        return result
    return {**result, **{key: {float(s): v for s, v in result[key].items()} for key in ("seconds", "memory")}}


def merged(old: dict[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    """The faster time and the higher memory of two rounds."""
    if old is None or "failed" in old or "failed" in new:
        return new if old is None or "failed" in old else old
    both = {key: {**old[key], **new[key]} for key in ("seconds", "memory")}
    for seconds in old["seconds"].keys() & new["seconds"].keys():
        both["seconds"][seconds] = min(old["seconds"][seconds], new["seconds"][seconds])
        both["memory"][seconds] = max(old["memory"][seconds], new["memory"][seconds])
    return {**new, **both}


def report(results: dict[str, dict[str, Any]], args: argparse.Namespace) -> str:
    import torch

    lengths = sorted(args.seconds)
    load = f"; load average {os.getloadavg()[0]:.1f} at the end" if hasattr(os, "getloadavg") else ""
    lines = [
        f"{processor()}, {args.threads} threads, {platform.system()}, torch {torch.__version__}{load}. "
        f"`{VARIANT}`, random weights, seconds of audio per second (times NVIDIA's package).",
        "",
        "| | " + " | ".join(f"{s:g} s" for s in lengths) + " | peak memory | relative error |",
        "|---|" + "---|" * (len(lengths) + 2),
    ]
    base = results["nvidia"].get("seconds", {})
    for way, result in results.items():
        if "failed" in result:
            lines.append(f"| {WAYS[way][0]} | {result['failed']} |" + " |" * (len(lengths) + 1))
            continue
        cells = []
        for s in lengths:
            took = result["seconds"].get(s)
            ratio = f" ({base[s] / took:.1f}×)" if took and s in base else ""
            cells.append(f"{s / took:.2f}{ratio}" if took else "over the time budget")
        memory = max(result["memory"].values(), default=float("nan")) / 1e9
        error = f"{result['error']:.1e}" if "error" in result else "-"
        lines.append(f"| {WAYS[way][0]} | {' | '.join(cells)} | {memory:.2f} GB | {error} |")
    return "\n".join(lines)


def processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    named = {key.strip(): value.strip() for key, value in fields.items()}
    flags = named.get("flags", "").split()
    units = [name for name in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if name in flags][:2]
    family = f"family {named.get('cpu family', '?')} model {named.get('model', '?')}"
    return f"{named.get('model name', platform.machine())} ({family}; {', '.join(units)})"


def plot(results: dict[str, dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    for way, result in results.items():
        if times := result.get("seconds"):
            axes.plot(list(times), [s / t for s, t in times.items()], marker="o", label=WAYS[way][0])
    axes.set(xscale="log", xlabel="seconds of audio", ylabel="seconds of audio per second", title=VARIANT)
    lengths = sorted({s for result in results.values() for s in result.get("seconds", ())})
    axes.set_xticks(lengths, [f"{s:g}" for s in lengths])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.axhline(1, color="grey", linewidth=0.8, linestyle=":")
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
