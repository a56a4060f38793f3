"""The command `distill-vocoder`.

One module a command: `add_parser` declares it, `run` does it and returns the exit code. Data goes to
stdout, everything else to stderr. Exit codes: 0 done, 1 a `DistillError` (one line, no traceback),
2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from ..errors import DistillError
from .output import patient_streams, printable_lines, stdout_for_answers


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    # Here, where whoever presses Ctrl-C during it is heard.
    from .. import __version__
    from . import check, compare, doctor, explain, info, list_, new_plugin, playground, vocode, weights

    parser = argparse.ArgumentParser(
        prog="distill-vocoder",
        description="Turn mel spectrograms into sound with the vocoders that are installed.",
    )
    parser.add_argument("--version", action="version", version=f"distill-core {__version__}")
    parser.add_argument("-v", "--verbose", action="store_true", help="say on stderr what is being done")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (list_, info, vocode, compare, playground, weights, explain, doctor, check, new_plugin):
        command.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    with patient_streams() as stdout:
        code = _run(argv)
        stdout.flush()
        if stdout.problem is None or isinstance(stdout.problem, BrokenPipeError):  # whoever read it has seen enough
            return code
        print_error(DistillError(f"stdout cannot be written to ({stdout.problem.strerror})."))
        return code or 1


def _run(argv: Sequence[str] | None) -> int:
    try:
        args = build_parser().parse_args(argv)
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_Printable("%(message)s"))
        logging.basicConfig(level=logging.INFO if args.verbose else logging.WARNING, handlers=[handler])
        with stdout_for_answers():
            code: int = args.run(args)
        return code
    except DistillError as error:
        print_error(error)
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130


def print_error(error: Exception) -> None:
    """`error: …` on stderr; a name in it that holds control characters does nothing to the terminal."""
    sys.stderr.write(f"error: {printable_lines(str(error))}\n")


class _Printable(logging.Formatter):
    """What is logged names files and quotes servers: nothing of that does anything to the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return printable_lines(super().format(record))
