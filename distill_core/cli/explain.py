"""`distill-vocoder explain NAME`: every offer of a name, what became of it, and what to do."""

from __future__ import annotations

import argparse
from typing import Any

from ..registry import registry
from .output import print_json, print_line


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "explain",
        help="tell why a vocoder can or cannot be used",
        description="Every offer of a name, what became of it, and what to do. Exit code 1 if it cannot be used.",
    )
    parser.add_argument("name", help="a vocoder's name, installed or not, or auto")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    explanation = registry.explain(args.name)
    if args.json:
        print_json(explanation.to_dict())
    else:
        print_line(str(explanation))
    return 0 if explanation.usable else 1
