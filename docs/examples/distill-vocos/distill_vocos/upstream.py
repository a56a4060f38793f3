"""What is used of the package `vocos`, imported without its top, which needs torchaudio and encodec."""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from distill_core.errors import MissingDependencyError


def backbone_class() -> Any:
    """`vocos.models.VocosBackbone`.

    Raises:
        MissingDependencyError: vocos, or what its layers import, is not installed.
    """
    try:
        return _module("vocos.models").VocosBackbone
    except ImportError as error:
        raise MissingDependencyError(
            f"Vocos needs the package vocos, which cannot be imported ({error}). pip install vocos; where its "
            "dependency torchaudio cannot be had: pip install --no-deps vocos && pip install einops scipy"
        ) from error


def _module(name: str) -> ModuleType:
    """A module of vocos. While it is imported, an empty module stands in for the package's own top."""
    if "vocos" in sys.modules:
        return importlib.import_module(name)
    spec = find_spec("vocos")  # finds a top-level package without running it
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError("No module named 'vocos'", name="vocos")
    stand_in = ModuleType("vocos")
    stand_in.__path__ = list(spec.submodule_search_locations)
    sys.modules["vocos"] = stand_in
    try:
        return importlib.import_module(name)
    finally:
        # Whoever imports vocos later gets the real one, whole.
        for imported in [each for each in sys.modules if each.partition(".")[0] == "vocos"]:
            del sys.modules[imported]
