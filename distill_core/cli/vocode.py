"""`distill-vocoder vocode IN… -o OUT`: sound from mels, or from sound by way of mels; a file, or a corpus."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..audio import FORMATS as AUDIO_FORMATS
from ..audio import check_encoding, check_is_file, check_writable
from ..corpus.bar import Bar
from ..corpus.batches import Batch, extent
from ..corpus.conduct import Conductor, Summary
from ..corpus.files import is_url, plain, told_apart
from ..corpus.job import Outcome, VocodeJob
from ..corpus.local import LocalEngine, terminated_as_interrupted
from ..corpus.plan import MANIFEST_ENDINGS, Item, Plan, is_corpus, might_be_numbered, unnumbered
from ..corpus.ray_engine import RayEngine
from ..device import PRECISIONS
from ..errors import CorpusError, InvalidAudioError, OutputExistsError
from .arguments import gpus, one_or_more, path
from .output import print_json, print_line, printable

if TYPE_CHECKING:
    from ..corpus.runner import Runner


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "vocode",
        help="make sound from mel files, or from audio files by way of their mels",
        description="An audio file is analysed and re-synthesised; a mel (.npy, .pt, .safetensors) is vocoded.",
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        type=path,
        metavar="IN",
        help="audio or mel files, folders, globs ('clips/**/*.flac') or manifest.jsonl",
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        type=path,
        metavar="OUT",
        help="a file; a folder for several inputs or with / at its end",
    )
    chosen = "a name from `distill-vocoder list` (default: auto: bigvgan if it is installed, else another)"
    parser.add_argument("--vocoder", default="auto", help=chosen)
    parser.add_argument("--variant", help="one of the vocoder's variants")
    parser.add_argument("--device", default="auto", help="auto, cuda, cuda:N, mps or cpu (default: auto)")
    parser.add_argument("--precision", default="fp32", choices=PRECISIONS, help="default: fp32")
    parser.add_argument("--weights", metavar="PATH", type=path, help="a folder or checkpoint of your own")
    parser.add_argument("--mel", metavar="FORMAT", help="the format of the mels: a preset (default: the vocoder's own)")
    parser.add_argument(
        "--sample-rate", type=one_or_more, metavar="HZ", help="of the output (default: the vocoder's own)"
    )
    parser.add_argument(
        "--chunk-frames", type=one_or_more, metavar="N", help="frames that go through the model at once"
    )
    parser.add_argument("--subtype", help="encoding of the output, such as PCM_24 or FLOAT")
    parser.add_argument(
        "--format",
        choices=[each[1:] for each in AUDIO_FORMATS],
        help="of files in a folder (default: wav)",
    )
    parser.add_argument("--force", action="store_true", help="overwrite files that exist; do again what is done")
    parser.add_argument("--quiet", action="store_true", help="no progress, no report")
    parser.add_argument("--json", action="store_true", help="print JSON")
    corpora = parser.add_argument_group(
        "folders, globs and manifests", "What is missing or changed is done; the tree is kept. See docs/corpora.md."
    )
    corpora.add_argument("--workers", type=one_or_more, metavar="N", help="processes (default: as many as make sense)")
    corpora.add_argument("--threads", type=one_or_more, metavar="N", help="threads of each (default: 1)")
    corpora.add_argument("--fail-fast", action="store_true", help="begin nothing more after the first failure")
    corpora.add_argument("--keep-endings", action="store_true", help="a.flac becomes a.flac.wav")
    cluster = parser.add_argument_group("several machines", "See docs/cluster.md.")
    cluster.add_argument("--engine", choices=["local", "ray"], default="local", help="ray: on Ray (default: local)")
    cluster.add_argument("--address", help="of Ray: local, auto, HOST:6379 or ray://HOST:10001")
    cluster.add_argument("--gpus-per-worker", type=gpus, metavar="N", help="what a worker of Ray's takes of a GPU")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    on_ray = args.engine == "ray"
    if not on_ray and (args.address is not None or args.gpus_per_worker is not None):
        raise CorpusError("--address and --gpus-per-worker are for --engine ray.")
    args.ending = f".{args.format or 'wav'}"
    args.inputs, args.output = [plain(each) for each in args.inputs], plain(args.output)
    elsewhere = any(is_url(each) for each in (*args.inputs, args.output))
    if on_ray or elsewhere or args.workers is not None or any(is_corpus(each) for each in args.inputs):
        return _run_corpus(args)
    with terminated_as_interrupted():  # what is being written lies beside its target, where nothing sweeps it up later
        return _run_files(args)


def _job(args: argparse.Namespace, folder: str | None) -> VocodeJob:
    return VocodeJob(
        vocoder=args.vocoder,
        variant=args.variant,
        device=args.device,
        precision=args.precision,
        mel=args.mel,
        sample_rate=args.sample_rate,
        weights=args.weights,
        options=() if args.chunk_frames is None else (("chunk_frames", args.chunk_frames),),
        subtype=args.subtype,
        folder=folder,
        overwrite=args.force,
        threads=args.threads,
    )


# A few files, in this process


def _run_files(args: argparse.Namespace) -> int:
    items = plan(args.inputs, args.output, overwrite=args.force, ending=args.ending, keep_endings=args.keep_endings)
    if args.format is not None and (other := Path(items[0].output).suffix).lower() != args.ending:
        raise InvalidAudioError(f"{args.output}: is named as {other}, but --format says {args.format}.")
    for item in items:
        check_encoding(item.output, Path(item.output).suffix[1:], args.subtype, sample_rate=args.sample_rate)
    job = _job(args, None)
    runner: Runner | None = None
    outcomes = []
    for item in items:
        outcome = _absent(item)
        if outcome is None:
            runner = runner or job.load()  # may download, which is for a file that is there
            length = extent(item, job.frame_seconds).seconds
            with Bar(args.quiet, 1, length) as bar:
                [outcome] = runner.run(Batch((item,), (length,)), bar.advance)
        outcomes.append(outcome)
        if outcome.status == "failed":
            sys.stderr.write(f"error: {printable(outcome.reason)}\n")
            if args.fail_fast and (left := len(items) - len(outcomes)):
                sys.stderr.write(f"stopped (--fail-fast): {left} left.\n")
                break
        elif not args.json and not args.quiet:
            for each in _results(outcome):
                print_line(f"{each['output']}  {each['seconds']:.2f} s, {each['times_real_time']:.2f} x real time")
    if args.json:
        results = [each for outcome in outcomes for each in _results(outcome)]
        about: dict[str, Any] = {"vocoder": None, "report": None}
        if runner is not None:
            about = {"vocoder": repr(runner.vocoder), "report": runner.vocoder.report().to_dict()}
        print_json({**about, "files": results})
    return 1 if any(outcome.status == "failed" for outcome in outcomes) else 0


def _absent(item: Item) -> Outcome | None:
    """What becomes of an item without a file to read; None if there is one."""
    try:
        check_is_file(Path(item.input), item.input)
    except InvalidAudioError as error:
        return Outcome(item, "failed", str(error))
    return None


def plan(
    inputs: list[str], output: str, *, overwrite: bool, ending: str = ".wav", keep_endings: bool = False
) -> list[Item]:
    """Which file each input is written to; nothing is read or computed before this is settled.

    Raises:
        OutputExistsError: an output exists, is one of the inputs, or is meant for two of them.
        InvalidAudioError: an output's ending is none that can be written, or there is nothing to make it from.
    """
    folder = len(inputs) > 1 or output.endswith(("/", os.sep)) or os.path.isdir(output)
    if folder:
        _check_folder(output, f"{len(inputs)} inputs need a folder")
    elif Path(output).suffix.lower() not in AUDIO_FORMATS:  # meant as a folder, perhaps, for one that was misspelt
        check_is_file(Path(inputs[0]), inputs[0])
    jobs: dict[Path, Path] = {}
    taken: dict[str, Path] = {}
    for source in map(Path, inputs):
        name = source.name if keep_endings else source.stem
        target = Path(output, f"{name}{ending}") if folder else Path(output)
        other = taken.setdefault(told_apart(str(target)), source)
        if other is not source:
            hint = "" if other.name == source.name else " --keep-endings tells a.wav from a.flac."
            raise OutputExistsError(f"{target}: {other} and {source} would both be written there.{hint}")
        there = os.path.realpath(target)
        if os.path.exists(there) and any(os.path.exists(each) and os.path.samefile(there, each) for each in inputs):
            raise OutputExistsError(f"{target}: is an input; choose another output.")
        check_writable(target, overwrite=overwrite)
        jobs[target] = source
    items = [Item(str(source), str(target)) for target, source in jobs.items()]
    mels = {item.output for item in items if item.is_mel}
    for item in items:
        if (base := unnumbered(item.output)) in mels and base is not None:
            raise OutputExistsError(might_be_numbered(base))
    return items


def _check_folder(output: str, what: str) -> None:
    if output == "-":
        raise InvalidAudioError("-: what is vocoded is not written to stdout; name a folder, or ./- for one called so.")
    if Path(output).suffix.lower() in AUDIO_FORMATS and not os.path.isdir(output):
        raise InvalidAudioError(f"{output}: {what} to write to, not one file.")


def _results(outcome: Outcome) -> list[dict[str, Any]]:
    """What is printed of an item: something for each of its outputs, or its error."""
    if outcome.status == "failed":
        return [{"input": printable(outcome.item.input), "error": printable(outcome.reason)}]
    speed = outcome.seconds * len(outcome.outputs) / outcome.took
    return [
        {
            "input": printable(outcome.item.input),
            "output": printable(output),
            "seconds": outcome.seconds,
            "sample_rate": outcome.sample_rate,
            "times_real_time": speed,
        }
        for output in outcome.outputs
    ]


# A corpus, in processes of its own


def _run_corpus(args: argparse.Namespace) -> int:
    _check_folder(args.output, "folders, globs, manifests, --workers and --engine ray need a folder")
    if not any(each.lower().endswith(MANIFEST_ENDINGS) for each in args.inputs):  # those may name files of any format
        rate = args.sample_rate
        check_encoding(f"--format {args.ending[1:]}", args.ending[1:], args.subtype, sample_rate=rate)
    job = _job(args, args.output)
    corpus = Plan(tuple(args.inputs), args.output, ending=args.ending, keep_endings=args.keep_endings)
    engine: LocalEngine | RayEngine
    if args.engine == "ray":
        engine = RayEngine(job, args.workers, address=args.address, gpus_per_worker=args.gpus_per_worker)
    else:
        engine = LocalEngine(job, args.workers)
    conductor = Conductor(corpus, job, engine, fail_fast=args.fail_fast, quiet=args.quiet)
    if isinstance(engine, LocalEngine) and not args.force:  # with it, what the record tells of may be an older run's
        engine.unfinished = conductor.unfinished
    interrupted = False
    try:
        with terminated_as_interrupted():
            conductor.run()
    except KeyboardInterrupt:
        interrupted = True
    _tell(conductor.summary, engine.about, args)
    if interrupted:
        sys.stderr.write("interrupted: the same command goes on from there.\n")
        return 130
    return 1 if conductor.summary.failed or conductor.summary.stopped else 0


def _tell(summary: Summary, about: dict[str, Any], args: argparse.Namespace) -> None:
    """The end of a run: failures on stderr, counts on stdout."""
    for outcome in summary.failures:
        sys.stderr.write(f"error: {printable(outcome.reason)}\n")
    if (unlisted := summary.failed - len(summary.failures)) > 0:
        sys.stderr.write(f"error: and {unlisted} more\n")
    if summary.stopped:
        sys.stderr.write(f"stopped ({summary.stopped}): {summary.left} left; the same command goes on.\n")
    if args.json:
        counts = {name: getattr(summary, name) for name in ("files", "done", "current", "failed", "left")}
        errors = [{"input": printable(each.item.input), "error": printable(each.reason)} for each in summary.failures]
        times = {"seconds": summary.seconds, "elapsed": summary.elapsed}
        known = {"vocoder": about.get("vocoder"), "report": about.get("report")}
        print_json({**known, "output": printable(summary.folder), **counts, **times, "errors": errors})
    elif not args.quiet:
        speed = summary.seconds / summary.elapsed if summary.elapsed else 0.0
        current = f", {summary.current} were done before" if summary.current else ""
        failed = f", {summary.failed} failed" if summary.failed else ""
        left = f", {summary.left} left" if summary.left else ""
        files = "1 file" if summary.files == 1 else f"{summary.files} files"
        print_line(
            f"{summary.folder}  {files}: {summary.done} done{current}{failed}{left}; "
            f"{summary.seconds:.1f} s of sound in {summary.elapsed:.1f} s, {speed:.2f} x real time"
        )
