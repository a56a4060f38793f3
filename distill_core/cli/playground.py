"""`distill-vocoder playground`: a page to hear and see what vocoders make of sounds and mels."""

from __future__ import annotations

import argparse
from typing import Any

from .arguments import port


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "playground",
        help="open a page to try vocoders on",
        description="Serves a page on this machine, for this machine, until Ctrl-C: drop or record a sound, or a mel "
        "file, and hear and see what a vocoder makes of it. Needs distill-core[playground].",
    )
    parser.add_argument("--vocoder", metavar="NAME", help="chosen at first (default: one that needs no download)")
    parser.add_argument("--port", type=port, metavar="N", help="default: 7860 or the next free one; 0: any free one")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in (default: 127.0.0.1)")
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from ..playground import serve
    from ..registry import registry

    if args.vocoder is not None:
        args.vocoder = registry.resolve(args.vocoder).name  # a name that does not exist is said here, not on the page
    serve(host=args.host, port=args.port, open_browser=args.open, vocoder=args.vocoder)
    return 0
