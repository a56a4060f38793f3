"""Finds vocoders that are installed, and loads the one that is asked for.

    discover (metadata only) -> activate (the plug-in module, no torch) -> get (the model)

`registry` is the process-wide instance; `Registry()` makes another.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import activation, catalog, forking
from .card import VocoderCard
from .discovery import Candidate, Discovery, Settings, discover, normalized
from .errors import (
    DistillError,
    PluginBlockedError,
    PluginConflictError,
    PluginError,
    UnknownVocoderError,
)
from .loaded import Loaded, hashable, identity
from .mel.spec import MelSpec
from .progress import raised_by_a_bar
from .suggest import closest, did_you_mean

if TYPE_CHECKING:
    import torch

    from .explain import Explanation
    from .vocoder import VocoderBase

log = logging.getLogger(__name__)


_SEARCH_IS_OFF = (
    "because DISTILL_VOCODERS_AUTOLOAD turns off the search for installed plug-ins. Unset it, or register the plug-in "
    "by hand."
)


@dataclass(frozen=True)
class Resolution:
    """What a selection came to: the vocoder's `name`, the `selection` as it was made, and the `reason`."""

    name: str
    selection: str
    reason: str


class _Importing(threading.local):
    """The plug-ins that this thread is importing, the innermost last."""

    def __init__(self) -> None:
        self.stack: list[Candidate] = []


