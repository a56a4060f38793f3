"""Which plug-ins are installed: from distributions' metadata to candidates, without importing any.

A pipeline of small functions, so that tests feed it distributions built by hand.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import catalog
from .errors import DistillError
from .hookspecs import ENTRY_POINT_GROUP

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off", ""}


@dataclass(frozen=True)
class Candidate:
    """One distribution's offer of one vocoder name.

    Args:
        name: the vocoder's name (the entry point's).
        module: the plug-in module's dotted name.
        distribution: the distribution's name as its metadata spells it; "" if registered by hand.
        version: of the distribution.
        path: the metadata on disk (`….dist-info`), for `explain`.
        summary: the distribution's one-line description.
        plugin: the plug-in itself where it was registered by hand.
        attribute: the object in the module that is the plug-in; "": the module itself.
    """

    name: str
    module: str
    distribution: str = ""
    version: str = ""
    path: str = ""
    summary: str = ""
    plugin: Any = field(default=None, compare=False)
    attribute: str = ""

    @property
    def origin(self) -> str:
        """`distill-bigvgan 0.1.0`, or what stands in for it in a message."""
        return f"{self.distribution} {self.version}".strip() or f"registered by hand ({self.module})"


@dataclass(frozen=True)
class Duplicate:
    """Metadata of a distribution that was found again elsewhere on the path, or is stale.

    `empty` says that it describes nothing: it lacks METADATA and entry points, or pip renamed it to `~…`
    and was interrupted before it removed it. Such a leftover can be deleted.
    """

    distribution: str
    version: str
    path: str
    empty: bool


@dataclass(frozen=True)
class Discovery:
    """All that the metadata says: candidates in the order of the path, and duplicates beside them."""

    candidates: tuple[Candidate, ...] = ()
    duplicates: tuple[Duplicate, ...] = ()


@dataclass(frozen=True)
class Settings:
    """What the environment says about discovery.

    Args:
        autoload: read entry points at all (`DISTILL_VOCODERS_AUTOLOAD`).
        disabled: hidden names (`DISTILL_VOCODERS_DISABLE=a,b`).
        preferred: vocoder name -> distribution (`DISTILL_VOCODER_PREFER=name=dist,other=dist`).
    """

    autoload: bool = True
    disabled: frozenset[str] = frozenset()
    preferred: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the three variables.

        Raises:
            DistillError: a value cannot be understood; the message shows how to write it.
        """
        env = os.environ if environ is None else environ
        return cls(
            autoload=_parse_switch("DISTILL_VOCODERS_AUTOLOAD", env.get("DISTILL_VOCODERS_AUTOLOAD")),
            disabled=frozenset(_split(env.get("DISTILL_VOCODERS_DISABLE", ""))),
            preferred=_parse_preferences(env.get("DISTILL_VOCODER_PREFER", "")),
        )


def normalized(distribution: str) -> str:
    """A distribution's name as packaging tools compare it: `Distill_BigVGAN` -> `distill-bigvgan`."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def discover(distributions: Iterable[Any] | None = None) -> Discovery:
    """The candidates that the metadata of the installed distributions names.

    The first metadata of a distribution that names entry points of our group speaks for it, as the first
    on `sys.path` does for an import; further ones of the same name are duplicates, not rivals. Within one
    folder the newest version speaks, so that nothing depends on the order in which a folder is listed.

    Args:
        distributions: `importlib_metadata.Distribution` objects in the order of the path; by default
            all that are installed.
    """
    if distributions is None:
        import importlib_metadata

        distributions = importlib_metadata.distributions()
    offering: set[str] = set()  # normalized names
    others: list[tuple[str, str, str, Any]] = []
    candidates: list[Candidate] = []
    for path, dist in _in_order(distributions):
        guessed, guessed_version = _name_from_path(path)
        if guessed.startswith("~"):
            others.append((guessed, guessed_version, path, None))
            continue
        # Most distributions are none of ours: one substring search each keeps listing fast.
        text = _read(dist, "entry_points.txt")
        points = entry_points(text) if ENTRY_POINT_GROUP in text else {}
        if not points:
            others.append((guessed, guessed_version, path, dist))
            continue
        headers = _headers(dist)
        name = headers.get("name") or guessed or "unknown"
        version = headers.get("version") or guessed_version
        if normalized(name) in offering:
            others.append((name, version, path, dist))
            continue
        offering.add(normalized(name))
        summary = headers.get("summary", "")
        candidates += [
            Candidate(point, module, name, version, path, summary, attribute=attribute)
            for point, (module, attribute) in points.items()
        ]
    return Discovery(tuple(candidates), tuple(_duplicates(others, offering)))


def entry_points(text: str) -> dict[str, tuple[str, str]]:
    """The entry points of our group in an `entry_points.txt`: name -> (module, attribute).

    Read here, line by line, because importlib.metadata refuses a file as a whole for one line that is damaged,
    and one distribution's damage must not hide another's vocoder. A value that names no module is kept
    as it is: importing it will fail, and say so.
    """
    points: dict[str, tuple[str, str]] = {}
    group = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            group = line[1:-1].strip()
        elif group == ENTRY_POINT_GROUP and not line.startswith(("#", ";")):
            name, equals, value = (part.strip() for part in line.partition("="))
            if name and equals:
                module, _, attribute = value.partition("[")[0].partition(":")  # without [extras]
                points.setdefault(name, (module.strip(), attribute.strip()))
    return points


def _read(dist: Any, file: str) -> str:
    """A metadata file's text, "" if it is not there or cannot be read."""
    try:
        return dist.read_text(file) or ""
    except (OSError, ValueError):  # undecodable bytes are a ValueError
        return ""


