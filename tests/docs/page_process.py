"""Runs one page of the documentation as its reader would: a process of its own, which is given the page's steps.

    python page_process.py < steps.json

Stops at the first step that does not do what the page says, tells the page's line, and exits with 1. Nothing but
the standard library is used, so that it also runs where a tutorial's reader begins: with nothing installed.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import json
import re
import subprocess
import sys
import traceback
import types
from typing import Any

SECONDS = 500
"""After which a command hangs."""

_ELLIPSIS = "…"
_MEASURED = re.compile(r"\d+(?:\.\d+)+(?:e[-+]?\d+)?")


class Failure(Exception):
    """A step that does not do what the page says."""


def loosely(line: str) -> str:
    """A line as it is compared: blanks collapsed, and every number with a point (a time, size, version) alike."""
    return " ".join(_MEASURED.sub("0.0", line).split())


def difference(expected: list[str], actual: list[str]) -> str | None:
    """None if the output is as shown: line for line, where … stands for any text, and alone for any lines."""
    pattern = ""
    for line in map(loosely, expected):
        if line == _ELLIPSIS:
            pattern += r"(?:.*\n)*?"
        else:
            pattern += ".*?".join(map(re.escape, line.split(_ELLIPSIS))) + r"\n"
    if re.fullmatch(pattern, "".join(f"{loosely(line)}\n" for line in actual)):
        return None
    return "\n".join(["it prints", *actual, "where the page shows", *expected])


def run_python(text: str, name: str, line: int, namespace: dict[str, Any]) -> None:
    """One block, in the namespace of those before it; a traceback names the page's own lines."""
    exec(compile("\n" * line + text, name, "exec"), namespace)


def run_session(text: str, name: str, line: int, namespace: dict[str, Any]) -> None:
    """One interactive session: every answer is compared with what is shown."""
    for example in doctest.DocTestParser().get_examples(text):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            try:
                exec(compile("\n" * (line + example.lineno) + example.source, name, "single"), namespace)
            except Exception as error:
                printed.write(f"Traceback (most recent call last):\n{traceback.format_exception_only(error)[-1]}")
        shown = [each for each in example.want.splitlines() if each.strip()]
        wrong = difference(shown, [each for each in printed.getvalue().splitlines() if each.strip()])
        if wrong:
            raise Failure(f">>> {example.source}{wrong}")


def run_command(command: str, expected: list[str]) -> None:
    """One command of the shell; it has to succeed, unless the page shows it failing."""
    done = subprocess.run(
        ["sh", "-ec", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=SECONDS,
    )  # fmt: skip
    text = re.sub(r"[^\n]*\r(?!\n)", "", done.stdout.decode(errors="replace"))  # progress overwrites itself
    lines = [line for line in text.splitlines() if line.strip()]
    fails = any(line.lstrip().startswith(("error: ", "FAIL ")) for line in expected)
    if (done.returncode != 0) is not fails:
        raise Failure("\n".join([f"$ {command}", *lines, f"exit code {done.returncode}"]))
    shown = [line for line in expected if line.strip()]
    wrong = difference(shown, lines) if shown else None
    if wrong:
        raise Failure(f"$ {command}\n{wrong}")


def main() -> int:
    page = json.load(sys.stdin)
    module = types.ModuleType("__main__")  # what blocks define can be pickled, as in a reader's own script
    sys.modules["__main__"] = module
    namespace = module.__dict__
    try:
        for step in page["steps"]:
            name, line, text = page["name"], step["line"], step["text"]
            if step["kind"] == "command":
                run_command(text, step["expected"])
            elif page["isolated"]:
                run_command(f"{sys.executable} - <<'END-OF-BLOCK'\n{text}\nEND-OF-BLOCK", [])
            elif step["kind"] == "session":
                run_session(text, name, line, namespace)
            else:
                run_python(text, name, line, namespace)
    except BaseException as error:
        detail = str(error) if isinstance(error, Failure) else traceback.format_exc()
        sys.stdout.flush()
        sys.stdout.write(f"\n{page['name']}, line {step['line'] + 1}: {detail}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
