"""Small vocoders that worker processes find as they find installed ones; see conftest.py."""

from __future__ import annotations

import os
import signal
import time

import torch

from distill_core import hookimpl
from tests import toy

DEADLY = 40.0
"""A mel with a value as high ends the process that vocodes it."""


class Deadly(toy.ToyVocoder):
    def _vocode(self, mel: torch.Tensor) -> torch.Tensor:
        if float(mel.max()) > DEADLY:
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._vocode(mel)


class Slow(toy.ToyVocoder):
    """Takes a twenty-fifth of a second for each run, so that there is a middle in which to disturb it."""

    def _vocode(self, mel: torch.Tensor) -> torch.Tensor:
        time.sleep(0.04)
        return super()._vocode(mel)


def load_deadly(card, variant, *, device, precision, weights=None):
    return Deadly(variant, device=device, precision=precision)


def load_slow(card, variant, *, device, precision, weights=None):
    return Slow(variant, device=device, precision=precision)


@hookimpl
def distill_vocoders():
    return [
        toy.card("toy-installed"),
        toy.card("toy-deadly", factory="tests.corpus.toy_plugin:load_deadly"),
        toy.card("toy-slow", factory="tests.corpus.toy_plugin:load_slow"),
    ]
