"""A small network that corrects the analytic conversion for one pair of formats.

What the inversion of single frames cannot know, it has learned from recordings: how real sounds fill a
band, how they move between frames, and how to tell them from a decoder's noise, which log1p makes as large
as quiet sounds. It looks at sixteen source frames around a target frame one by one, at more of them on
average, and works along frequency. There are two of it, one for mels as they are analysed and one for mels
with a decoder's noise: what steadies the one blurs the other. How unsteady the quietest band is tells which
is asked, frame by frame, and in between both are.
`training/mel_refinement.py` makes the weights.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .filters import band_edges, hz_to_mel
from .inversion import band_values
from .spec import MelSpec

log = logging.getLogger(__name__)

BEFORE = 121
AFTER = 16
# Frames looked at one by one, counted from the source frame at or before the target frame's centre.
CLOSE = (-7, 8)
# Frames next to the target frame, whose mixture depends on where between them it lies.
NEAR = (-1, 2)
# Frames of which the mean is looked at, first and last: what lasts shows through noise. All are of whole blocks.
BLOCK = 8
FARTHEST = -119
MEANS = ((-31, 16), (-15, 16), (-31, -8), (9, 16), (-63, 16), (-63, -32), (FARTHEST, AFTER), (FARTHEST, -64))
# Target frames that the networks see at once: what one layer makes of them stays in a core's cache.
_AT_ONCE = 64
# Bands that are looked at together where the question is how much noise there is.
TOGETHER = 5
# How unsteady the quietest bands of a mel without noise are at most, and those of one with noise at least.
STEADY, NOISY = 2e-4, 8e-4
# Source bands beside a target band, which are the finer ones at low frequencies.
BESIDE = (-1.0, 0.0, 1.0)
_LOWEST = 1e-6
_LONGEST = MEANS.index((FARTHEST, AFTER))

WEIGHTS = {
    ("distill-vae", "bigvgan-44khz-128band-512x"): "refine-vae-to-44khz-128band.safetensors",
    ("distill-vae", "hifigan-22khz-80band"): "refine-vae-to-22khz-80band.safetensors",
}


class Refinement(nn.Module):
    """Correction of ln mel values, one target frame at a time, by whichever of two networks is for it.

    Args:
        bands: the target's number of bands.
        width: channels of the hidden layers.
        depth: residual blocks.
    """

    def __init__(self, bands: int, width: int = 48, depth: int = 6) -> None:
        super().__init__()
        self.steady = Corrector(bands, width, depth)
        self.noisy = Corrector(bands, width, depth)

    def forward(self, seen: Seen, phase: Tensor) -> Tensor:
        """What surrounds each target frame -> the correction to add to its interpolated ln values.

        Args:
            seen: `View.__call__`'s, of `N` target frames in all.
            phase: how far the target frame lies past its source frame, 0 to 1, `[N]`.

        Returns:
            `[N, m]` in nats.
        """
        inputs = seen.inputs(phase)
        correction = inputs.new_zeros(inputs.shape[0], inputs.shape[2])
        at_once = _AT_ONCE if inputs.device.type == "cpu" else len(inputs)
        for net, share in ((self.steady, 1.0 - seen.noise), (self.noisy, seen.noise)):
            for rows in share.nonzero()[:, 0].split(at_once):
                if len(rows):
                    correction.index_add_(0, rows, share[rows, None] * net(inputs[rows]).to(correction.dtype))
        return correction


class Corrector(nn.Module):
    """Residual convolutions along frequency, which know at which band they are.

    Args:
        bands: the target's number of bands.
        width: channels of the hidden layers.
        depth: residual blocks; their dilations run through 1, 2, 4.
    """

    def __init__(self, bands: int, width: int, depth: int) -> None:
        super().__init__()
        near, close = NEAR[1] - NEAR[0] + 1, CLOSE[1] - CLOSE[0] + 1
        inputs = 2 * close + 2 * near + 3 * len(MEANS) + near * len(BESIDE) + 2
        self.first = _along_bands(inputs, width, 1)
        self.place = nn.Parameter(torch.zeros(width, bands))
        self.blocks = nn.ModuleList(_along_bands(width, width, 2 ** (n % 3)) for n in range(depth))
        self.weight = nn.Parameter(torch.ones(depth, width, bands))
        self.last = _along_bands(width, 1, 1)
        nn.init.zeros_(self.last.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        """`Seen.inputs`, `[N, channels, m]` -> the correction in nats, `[N, m]`."""
        # As images one pixel high with the channels last, which oneDNN runs half again as fast.
        x = inputs.unsqueeze(2).contiguous(memory_format=torch.channels_last)
        x = self.first(x) + self.place[:, None]
        for block, weight in zip(self.blocks, self.weight, strict=True):
            x = torch.addcmul(x, block(F.relu(x)), weight[:, None])
        correction: Tensor = self.last(F.relu(x))
        return correction[:, 0, 0]


@dataclass(frozen=True)
class Seen:
    """What the network is shown of `N` target frames, each `[N, channels, m]`.

    And of each frame whether it is not silent, and the share of noise in it from 0 to 1, `[N]`.
    """

    levels: Tensor
    loudness: Tensor
    means: Tensor
    beside: Tensor
    sounding: Tensor
    noise: Tensor

    def inputs(self, phase: Tensor) -> Tensor:
        """All of it, with where between two source frames a target frame lies (`[N]`): `[N, channels, m]`."""
        near = self.levels[:, NEAR[0] - CLOSE[0] : NEAR[1] - CLOSE[0] + 1]
        off = (phase - 0.5)[:, None, None]
        return torch.cat([self.levels, self.loudness, near * off, near * off * off, self.means, self.beside], dim=1)


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
        logarithms = torch.log1p(values)
        loudness = self.warp @ logarithms
        fresh = _fresh(values)
        means = _means(loudness, fresh, index)
        unsteady = _unsteadiness(logarithms, fresh, index)
        # Noise alone has a mean, too, where negative values are raised to 0: what is above that is sound.
        floor = F.avg_pool1d(means[:, _LONGEST], TOGETHER, stride=1).amin(dim=1)[:, None, None]
        excess = torch.log((means - floor).clamp(min=0.0) / (floor + 1e-4) + 0.03) / 3.0
        depth = torch.log(torch.stack([floor[:, 0, 0], unsteady], dim=1)[:, :, None] + 1e-4) / 3.0 + 2.0
        levels = self.beside @ log_levels(values)
        beside = _around(levels.unflatten(1, (len(BESIDE), self.bands)), index, NEAR).flatten(1, 2)
        # Digital silence is not for the network to judge.
        loudest = F.max_pool1d(values.amax(dim=1, keepdim=True), NEAR[1] - NEAR[0] + 1, stride=1)
        return Seen(
            levels=_around(log_levels(bands), index - looked_at(mel.shape[2]).start, CLOSE),
            loudness=_around(loudness, index, CLOSE),
            means=torch.cat([means, torch.log(means + 1e-3), excess, depth.expand(-1, -1, self.bands)], dim=1),
            beside=beside,
            sounding=_at(loudest, index + NEAR[0])[:, 0] > 0,
            noise=(torch.log(unsteady / STEADY + 1e-9) / math.log(NOISY / STEADY)).clamp(0.0, 1.0),
        )


def looked_at(frames: int) -> slice:
    """Of so many source frames, those that are looked at one by one: beyond, only their mean is of use."""
    return slice(BEFORE + CLOSE[0], frames - AFTER + CLOSE[1])


def _fresh(values: Tensor) -> Tensor:
    """Which frames differ from the one before, as those beyond the ends do not: `[B, n, S]` -> 1 or 0, `[B, 1, S]`."""
    return F.pad((values[..., 1:] != values[..., :-1]).any(dim=1, keepdim=True).to(values.dtype), (1, 0))


def _blocks(values: Tensor, index: Tensor) -> Tensor:
    """Means of the blocks of frames from `FARTHEST` to `AFTER`, `[B, n, S]` -> `[B * F, blocks, n]`."""
    starts = torch.arange(FARTHEST, AFTER, BLOCK, device=values.device)
    row = torch.arange(values.shape[0], device=values.device)[:, None, None]
    blocks = F.avg_pool1d(values, BLOCK, stride=1).transpose(1, 2)
    return blocks[row, index[..., None] + starts].flatten(0, 1)


def _means(values: Tensor, fresh: Tensor, index: Tensor) -> Tensor:
    """The means over `MEANS` of what is fresh, `[B, n, S]` -> `[B * F, len(MEANS), n]`."""
    # Where nothing is, the little weight that all have makes it the mean of all.
    weight = fresh + 1e-3
    blocks, weights = _blocks(values * weight, index), _blocks(weight, index)
    spans = [slice((first - FARTHEST) // BLOCK, (last + 1 - FARTHEST) // BLOCK) for first, last in MEANS]
    return torch.stack([blocks[:, each].sum(dim=1) / weights[:, each].sum(dim=1) for each in spans], dim=1)


def _unsteadiness(values: Tensor, fresh: Tensor, index: Tensor) -> Tensor:
    """How far a value lies from the mean of its neighbours in time, on average, in the steadiest bands, `[B * F]`."""
    change = (0.5 * (values[..., 2:] + values[..., :-2]) - values[..., 1:-1]).abs()
    change = F.avg_pool1d(change.transpose(1, 2), TOGETHER, stride=1).transpose(1, 2)
    blocks = _blocks(torch.cat([F.pad(change, (2, 0)) * fresh, fresh], dim=1), index).sum(dim=1)
    return blocks[:, :-1].amin(dim=1) / blocks[:, -1].clamp(min=1.0 / BLOCK)


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
    centers = torch.from_numpy(hz_to_mel(band_edges(source)[1:-1], source.scale))
    wanted = torch.from_numpy(hz_to_mel(band_edges(target)[1:-1], source.scale))
    position = ((wanted - centers[0]) / (centers[1] - centers[0]) + shift).clamp(0, source.n_mels - 1)
    distance = (position[:, None] - torch.arange(source.n_mels, device="cpu")[None, :]).abs()
    return (1.0 - distance).clamp(min=0.0).float()


@lru_cache(maxsize=8)
def load(source: MelSpec, target: MelSpec) -> Refinement | None:
    """The shipped refinement for a pair of formats, on the CPU, or None if there is none. Not to be changed."""
    for (mine, theirs), name in WEIGHTS.items():
        path = Path(__file__).parent / name
        if MelSpec.preset(mine) == source and MelSpec.preset(theirs) == target:
            if path.is_file():
                return read(path)
            log.warning(
                "%s is missing, which comes with distill-core: mels are converted analytically, and sound worse. "
                "A frozen app has to take along distill-core's data files; elsewhere install distill-core again.",
                path,
            )
    return None


def read(path: Path) -> Refinement:
    """A refinement from its file; the file's shapes say its size."""
    from safetensors.torch import load_file

    with torch.inference_mode(False):
        tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
        depth, width, bands = tensors["steady.weight"].shape
        with torch.device("meta"):
            net = Refinement(bands, width, depth)
        net.load_state_dict(tensors, assign=True)
    return net.eval().requires_grad_(False)
