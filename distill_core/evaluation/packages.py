"""The packages that metrics come from: each optional, looked for when it is needed."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import sys
from types import ModuleType

from ..errors import MissingDependencyError

EXTRA = 'pip install "distill-core[compare]"'


def load(name: str) -> ModuleType:
    """The module `name` of a package of the extra distill-core[compare].

    Raises:
        MissingDependencyError: it is not installed, or cannot be imported; with what to install.
    """
    try:
        return _pyworld() if name == "pyworld" else importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        missing = isinstance(error, ModuleNotFoundError) and error.name in (name, package)
        what = "is not installed" if missing else f"cannot be imported ({error})"
        raise MissingDependencyError(f"{package} {what}: {EXTRA}") from error


def version(name: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions(*metric_packages: str) -> dict[str, str | None]:
    """Of what has a part in the figures: this package, torch, soxr and those named."""
    return {name: version(name) for name in ("distill-core", "torch", "soxr", *sorted(set(metric_packages)))}


def _pyworld() -> ModuleType:
    """pyworld, or the extension module inside it.

    pyworld 0.3.5 asks `pkg_resources` for its own version when it is imported, and setuptools has that no
    more since 82. What is of use in it is one extension module, which needs nothing of the kind.
    """
    try:
        return importlib.import_module("pyworld")
    except ModuleNotFoundError as error:
        if error.name != "pkg_resources":
            raise
    known = sys.modules.get("pyworld.pyworld")
    if known is not None:
        return known
    package = importlib.util.find_spec("pyworld")
    places = list(package.submodule_search_locations or ()) if package else []
    spec = importlib.machinery.PathFinder.find_spec("pyworld.pyworld", places)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError("pyworld holds no extension module", name="pyworld.pyworld")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["pyworld.pyworld"] = module
    return module
