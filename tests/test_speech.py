"""Real speech through the terminal: does it sound like what went in?"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


def test_real_speech_through_hifigan_keeps_its_quality(
    speech_files: list[Path], trained_hifigan: Path, tmp_path: Path, record_property
) -> None:
    """PESQ-WB per spoken channel name; printed, and 2.9 or more in the mean."""
    pesq = pytest.importorskip("pesq")
    command = [sys.executable, "-m", "distill_core.cli", "vocode", *map(str, speech_files), "-o", f"{tmp_path}/out/"]
    done = subprocess.run([*command, "--vocoder", "hifigan", "--json"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)["files"]
    assert len(results) == len(speech_files) >= 8

    scores = {}
    for source, result in zip(speech_files, results, strict=True):
        scores[source.stem] = pesq.pesq(16000, _at_16khz(source), _at_16khz(Path(result["output"])), "wb")
    mean = sum(scores.values()) / len(scores)
    for name, score in scores.items():
        record_property("measured", f"PESQ-WB {score:.2f}  {name}")
    record_property("measured", f"PESQ-WB {mean:.2f}  mean of {len(scores)}")
    assert mean >= 2.9


def _at_16khz(path: Path):
    from distill_core.audio import read_audio
    from distill_core.resample import resample

    wave, rate = read_audio(path)
    return resample(wave[None, :1], rate, 16000)[0, 0].numpy()
