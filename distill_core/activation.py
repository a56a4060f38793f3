"""From a candidate to its cards: import the plug-in, try it apart, and only then let it in.

A plug-in is first registered with a throw-away plug-in manager, where every check runs. One that
fails leaves no mark on the real one.
"""

from __future__ import annotations

import importlib
import inspect
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import pluggy

from . import hookspecs
from .card import API_VERSION, VocoderCard
from .discovery import Candidate
from .errors import DistillError, OptionError, PluginApiError, PluginBrokenError, PluginError
from .suggest import did_you_mean
from .wording import on_one_line

HOOK = hookspecs.distill_vocoders.__name__

_ARGUMENTS = ("variant", "device", "precision", "mel", "sample_rate", "weights")
"""What `registry.get` takes for all vocoders, and no option is called."""


def new_plugin_manager() -> pluggy.PluginManager:
    """An empty plug-in manager that knows the contract."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


def import_plugin(candidate: Candidate) -> Any:
    """The plug-in module of a candidate.

    Raises:
        PluginBrokenError: importing it failed; `__cause__` is why.
    """
    if candidate.plugin is not None:
        return candidate.plugin
    try:
        module = importlib.import_module(candidate.module)
        return operator.attrgetter(candidate.attribute)(module) if candidate.attribute else module
    except PluginError:  # it asked the registry for something, which has told it so
        raise
    except (Exception, SystemExit) as error:
        raise _broken(candidate, f"importing {candidate.module!r} failed: {_brief(error)}") from error


def half_imported(plugin: Any) -> bool:
    """True while the plug-in module's own body is still running, in this thread."""
    return bool(getattr(getattr(plugin, "__spec__", None), "_initializing", False))


def read_cards(candidate: Candidate, plugin: Any) -> tuple[VocoderCard, ...]:
    """Check a plug-in apart from all others and return its cards.

    Raises:
        PluginBrokenError: no hook, a misspelt one, one with arguments, or cards that are none.
        PluginApiError: the card of this candidate is of another version of the contract.
    """
    trial = new_plugin_manager()
    try:
        trial.register(plugin)
        trial.check_pending()
    except pluggy.PluginValidationError as error:
        raise _broken(candidate, _one_line(error)) from error
    implementations = trial.hook.distill_vocoders.get_hookimpls()
    if not implementations:
        raise _broken(candidate, f"{candidate.module} implements no hook: it needs a @hookimpl named {HOOK}")
    for implementation in implementations:
        # pluggy calls an implementation without the arguments that have defaults; the contract has none.
        if inspect.signature(implementation.function).parameters:
            hint = f"; {plugin.__name__} is a class: name an instance of it" if inspect.isclass(plugin) else ""
            raise _broken(candidate, f"{HOOK} takes no arguments in version {API_VERSION} of the contract{hint}")
        if implementation.hookwrapper or implementation.wrapper:
            raise _broken(candidate, f"{HOOK} must be a plain implementation, not a wrapper")
    try:
        results = trial.hook.distill_vocoders()
    except DistillError as error:
        raise _broken(candidate, _one_line(error)) from error
    except (Exception, SystemExit) as error:
        raise _broken(candidate, f"{HOOK}() failed: {_brief(error)}") from error
    return _checked(candidate, results)


def _checked(candidate: Candidate, results: Sequence[Any]) -> tuple[VocoderCard, ...]:
    if not results or isinstance(results[0], str | bytes | VocoderCard) or not isinstance(results[0], Sequence):
        got = type(results[0]).__name__ if results else "nothing"
        raise _broken(candidate, f"{HOOK}() must return a sequence of VocoderCard, not {got}")
    cards = tuple(results[0])
    for card in cards:
        if not isinstance(card, VocoderCard):
            raise _broken(candidate, f"{HOOK}() returned a {type(card).__name__} where a VocoderCard is expected")
    names = [card.name for card in cards]
    if len(set(names)) < len(names):
        raise _broken(candidate, f"{HOOK}() returned two cards of one name: {', '.join(names)}")
    return cards


def card_named(candidate: Candidate, cards: Sequence[VocoderCard]) -> VocoderCard:
    """The card that the candidate's entry point promised.

    Raises:
        PluginBrokenError: the plug-in returned cards of other names only.
    """
    for card in cards:
        if card.name == candidate.name:
            return card
    returned = ", ".join(repr(card.name) for card in cards) or "none"
    raise _broken(
        candidate, f"{HOOK}() returned no card named {candidate.name!r}, as the entry point is; it returned {returned}"
    )


def check_api(candidate: Candidate, card: VocoderCard) -> None:
    """Refuse a card that is written for another version of the contract.

    Raises:
        PluginApiError: naming both versions and what to upgrade.
    """
    if card.api == API_VERSION:
        return
    newer = isinstance(card.api, int) and card.api > API_VERSION
    raise PluginApiError(
        f"The vocoder {card.name!r} ({candidate.origin}) is written for version {card.api!r} of the plug-in "
        f"contract; this distill-core speaks version {API_VERSION}. "
        f"Upgrade {'distill-core' if newer else candidate.distribution or 'the plug-in'}.",
        distribution=candidate.distribution or None,
    )


def import_factory(candidate: Candidate, card: VocoderCard) -> Any:
    """The callable that `card.factory` names; this is where model code is imported.

    Raises:
        PluginBrokenError: it cannot be imported or is not callable; `__cause__` is why.
    """
    module, _, attribute = card.factory.partition(":")
    try:
        factory = getattr(importlib.import_module(module), attribute)
    except DistillError:
        raise
    except (Exception, SystemExit) as error:
        raise _broken(candidate, f"its factory {card.factory!r} cannot be imported: {_brief(error)}") from error
    if not callable(factory):
        raise _broken(candidate, f"its factory {card.factory!r} is not callable")
    return factory


def check_options(card: VocoderCard, factory: Any, options: Iterable[str]) -> None:
    """See that a factory takes options of these names; one that takes any, or does not tell, has to see itself.

    Raises:
        OptionError: naming the first it does not take, and those it takes.
    """
    try:
        parameters = list(inspect.signature(factory).parameters.values())[2:]  # after card and variant
    except (TypeError, ValueError):
        return
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    own = [each.name for each in parameters if each.kind in named and each.name not in _ARGUMENTS]
    for name in options:
        if name not in own:
            takes = f"Its options: {', '.join(own)}." if own else "It has no options of its own."
            raise OptionError(
                f"The vocoder {card.name!r} takes no option {name!r}.{did_you_mean(name, [*own, *_ARGUMENTS])} {takes}"
            )


def load_failure(candidate: Candidate, error: BaseException) -> PluginError:
    """The error for a factory that failed with something that is not a `DistillError`."""
    return _broken(candidate, f"loading failed: {_brief(error)}")


def _broken(candidate: Candidate, what: str) -> PluginBrokenError:
    who = f"The vocoder {candidate.name!r} ({candidate.origin})"
    if not candidate.name:  # it is being registered by hand: which vocoders it has is not known yet
        who = f"The plug-in {candidate.module!r}"
    return PluginBrokenError(
        f"{who} cannot be used: {what}.",
        distribution=candidate.distribution or None,
    )


def _brief(error: BaseException) -> str:
    return on_one_line(error).rstrip(".")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")
