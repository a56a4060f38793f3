"""Checkpoints converted once: weight norm folded, safetensors, so that loading them is mapping them.

A converted checkpoint says which file it was made of, by sha256, and is loaded in that file's place for
as long as it is that file. Those of the Hub's checkpoints lie among distill's notes; that of a file of
the user's own lies beside it.
"""

from __future__ import annotations

import json
import logging
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError, OutputExistsError, WeightsError
from . import cache
from .checkpoint import MADE_FROM
from .digest import read_json, remember, remembered_sha256, sha256_of, state_folder, write_json

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

SUFFIX = ".folded.safetensors"
_PAIRS = (
    (".weight_g", ".weight_v"),
    (".parametrizations.weight.original0", ".parametrizations.weight.original1"),
)


def preferred(checkpoint: Path) -> Path | None:
    """The converted checkpoint to load in place of this file, or None if there is none that belongs to it."""
    target = place_of(checkpoint)
    if not target.exists():
        return None
    try:
        if _source_of(target) != remembered_sha256(checkpoint):
            log.warning("%s was made of another file than %s, and is not used: convert again.", target, checkpoint)
            return None
        note = read_json(_note(target))
        if target.parent == _folder() and (note is None or note.get("sha256") != remembered_sha256(target)):
            log.warning("%s is not as it was written, and is not used: convert again.", target)
            return None
    except (OSError, WeightsError) as error:
        log.warning("%s cannot be used: %s", target, error)
        return None
    return target


def place_of(checkpoint: Path) -> Path:
    """Where the converted form of a checkpoint is looked for: by content for the cache's, beside it for others."""
    if cache.hub_cache().resolve() in Path(os.path.realpath(checkpoint)).parents:
        return _folder() / f"{remembered_sha256(checkpoint)}.safetensors"
    return _beside(checkpoint)


def convert(
    checkpoint: Path,
    state: Mapping[str, Tensor],
    config: Mapping[str, Any] | None,
    output: Path | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Write the folded form of a checkpoint, with its configuration inside; returns the file.

    Args:
        checkpoint: the file that `state` was read from.
        state: name -> tensor, in any spelling of weight norm.
        config: what `config.json` held, if there was one.
        output: where to; by default where `load_checkpoint` looks for it.
        overwrite: replace an `output` that exists. The default place is always written anew.

    Raises:
        OutputExistsError: `output` exists, and `overwrite` is False.
        CheckpointError: the state dict has half of a weight norm.
        WeightsError: the file cannot be written.
    """
    from safetensors.torch import save_file

    target = place_of(checkpoint) if output is None else output
    if output is not None and os.path.exists(os.path.realpath(output)) and not overwrite:
        raise OutputExistsError(f"{output} exists. Use --force to overwrite it.")
    metadata = {"format": "pt", MADE_FROM: remembered_sha256(checkpoint)}
    if config is not None:
        metadata["config"] = json.dumps(config)
    tensors = {name: tensor.detach().float().contiguous() for name, tensor in fold(state).items()}
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        readers = temporary.stat().st_mode  # safetensors lets nobody else read what it writes
        save_file(_unshared(tensors), temporary, metadata)
        temporary.chmod(readers)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
        if target.parent == _folder():
            sha256 = sha256_of(target)
            write_json(_note(target), {"sha256": sha256})
            remember(target, sha256)
    except OSError as error:
        raise WeightsError(f"{target} cannot be written: {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)
    return target


def fold(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with plain weights: of each pair g, v of a weight norm, `g * v / |v|`, |v| per slice.

    Raises:
        CheckpointError: half of a pair.
    """
    import torch

    plain = dict(state)
    for g_leaf, v_leaf in _PAIRS:
        for v_name in [name for name in state if name.endswith(v_leaf)]:
            module = v_name.removesuffix(v_leaf)
            v, g = plain.pop(v_name), plain.pop(module + g_leaf, None)
            if g is None:
                raise CheckpointError(f"The checkpoint has {v_name} without {module + g_leaf}.")
            lengths = torch.linalg.vector_norm(v.float(), dim=tuple(range(1, v.dim())), keepdim=True)
            plain[module + ".weight"] = v.float() * (g.float() / lengths)
    return plain


def _source_of(path: Path) -> str | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get(MADE_FROM)
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"damaged: {error}") from error


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """safetensors writes no two tensors of one memory, such as filters that a model shares."""
    seen: set[int] = set()
    for name, tensor in tensors.items():
        address = tensor.untyped_storage().data_ptr()
        if address in seen:
            tensors[name] = tensor.clone()
        seen.add(address)
    return tensors


def _folder() -> Path:
    return state_folder() / "folded"


def _beside(checkpoint: Path) -> Path:
    return checkpoint.with_name(checkpoint.name + SUFFIX)


def _note(target: Path) -> Path:
    return target.with_suffix(".json")
