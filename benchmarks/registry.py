"""What it costs to list plug-ins: ours beside stevedore, pluggy's own loading, and catalogue.

    pip install stevedore catalogue
    python -m benchmarks.registry [--rounds 7] [--plugins 100]

Every system gets the same fake distributions, with metadata as pip writes it, in a folder of their own; one of
them imports torch, as real plug-ins do. Each measurement is a process of its own, the systems take turns, and the
median counts. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

GROUPS = ("distill.vocoders", "bench_peers")  # catalogue's groups have an underscore, and no dot

SYSTEMS = {
    "distill `registry.names()`": "from distill_core import registry\nnames = registry.names()",
    "`importlib.metadata` alone": (
        "from importlib.metadata import entry_points\nnames = sorted(entry_points(group='bench_peers').names)"
    ),
    "stevedore `ExtensionManager`": (
        "from stevedore import ExtensionManager\nnames = sorted(ExtensionManager('bench_peers').names())"
    ),
    "pluggy `load_setuptools_entrypoints`": (
        "import pluggy\nmanager = pluggy.PluginManager('bench')\n"
        "manager.load_setuptools_entrypoints('bench_peers')\n"
        "names = sorted(name for name, _ in manager.list_name_plugin())"
    ),
    "catalogue `get_all`": (
        "import catalogue\nnames = sorted(catalogue.create('bench', 'peers', entry_points=True).get_all())"
    ),
}
PROBE = """
import json, sys, time
started = time.perf_counter()
{source}
seconds = time.perf_counter() - started
fake = [name for name in sys.modules if name.startswith("fake_plugin_")]
found = [name for name in names if name.startswith("fake")]
print(json.dumps([seconds, len(found), len(fake), "torch" in sys.modules]))
"""
MODULE = '''"""A fake plug-in."""
{imports}
from distill_core import MelSpec, Variant, VocoderCard, hookimpl

MEL = MelSpec.preset("hifigan-22khz-80band")


@hookimpl
def distill_vocoders():
    return [VocoderCard("{name}", "a fake", 1, "{module}:load", [Variant("only", MEL, MEL.sample_rate)], license="MIT")]
'''


@dataclass
class Row:
    """One system's measurements, in seconds."""

    whole: list[float]
    listing: list[float]
    found: int = 0
    imported: int = 0
    torch: bool = False
    missing: str = ""


def install_fakes(folder: Path, count: int = 100, *, with_torch: int = 1) -> None:
    """Put `count` distributions with a plug-in each into a folder; the last `with_torch` of them import torch."""
    for number in range(count):
        name, module = f"fake{number:03d}", f"fake_plugin_{number:03d}"
        imports = "import torch" if number >= count - with_torch else ""
        (folder / f"{module}.py").write_text(MODULE.format(name=name, module=module, imports=imports))
        info = folder / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\nSummary: a fake\n\n")
        (info / "entry_points.txt").write_text("\n".join(f"[{group}]\n{name} = {module}\n" for group in GROUPS))
        (info / "RECORD").write_text(f"{module}.py,,\n{module}-1.0.dist-info/METADATA,,\n")
        (info / "INSTALLER").write_text("pip\n")


def run(source: str, environ: dict[str, str]) -> tuple[float, subprocess.CompletedProcess[str]]:
    """Seconds of a whole Python process, and what it said."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, env=environ)
    return time.perf_counter() - started, done


def measure(folder: Path, rounds: int) -> dict[str, Row]:
    """Every system's row. The first round warms caches, stevedore's own among them, and does not count."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("DISTILL_")}
    environ.update(PYTHONPATH=f"{folder}{os.pathsep}{os.getcwd()}", XDG_CACHE_HOME=str(folder / "cache"))
    rows = {name: Row([], []) for name in SYSTEMS}
    for number in range(rounds + 1):
        for name, source in SYSTEMS.items():
            row = rows[name]
            if row.missing:
                continue
            whole, done = run(PROBE.format(source=source), environ)
            if done.returncode:
                row.missing = done.stderr.strip().splitlines()[-1]
                continue
            listing, row.found, row.imported, row.torch = json.loads(done.stdout.splitlines()[-1])
            if number:
                row.whole.append(whole)
                row.listing.append(listing)
    return rows


def table(rows: dict[str, Row]) -> str:
    """Markdown."""
    ours = statistics.median(next(iter(rows.values())).listing)
    lines = [
        "| | listing | × ours | whole process | names | plug-ins imported | torch imported |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for name, row in rows.items():
        if row.missing:
            lines.append(f"| {name} | not measured: {row.missing} | | | | | |")
            continue
        listing, whole = statistics.median(row.listing), statistics.median(row.whole)
        lines.append(
            f"| {name} | {1000 * listing:.0f} ms | {listing / ours:.1f} | {1000 * whole:.0f} ms | {row.found} | "
            f"{row.imported} | {'yes' if row.torch else 'no'} |"
        )
    return "\n".join(lines)


def command_against_torch(rounds: int) -> str:
    """`distill-vocoder list` as a whole process beside `import torch` alone, with what is installed here."""
    sources = {
        "`distill-vocoder list`": "from distill_core.cli import main\nmain(['list'])",
        "`python -c 'import torch'`": "import torch",
        "`python -c pass`": "pass",
    }
    times: dict[str, list[float]] = {name: [] for name in sources}
    for number in range(rounds + 1):
        for name, source in sources.items():
            seconds, _ = run(source, dict(os.environ))
            if number:
                times[name].append(seconds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    torch = medians["`python -c 'import torch'`"]
    lines = ["| whole process | time | of `import torch` |", "|---|---:|---:|"]
    lines += [f"| {name} | {1000 * value:.0f} ms | {100 * value / torch:.0f} % |" for name, value in medians.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each, after one that warms up")
    parser.add_argument("--plugins", type=int, default=100, help="how many are installed")
    args = parser.parse_args()
    for with_torch in (1, 0):
        with tempfile.TemporaryDirectory() as folder:
            install_fakes(Path(folder), args.plugins, with_torch=with_torch)
            rows = measure(Path(folder), args.rounds)
        which = "one of which imports torch" if with_torch else "none of which imports torch"
        print(f"{args.plugins} plug-ins, {which}; median of {args.rounds}:\n\n{table(rows)}\n")
    print(f"The command; median of {args.rounds}:\n\n{command_against_torch(args.rounds)}")


if __name__ == "__main__":
    main()
