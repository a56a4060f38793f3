"""What comes out: shapes, lengths, types, and that nothing depends on how the mel was handed over."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from ..errors import DistillError
from ..wording import on_one_line
from .checks import ConformanceError, Group, require
from .subject import NOISE_OF_THE_MEL, Subject, difference, not_finite

OUTPUT = Group("output")

# Of the peak. Beyond the halo nothing depends on the mel but rounding: an FFT, or a convolution that makes several
# outputs at once, rounds with what lies next to them. A halo that is a frame short shows ten times as much.
_UNCHANGED = 5e-6

# Full scale is 1. Untrained models may well go beyond; what counts in 16-bit integers is thousands of times as loud.
_LOUDEST = 100.0


@OUTPUT.promise("[B, n_mels, T] and [B, 1, n_mels, T] give [B, 1, T * hop_length], down to a single frame")
def shapes(subject: Subject) -> None:
    subject.vocoder  # noqa: B018
    if isinstance(subject.crash, DistillError):
        raise ConformanceError(str(subject.crash)) from subject.crash
    if subject.crash is not None:
        raise subject.crash
    vocoder = subject.running
    _require_arguments(vocoder.mel_to_waveform, "lengths", "progress", "check_format")
    for batch, frames in ((1, 1), (2, 3)):
        mel = subject.mel(batch, frames)
        want = [batch, 1, frames * vocoder.hop_length]
        for form in (mel, mel[:, None]):
            got = list(vocoder.mel_to_waveform(form).shape)
            require(got == want, f"A mel of {list(form.shape)} gives {got}; the contract asks for {want}.")


def _require_arguments(method: Callable[..., Any], *names: str) -> None:
    """Fail unless a method, which may have been overridden, takes what `VocoderBase`'s does."""
    try:
        inspect.signature(method).bind(None, **dict.fromkeys(names))
    except TypeError as error:
        name = getattr(method, "__name__", "")
        raise ConformanceError(
            f"{name} cannot be called as VocoderBase.{name} can: {error}. `distill-vocoder vocode` calls it so: if you "
            f"override it, take {', '.join(f'{each}=' for each in names)} too."
        ) from error


@OUTPUT.promise("any floating-point type goes in, float32 comes out")
def dtypes(subject: Subject) -> None:
    import torch

    vocoder = subject.running
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        mel = subject.mel(1, 2).to(dtype)
        wave = vocoder.mel_to_waveform(mel)
        require(wave.dtype == torch.float32, f"A mel of {dtype} gives a waveform of {wave.dtype}, not float32.")
        want = vocoder.mel_to_waveform(mel.float())
        subject.require_same(wave, want, f"The same mel as {dtype} and as float32", "Convert it on entry.")


@OUTPUT.promise("the waveform is finite, for silence and for noise, full scale being 1, and depends on the mel")
def finite(subject: Subject) -> None:
    subject.vocoder  # noqa: B018
    for what, made in subject.trials.items():
        require(
            not not_finite(made),
            f"The waveform of {what} holds NaN or infinity. Look for damaged weights, for the logarithm or the inverse "
            "of 0, and for an overflow.",
        )
    subject.running  # noqa: B018
    waves = {}
    for what, made in subject.trials.items():
        if isinstance(made, Exception):
            raise ConformanceError(f"A mel of {what} ends in a {on_one_line(made)}") from made
        peak = made.detach().abs().max().item()
        require(peak <= _LOUDEST, f"The waveform of {what} has a peak of {peak:.0f}, where full scale is 1. Scale it.")
        waves[what] = made
    changes = difference(waves["silence"], waves["noise"]) > 0
    require(changes, "Noise and silence give the same waveform: the mel is ignored.")


