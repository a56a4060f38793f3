"""A small network that corrects the analytic conversion for one pair of formats.

What the inversion of single frames cannot know, it has learned from recordings: how real sounds fill a
band, how they move between frames, and how to tell them from a decoder's noise, which log1p makes as large
as quiet sounds. It looks at sixteen source frames around a target frame one by one, at more of them on
average, and works along frequency.
`training/mel_refinement.py` makes the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .filters import band_edges, hz_to_mel
from .inversion import band_values
from .spec import MelSpec

BEFORE = 63
AFTER = 16
# Frames looked at one by one, counted from the source frame at or before the target frame's centre.
CLOSE = (-7, 8)
# Frames next to the target frame, whose mixture depends on where between them it lies.
NEAR = (-1, 2)
# Frames of which the mean is looked at: what lasts shows through noise.
MEANS = ((-31, 16), (-15, 16), (-31, -8), (9, 16), (-BEFORE, AFTER), (-BEFORE, -32))
# Source bands beside a target band, which are the finer ones at low frequencies.
BESIDE = (-1.0, 0.0, 1.0)
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

    def __init__(self, bands: int, width: int = 48, depth: int = 6) -> None:
        super().__init__()
        near, close = NEAR[1] - NEAR[0] + 1, CLOSE[1] - CLOSE[0] + 1
        self.first = _along_bands(2 * close + 2 * near + 2 * len(MEANS) + near * len(BESIDE), width, 1)
        self.place = nn.Parameter(torch.zeros(width, bands))
        self.blocks = nn.ModuleList(_along_bands(width, width, 2 ** (n % 3)) for n in range(depth))
        self.last = _along_bands(width, 1, 1)
        nn.init.zeros_(self.last.weight)

    def forward(self, seen: Seen, phase: Tensor) -> Tensor:
        """What surrounds each target frame -> the correction to add to its interpolated ln values.

        Args:
            seen: `View.__call__`'s, of `N` target frames in all.
            phase: how far the target frame lies past its source frame, 0 to 1, `[N]`.

        Returns:
            `[N, m]` in nats.
        """
        near = seen.levels[:, NEAR[0] - CLOSE[0] : NEAR[1] - CLOSE[0] + 1]
        off = (phase - 0.5)[:, None, None]
        x = torch.cat([seen.levels, seen.loudness, near * off, near * off * off, seen.means, seen.beside], dim=1)
        # As images one pixel high with the channels last, which oneDNN runs half again as fast.
        x = x.unsqueeze(2).contiguous(memory_format=torch.channels_last)
        x = self.first(x) + self.place[:, None]
        for block in self.blocks:
            x = x + block(F.relu(x))
        correction: Tensor = self.last(F.relu(x))
        return correction[:, 0, 0]


@dataclass(frozen=True)
class Seen:
    """What the network is shown of `N` target frames, each `[N, channels, m]`, and which are not silent, `[N]`."""

    levels: Tensor
    loudness: Tensor
    means: Tensor
    beside: Tensor
    sounding: Tensor


class View:
    """The source around target frames, at the target's bands.

    Args:
        source, target: the pair of formats.
        device: where the constants live.
    """

    def __init__(self, source: MelSpec, target: MelSpec, device: torch.device) -> None:
        self.source = source
        self.bands = target.n_mels
        with torch.inference_mode(False):
            self.warp = warp_matrix(source, target).to(device)
            self.beside = torch.cat([warp_matrix(source, target, shift) for shift in BESIDE]).to(device)

    def __call__(self, mel: Tensor, bands: Tensor, index: Tensor) -> Seen:
        """Args:
        mel: source frames `[B, n, S]`.
        bands: `Inversion`'s of `mel[:, :, looked_at(S)]`, `[B, m, ...]`.
        index: the source frame at or before each target frame, `[B, F]`; `BEFORE` frames lie before it and
            `AFTER` after.

        Returns:
            `B * F` target frames.
        """
        values = band_values(mel, self.source)
        loudness = self.warp @ torch.log1p(values)
        means = torch.stack(
            [_at(F.avg_pool1d(loudness, last - first + 1, stride=1), index + first) for first, last in MEANS], dim=1
        )
        levels = self.beside @ log_levels(values)
        beside = _around(levels.unflatten(1, (len(BESIDE), self.bands)), index, NEAR).flatten(1, 2)
        # Digital silence is not for the network to judge.
        loudest = F.max_pool1d(values.amax(dim=1, keepdim=True), NEAR[1] - NEAR[0] + 1, stride=1)
        return Seen(
            levels=_around(log_levels(bands), index - looked_at(mel.shape[2]).start, CLOSE),
            loudness=_around(loudness, index, CLOSE),
            means=torch.cat([means, torch.log(means + 1e-3)], dim=1),
            beside=beside,
            sounding=_at(loudest, index + NEAR[0])[:, 0] > 0,
        )


def looked_at(frames: int) -> slice:
    """Of so many source frames, those that are looked at one by one: beyond, only their mean is of use."""
    return slice(BEFORE + CLOSE[0], frames - AFTER + CLOSE[1])


def _at(values: Tensor, index: Tensor) -> Tensor:
    """Frames by their numbers, `[B, ..., S]` and `[B, F]` -> `[B * F, ...]`."""
    row = torch.arange(values.shape[0], device=values.device)[:, None]
    return values.movedim(-1, 1)[row, index].flatten(0, 1)


def _around(values: Tensor, index: Tensor, span: tuple[int, int]) -> Tensor:
    """The frames around others, `[B, ..., S]` and `[B, F]` -> `[B * F, span, ...]`."""
    row = torch.arange(values.shape[0], device=values.device)[:, None, None]
    offsets = torch.arange(span[0], span[1] + 1, device=values.device)
    return values.movedim(-1, 1)[row, index[..., None] + offsets].flatten(0, 1)


def _along_bands(inputs: int, outputs: int, dilation: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, (1, 5), padding=(0, 2 * dilation), dilation=(1, dilation))


def log_levels(bands: Tensor) -> Tensor:
    """Target band values `[...]` on a scale a network likes."""
    return (torch.log(bands + _LOWEST) + 6.0) / 3.0


def warp_matrix(source: MelSpec, target: MelSpec, shift: float = 0.0) -> Tensor:
    """Linear interpolation from the source's band centres to the target's, `shift` source bands off, `[m, n]`."""
    centers = torch.tensor(hz_to_mel(band_edges(source)[1:-1], source.scale))
    wanted = torch.tensor(hz_to_mel(band_edges(target)[1:-1], source.scale))
    position = ((wanted - centers[0]) / (centers[1] - centers[0]) + shift).clamp(0, source.n_mels - 1)
    distance = (position[:, None] - torch.arange(source.n_mels)[None, :]).abs()
    return (1.0 - distance).clamp(min=0.0).float()


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
