"""What the annotations tell a downstream project that runs mypy --strict."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

APP = """
import numpy as np
import torch

from distill_core import MelSpec, ModuleVocoder, get_vocoder, registry

vocoder = registry.get("hifigan", device=torch.device("cpu"))
same = get_vocoder("hifigan", torch.device("cpu"))
mel = MelSpec.preset("distill-vae").analyze(np.zeros(9000, np.float32))
wave = vocoder.mel_to_waveform(mel.numpy(), lengths=np.array([3]))
pieces = list(vocoder.stream([mel.numpy(), mel]))


class Mine(ModuleVocoder):
    pass


def moved(mine: Mine) -> Mine:
    return mine.to("cpu")
"""


def test_what_goes_in_is_annotated_as_going_in(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "app.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
