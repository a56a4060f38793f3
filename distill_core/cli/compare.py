"""`distill-vocoder compare REF… --vocoders a,b`: figures for each vocoder, and a report to look at and listen to."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from ..errors import DistillError
from .arguments import file, none_or_more, path, seconds
from .output import flush, print_json, print_line, print_table

if TYPE_CHECKING:
    from ..evaluation import Comparison


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "compare",
        help="measure vocoders on your own recordings, and write a report to listen to",
        description="Sends recordings through vocoders and measures what comes out against what went in. "
        'The packages behind the metrics: pip install "distill-core[compare]".',
    )
    parser.add_argument(
        "references", nargs="+", type=path, metavar="REF", help="audio files, folders of them, or quoted globs"
    )
    parser.add_argument(
        "--vocoders",
        required=True,
        action="append",
        metavar="LIST",
        help="NAME[:VARIANT][@PRECISION][=WEIGHTS], with commas between them: hifigan,hifigan:ljspeech,bigvgan@bf16",
    )
    parser.add_argument("--report", metavar="HTML", type=file, help="write one self-contained page there")
    parser.add_argument("--title", default="Vocoders compared", help="the report's heading")
    parser.add_argument(
        "--audio",
        choices=("wav", "opus", "none"),
        default="wav",
        help="the report's sounds: lossless, small, or none (default: wav)",
    )
    parser.add_argument("--no-audio", dest="audio", action="store_const", const="none", help="same as --audio none")
    parser.add_argument(
        "--details",
        type=none_or_more,
        default=20,
        metavar="N",
        help="show so many files with pictures and sounds (default: 20)",
    )
    parser.add_argument(
        "--max-seconds",
        type=seconds,
        default=30.0,
        metavar="S",
        help="compare so much of each recording; 0 for all of it (default: 30)",
    )
    parser.add_argument(
        "--speech",
        choices=("auto", "yes", "no"),
        default="auto",
        help="are the recordings speech? PESQ and STOI are for speech only (default: by their pitch)",
    )
    parser.add_argument("--device", default="auto", help="auto, cuda, cuda:N, mps or cpu (default: auto)")
    parser.add_argument("--force", action="store_true", help="overwrite a report that exists")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from ..evaluation import compare

    if args.report is not None:
        from ..evaluation.report import check_writable

        check_writable(args.report, overwrite=args.force)
    with _Bar(quiet=args.quiet) as bar:
        comparison = compare(
            args.references,
            args.vocoders,
            device=args.device,
            speech=args.speech,
            max_seconds=args.max_seconds or None,
            keep=args.details if args.report is not None else 0,
            progress=bar,
        )
    failures = comparison.failures()
    for line in failures:
        sys.stderr.write(f"error: {line}\n")
    size = problem = None
    if comparison.summary() and args.report is not None:
        try:
            size = comparison.write_report(args.report, audio=args.audio, title=args.title, overwrite=args.force)
        except DistillError as error:
            problem = error
    if args.json:
        print_json(comparison.to_dict())
    elif comparison.summary():
        _print(comparison)
        flush()
    if problem is not None:  # after the figures, which took all the time
        raise problem
    if size is not None:
        sys.stderr.write(f"{args.report}: {size / 1e6:.1f} MB\n")
    return 1 if failures else 0


def _print(comparison: Comparison) -> None:
    files = comparison.measured
    length = sum(each.seconds for each in files)
    print_line(f"{len(files)} recording{'' if len(files) == 1 else 's'}, {length:.1f} s; the best mean is marked *")
    print_line()
    labels = comparison.labels
    rows = []
    for summary in comparison.summary().values():
        metric = summary.metric
        better = {"higher": "higher is better", "lower": "lower is better", "zero": "best at 0"}[metric.better]
        cells = []
        for label in labels:
            each = summary.vocoders.get(label)
            mark = "*" if label in summary.best else " "
            cells.append("- " if each is None else metric.text(each.mean) + mark)
        counts = {each.count for each in summary.vocoders.values()}
        note = "" if counts == {len(files)} else f", {min(counts)} of {len(files)} recordings"
        rows.append([f"{metric.label}{f', {metric.unit}' if metric.unit else ''}", *cells, better + note])
    widths = [max(len(label) + 1, *(len(row[index + 1]) for row in rows)) for index, label in enumerate(labels)]
    head = ["", *(f"{label} ".rjust(width) for label, width in zip(labels, widths, strict=True)), ""]
    for row in rows:
        row[1:-1] = [cell.rjust(width) for cell, width in zip(row[1:-1], widths, strict=True)]
    print_table(head, rows)
    for why in sorted(set(comparison.missing.values())):
        sys.stderr.write(f"left out: {why}\n")


class _Bar:
    """Results on stderr; nothing when quiet."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.bar: Any = None

    def __enter__(self) -> _Bar:
        return self

    def __call__(self, done: int, total: int) -> None:
        if self.quiet:
            return
        if self.bar is None:
            from tqdm import tqdm

            self.bar = tqdm(total=total, desc="comparing", unit="result", leave=False)
        self.bar.update(done - self.bar.n)

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()
