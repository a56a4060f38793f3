"""A small real vocoder for tests of the core: one convolution over frames, so its halo is known."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from distill_core import MelSpec, ModuleVocoder, Variant, VocoderCard, hookimpl

MEL = MelSpec(8000, 64, 16, 64, 5, 0.0, None, "htk", None, 1.0, "ln", 1e-5, False)
HALO = 3
VARIANT = Variant("plain", MEL, MEL.sample_rate)


class ToyModel(torch.nn.Module):
    """[B, 5, T] -> [B, 1, T * 16]; sample i of a frame depends on HALO frames on each side."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.conv = torch.nn.Conv1d(MEL.n_mels, MEL.hop_length, 2 * HALO + 1, padding=HALO)
        with torch.no_grad():
            for parameter in self.conv.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.conv(mel)).transpose(1, 2).flatten(1)[:, None]


class ToyVocoder(ModuleVocoder):
    """Counts its runs and the frames of each."""

    def __init__(self, variant: Variant = VARIANT, **arguments) -> None:
        super().__init__(ToyModel(), variant, halo=HALO, **arguments)
        self.runs: list[tuple[int, int]] = []

    def _vocode(self, mel: torch.Tensor) -> torch.Tensor:
        self.runs.append((mel.shape[0], mel.shape[2]))
        return super()._vocode(mel)


def load(card, variant, *, device, precision, weights=None, chunk_frames=None):
    """The factory that `card` names."""
    return ToyVocoder(variant, device=device, precision=precision, chunk_frames=chunk_frames)


def card(name: str = "toy", **changes) -> VocoderCard:
    fields = {
        "name": name,
        "summary": "a toy",
        "api": 1,
        "factory": "tests.toy:load",
        "variants": (VARIANT, Variant("other", MEL, MEL.sample_rate)),
        "license": "MIT",
        "homepage": "https://example.org",
    }
    return VocoderCard(**{**fields, **changes})


def plugin(*cards: VocoderCard) -> SimpleNamespace:
    """A plug-in object that offers these cards."""

    @hookimpl
    def distill_vocoders():
        return list(cards)

    return SimpleNamespace(distill_vocoders=distill_vocoders, __name__="toy_plugin")


def mel(batch: int = 2, frames: int = 50, seed: int = 1) -> torch.Tensor:
    return torch.randn(batch, MEL.n_mels, frames, generator=torch.Generator().manual_seed(seed))
