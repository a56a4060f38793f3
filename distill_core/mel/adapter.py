"""MelAdapter: mels of one format -> mels of another, in one piece or slice by slice."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from ..arrays import check_plain
from ..device import parsed
from ..errors import InvalidMelError
from . import refine as refinement
from .analysis import compress
from .compare import check_convertible
from .conversion import Conversion
from .filters import gains
from .inversion import Inversion, band_values, finish
from .spec import MelSpec, counted
from .timing import FrameClock

# Of a band, in a source's magnitudes or powers: no sum of it or its squares comes near the end of float32.
_LOUDEST = 1e16
# Target frames converted at a time: bounds the memory, about 30 kB a frame and layer with the refinement.
_RUN = 512


class MelAdapter:
    """Conversion between two mel formats.

    Where only normalisation, logarithm, floor or eps differ, each value is converted by itself, exactly. Elsewhere
    bands become a spectrum, the spectrum moves in Hz (never by bin number), frame centres are matched in
    seconds; where a refinement is shipped for the pair, it corrects the result. Beyond the first and last
    source frame, the mel is taken to stay as it is there. Stateless after construction: several threads
    may share one.

    Args:
        source: the format of the mels at hand, or a preset's name.
        target: the format wanted, or a preset's name.
        device: where to compute; the mels come and go there.
        refine: use the learned refinement where there is one for the pair.

    Raises:
        MelMismatch: the formats are incompatible; the message says why.
        MelFormatError: one is neither a `MelSpec` nor a preset.
        DeviceError: torch knows no such device.
    """

    def __init__(
        self,
        source: MelSpec | str,
        target: MelSpec | str,
        *,
        device: torch.device | str = "cpu",
        refine: bool = True,
    ) -> None:
        source, target = MelSpec.of(source), MelSpec.of(target)
        self.comparison = check_convertible(source, target)
        self.source = source
        self.target = target
        self._clock = FrameClock(source, target)
        net = refinement.load(source, target) if refine else None
        self.refined = net is not None
        """Whether a learned refinement is in use."""
        self._before, self._after = (refinement.BEFORE, refinement.AFTER) if self.refined else (0, 1)
        gain = gains(source, target)
        self.pointwise = gain is not None
        """Whether each value is converted by itself, and nothing has to be estimated."""
        if self.pointwise:
            self._before = self._after = 0
        with torch.inference_mode(False):
            self._gain = None if gain is None else torch.tensor(gain[:, None], dtype=torch.float32, device="cpu")
        self._net = net
        # A full scale of 2 ** 15, as of integers, and more is far below; what is above overflows in between.
        self._limit = float(compress(torch.tensor(_LOUDEST, dtype=torch.float64, device="cpu"), source))
        self.to(device)

    @property
    def _same(self) -> bool:
        return self.comparison.kind == "exact"

    @property
    def context(self) -> int:
        """Source frames on either side that a target frame may depend on."""
        return max(self._before, self._after)

    def to(self, device: torch.device | str) -> MelAdapter:
        """Move the constants to another device; returns the adapter itself.

        Raises:
            DeviceError: torch knows no such device.
        """
        self.device = parsed(device)
        if self._gain is not None:
            self._gain = self._gain.to(self.device)
            return self
        self._conversion = Conversion(self.source, self.target, self.device)
        if self._net is not None:
            self._inversion = Inversion(self.source, self.target, self.device)
            # The loaded network is shared between adapters, so it is copied rather than moved.
            self._net = copy.deepcopy(self._net).to(self.device)
            self._view = refinement.View(self.source, self.target, self.device)
        return self

    # Frames

    def out_frames(self, n_source_frames: int) -> int:
        """How many target frames so many source frames become: their duration, rounded up.

        T frames of a centred format, such as the app's, last (T - 1) hops, as for an inverse STFT.

        Raises:
            InvalidMelError: it is no whole number.
        """
        return self._clock.duration(counted(n_source_frames, "frames", InvalidMelError))

    def window(self, start: int, stop: int, total: int | None) -> tuple[int, int]:
        """The source frames [lo, hi) that target frames [start, stop) depend on.

        Args:
            start: the first target frame.
            stop: the one after the last, beyond `start`.
            total: source frames of the whole mel; None while it is still growing, and then `hi` may lie
                beyond what has arrived (see `ready`).
        """
        lo = max(0, self._clock.before(start) - self._before)
        hi = max(1, self._clock.before(stop - 1) + self._after + 1)
        if total is not None:
            # Beyond the last frame, the last frame stands.
            lo, hi = min(lo, total - 1), min(hi, total)
        return lo, hi

    def ready(self, n_source_frames: int) -> int:
        """How many target frames are settled once so many source frames are there, whatever follows."""
        count = self._clock.count_before(n_source_frames - self._after)
        return min(count, self.out_frames(n_source_frames))

    # Conversion

    def __call__(self, mel: Tensor) -> Tensor:
        """A whole mel `[B, n, T]` in the target's format, `[B, m, out_frames(T)]`, in float32.

        Raises:
            InvalidMelError: not a floating-point tensor of rank 3 with the source's number of bands and
                at least one frame, or NaN or a value beyond those of any sound in it.
        """
        total = mel.shape[-1] if isinstance(mel, Tensor) and mel.ndim == 3 else 0
        return self.convert(mel, offset=0, start=0, stop=self.out_frames(total), total=total)

    def convert(self, mel: Tensor, *, offset: int, start: int, stop: int, total: int | None) -> Tensor:
        """Target frames [start, stop) of a mel of which a slice is at hand.

        The result does not depend on how the mel was sliced, beyond rounding.

        Args:
            mel: source frames [offset, offset + T) as `[B, n, T]`, at least those of `window`.
            offset: the first of them, counted from the beginning of the whole mel.
            start: the first target frame wanted.
            stop: the one after the last.
            total: source frames of the whole mel, or None while it is still growing.

        Returns:
            `[B, m, stop - start]` in float32.

        Raises:
            InvalidMelError: see `__call__`.
            ValueError: the slice lacks frames that the result depends on.
        """
        self._check(mel, offset)
        if stop <= start:
            return mel.new_zeros((mel.shape[0], self.target.n_mels, 0), dtype=torch.float32)
        lo, hi = self.window(start, stop, total)
        if offset > lo or offset + mel.shape[-1] < hi:
            raise ValueError(
                f"Target frames {start} to {stop} depend on source frames {lo} to {hi}; "
                f"the slice holds {offset} to {offset + mel.shape[-1]}."
            )
        if self._same:
            return mel[:, :, start - offset : stop - offset].float()
        pieces = []
        for first in range(start, stop, _RUN):
            last = min(first + _RUN, stop)
            lo, hi = self.window(first, last, total)
            with torch.autocast(mel.device.type, enabled=False):
                pieces.append(self._run(mel[:, :, lo - offset : hi - offset], lo, first, last))
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=2)

    @torch.no_grad()
    def _run(self, mel: Tensor, lo: int, start: int, stop: int) -> Tensor:
        """`convert` of a slice that is just the window beginning at source frame `lo`."""
        if self._gain is not None:
            return finish(self._gain * band_values(mel, self.source), self.target)
        whole, phase = self._clock.positions(start, stop)
        # Beyond its ends a mel stays as it is there.
        first = int(whole[0]) - self._before
        columns = torch.arange(first, int(whole[-1]) + self._after + 1, device="cpu") - lo
        mel = mel.float()[:, :, columns.clamp(0, mel.shape[-1] - 1).to(mel.device)]
        index, phase = (whole - first).to(mel.device), phase.to(mel.device)
        near = slice(None) if self._net is None else refinement.looked_at(mel.shape[2])
        index_near = index - (near.start or 0)
        values = band_values(mel[:, :, near], self.source)
        bands, tones = self._conversion(values, tones_only=self._net is not None)
        analytic = finish(_between(bands, index_near, phase), self.target)
        if self._net is None:
            return analytic
        bands = self._inversion(values)
        made = finish(_between(bands, index_near, phase), self.target)
        batch, frames = mel.shape[0], stop - start
        seen = self._view(mel, bands, index.expand(batch, -1))
        correction = self._net(seen, phase.repeat(batch)).reshape(batch, frames, -1).transpose(1, 2)
        lowest = finish(mel.new_zeros(()), self.target)
        sounding = seen.sounding.reshape(batch, 1, frames)
        made = torch.where(sounding, torch.maximum(made + correction, lowest), made)
        # What is a tone needs no correction: of it, the analytic way knows all.
        return made + _between(tones, index_near, phase) * (analytic - made)

    def _check(self, mel: Tensor, offset: int) -> None:
        bands = self.source.n_mels
        if not isinstance(mel, Tensor):
            raise InvalidMelError(f"A mel must be a tensor [B, {bands}, T], not {type(mel).__name__}.")
        check_plain(mel, "A mel", InvalidMelError, f"[B, {bands}, T]")
        if mel.ndim != 3 or mel.shape[1] != bands or not mel.numel() or not mel.is_floating_point():
            raise InvalidMelError(
                f"Expected a floating-point mel [B, {bands}, T] with B and T of 1 or more, in the format "
                f"{self.source}; got {list(mel.shape)} of {mel.dtype}."
            )
        self.check_loudness(mel, first_frame=offset)

    def check_loudness(self, mel: Tensor, lengths: Sequence[int] | None = None, *, first_frame: int = 0) -> None:
        """See that nothing in a mel of the source's format is beyond what any sound has.

        Args:
            mel: `[B, n, T]`.
            lengths: true frames of each item; by default all.
            first_frame: the number of its first frame, for the message.

        Raises:
            InvalidMelError: NaN, or such a value; naming item, band and frame of the first.
        """
        if self._same or mel.amax() <= self._limit:
            return
        beyond = ~(mel <= self._limit)
        for row, length in enumerate(lengths or ()):
            beyond[row, :, length:] = False
        if not beyond.any():
            return
        item, band, frame = beyond.nonzero()[0].tolist()
        raise InvalidMelError(
            f"A mel in the format {self.source} holds {mel[item, band, frame].item():g} in item {item}, band {band}, "
            f"frame {first_frame + frame}: beyond {self._limit:.3g} no sound has anything. Is it in another format? "
            "Then name that."
        )


def _between(values: Tensor, index: Tensor, phase: Tensor) -> Tensor:
    """Values between frames, `[B, m, T]` -> `[B, m, F]`: linearly, the least biased way for magnitudes."""
    here, after = values[:, :, index], values[:, :, index + 1]
    return here + (after - here) * phase
