"""What `registry.get` hands out, and what loading must not do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..device import PRECISIONS
from ..errors import DistillError, PluginBrokenError, PluginError, PrecisionError
from ..mel.spec import MelSpec
from ..report import EngineReport
from ..weights import load_checkpoint
from .checks import ConformanceError, Group, require
from .subject import NOISE_OF_THE_MEL, Subject, Trace, difference

LOADING = Group("loading")

COMPUTED = tuple(each for each in PRECISIONS if each != "auto")
_CHOOSE = f"Compute in it or raise PrecisionError; for 'auto' choose one of {', '.join(COMPUTED)}, and say which."


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
        vocoder.precision in COMPUTED,
        f"vocoder.precision is {vocoder.precision!r}; it has to say what is computed in. {_CHOOSE}",
    )
    for field, true in (("device", str(vocoder.device)), ("precision", vocoder.precision)):
        said = getattr(report, field)
        require(said == true, f"report().{field} says {said!r}, and vocoder.{field} is {true!r}.")


@LOADING.promise("nothing is printed to stdout, which belongs to the program")
def quiet(subject: Subject) -> None:
    for trace in _traces(subject):
        require(
            not trace.printed,
            f"{trace.doing} prints {trace.printed.strip()[:60]!r} to stdout. Use logging.getLogger(__name__).",
        )


@LOADING.promise("torch's settings and random numbers are the program's own, and stay as they are")
def leaves_torch_alone(subject: Subject) -> None:
    remedies = {
        "Loading it": "Making a torch module draws its first weights: seed and make it within `with "
        "torch.random.fork_rng():`, or make it within `with torch.device('meta'):` and load_state_dict(..., "
        "assign=True).",
        "Running it": NOISE_OF_THE_MEL,
    }
    for trace in _traces(subject):
        require(
            not trace.changed,
            f"{trace.doing} changes {' and '.join(trace.changed)}, for everybody else in the process.",
        )
        require(
            not trace.random,
            f"{trace.doing} {trace.random} torch's global random numbers: the program gets others. "
            + remedies.get(trace.doing, "Leave that to the factory, within `with torch.random.fork_rng():`."),
        )


def _traces(subject: Subject) -> Iterator[Trace]:
    """What importing and loading did; then what running did, if it runs."""
    subject.vocoder  # noqa: B018
    yield from tuple(subject.traces)
    subject.running  # noqa: B018
    yield from subject.traces


@LOADING.promise("weights of another model or that are not there are refused; a mel format that comes with them counts")
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
    _heeds_config(subject)


def _heeds_config(subject: Subject) -> None:
    """Hand it its own weights, with a configuration that says another mel format."""
    import torch

    vocoder, given = subject.vocoder, subject.arguments["weights"]
    model = getattr(vocoder, "model", None)
    if not isinstance(model, torch.nn.Module):
        return  # nobody can tell what weights of its own look like
    mel = vocoder.mel
    assert mel.fmax is not None
    config = {
        "sampling_rate": mel.sample_rate,
        "num_mels": mel.n_mels,
        "n_fft": mel.n_fft,
        "hop_size": mel.hop_length,
        "win_size": mel.win_length,
        "fmin": mel.fmin,
        "fmax": (mel.fmin + mel.fmax) / 2,
    }
    state = model.state_dict()
    try:
        if given is not None:
            read = load_checkpoint(given)
            state = read.state_dict
            if read.config is not None:
                MelSpec.from_config(read.config)  # one of another kind says its mel format in its own way
                config = {**read.config, **config}
        loaded = subject.load(weights={"generator": state, "config": config}, mel=None, sample_rate=None)
    except DistillError:
        return
    require(
        loaded.mel == MelSpec.from_config(config),
        f"Weights with a config.json that says fmax={config['fmax']:g} load, and vocoder.mel is {loaded.mel}: who goes "
        "by that gets noise. Hand variant.with_config(load_checkpoint(weights).config, own=weights is not None) to the "
        "vocoder, or refuse the configuration.",
    )


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


@LOADING.promise("two loads are one model; every precision runs and sounds alike, or is refused with PrecisionError")
def precisions(subject: Subject) -> None:
    asked = subject.arguments.get("precision", "fp32")
    subject.running  # noqa: B018
    mel = subject.mel(1, 2)
    want = subject.whole(mel)
    subject.require_same(
        subject.load().mel_to_waveform(mel),
        want,
        "Two loads give two models: the waveform of the second",
        "Load the weights, or seed what draws them.",
    )
    for precision in PRECISIONS:
        if precision == asked:
            continue
        try:
            vocoder = subject.load(precision=precision)
        except PrecisionError:
            continue
        except DistillError as error:
            raise ConformanceError(
                f"precision={precision!r} fails: {error} Raise PrecisionError where it cannot be had."
            ) from error
        require(
            vocoder.precision in (COMPUTED if precision == "auto" else (precision,)),
            f"precision={precision!r} was asked for, and vocoder.precision is {vocoder.precision!r}. {_CHOOSE}",
        )
        try:
            wave = vocoder.mel_to_waveform(mel)
        except PluginError as error:
            raise ConformanceError(f"precision={precision!r} loads and does not run: {error}") from error
        require(wave.dtype == want.dtype, f"In {precision} the waveform is {wave.dtype}, not float32.")
        error_size = difference(wave, want)
        # Half precision costs a few per cent; a model that overflows or is wired wrongly is off by far more.
        require(error_size <= 0.5, f"In {precision} the waveform differs by {error_size:.2f} of the peak from {asked}.")