@OUTPUT.promise("the result does not depend on the chunk size")
def chunks(subject: Subject) -> None:
    subject.running  # noqa: B018
    # Single frames only for a short mel: in a long one each would cost a halo.
    short = subject.mel(1, 4)
    long, whole = subject.reference
    frames = long.shape[-1]
    for size, mel, want in ((1, short, subject.whole(short)), ((frames + 1) // 2, long, whole)):
        with subject.chunks_of(size) as vocoder:
            got = vocoder.mel_to_waveform(mel)
        subject.require_same(
            got,
            want,
            f"{mel.shape[-1]} frames in chunks of {size}",
            "Either halo is too small, or the model looks at the whole mel (a normalisation over time, a global "
            f"maximum, a position counted from the start), or it draws noise for each run. {NOISE_OF_THE_MEL}",
        )


@OUTPUT.promise("stream gives the same as one shot, piece by piece, no more than halo frames behind")
def stream(subject: Subject) -> None:
    import torch

    vocoder = subject.running
    _require_arguments(vocoder.stream, "check_format")
    mel, want = subject.reference
    frames = mel.shape[-1]
    sizes = [1, vocoder.halo + 1, 1, frames - vocoder.halo - 3]
    arrived, heard, late = 0, 0.0, 0.0

    def pieces() -> Any:
        nonlocal arrived, late
        for piece in mel.split(sizes, dim=-1):
            arrived += piece.shape[-1]
            yield piece
            if arrived < frames:  # asked for more: what is certain by now should have been heard
                late = max(late, arrived - heard)

    waves = []
    for wave in vocoder.stream(pieces()):
        waves.append(wave)
        heard += wave.shape[-1] / vocoder.hop_length
    require(
        late <= vocoder.halo,
        f"stream asks for more when it is {late:g} frames behind; the delay it promises is halo, {vocoder.halo}.",
    )
    advice = "If you override stream, carry the context from piece to piece."
    require(waves, f"A stream of {frames} frames gives nothing. {advice}")
    subject.require_same(torch.cat(waves, dim=-1), want, "The stream", advice)


@OUTPUT.promise("in a padded batch with lengths, each item gets what it would get alone, and zeros after it")
def ragged(subject: Subject) -> None:
    vocoder = subject.running
    lengths = [4, 2, 4, 1]  # two that are equal, which go through the model together
    mel = subject.mel(len(lengths), 4, seed=2)
    for row, length in enumerate(lengths):
        mel[row, :, length:] = float("nan")  # padding must not be looked at, whatever it holds
    try:
        wave = vocoder.mel_to_waveform(mel, lengths=lengths)
    except DistillError as error:
        raise ConformanceError(f"A batch with lengths={lengths} is refused because of its padding: {error}") from error
    for row, length in enumerate(lengths):
        end = length * vocoder.hop_length
        alone = subject.whole(mel[row : row + 1, :, :length])
        what = f"Item {row} of a batch with lengths={lengths}"
        subject.require_same(wave[row : row + 1, :, :end], alone, what, "Rows must not mix, nor look at padding.")
        require(not wave[row, :, end:].any(), f"{what} is not zero after its end.")


@OUTPUT.promise("beyond halo frames the mel changes nothing, within them something")
def halo(subject: Subject) -> None:
    vocoder = subject.running
    reach, margin, hop = vocoder.halo, 2, vocoder.hop_length
    centre = reach + margin
    mel, whole = subject.reference
    other = subject.mel(1, mel.shape[-1], seed=2)
    want = whole[..., centre * hop : (centre + 1) * hop]

    def changed(*places: slice) -> float:
        mixed = mel.clone()
        for place in places:
            mixed[..., place] = other[..., place]
        return difference(subject.whole(mixed)[..., centre * hop : (centre + 1) * hop], want)

    before, after = slice(0, margin), slice(-margin, None)
    allowed = max(_UNCHANGED, subject.tolerance / 100)
    error = changed(before, after)
    if error > allowed:
        sides = [name for name, place in (("before", before), ("after", after)) if changed(place) > allowed]
        raise ConformanceError(
            f"halo is {reach}, but frames further {' and '.join(sides)} than that change the output by {error:.1e} of "
            "its peak. Work halo out from the layers: too small a one leaves seams between chunks."
        )
    if reach:
        require(
            changed(slice(margin, centre), slice(centre + 1, -margin)) > 0,
            f"halo is {reach}, but the {reach} frames on each side change nothing: every chunk would be computed "
            "with context that it does not need. Set halo to what the layers see.",
        )


@OUTPUT.promise("what is no mel is refused in one line, with an error that is a ValueError, and does no harm")
def bad_input(subject: Subject) -> None:
    import torch

    vocoder = subject.running
    good = subject.mel(2, 3)
    want = vocoder.mel_to_waveform(good)
    bands = vocoder.mel.n_mels
    nan, infinite = good.clone(), good.clone()
    nan[1, 0, 2] = float("nan")
    infinite[0, 0, 0] = float("inf")
    attempts: dict[str, tuple[Any, dict[str, Any]]] = {
        "one band too many": (torch.zeros(1, bands + 1, 3), {}),
        "rank 1": (torch.zeros(bands), {}),
        "no batch axis": (torch.zeros(bands, 4), {}),
        "two channels": (torch.zeros(1, 2, bands, 4), {}),
        "integers": (torch.zeros(1, bands, 4, dtype=torch.int64), {}),
        "no frames": (torch.zeros(1, bands, 0), {}),
        "no items": (torch.zeros(0, bands, 4), {}),
        "a NaN": (nan, {}),
        "an infinity": (infinite, {}),
        "a list": ([[0.0] * 4] * bands, {}),
        "None": (None, {}),
        "too few lengths": (good, {"lengths": [3]}),
        "a length beyond the end": (good, {"lengths": [3, 4]}),
        "a length of zero": (good, {"lengths": [0, 3]}),
    }
    for what, (mel, arguments) in attempts.items():
        try:
            vocoder.mel_to_waveform(mel, **arguments)
        except DistillError as error:
            require(isinstance(error, ValueError), f"{what}: {type(error).__name__} is not a ValueError.")
            require(str(error).strip() and "\n" not in str(error), f"{what}: the message must be one line: {error}")
        except Exception as error:
            raise ConformanceError(
                f"A mel with {what} ends in a {type(error).__name__} ({error}); it should be an InvalidMelError. "
                "If you override mel_to_waveform, check with distill_core.checks."
            ) from error
        else:
            raise ConformanceError(f"A mel with {what} is accepted; it should be an InvalidMelError.")
    after = vocoder.mel_to_waveform(good)
    subject.require_same(after, want, "The output after refused input", "A refused call must leave no mark.")
