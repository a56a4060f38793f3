"""What a vocoder says about itself before it is loaded."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from types import ModuleType
from typing import Any

from ..activation import import_plugin, read_cards
from ..card import API_VERSION
from ..discovery import Candidate
from ..errors import PluginError
from .checks import ConformanceError, Group, NotApplicable, require
from .subject import Subject, noise_mel

CARD = Group("card")

HEAVY = ("torch", "torchaudio", "tensorflow", "jax", "onnxruntime", "transformers", "librosa", "numba")
"""What a plug-in module must not import: each takes longer than everything else in a listing."""

_IMPORT_PROBE = """
import importlib, json, operator, os, sys, tempfile, traceback
module, attribute, heavy, sys.path[:] = json.loads(sys.stdin.read())
import distill_core, distill_core.activation, distill_core.discovery
culprits = {}
ours = os.path.dirname(distill_core.__file__)

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in heavy and name not in culprits:
            # distill_core imports torch for what the plug-in asks of it: told is the plug-in's line.
            stack = traceback.extract_stack()[:-1]
            frames = [f for f in stack if "importlib" not in f.filename and not f.filename.startswith(ours)]
            culprits[name] = f"{frames[-1].filename}, line {frames[-1].lineno}: {frames[-1].line}" if frames else ""

sys.meta_path.insert(0, Watch())
# What is printed meanwhile is told apart from what is answered, by whatever way it goes to stdout.
answer = os.fdopen(os.dup(1), "w")
with tempfile.TemporaryFile() as printed:
    os.dup2(printed.fileno(), 1)
    plugin = importlib.import_module(module)
    if attribute:
        plugin = operator.attrgetter(attribute)(plugin)
    candidate = distill_core.discovery.Candidate("", module)
    distill_core.activation.read_cards(candidate, plugin)
    sys.stdout.flush()
    printed.seek(0)
    said = printed.read().decode(errors="replace")
loaded = {name: culprits.get(name, "") for name in heavy if name in sys.modules}
answer.write(json.dumps({"loaded": loaded, "printed": said}))
answer.flush()
"""


@CARD.promise("the name leads to one plug-in, whose hook returns a card of that name")
def found(subject: Subject) -> None:
    try:
        card = subject.card
    except PluginError as error:
        raise ConformanceError(str(error)) from error
    require(card.name == subject.name, f"The card's name is {card.name!r}, the entry point's {subject.name!r}.")
    candidate, offered = subject.candidate, {each.name for each in subject.registry.candidates()}
    for other in read_cards(candidate, import_plugin(candidate)):
        require(
            other.name in offered,
            f"Its hook returns a card {other.name!r} as well, and no entry point is called so: nobody finds it. Add "
            f"{other.name} = {_target(candidate)} to the entry points, and install it again.",
        )


def _target(candidate: Candidate) -> str:
    return json.dumps(":".join(filter(None, (candidate.module, candidate.attribute))))


@CARD.promise("importing the plug-in and reading its cards loads no torch and prints nothing")
def light(subject: Subject) -> None:
    subject.known_card  # noqa: B018
    candidate = subject.candidate
    module = candidate.module
    if candidate.plugin is not None:
        if not isinstance(candidate.plugin, ModuleType):
            raise NotApplicable("it was registered by hand, as an object and not as a module")
        module = candidate.plugin.__name__
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT_PROBE],
        input=json.dumps([module, candidate.attribute, HEAVY, sys.path]),
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ConformanceError(f"Importing {module} in a process of its own fails: {last}")
    answer = json.loads(done.stdout)
    if answer["printed"]:
        raise ConformanceError(
            f"Importing {module} prints {answer['printed'].strip()[:60]!r} to stdout, into every listing, and into the "
            "JSON of every program that reads one. Use logging.getLogger(__name__)."
        )
    for name, where in answer["loaded"].items():
        raise ConformanceError(
            f"Importing {module} imports {name}{f' ({where})' if where else ''}. Every listing would wait for that: "
            "import it in the module that the card's factory names, which only get imports."
        )


@CARD.promise("the card has the contract's version, a summary and a licence")
def described(subject: Subject) -> None:
    card = subject.known_card
    require(card.api == API_VERSION, f"The card's api is {card.api!r}; this contract is version {API_VERSION}.")
    summary = card.summary.strip() if isinstance(card.summary, str) else ""
    require(summary and "\n" not in summary, f"The card's summary must be one line of text, not {card.summary!r}.")
    licence = card.license.strip() if isinstance(card.license, str) else ""
    require(licence, "The card names no licence: nobody may use weights whose licence is unknown. Set license='MIT'.")
    homepage = card.homepage
    require(
        homepage == "" or str(homepage).startswith(("https://", "http://")),
        f"The card's homepage must be an address or empty, not {homepage!r}.",
    )


@CARD.promise("each variant's mel format is sane and gives as many seconds of sound as the mel is long")
def formats(subject: Subject) -> None:
    for variant in subject.known_card.variants:
        mel, where = variant.mel, f"The variant {variant.name!r}"
        require(
            variant.sample_rate == mel.sample_rate,
            f"{where} has sample_rate {variant.sample_rate} and a mel at {mel.sample_rate} Hz: with hop_length samples "
            "to a frame, the sound would run at another speed. Make them equal.",
        )
        require(
            mel.win_length >= mel.hop_length,
            f"{where} has a window of {mel.win_length} samples and a hop of {mel.hop_length}: its frames leave gaps.",
        )
        made = noise_mel(mel, 1, 4, 0)
        right = list(made.shape) == [1, mel.n_mels, 4] and bool(made.isfinite().all())
        require(right, f"{where}: analysing noise gives {list(made.shape)} values, finite: {made.isfinite().all()}.")
        require(bool(made.std() > 0), f"{where}: analysing noise gives the same value everywhere.")


@CARD.promise("the factory takes (card, variant, *, device, precision, weights)")
def factory(subject: Subject) -> None:
    card = subject.known_card
    try:
        function = subject.factory
    except PluginError as error:
        raise ConformanceError(str(error)) from error
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        raise NotApplicable("the factory's signature cannot be read") from None
    needed: dict[str, Any] = {"device": "cpu", "precision": "fp32", "weights": None}
    try:
        signature.bind(card, card.variants[0], **needed)
    except TypeError as error:
        raise ConformanceError(
            f"{card.factory} cannot be called as the contract says: {error}. It is called as "
            "factory(card, variant, *, device, precision, weights, **options)."
        ) from error
