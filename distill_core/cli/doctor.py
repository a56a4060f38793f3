"""`distill-vocoder doctor`: the state of the whole installation, and what to do about it."""

from __future__ import annotations

import argparse
from typing import Any

from ..registry import registry
from .output import print_json, print_line


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "doctor",
        help="examine the whole installation; for bug reports",
        description="Python, torch and devices, packages, plug-ins, weights, environment variables, and what is "
        "wrong with them. Nothing secret is printed and no network is used. Exit code 1 if something is wrong.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from ..doctor import diagnose

    diagnosis = diagnose(registry)
    if args.json:
        print_json(diagnosis.to_dict())
    else:
        print_line(str(diagnosis))
    return 1 if diagnosis.problems else 0
