"""`distill-vocoder new-plugin NAME`: an installable plug-in to start from."""

from __future__ import annotations

import argparse
import importlib.util
import shlex
import sys
from pathlib import Path
from typing import Any

from ..errors import DistillError
from ..registry import registry
from .arguments import file
from .output import print_json, print_line


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "new-plugin",
        help="write a plug-in of your own to start from",
        description="Writes an installable package: card, model, factory, test, README. It keeps the contract as it "
        "is; put your model in place of its two layers.",
    )
    parser.add_argument("name", help="the vocoder's name, such as my-voice")
    parser.add_argument("-o", "--output", metavar="DIR", type=file, help="default: distill-NAME in this folder")
    parser.add_argument("--mel", metavar="FORMAT", help="the preset of the mels it takes")
    parser.add_argument("--force", action="store_true", help="overwrite files that exist")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from ..new_plugin import DEFAULT_MEL, NewPlugin, write

    plugin = NewPlugin(args.name, args.mel or DEFAULT_MEL)
    folder = args.output or Path(plugin.distribution)
    _check_not_installed(plugin.package, folder)
    written = write(plugin, folder, overwrite=args.force)
    if args.name in registry.names():
        sys.stderr.write(f"A vocoder {args.name!r} is installed already: the two would be in conflict.\n")
    if args.json:
        print_json({"folder": str(folder), "files": [str(path) for path in written]})
        return 0
    for path in written:
        print_line(str(path))
    where = str(folder) if folder.is_absolute() else f"./{folder}"  # without ./ pip would look for it in the index
    print_line()
    print_line("Next:")
    print_line(f"  pip install -e {shlex.quote(where)}")
    print_line(f"  distill-vocoder check {args.name}")
    return 0


def _check_not_installed(package: str, folder: Path) -> None:
    """Two packages of one name take each other's place."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None or Path(found.origin).resolve().is_relative_to(folder.resolve()):
        return
    raise DistillError(
        f"A package {package} is installed already, and this one would take its place; choose another name."
    )
