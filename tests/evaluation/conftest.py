"""Vocoders and recordings that comparing is tried on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from distill_core import registry
from distill_core.audio import read_audio
from tests import toy
from tests.conftest import ROOT


def load_failing(card, variant, *, device, precision, weights=None):
    """The factory of a vocoder that loads and then fails on every mel that is loud."""
    vocoder = toy.ToyVocoder(variant, device=device, precision=precision)
    inner = vocoder._vocode

    def fail(mel):
        if mel.shape[-1] > 100:
            raise RuntimeError("the model ran into\na wall")
        return inner(mel)

    vocoder._vocode = fail
    return vocoder


@pytest.fixture(scope="module")
def toys() -> Iterator[None]:
    """Vocoders that take no time: "toy" with a variant "other", and "failing"."""
    names = ("toy", "failing")
    factory = "tests.evaluation.conftest:load_failing"
    registry.register(toy.plugin(toy.card("toy"), toy.card("failing", factory=factory)))
    yield
    for name in names:
        del registry._by_hand[name]
    registry.unload()
    registry.refresh()


@pytest.fixture(scope="session")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of sounds: two with speech, one with noise, in all 2.9 s."""
    soundfile = pytest.importorskip("soundfile")
    folder = tmp_path_factory.mktemp("sounds")
    wave, rate = read_audio(ROOT / "samples" / "speech.flac")
    (folder / "inner").mkdir()
    soundfile.write(folder / "b.wav", wave[0, : rate * 6 // 5].numpy(), rate)
    soundfile.write(folder / "inner" / "a.flac", wave[0, rate * 2 : rate * 16 // 5].numpy(), rate)
    noise = np.random.default_rng(0).standard_normal((22_050, 2)) * 0.05
    soundfile.write(folder / "inner" / "noise.wav", noise, 44_100)
    (folder / "notes.txt").write_text("no sound")
    return folder