def _in_order(distributions: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """(path, distribution), each path once, folder by folder; in a folder by name, the newest version first."""
    folders: dict[str, list[tuple[str, Any]]] = {}
    seen = set()
    for dist in distributions:
        path = str(getattr(dist, "_path", ""))
        if path:
            real = os.path.realpath(path)
            if real in seen:
                continue  # the same folder twice on the path
            seen.add(real)
        folders.setdefault(os.path.dirname(path), []).append((path, dist))
    for found in folders.values():
        found.sort(key=lambda each: _version_key(_name_from_path(each[0])[1]), reverse=True)
        found.sort(key=lambda each: normalized(_name_from_path(each[0])[0]))
        yield from found


def _duplicates(others: Iterable[tuple[str, str, str, Any]], offering: set[str]) -> Iterator[Duplicate]:
    known = {normalized(name) for name in (*offering, *catalog.KNOWN_DISTRIBUTIONS.values())}
    for name, version, path, dist in others:
        if dist is None:  # pip puts ~ in the place of the first letter
            for whole in sorted(known):
                if normalized(name[1:]) == whole[1:]:
                    yield Duplicate(whole, version, path, empty=True)
        elif normalized(name) in known:
            empty = not any(_read(dist, file) for file in ("METADATA", "PKG-INFO", "", "entry_points.txt"))
            if empty or normalized(name) in offering:
                yield Duplicate(name, version, path, empty)


def _headers(dist: Any) -> dict[str, str]:
    """The one-line headers of a distribution's metadata, by lower-case name.

    `dist.metadata` would parse the whole text as an e-mail, which takes as long as everything else in a listing.
    """
    text = _read(dist, "METADATA") or _read(dist, "PKG-INFO") or _read(dist, "")
    headers: dict[str, str] = {}
    for line in text.partition("\n\n")[0].splitlines():
        name, colon, value = line.partition(":")
        if colon and not name[:1].isspace():
            headers.setdefault(name.lower(), value.strip())
    return headers


def _name_from_path(path: str) -> tuple[str, str]:
    stem, extension = os.path.splitext(os.path.basename(path))
    if extension not in (".dist-info", ".egg-info"):
        return "", ""
    name, _, version = stem.partition("-")
    return name, version.partition("-")[0]


def _version_key(version: str) -> list[tuple[int, int, str]]:
    """Orders versions well enough to tell an older leftover from what replaced it."""
    parts = re.findall(r"\d+|[a-z]+", version.lower())
    # A pre-release's letters sort below the number, or the end, that a release has in their place.
    return [(1, int(part), "") if part.isdigit() else (-1, 0, part) for part in parts] + [(0, 0, "")]


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _parse_switch(variable: str, value: str | None) -> bool:
    if value is None:
        return True
    word = value.strip().lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise DistillError(f"{variable}={value!r} is neither yes nor no: write 1, true, yes or 0, false, no.")


def _parse_preferences(text: str) -> dict[str, str]:
    preferred = {}
    for part in _split(text):
        name, equals, distribution = (piece.strip() for piece in part.partition("="))
        if not (name and equals and distribution):
            raise DistillError(
                f"DISTILL_VOCODER_PREFER={text!r} cannot be read at {part!r}: "
                "write vocoder=distribution, several separated by commas."
            )
        preferred[name] = distribution
    return preferred
