"""What `registry.get` hands out, and what loading must not do."""

from __future__ import annotations

import contextlib
import io
from typing import Any

from ..device import PRECISIONS
from ..errors import DistillError, PluginBrokenError, PrecisionError
from ..report import EngineReport
from .checks import ConformanceError, Group, require
from .subject import Subject, difference, torch_settings

LOADING = Group("loading")


@LOADING.promise("it loads, and is what was asked for: variant, mel, sample rate, device, precision")
def loads(subject: Subject) -> None:
    subject.known_card  # noqa: B018
    try:
        vocoder = subject.load_once()
    except DistillError as error:
        raise ConformanceError(f"It does not load: {error}") from error
    variant, asked = subject.variant, subject.arguments
    if asked["weights"] is None:
        require(
            (vocoder.mel, vocoder.sample_rate, vocoder.variant.name)
            == (variant.mel, variant.sample_rate, variant.name),
            f"The card promises {variant.name}: {variant.sample_rate} Hz, {variant.mel}; what loads is "
            f"{vocoder.variant.name}: {vocoder.sample_rate} Hz, {vocoder.mel}.",
        )
    require(vocoder.sample_rate == vocoder.mel.sample_rate, f"{vocoder.sample_rate} Hz from a mel of {vocoder.mel}.")
    kind = str(asked["device"]).partition(":")[0]
    require(
        kind in ("auto", vocoder.device.type),
        f"device={asked['device']!r} was asked for, and vocoder.device is {str(vocoder.device)!r}. "
        "Hand the factory's device on to VocoderBase.",
    )
    precision = asked.get("precision", "fp32")
    require(
        precision in ("auto", vocoder.precision),
        f"precision={precision!r} was asked for, and vocoder.precision is {vocoder.precision!r}. "
        "Hand it on to VocoderBase, or raise PrecisionError.",
    )
    require(isinstance(vocoder.halo, int) and vocoder.halo >= 0, f"halo must be frames, 0 or more: {vocoder.halo!r}.")


@LOADING.promise("report() says which engine runs, on which device, in what precision")
def reports(subject: Subject) -> None:
    vocoder = subject.vocoder
    report = vocoder.report()
    require(isinstance(report, EngineReport), f"report() returned a {type(report).__name__}, not an EngineReport.")
    require(report.engine, "report().engine is empty; name the engine, such as 'eager'.")
    require(
        vocoder.precision in PRECISIONS and vocoder.precision != "auto",
        f"vocoder.precision is {vocoder.precision!r}; it has to say what is computed in, one of "
        f"{', '.join(PRECISIONS[:-1])}: choose where 'auto' is asked for.",
    )
    for field, true in (("device", str(vocoder.device)), ("precision", vocoder.precision)):
        said = getattr(report, field)
        require(said == true, f"report().{field} says {said!r}, and vocoder.{field} is {true!r}.")


@LOADING.promise("nothing is printed to stdout, which belongs to the program")
def quiet(subject: Subject) -> None:
    vocoder = subject.vocoder
    with contextlib.redirect_stdout(io.StringIO()) as out:
        vocoder.mel_to_waveform(subject.mel(1, 2))
    for when, text in (("Loading", subject.printed), ("Running", out.getvalue())):
        require(not text, f"{when} prints {text.strip()[:60]!r} to stdout. Use logging.getLogger(__name__).")


@LOADING.promise("torch's settings and random numbers are the program's own, and stay as they are")
def leaves_torch_alone(subject: Subject) -> None:
    import torch

    vocoder, mel = subject.vocoder, subject.mel(1, 2)
    before = torch_settings()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(20250117)  # no model's favourite: seeding again with the same number would not show
        random = torch.get_rng_state()
        vocoder.mel_to_waveform(mel)
        drawn = not torch.equal(random, torch.get_rng_state())
    for when, old, new in (
        ("Loading", subject.settings_before, subject.settings_after),
        ("Running", before, torch_settings()),
    ):
        changed = [f"{name} from {old[name]} to {new[name]}" for name in old if old[name] != new[name]]
        require(not changed, f"{when} it changes {' and '.join(changed)}, for everybody else in the process.")
    require(not drawn, "Running it draws from torch's global random numbers. Use a torch.Generator of its own, seeded.")


@LOADING.promise("weights of another model are refused, and so are weights that are not there")
def refuses_other_weights(subject: Subject) -> None:
    import torch

    subject.vocoder  # noqa: B018
    attempts: dict[str, Any] = {
        "a state dict with other tensors": {"no.tensor.of.this.model": torch.zeros(1)},
        "a file that does not exist": "no-such-folder/no-such-file.pt",
    }
    for what, weights in attempts.items():
        try:
            subject.load(weights=weights)
        except PluginBrokenError as error:
            cause = error.__cause__
            raise ConformanceError(
                f"weights= with {what} ends in a {type(cause).__name__} ({cause}). Raise CheckpointError or "
                "WeightsNotFoundError with a sentence that helps; load_checkpoint and check_state_dict of "
                "distill_core.weights do."
            ) from error
        except DistillError:
            continue
        raise ConformanceError(f"weights= with {what} is ignored: what loads is not what was asked for. Refuse it.")


@LOADING.promise("a misspelt option is an error")
def refuses_unknown_options(subject: Subject) -> None:
    subject.vocoder  # noqa: B018
    try:
        subject.load(no_option_of_this_name=1)
    except DistillError:
        return
    raise ConformanceError(
        "get(..., no_option_of_this_name=1) loads as if nothing were wrong, so a typing error in an option goes "
        "unseen. Name the factory's options instead of taking any with **options."
    )


@LOADING.promise("every precision runs and sounds alike, or is refused with PrecisionError")
def precisions(subject: Subject) -> None:
    mel = subject.mel(1, 2)
    want = subject.whole(mel)
    for precision in PRECISIONS:
        if precision == subject.arguments.get("precision", "fp32"):
            continue
        try:
            vocoder = subject.load(precision=precision)
        except PrecisionError:
            continue
        except DistillError as error:
            raise ConformanceError(
                f"precision={precision!r} fails: {error} Raise PrecisionError where it cannot be had."
            ) from error
        wave = vocoder.mel_to_waveform(mel)
        require(wave.dtype == want.dtype, f"In {precision} the waveform is {wave.dtype}, not float32.")
        if not difference(wave, want) <= 0.5:
            again = subject.load().mel_to_waveform(mel)
            subject.require_same(again, want, "What is loaded a second time", "Seed the weights, or load them.")
        error_size = difference(wave, want)
        # Half precision costs a few per cent; a model that overflows or is wired wrongly is off by far more.
        require(error_size <= 0.5, f"In {precision} the waveform differs by {error_size:.2f} of the peak from fp32.")
