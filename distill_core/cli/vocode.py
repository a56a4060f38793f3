"""`distill-vocoder vocode IN… -o OUT`: sound from mels, or from sound by way of mels."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..audio import FORMATS as AUDIO_FORMATS
from ..audio import check_writable, read_audio, write_audio
from ..device import PRECISIONS
from ..errors import DistillError, InvalidAudioError, OutputExistsError
from ..mel_files import FORMATS as MEL_FORMATS
from ..mel_files import read_mel
from ..registry import registry
from .output import print_json, print_line

if TYPE_CHECKING:
    import torch

    from ..vocoder import VocoderBase


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "vocode",
        help="make sound from mel files, or from audio files by way of their mels",
        description="An audio file is analysed and re-synthesised; a mel (.npy, .pt, .safetensors) is vocoded.",
    )
    parser.add_argument("inputs", nargs="+", metavar="IN", type=Path, help="audio or mel files")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        help="a file; a folder for several inputs or with / at its end",
    )
    parser.add_argument("--vocoder", default="auto", help="a name from `distill-vocoder list` (default: auto)")
    parser.add_argument("--variant", help="one of the vocoder's variants")
    parser.add_argument("--device", default="auto", help="auto, cuda, cuda:N, mps or cpu (default: auto)")
    parser.add_argument("--precision", default="fp32", choices=PRECISIONS, help="default: fp32")
    parser.add_argument("--weights", metavar="PATH", help="a folder or checkpoint of your own")
    parser.add_argument("--mel", metavar="FORMAT", help="the format of the mels: a preset (default: the vocoder's own)")
    parser.add_argument("--sample-rate", type=int, metavar="HZ", help="of the output (default: the vocoder's own)")
    parser.add_argument("--chunk-frames", type=int, metavar="N", help="frames that go through the model at once")
    parser.add_argument("--subtype", help="encoding of the output, such as PCM_24 or FLOAT")
    parser.add_argument("--force", action="store_true", help="overwrite files that exist")
    parser.add_argument("--quiet", action="store_true", help="no progress, no report")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    jobs = plan(args.inputs, args.output, overwrite=args.force)
    options = {} if args.chunk_frames is None else {"chunk_frames": args.chunk_frames}
    vocoder = registry.get(
        args.vocoder,
        variant=args.variant,
        device=args.device,
        precision=args.precision,
        mel=args.mel,
        sample_rate=args.sample_rate,
        weights=args.weights,
        **options,
    )
    results: list[dict[str, Any]] = []
    failures = 0
    for source, target in jobs:
        try:
            done = _one(source, target, vocoder, args)
        except DistillError as error:
            failures += 1
            message = str(error) if str(error).startswith(str(source)) else f"{source}: {error}"
            sys.stderr.write(f"error: {message}\n")
            results.append({"input": str(source), "error": message})
            continue
        results.extend(done)
        if not args.json and not args.quiet:
            for each in done:
                print_line(f"{each['output']}  {each['seconds']:.2f} s, {each['times_real_time']:.2f} x real time")
    if args.json:
        print_json({"vocoder": repr(vocoder), "report": vocoder.report().to_dict(), "files": results})
    return 1 if failures else 0


def plan(inputs: list[Path], output: str, *, overwrite: bool) -> list[tuple[Path, Path]]:
    """Which file each input is written to; nothing is read or computed before this is settled.

    Raises:
        OutputExistsError: an output exists, is one of the inputs, or is meant for two of them.
        InvalidAudioError: an output's ending is none that can be written.
    """
    folder = len(inputs) > 1 or output.endswith(("/", os.sep)) or Path(output).is_dir()
    if folder and Path(output).suffix.lower() in AUDIO_FORMATS and not Path(output).is_dir():
        raise InvalidAudioError(f"{output}: {len(inputs)} inputs need a folder to write to, not one file.")
    jobs: dict[Path, Path] = {}
    for source in inputs:
        target = Path(output, f"{source.stem}.wav") if folder else Path(output)
        if target in jobs:
            raise OutputExistsError(f"{target}: {jobs[target]} and {source} would both be written there.")
        if target.exists() and any(each.exists() and target.samefile(each) for each in inputs):
            raise OutputExistsError(f"{target}: is an input; choose another output.")
        check_writable(target, overwrite=overwrite)
        jobs[target] = source
    return [(source, target) for target, source in jobs.items()]


def _one(source: Path, target: Path, vocoder: VocoderBase, args: argparse.Namespace) -> list[dict[str, Any]]:
    started = time.perf_counter()
    if source.suffix.lower() in MEL_FORMATS:
        waves = list(vocoder.mel_to_waveform(read_mel(source), progress=not args.quiet))
    else:
        from ..resynthesis import resynthesize

        wave, rate = read_audio(source)
        waves = [resynthesize(wave, rate, vocoder, progress=not args.quiet)]
    elapsed = time.perf_counter() - started
    targets = [target] if len(waves) == 1 else [_numbered(target, index) for index in range(len(waves))]
    for wave, each in zip(waves, targets, strict=True):
        write_audio(each, wave, vocoder.sample_rate, subtype=args.subtype, overwrite=args.force)
    total = sum(wave.shape[-1] for wave in waves) / vocoder.sample_rate
    return [_result(source, each, wave, vocoder, total / elapsed) for wave, each in zip(waves, targets, strict=True)]


def _numbered(target: Path, index: int) -> Path:
    """One file for each item of a batch of mels."""
    return target.with_name(f"{target.stem}.{index}{target.suffix}")


def _result(source: Path, target: Path, wave: torch.Tensor, vocoder: VocoderBase, speed: float) -> dict[str, Any]:
    return {
        "input": str(source),
        "output": str(target),
        "seconds": wave.shape[-1] / vocoder.sample_rate,
        "sample_rate": vocoder.sample_rate,
        "times_real_time": speed,
    }