class Registry:
    """The vocoders of one process.

    Args:
        find: returns what is installed; by default it reads the metadata of all distributions.
        environ: where the `DISTILL_VOCODER…` variables are read; by default `os.environ`.
    """

    def __init__(
        self,
        find: Callable[[], Discovery] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._find = find or discover
        self._environ = environ
        self._lock = threading.RLock()
        self._manager = activation.new_plugin_manager()
        self._found: tuple[Discovery, Settings] | None = None
        self._by_hand: dict[str, Candidate] = {}
        self._cards: dict[str, tuple[VocoderCard, ...]] = {}  # plug-in module -> its cards
        self._failures: dict[Candidate, PluginError] = {}
        self._importing = _Importing()
        self._loaded = Loaded()
        forking.watch(self)

    def after_fork(self) -> None:
        """In the child of a fork, where the threads are not that held the lock."""
        self._lock = threading.RLock()

    # What there is

    def names(self) -> list[str]:
        """The names of all vocoders that are installed and not disabled, sorted.

        From metadata alone: no plug-in is imported, so a name listed here may still turn out broken.
        """
        return sorted(name for name in self._all_candidates() if name not in self.settings.disabled)

    def candidates(self, name: str | None = None) -> list[Candidate]:
        """All that is offered under a name, or under any: by hand first, then in the order of the path."""
        found = self._all_candidates()
        if name is not None:
            return list(found.get(name, ()))
        return [candidate for key in sorted(found) for candidate in found[key]]

    def cards(self) -> list[VocoderCard]:
        """The cards of all vocoders that can be used, sorted by name. Imports plug-ins, not torch.

        A plug-in that is broken, in conflict or of another version is left out with a warning;
        `explain` tells why.
        """
        cards = []
        for name in self.names():
            try:
                cards.append(self.card(name))
            except PluginError as error:
                log.warning("%s", error)
        return cards

    def card(self, name: str) -> VocoderCard:
        """The card of one vocoder. Imports its plug-in, not torch.

        Raises:
            UnknownVocoderError: no such name; with the closest names and what to install.
            PluginBlockedError: `DISTILL_VOCODERS_DISABLE` hides it.
            PluginConflictError: two distributions offer it, and nothing says which one is meant.
            PluginBrokenError: its plug-in cannot be imported or offers no such card; the original error is `__cause__`.
            PluginApiError: it was written for another version of the contract.
        """
        return self.activate(self.candidate(name))

    def activate(self, candidate: Candidate) -> VocoderCard:
        """The card of one candidate, whether or not `get` would use it. Imports its plug-in, not torch.

        A plug-in that fails a check is not let into the plug-in manager, and fails the same way when it
        is tried again, until `refresh`.

        Raises:
            PluginBrokenError: it cannot be imported or offers no such card; the original error is `__cause__`.
            PluginApiError: it was written for another version of the contract.
            PluginError: a plug-in asks for this while it is being imported itself.
        """
        key = _plugin_key(candidate)
        with self._not_while_importing(candidate):
            plugin = None
            with self._lock:
                self._raise_known_failure(candidate)
                known = self._cards.get(key)
            try:
                if known is None:
                    # Without the lock: another thread may be importing this very module and ask us for names.
                    plugin = activation.import_plugin(candidate)
            except PluginError as error:
                with self._lock:
                    self._raise_known_failure(candidate)  # of several threads, the first one's error holds
                    self._failures[candidate] = error
                raise
            if plugin is not None and activation.half_imported(plugin):
                raise _asked_too_early(candidate, candidate)
            with self._lock:
                self._raise_known_failure(candidate)
                try:
                    cards = self._cards.get(key) or activation.read_cards(candidate, plugin)
                    card = activation.card_named(candidate, cards)
                    activation.check_api(candidate, card)
                except PluginError as error:
                    self._failures[candidate] = error
                    raise
                if key not in self._cards:
                    if not self._manager.is_registered(plugin):  # by another entry point, or by hand
                        self._manager.register(plugin, name=key)
                    self._cards[key] = cards
                return card

    def _raise_known_failure(self, candidate: Candidate) -> None:
        failure = self._failures.get(candidate)
        if failure is not None:
            raise failure.with_traceback(None)

    def candidate(self, name: str) -> Candidate:
        """The one candidate that `get(name)` would use. From metadata alone.

        Raises:
            UnknownVocoderError: no such name; with the closest names and what to install.
            PluginBlockedError: `DISTILL_VOCODERS_DISABLE` hides it.
            PluginConflictError: two distributions offer it, and nothing says which one is meant.
        """
        offers = self.candidates(check_name(name))
        settings = self.settings
        if name in settings.disabled and (offers or name in catalog.KNOWN_DISTRIBUTIONS):
            raise PluginBlockedError(
                f"The vocoder {name!r} is hidden by DISTILL_VOCODERS_DISABLE="
                f"{','.join(sorted(settings.disabled))}. Take it out of that variable to use it.",
                distribution=offers[0].distribution if offers else None,
            )
        if not offers:
            raise self._unknown(name)
        if len(offers) == 1 or offers[0].plugin is not None:
            return offers[0]
        preferred = settings.preferred.get(name)
        for offer in offers:
            if preferred is not None and normalized(offer.distribution) == normalized(preferred):
                return offer
        distributions = sorted((offer.distribution for offer in offers), key=normalized)
        unmet = f" (DISTILL_VOCODER_PREFER names {preferred!r}, which is neither)" if preferred else ""
        raise PluginConflictError(
            f"The vocoder {name!r} is offered by {' and by '.join(distributions)}{unmet}. "
            f"Uninstall all but one, or choose: DISTILL_VOCODER_PREFER={name}={distributions[0]}.",
            distribution=distributions[0],
        )

    @property
    def settings(self) -> Settings:
        """What the environment said when plug-ins were looked for."""
        return self._discovered()[1]

    @property
    def discovery(self) -> Discovery:
        """What the metadata said: candidates, and duplicate or stale metadata beside them."""
        return self._discovered()[0]

    def ignored(self) -> list[Candidate]:
        """What is installed but not looked at because of `DISTILL_VOCODERS_AUTOLOAD=0`."""
        return [] if self.settings.autoload else list(self._find().candidates)

    @property
    def plugin_manager(self) -> Any:
        """The `pluggy.PluginManager` that holds the plug-ins which passed every check."""
        return self._manager

    # Choosing and loading

    def resolve(self, selection: str = "auto", *, vocoder_state: object = None) -> Resolution:
        """What a selection means here and now. Loads nothing.

        "auto" prefers the vocoder that came with the app's own model, if its state is given, to BigVGAN,
        and that to any other that is installed.

        Raises:
            UnknownVocoderError: nothing of that name, or for "auto" nothing at all, is installed.
        """
        if selection != "auto":
            return Resolution(self.candidate(selection).name, selection, "asked for by name")
        names = self.names()
        if vocoder_state is not None:
            name = catalog.PER_MODEL_VOCODER
            self.candidate(name)
            return Resolution(name, selection, "the model brings a vocoder of its own")
        for name in catalog.AUTO_ORDER:
            if name in names:
                return Resolution(name, selection, "the best general vocoder that is installed")
        if names:
            best = catalog.AUTO_ORDER[0]
            why_not = "is hidden by DISTILL_VOCODERS_DISABLE" if self.candidates(best) else "is not"
            return Resolution(names[0], selection, f"installed; {best} {why_not}")
        raise UnknownVocoderError(self.why_none(), name="auto")

    def why_none(self) -> str:
        """Why there is no vocoder at all, where there is none, and what to do."""
        settings = self.settings
        if not settings.autoload:
            return f"There is no vocoder here, {_SEARCH_IS_OFF}"
        hidden = sorted(settings.disabled & set(self._all_candidates()))
        if hidden:
            return f"No vocoder is left: DISTILL_VOCODERS_DISABLE hides {', '.join(hidden)}."
        wanted = catalog.KNOWN_DISTRIBUTIONS[catalog.AUTO_ORDER[0]]
        return f"No vocoder is installed. Install one: pip install {wanted}"

    def get(
        self,
        name: str = "auto",
        *,
        variant: str | None = None,
        device: str | torch.device = "auto",
        precision: str = "fp32",
        mel: str | MelSpec | None = None,
        sample_rate: int | None = None,
        weights: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        **options: Any,
    ) -> VocoderBase:
        """A loaded vocoder, ready to run; the same object for the same arguments, until `unload`.

        Where `weights` names files or tensors that have been written to since, they are loaded anew.

        Args:
            name: a name from `names()`, or "auto" (see `resolve`).
            variant: one of the card's variants; by default the card's default.
            device: "auto", "cuda", "cuda:N", "mps" or "cpu", or a `torch.device`.
            precision: "fp32", "bf16", "fp16" or "auto".
            mel: the format of the mels that will be passed in, a `MelSpec` or a preset's name; by default
                the vocoder's own.
            sample_rate: of the output, in Hz; by default the vocoder's own.
            weights: a folder, a file or a state dict to load instead of the variant's pinned files.
            **options: passed to the plug-in, such as `engine=` or `chunk_frames=`.

        Raises:
            UnknownVocoderError: no such vocoder; with the closest names and what to install.
            UnknownVariantError: the vocoder has no such variant; with those it has.
            PluginError: the plug-in cannot be used; the original error is its `__cause__`.
            DeviceError: the device is not there, does not work, is none the vocoder runs on, or has no memory left
                for it.
            PrecisionError: the precision is unknown, or the device or engine has none such.
            OptionError: an option the plug-in does not take, or a value that an argument cannot have.
            MelFormatError: `mel` is neither a `MelSpec` nor the name of a preset.
            MelMismatch: mels in the format `mel` cannot be converted to the vocoder's; with the reasons.
            InvalidAudioError: `sample_rate` is not a positive whole number, or cannot be made.
            WeightsError: the weights cannot be had, are damaged, or are another model's.
        """
        state = weights if isinstance(weights, Mapping) else None
        name = self.resolve(name, vocoder_state=state).name
        candidate = self.candidate(name)
        card = self.activate(candidate)
        chosen = card.variant(variant)
        source = None if mel is None else MelSpec.of(mel)

        from .device import check_precision, is_out_of_memory, no_room, select_device
        from .resample import checked_rate
        from .weights.source import stamp

        if sample_rate is not None:
            sample_rate = checked_rate(sample_rate)

        placed = select_device(device, among=card.devices)
        check_precision(precision)

        def load() -> VocoderBase:
            from .adapted import check_adaptable
            from .vocoder import VocoderBase

            if weights is None:  # else it is the weights' own format that counts
                check_adaptable(chosen, mel=source, sample_rate=sample_rate)
            factory = activation.import_factory(candidate, card)
            try:
                vocoder = factory(card, chosen, device=placed, precision=precision, weights=weights, **options)
            except (DistillError, MemoryError):
                raise
            except (Exception, SystemExit) as error:
                if raised_by_a_bar(error):
                    raise
                if placed.type != "cpu" and is_out_of_memory(error):
                    raise no_room(placed, f"the vocoder {name!r}", error) from error
                raise activation.load_failure(candidate, error) from error
            if not isinstance(vocoder, VocoderBase):
                wrong = TypeError(f"{card.factory} returned a {type(vocoder).__name__}, not a VocoderBase")
                raise activation.load_failure(candidate, wrong)
            vocoder._kinds = card.devices
            return vocoder

        if options:  # also where it is loaded already: some tell no vocoder from another, and are no less unknown
            activation.check_options(card, activation.import_factory(candidate, card), options)
        key = (name, chosen.name, str(placed), precision, identity(weights), hashable(options))
        content = stamp(weights, chosen.weights)
        vocoder = self._loaded.once(key, weights, content, load)
        if vocoder.device != placed:
            vocoder.to(placed)  # somebody moved it since; what `get` returns is where it was asked for
        if source is None and sample_rate is None:
            return vocoder

        def adapt() -> VocoderBase:
            from .adapted import AdaptedVocoder

            return AdaptedVocoder.around(vocoder, mel=source, sample_rate=sample_rate)

        return self._loaded.once((*key, source, sample_rate), weights, content, adapt)

    def unload(self, name: str | None = None) -> None:
        """Forget loaded vocoders, of one name or all, so that their memory can be freed.

        Objects the caller still holds go on working.
        """
        self._loaded.forget(name)

    # Changing what there is

    def register(self, plugin: Any, name: str | None = None) -> list[str]:
        """Add a plug-in by hand: for frozen apps without metadata, for notebooks and tests.

        It goes before installed ones of the same vocoder name.

        Args:
            plugin: a module or object with a `distill_vocoders` hook implementation.
            name: what to call the plug-in in messages; by default its module's name. A vocoder that was registered
                by hand under this very name gives way to the new one, as when a notebook's cell is run again.

        Returns:
            The vocoder names it brought.

        Raises:
            PluginConflictError: one of its vocoders was registered by hand before, under another name or none.
            PluginBrokenError: it failed a check; nothing was changed.
            PluginApiError: it was written for another version of the contract; nothing was changed.
        """
        label = name or getattr(plugin, "__name__", None) or type(plugin).__name__
        with self._lock:
            trial = Candidate("", label, plugin=plugin)
            cards = activation.read_cards(trial, plugin)
            for card in cards:
                activation.check_api(trial, card)
                known = self._by_hand.get(card.name)
                if known is not None and known.module != name:
                    raise PluginConflictError(
                        f"A vocoder {card.name!r} is registered already, by {known.module}. "
                        f"register(…, name={known.module!r}) takes its place."
                    )
            for card in cards:
                self._withdraw(card.name)
            key = _plugin_key(trial)
            if self._manager.is_registered(plugin):  # an entry point names it too, or it has new cards since
                self._manager.unregister(plugin)
            self._manager.register(plugin, name=key)
            self._cards[key] = (*self._cards.get(key, ()), *cards)
            for card in cards:
                self._by_hand[card.name] = Candidate(card.name, label, summary=card.summary, plugin=plugin)
        return [card.name for card in cards]

    def _withdraw(self, name: str) -> None:
        """Forget a vocoder that was registered by hand, if there is one of this name."""
        known = self._by_hand.pop(name, None)
        if known is None:
            return
        key = _plugin_key(known)
        self._cards[key] = tuple(card for card in self._cards[key] if card.name != name)
        if not self._cards[key]:
            del self._cards[key]
            self._manager.unregister(known.plugin)
        self._failures.pop(known, None)
        self._loaded.forget(name)

    def refresh(self) -> None:
        """Look again for what is installed, and give broken plug-ins another try.

        Loaded vocoders and plug-ins registered by hand stay. A plug-in whose code was already imported
        keeps running that code until the process ends.
        """
        import importlib

        importlib.invalidate_caches()
        with self._lock:
            self._found = None
            self._failures.clear()
            by_hand = {_plugin_key(candidate) for candidate in self._by_hand.values()}
            self._cards = {key: cards for key, cards in self._cards.items() if key in by_hand}
            for label, plugin in self._manager.list_name_plugin():
                if label not in by_hand:
                    self._manager.unregister(plugin, name=label)

    def explain(self, name: str) -> Explanation:
        """The whole story of one name: every candidate, what became of it, and what to do.

        Prints as text; `to_dict` for programs. Imports plug-ins, not torch.
        """
        from .explain import explain

        return explain(self, check_name(name))

    # Inside

    def _discovered(self) -> tuple[Discovery, Settings]:
        with self._lock:
            if self._found is None:
                settings = Settings.from_environ(self._environ)
                self._found = (self._find() if settings.autoload else Discovery(), settings)
            return self._found

    def _all_candidates(self) -> dict[str, list[Candidate]]:
        with self._lock:
            found: dict[str, list[Candidate]] = {name: [each] for name, each in self._by_hand.items()}
            for candidate in self._discovered()[0].candidates:
                found.setdefault(candidate.name, []).append(candidate)
            return found

    def _unknown(self, name: str) -> UnknownVocoderError:
        names = self.names()
        to_install = catalog.KNOWN_DISTRIBUTIONS.get(name)
        if not self.settings.autoload:
            message = f"There is no vocoder {name!r} here, {_SEARCH_IS_OFF}"
        elif to_install:
            message = f"The vocoder {name!r} is not installed. Install it: pip install {to_install}"
        else:
            known = sorted({*names, *catalog.KNOWN_DISTRIBUTIONS})
            message = f"There is no vocoder {name!r}.{did_you_mean(name, known)} "
            message += f"Installed: {', '.join(names)}." if names else "None is installed."
            missing = [each for each in closest(name, known) if each not in names]
            if missing:
                message += f" For {missing[0]!r}: pip install {catalog.KNOWN_DISTRIBUTIONS[missing[0]]}"
        return UnknownVocoderError(message, name=name, suggestions=closest(name, names))

    @contextmanager
    def _not_while_importing(self, candidate: Candidate) -> Iterator[None]:
        if self._importing.stack:
            raise _asked_too_early(self._importing.stack[-1], candidate)
        self._importing.stack.append(candidate)
        try:
            yield
        finally:
            self._importing.stack.pop()


def check_name(name: Any) -> str:
    """The name itself, if it can be one.

    Raises:
        UnknownVocoderError: it is no string, or an empty one.
    """
    if isinstance(name, str) and name:
        return name
    raise UnknownVocoderError(f"A vocoder is named by a word, such as 'bigvgan', not by {name!r}.")


def _asked_too_early(culprit: Candidate, candidate: Candidate) -> PluginError:
    return PluginError(
        f"{culprit.module} ({culprit.origin}) asked the registry for {candidate.name!r} while it was itself being "
        "imported. Move that call into a function that runs later.",
        distribution=culprit.distribution or None,
    )


def _plugin_key(candidate: Candidate) -> str:
    """What a plug-in is filed under; two registered by hand may bear one name, and two may be in one module."""
    plugin = candidate.plugin
    if plugin is not None:
        return f"{candidate.module} (by hand, {id(plugin):#x})"
    return f"{candidate.module}:{candidate.attribute}" if candidate.attribute else candidate.module


registry = Registry()
"""The vocoders of this process."""


def get_vocoder(
    vocoder_type: str = "bigvgan",
    device: str | torch.device = "auto",
    *,
    vocoder_state: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> VocoderBase:
    """`registry.get` under the app's own name and argument names.

    Args:
        vocoder_type: a vocoder's name or "auto".
        device: as in `Registry.get`.
        vocoder_state: the state of a vocoder that the app's model brings along; used if `vocoder_type` is
            "auto" or names the vocoder it belongs to.
        **arguments: as in `Registry.get`.
    """
    resolution = registry.resolve(vocoder_type, vocoder_state=vocoder_state)
    if vocoder_state is not None and resolution.name == catalog.PER_MODEL_VOCODER:
        arguments.setdefault("weights", vocoder_state)
    return registry.get(resolution.name, device=device, **arguments)
