"""What the annotations tell a downstream project that runs mypy --strict."""

from __future__ import annotations

from pathlib import Path

import pytest

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


@pytest.mark.xdist_group("mypy")
def test_what_goes_in_is_annotated_as_going_in(tmp_path: Path, strict_mypy) -> None:
    (tmp_path / "app.py").write_text(APP)
    strict_mypy(tmp_path / "app.py")
