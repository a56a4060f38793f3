"""compare: can a mel in one format stand for, or become, a mel in another, and what is lost."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from ..errors import MelMismatch
from .spec import MelSpec

# Below these the result would be invented rather than converted.
_MIN_COVERAGE = 0.25  # of the target's bands that the source's frequency range reaches
_MIN_BANDS = 0.25  # of the target's number of bands, over the range both have
_MAX_HOP = 1.0  # of the target's window: between frames further apart there is sound nobody looked at
# Differences under this are of no consequence.
_SLACK = 1.05


@dataclass(frozen=True)
class MelComparison:
    """What `compare` found.

    Args:
        source: the format at hand.
        target: the format wanted.
        kind: "exact" (the same numbers), "convertible" (a `MelAdapter` exists) or "incompatible".
        lost: for "convertible", what the target would have and the conversion cannot know, or drops.
        reasons: for "incompatible", why.
    """

    source: MelSpec
    target: MelSpec
    kind: Literal["exact", "convertible", "incompatible"]
    lost: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        details = "; ".join(self.reasons or self.lost)
        return f"{self.kind}: {details}" if details else self.kind


def compare(source: MelSpec | str, target: MelSpec | str) -> MelComparison:
    """Whether mels in the format `source` are, can become, or cannot become mels in the format `target`.

    Args:
        source: the format at hand, or a preset's name.
        target: the format wanted, or a preset's name.

    Raises:
        MelFormatError: one is neither a `MelSpec` nor a preset.
    """
    source, target = MelSpec.of(source), MelSpec.of(target)
    if source == target:
        return MelComparison(source, target, "exact")
    reasons = _reasons(source, target)
    if reasons:
        return MelComparison(source, target, "incompatible", reasons=tuple(reasons))
    return MelComparison(source, target, "convertible", lost=tuple(_lost(source, target)))


def check_convertible(source: MelSpec, target: MelSpec) -> MelComparison:
    """`compare`, where mels of the one format have to become mels of the other.

    Raises:
        MelMismatch: they cannot; the message says why.
    """
    found = compare(source, target)
    if found.kind == "incompatible":
        raise MelMismatch(
            f"A mel in the format {source} cannot be converted to {target}: {'; '.join(found.reasons)}."
        )
    return found


def _reasons(source: MelSpec, target: MelSpec) -> list[str]:
    """Why no conversion is possible; empty if one is."""
    low, high = _common(source, target)
    if low >= high:
        return [
            f"the source covers {source.fmin:g}-{source.fmax:g} Hz, the target "
            f"{target.fmin:g}-{target.fmax:g} Hz: they have no frequency in common"
        ]
    reasons = []
    covered = _bands_between(target, low, high)
    if covered < _MIN_COVERAGE * target.n_mels:
        reasons.append(
            f"the source covers {source.fmin:g}-{source.fmax:g} Hz, which is {covered:.0f} of the target's "
            f"{target.n_mels} bands"
        )
    elif (bands := _bands_between(source, low, high)) < _MIN_BANDS * covered:
        reasons.append(
            f"the source has {bands:.0f} bands where the target has {covered:.0f}: too few to tell their contents apart"
        )
    hop, window = _milliseconds(source)[0], _milliseconds(target)[1]
    if hop > _MAX_HOP * window:
        reasons.append(
            f"the source's frames are {hop:.1f} ms apart, further than the target's window of {window:.1f} ms"
        )
    return reasons


def _lost(source: MelSpec, target: MelSpec) -> list[str]:
    """What a conversion cannot keep or cannot know, one line each."""
    from .filters import gains

    assert source.fmax is not None
    assert target.fmax is not None
    lost = []
    if source.fmax < target.fmax:
        lost.append(
            f"bandwidth: the source ends at {source.fmax:g} Hz; the target's bands from there to "
            f"{target.fmax:g} Hz stay silent"
        )
    elif source.fmax > target.fmax:
        lost.append(f"bandwidth: what the source has above {target.fmax:g} Hz is dropped")
    if source.fmin > target.fmin:
        lost.append(f"bandwidth: the source begins at {source.fmin:g} Hz; below it the target stays silent")
    elif source.fmin < target.fmin:
        lost.append(f"bandwidth: what the source has below {target.fmin:g} Hz is dropped")
    low, high = _common(source, target)
    mine, theirs = _bands_between(source, low, high), _bands_between(target, low, high)
    if theirs > _SLACK * mine:
        lost.append(f"frequency resolution: {mine:.0f} bands stand for {theirs:.0f}")
    (hop, window), (target_hop, target_window) = _milliseconds(source), _milliseconds(target)
    windows = f"windows of {window:.1f} ms stand for windows of {target_window:.1f} ms"
    if window > _SLACK * target_window:
        lost.append(f"time resolution: {windows}")
    elif target_window > _SLACK * window:
        lost.append(f"frequency resolution: {windows}")
    if hop > _SLACK * target_hop:
        lost.append(f"time resolution: frames {hop:.1f} ms apart become frames {target_hop:.1f} ms apart")
    if floor_db(source) > floor_db(target) + 1:
        lost.append(
            f"floor: the source ends at about {floor_db(source):.0f} dB of full scale, the target at "
            f"{floor_db(target):.0f} dB"
        )
    if source.power != target.power:
        kinds = {1.0: "magnitudes", 2.0: "powers"}
        lost.append(f"{kinds[source.power]} become {kinds[target.power]}: how evenly a band is filled is estimated")
    if source.center != target.center and gains(replace(source, center=target.center), target) is not None:
        apart = 1000 * (target.first_center - source.first_center) / target.sample_rate
        when = "later" if apart > 0 else "earlier"
        lost.append(
            f"time resolution: frames between the source's are estimated. Said to have center={target.center}, the "
            f"source loses nothing by that, and its sound comes {abs(apart):.1f} ms {when}"
        )
    if lost:
        return lost
    if gains(source, target) is not None:
        return ["nothing of note: only the representation differs"]
    return ["detail: the bands or the frames lie elsewhere, and what is between them is estimated"]


def floor_db(spec: MelSpec) -> float:
    """The level of a sine that just reaches the floor, in dB of full scale; -inf without a floor.

    A band half-way up the range stands for all; Slaney-normalised filters differ by band.
    """
    import numpy as np

    from .filters import band_edges, filterbank, line_powers

    if spec.floor <= 0:
        return -math.inf
    middle = spec.n_mels // 2
    # The window spreads a sine over several bins, of which the band has the sum.
    bins = line_powers(spec, np.array([band_edges(spec)[middle + 1]]))[:, 0] ** (spec.power / 2)
    full_scale = float(filterbank(spec)[middle] @ bins)
    if full_scale <= 0:
        return -math.inf
    return 20 / spec.power * math.log10(spec.floor / full_scale)


def _common(source: MelSpec, target: MelSpec) -> tuple[float, float]:
    """The range of frequencies that both cover, in Hz."""
    assert source.fmax is not None
    assert target.fmax is not None
    return max(source.fmin, target.fmin), min(source.fmax, target.fmax)


def _bands_between(spec: MelSpec, low: float, high: float) -> float:
    """How many of a format's bands lie between two frequencies in Hz, as a fraction."""
    from .filters import hz_to_mel

    edges = hz_to_mel([spec.fmin, low, high, spec.fmax], spec.scale)
    return float(spec.n_mels * (edges[2] - edges[1]) / (edges[3] - edges[0]))


def _milliseconds(spec: MelSpec) -> tuple[float, float]:
    """A format's hop and window."""
    return 1000 * spec.hop_length / spec.sample_rate, 1000 * spec.win_length / spec.sample_rate
