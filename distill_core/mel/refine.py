"""A small network that corrects the analytic conversion for one pair of formats.

What the inversion of single frames cannot know, it has learned from recordings: how real sounds fill a
band, how they move between frames, and how to tell them from a decoder's noise, which log1p makes as large
as quiet sounds. It looks at sixteen source frames around a target frame one by one, at more of them on
average, and works along frequency.
`training/mel_refinement.py` makes the weights.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .filters import band_edges, hz_to_mel
from .inversion import band_values
from .spec import MelSpec

BEFORE = 31
AFTER = 16
FRAMES = BEFORE + 1 + AFTER
# Frames looked at one by one.
CLOSE = slice(BEFORE - 7, BEFORE + 9)
# Frames next to the target frame, whose mixture depends on where between them it lies.
NEAR = slice(BEFORE - 1, BEFORE + 3)
# Frames of which the mean is looked at: what lasts shows through noise.
MEANS = (slice(0, FRAMES), slice(BEFORE - 15, FRAMES), slice(0, CLOSE.start), slice(CLOSE.stop, FRAMES))
_LOWEST = 1e-6

WEIGHTS = {
    ("distill-vae", "bigvgan-44khz-128band-512x"): "refine-vae-to-44khz-128band.safetensors",
    ("distill-vae", "hifigan-22khz-80band"): "refine-vae-to-22khz-80band.safetensors",
}


class Refinement(nn.Module):
    """Correction of ln mel values, one target frame at a time: residual convolutions along frequency.

    Args:
        bands: the target's number of bands.
        width: channels of the hidden layers.
        depth: residual blocks; their dilations run through 1, 2, 4.
    """

    def __init__(self, bands: int, width: int = 48, depth: int = 4) -> None:
        super().__init__()
        near, close = NEAR.stop - NEAR.start, CLOSE.stop - CLOSE.start
        self.first = _along_bands(2 * close + 2 * near + 2 * len(MEANS), width, 1)
        self.place = nn.Parameter(torch.zeros(width, bands))
        self.blocks = nn.ModuleList(_along_bands(width, width, 2 ** (n % 3)) for n in range(depth))
        self.last = _along_bands(width, 1, 1)
        nn.init.zeros_(self.last.weight)

    def forward(self, levels: Tensor, loudness: Tensor, phase: Tensor) -> Tensor:
        """ln band values around each target frame -> the correction to add to the interpolated ones.

        Args:
            levels: `log_levels` of the `FRAMES` source frames around each target frame, `[N, FRAMES, m]`.
            loudness: `warped` values of the same frames, `[N, FRAMES, m]`.
            phase: how far the target frame lies past its source frame, 0 to 1, `[N]`.

        Returns:
            `[N, m]` in nats.
        """
        near = levels[:, NEAR]
        off = (phase - 0.5)[:, None, None]
        means = torch.stack([loudness[:, part].mean(dim=1) for part in MEANS], dim=1)
        close = [levels[:, CLOSE], loudness[:, CLOSE]]
        x = torch.cat([*close, near * off, near * off * off, means, torch.log(means + 1e-3)], dim=1)
        # As images one pixel high with the channels last, which oneDNN runs half again as fast.
        x = x.unsqueeze(2).contiguous(memory_format=torch.channels_last)
        x = self.first(x) + self.place[:, None]
        for block in self.blocks:
            x = x + block(F.relu(x))
        correction: Tensor = self.last(F.relu(x))
        return correction[:, 0, 0]


def _along_bands(inputs: int, outputs: int, dilation: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, (1, 5), padding=(0, 2 * dilation), dilation=(1, dilation))


def log_levels(bands: Tensor) -> Tensor:
    """Target band values `[...]` on a scale a network likes."""
    return (torch.log(bands + _LOWEST) + 6.0) / 3.0


def warp_matrix(source: MelSpec, target: MelSpec) -> Tensor:
    """Linear interpolation from the source's band centres to the target's, `[n_mels_t, n_mels_s]`."""
    centers = torch.tensor(hz_to_mel(band_edges(source)[1:-1], source.scale))
    wanted = torch.tensor(hz_to_mel(band_edges(target)[1:-1], source.scale))
    position = ((wanted - centers[0]) / (centers[1] - centers[0])).clamp(0, source.n_mels - 1)
    distance = (position[:, None] - torch.arange(source.n_mels)[None, :]).abs()
    return (1.0 - distance).clamp(min=0.0).float()


def warped(mel: Tensor, source: MelSpec, matrix: Tensor) -> Tensor:
    """log1p of the source's band values at the target's band centres: `[B, n, T]` -> `[B, m, T]`."""
    return matrix @ torch.log1p(band_values(mel, source))


@lru_cache(maxsize=8)
def load(source: MelSpec, target: MelSpec) -> Refinement | None:
    """The shipped refinement for a pair of formats, on the CPU, or None if there is none. Not to be changed."""
    for (mine, theirs), name in WEIGHTS.items():
        path = Path(__file__).parent / name
        if MelSpec.preset(mine) == source and MelSpec.preset(theirs) == target and path.is_file():
            return read(path)
    return None


def read(path: Path) -> Refinement:
    """A refinement from its file; the file's shapes say its size."""
    from safetensors.torch import load_file

    tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
    width, bands = tensors["place"].shape
    depth = len({name.split(".")[1] for name in tensors if name.startswith("blocks.")})
    with torch.inference_mode(False):
        net = Refinement(bands, width, depth)
        net.load_state_dict(tensors)
    return net.eval().requires_grad_(False)
