"""`distill-vocoder check NAME`: does a vocoder keep the contract's promises?"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ..device import PRECISIONS
from .arguments import path
from .output import print_json, print_line


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "check",
        help="check a vocoder against the contract",
        description="Runs the conformance kit: a few hundred frames through the vocoder. Exit code 1 if a check fails.",
    )
    parser.add_argument("name", help="a name from `distill-vocoder list`, or auto")
    parser.add_argument("--variant", help="one of the vocoder's variants")
    parser.add_argument("--weights", metavar="PATH", type=path, help="a folder or checkpoint of your own")
    parser.add_argument("--device", default="cpu", help="auto, cuda, cuda:N, mps or cpu (default: cpu)")
    parser.add_argument("--precision", default="fp32", choices=PRECISIONS, help="default: fp32")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from ..testing import CHECKS, Result, run_checks

    live = sys.stderr.isatty()
    done = 0
    width = len(f"{len(CHECKS)}/{len(CHECKS)} ") + max(len(check.name) for check in CHECKS)

    def show(result: Result) -> None:
        nonlocal done
        done += 1
        if live:
            # Blanks wipe what was there on every terminal; an escape sequence is shown by some.
            sys.stderr.write(f"\r{f'{done}/{len(CHECKS)} {result.name}':<{width}}")
            sys.stderr.flush()

    report = run_checks(
        args.name,
        on_result=show,
        variant=args.variant,
        weights=args.weights,
        device=args.device,
        precision=args.precision,
    )
    if live:
        sys.stderr.write(f"\r{'':{width}}\r")
    if args.json:
        print_json(report.to_dict())
    else:
        print_line(str(report))
    return 0 if report.ok else 1
