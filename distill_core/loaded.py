"""The vocoders that are loaded, each once."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import forking
from .device import empty_caches
from .errors import OptionError, PluginError

if TYPE_CHECKING:
    from .vocoder import VocoderBase


@dataclass
class _Slot:
    """Room for one; `weights` keeps a state dict alive whose id is in the key, `stamp` says what was in it."""

    lock: threading.RLock
    weights: object
    stamp: object
    vocoder: VocoderBase | None = None
    busy: bool = False


class Loaded:
    """Vocoders by what they were asked for. Several threads may ask at once: one loads, the others wait."""

    def __init__(self) -> None:
        # Whoever holds it may ask again: a signal handler, or what is called when an object comes to its end.
        self._lock = threading.RLock()
        self._slots: dict[tuple[Any, ...], _Slot] = {}
        forking.watch(self)

    def after_fork(self) -> None:
        """In the child of a fork, where the threads are not that were loading."""
        self._lock = threading.RLock()
        self._slots = {key: slot for key, slot in self._slots.items() if slot.vocoder is not None}
        for slot in self._slots.values():
            slot.lock = threading.RLock()

    def once(
        self, key: tuple[Any, ...], weights: object, stamp: object, load: Callable[[], VocoderBase]
    ) -> VocoderBase:
        """The vocoder of a key, loaded now if it is not there. A load that fails leaves nothing behind.

        Args:
            key: the vocoder's name, then whatever tells it from its other forms.
            weights: what was given as `weights=`.
            stamp: tells what is in the weights now; a vocoder that was made of something else is let go.
            load: makes it.

        Raises:
            PluginError: `load` asks for the same vocoder. Besides, whatever `load` raises.
        """
        while True:
            with self._lock:
                slot = self._slots.get(key)
                if slot is None or slot.stamp != stamp:
                    slot = self._slots[key] = _Slot(threading.RLock(), weights, stamp)
            with slot.lock:
                if slot.vocoder is not None:
                    return slot.vocoder
                with self._lock:
                    if self._slots.get(key) is not slot:
                        continue  # while this thread waited, another one's load failed
                return self._fill(key, slot, load)

    def _fill(self, key: tuple[Any, ...], slot: _Slot, load: Callable[[], VocoderBase]) -> VocoderBase:
        if slot.busy:
            raise PluginError(f"Loading the vocoder {key[0]!r} asked for the same vocoder again.")
        slot.busy = True
        try:
            slot.vocoder = load()
            return slot.vocoder
        finally:
            slot.busy = False
            if slot.vocoder is None:
                with self._lock:
                    if self._slots.get(key) is slot:
                        del self._slots[key]

    def forget(self, name: str | None = None) -> None:
        """Let go of those of one name, or of all; what others hold goes on working."""
        with self._lock:
            gone = [self._slots.pop(key) for key in list(self._slots) if name is None or key[0] == name]
        gone.clear()  # not while others wait for the lock: it may be much to free
        if sys.modules.get("torch") is not None:
            empty_caches()


def identity(weights: Any) -> object:
    """What tells one `weights=` argument from another: the path, or the state dict's id.

    Raises:
        OptionError: it is none of these, or no path can be so.
    """
    if weights is None or isinstance(weights, Mapping):
        return weights if weights is None else ("state dict", id(weights))
    from .weights.source import check_kind

    check_kind(weights)
    try:
        return os.path.realpath(os.path.expanduser(os.fspath(weights)))
    except ValueError as error:  # such as a zero byte in it
        raise OptionError(f"weights={weights!r} names no file or folder: {error}.") from error


_SHOWN = ("progress", "tqdm_class")
"""Options that say what is to be seen of the loading, and make no other vocoder."""


def hashable(options: Mapping[str, Any]) -> object:
    """What tells one set of options from another; as long as it is kept, so are the objects in it."""
    return tuple((name, _frozen(value)) for name, value in sorted(options.items()) if name not in _SHOWN)


def _frozen(value: Any) -> object:
    if isinstance(value, list | tuple):
        return type(value), tuple(map(_frozen, value))
    if isinstance(value, Mapping):
        return type(value), tuple((name, _frozen(each)) for name, each in value.items())
    try:
        hash(value)
    except TypeError:
        return _Itself(value)
    return isinstance(value, bool), value  # else True were 1


@dataclass(frozen=True, eq=False)
class _Itself:
    """What has no hash, such as an array, is equal to itself alone."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)
