"""What a runner holds in memory depends neither on the length of a file nor on how many there are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.corpus.conftest import tone

soundfile = pytest.importorskip("soundfile")

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory in /proc")

PROGRAM = """
import sys
from pathlib import Path
from distill_core.corpus.batches import batches
from distill_core.corpus.job import VocodeJob
from distill_core.corpus.plan import Plan

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))

runner = VocodeJob("toy-installed", folder=sys.argv[1], threads=1).load()
for source in sys.argv[2:]:
    for batch in batches(Plan((source,), sys.argv[1]), 0.002):
        assert all(outcome.status == "done" for outcome in runner.run(batch)), batch
    print(peak())
"""


def peaks(site: Path, out: Path, *sources: Path) -> list[float]:
    """Megabytes at the most, after each source, of a process that does one after another."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, out, *sources], env=environment, capture_output=True, text=True, check=True
    )
    return [float(line) for line in done.stdout.split()]


def test_memory_grows_neither_with_length_nor_with_number(toy_site: Path, tmp_path: Path, record_property) -> None:
    for i in range(120):
        tone(tmp_path / ("few" if i < 40 else "many") / f"{i}.wav", samples=3000 + 40 * (i % 40))
    # five minutes: 110 MB as float32, several times that on the way to a mel
    samples = np.tile((40 * np.sin(np.arange(96_000) / 7) + 128).astype(np.uint8), 300)
    with soundfile.SoundFile(tmp_path / "long.wav", "w", 96_000, 1, subtype="PCM_U8") as sound:
        sound.write((samples.astype(np.int16) - 128) * 256)
    del samples
    few, many, long = peaks(toy_site, tmp_path / "out", tmp_path / "few", tmp_path / "many", tmp_path / "long.wav")
    record_property("measured", f"corpus memory: {few:.0f} MB after 40 files, +{many - few:.0f} after 120, "
                                f"+{long - many:.0f} after five minutes at 96 kHz (110 MB of samples)")  # fmt: skip
    assert many - few < 20
    assert long - many < 60
    assert soundfile.info(tmp_path / "out" / "long.wav").frames == 300 * 8000
