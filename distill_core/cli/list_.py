"""`distill-vocoder list`: what is installed, from metadata alone."""

from __future__ import annotations

import argparse
from typing import Any

from ..errors import PluginError
from ..registry import registry
from .output import print_json, print_line, print_table


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("list", help="list the vocoders that are installed")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    rows = []
    for name in registry.names():
        try:
            candidate = registry.candidate(name)
        except PluginError as error:  # two distributions offer it
            rows.append({"name": name, "distribution": None, "version": None, "summary": f"error: {error}"})
            continue
        rows.append(
            {
                "name": name,
                "distribution": candidate.distribution or None,
                "version": candidate.version or None,
                "summary": candidate.summary,
            }
        )
    if args.json:
        print_json(rows)
    elif rows:
        keys = ("name", "distribution", "version", "summary")
        print_table([key.upper() for key in keys], [[row[key] or "-" for key in keys] for row in rows])
    else:
        print_line(registry.why_none())
    return 0
