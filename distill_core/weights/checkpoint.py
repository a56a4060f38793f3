"""Reading a checkpoint file: tensors and nothing else, mapped rather than read, refused in one clear line.

torch files are unpickled with `weights_only=True`; safetensors hold no code to begin with.
"""

from __future__ import annotations

import io
import json
import pickletools
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ..errors import CheckpointError, UnsafeCheckpointError, WeightsNotFoundError

if TYPE_CHECKING:
    from torch import Tensor

NAMED_PROBLEMS = 5
"""How many tensors an error names before it only counts them."""

MADE_FROM = "source_sha256"
"""The entry of a converted checkpoint's metadata that says what it was made from."""

_CONFIGS = ("config", "h")  # what a configuration beside a state dict is called
_MAX_CONFIG_BYTES = 1 << 20
_PICKLES_IN_OLD_FILES = 5  # before torch 1.6: number, version, system, content, keys
_ZIP = b"PK\x03\x04"
_HARMLESS = re.compile(
    r"collections\.OrderedDict|(__builtin__|builtins)\.(set|complex|bytearray)|_codecs\.encode|torch\.(\w+Storage|Size|Tensor|device|\w+\d+)|torch\.storage\.\w+"
    r"|torch\._utils\._rebuild\w+|torch\._tensor\._rebuild\w+|torch\.nn\.parameter\.Parameter|torch\.serialization\.\w+"
)


@dataclass(frozen=True)
class CheckpointFile:
    """What a file holds: the generator's `state_dict`, and the `config` stored with it, if any.

    If `mapped`, the tensors are views of the file: they cost no memory, and change if it does. `made_from` is
    the sha256 of the checkpoint that a converted one was made from (see `folded`).
    """

    state_dict: dict[str, Tensor]
    config: dict[str, Any] | None = None
    mapped: bool = False
    made_from: str | None = None


def read_checkpoint(path: Path) -> CheckpointFile:
    """The tensors of a `.pt` or `.safetensors` file, mapped into memory where its format allows.

    A checkpoint that keeps its state dict under "generator" (as BigVGAN's and HiFi-GAN's do) is unwrapped.

    Raises:
        WeightsNotFoundError: there is no such file.
        UnsafeCheckpointError: the file wants to run code on loading; nothing was run.
        CheckpointError: the file is damaged, no checkpoint, or holds something else than tensors.
    """
    try:
        _check_ends(path)
        with path.open("rb") as file:
            head = file.read(512)
    except FileNotFoundError as error:
        raise WeightsNotFoundError(f"There is no checkpoint {path}.") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
    kind = _kind_of(head, path)
    if kind == "safetensors":
        return _read_safetensors(path)
    return replace(unwrap(_torch_load(path), str(path)), mapped=kind == "zip")


_PARALLEL = "module."


def unwrap(content: object, origin: str) -> CheckpointFile:
    """The state dict and configuration in what a checkpoint holds, or a mapping the caller made.

    `{name: tensor}`, `{"generator": {name: tensor}}`, and with either of these "config" or "h". The "module." that
    torch's DataParallel puts before all names is left out.

    Raises:
        CheckpointError: it holds something else; the message says what.
    """
    import torch

    config = None
    if isinstance(content, Mapping):
        content = {name: value for name, value in content.items() if value is not None or name not in _CONFIGS}
        stored = [name for name in _CONFIGS if name in content and not isinstance(content[name], torch.Tensor)]
        config = _as_config(content[stored[0]], f"{origin}: {stored[0]!r}") if stored else None
        if isinstance(content.get("generator"), Mapping):
            content = content["generator"]
        else:
            content = {name: value for name, value in content.items() if name not in stored}
    if not isinstance(content, Mapping) or not content:
        what = "nothing" if isinstance(content, Mapping) else f"a {type(content).__name__}"
        raise CheckpointError(f"{origin} holds {what}, expected a state dict: names and tensors.")
    for name, value in content.items():
        if not isinstance(name, str):
            raise CheckpointError(
                f"{origin} is no generator's state dict: its tensors are named by strings, and {name!r} is none."
            )
        if not isinstance(value, torch.Tensor):
            raise CheckpointError(
                f"{origin} is no generator's state dict: {name!r} is a {type(value).__name__}, not a tensor. "
                'Save the generator\'s names and tensors alone, or as {"generator": names and tensors}.'
            )
        if value.layout != torch.strided or value.is_meta or value.is_quantized:
            raise CheckpointError(f"{origin}: {name} is no plain tensor ({value.layout}, on {value.device}).")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise CheckpointError(f"{origin}: {name} claims {value.numel()} numbers, more than the file holds.")
    wrapped = all(name.startswith(_PARALLEL) for name in content)
    return CheckpointFile({name[len(_PARALLEL) * wrapped :]: value for name, value in content.items()}, config)


def _as_config(value: object, what: str) -> dict[str, Any]:
    """A stored configuration as a dict: it may be one, or an object that keeps its settings as attributes."""
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "__dict__"):
        return dict(vars(value))
    raise CheckpointError(
        f"{what} is a {type(value).__name__}, expected the configuration, a mapping as in config.json. "
        'Pass weights={"generator": the state dict, "config": the mapping}.'
    )


def check_state_dict(
    state: Mapping[str, Tensor],
    expected: Mapping[str, Iterable[int]],
    what: str,
    *,
    optional: Iterable[str] = (),
) -> None:
    """Check that a state dict has the tensors of an architecture, by name and shape.

    Args:
        state: name -> tensor.
        expected: name -> shape.
        what: the architecture, for the message.
        optional: names that may be missing.

    Raises:
        CheckpointError: naming five tensors that are misshapen, missing or unexpected, each kind in turn.
    """
    shapes = {name: list(shape) for name, shape in expected.items()}
    missing = [f"{name} is missing" for name in shapes if name not in state and name not in set(optional)]
    extra = [f"{name} is unexpected" for name in state if name not in shapes]
    misshapen = [
        f"{name} is {list(state[name].shape)}, expected {shape}"
        for name, shape in shapes.items()
        if name in state and list(state[name].shape) != shape
    ]
    # In turn: a prefix before every name shows only where what is missing stands beside what is there instead.
    in_turn = zip_longest(misshapen, missing, extra)
    problems = [problem for each in in_turn for problem in each if problem is not None]
    if problems:
        more = len(problems) - NAMED_PROBLEMS
        raise CheckpointError(
            f"The checkpoint is not of {what}: "
            + "; ".join(problems[:NAMED_PROBLEMS])
            + (f"; and {more} more" if more > 0 else "")
            + ". Is it another model's, or is config.json?"
        )


def read_config(path: Path) -> dict[str, Any]:
    """The JSON object in a `config.json`.

    Raises:
        WeightsNotFoundError: there is none.
        CheckpointError: it is no JSON object.
    """
    try:
        _check_ends(path)
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise CheckpointError(f"{path} is no configuration: it is over a megabyte long.")
        config = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise WeightsNotFoundError(
            f"There is no {path.name} in {path.parent}: it says which architecture the checkpoint beside it has. "
            "Put the one that came with the checkpoint there."
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON ({error}).") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} holds a JSON {type(config).__name__}, expected an object.")
    return config


def _kind_of(head: bytes, path: Path) -> str:
    start = head.lstrip().lower()
    if not head:
        raise CheckpointError(f"{path} is empty.")
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise CheckpointError(f"{path} is a web page, no checkpoint: a download went through a login or error page.")
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull`.")
    if head.startswith(_ZIP):
        return "zip"
    if head.startswith(b"\x80"):
        return "pickle"
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32:
        return "safetensors"
    raise CheckpointError(f"{path} is no checkpoint: it begins with {head[:8]!r}, not as torch's or safetensors.")


def _check_ends(path: Path) -> None:
    """A pipe would be waited for, and a device may give bytes without end."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise CheckpointError(f"{path} is a pipe or a device, which cannot be read here; write it to a file first.")


def _is_archive(path: Path) -> bool:
    """Whether torch reads a file as the archive that it writes since 1.6, or as pickles one after the other."""
    with path.open("rb") as file:
        return file.read(len(_ZIP)) == _ZIP


def load_pickled(path: Path, *, mapped: bool = False) -> Any:
    """What `torch.save` wrote: tensors and plain values, with no more numbers in memory than the file has room for.

    Args:
        mapped: leave the numbers of an archive in the file until they are needed.

    Raises:
        CheckpointError: the file would unpack to more than its size.
        Exception: whatever torch makes of a damaged file, or of one that would run code.
    """
    import torch

    if not _is_archive(path):
        return torch.load(path, map_location=_Room(path), weights_only=True)
    _check_archive(path)
    return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


class _Room:
    """Where the tensors of an old file go: to memory of which they take no more than the file could fill.

    How large they are is said before any number comes, and which of them have numbers at all, after that: the memory of
    one that gets none is not to tell what was in it before.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._left = path.stat().st_size

    def __call__(self, storage: Any, location: str) -> Any:
        self._left -= storage.nbytes()
        if self._left < 0:
            raise CheckpointError(f"{self._path} is damaged: it claims more numbers than it has room for.")
        return storage.fill_(0)


def _check_archive(path: Path) -> None:
    """torch stores its entries uncompressed, one after the other; anything else may unpack to any size."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries, comment = archive.infolist(), archive.comment
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise CheckpointError(
            f"{path} is damaged, or cut off after {path.stat().st_size} bytes: it has no table of contents ({error})."
        ) from error
    # Where the table is not at the place that the end of the file names, Python looks elsewhere for it than torch does,
    # and takes all entries for shifted; in a comment there may be another table.
    if comment or all(entry.header_offset > 0 for entry in entries):
        raise CheckpointError(f"{path} is damaged: its table of contents is not where torch.save puts it.")
    if any(entry.filename.endswith("/constants.pkl") for entry in entries):
        raise CheckpointError(f"{path} is a TorchScript program, no checkpoint: save the model's state dict instead.")
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size for entry in entries):
        raise CheckpointError(f"{path} is a compressed archive, which torch.save does not write; it was not unpacked.")
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise CheckpointError(f"{path} would unpack to more than its own size, which nothing of torch.save's does.")


def _torch_load(path: Path) -> Any:
    try:
        return load_pickled(path, mapped=True)
    except CheckpointError:
        raise
    except MemoryError as error:
        raise CheckpointError(f"{path} asks for more memory than there is.") from error
    except Exception as error:
        named = imported_by(path)
        if named:
            raise UnsafeCheckpointError(
                f"{path} is refused: loading it would run {', '.join(named[:NAMED_PROBLEMS])}. Nothing was run. "
                "A checkpoint holds tensors only: save the state dict."
            ) from error
        reason = str(error).strip().partition("\n")[0].partition(". ")[0] if isinstance(error, RuntimeError) else ""
        raise CheckpointError(f"{path} is damaged or no checkpoint{': ' + reason if reason else ''}.") from error


def imported_by(path: Path) -> list[str]:
    """What a pickle would import beyond what tensors are made of. Reads its opcodes, executes none."""
    found: list[str] = []
    try:
        if _is_archive(path):
            with zipfile.ZipFile(path) as content:
                name = next(each for each in content.namelist() if each.endswith("/data.pkl"))
                pickled: IO[bytes] = io.BytesIO(content.read(name))
        else:
            pickled = path.open("rb")
        with pickled:
            for _ in range(_PICKLES_IN_OLD_FILES):
                found += _imports(pickled)
    except Exception:
        pass  # the end of what can be read as pickles; an archive may be encrypted, too
    return [name for name in dict.fromkeys(found) if not _HARMLESS.fullmatch(name)]


def _imports(pickled: IO[bytes]) -> Iterator[str]:
    strings: list[str] = []
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name == "GLOBAL":
            yield str(argument).replace(" ", ".")
        elif opcode.name == "STACK_GLOBAL":
            yield ".".join(strings[-2:])
        elif isinstance(argument, str):
            strings.append(argument)


def _read_safetensors(path: Path) -> CheckpointFile:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            state = {name: file.get_tensor(name) for name in sorted(file.keys())}
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, ValueError, RuntimeError, MemoryError) as error:
        raise CheckpointError(f"{path} is damaged or cut off: {error}.") from error
    content: dict[str, Any] = {"generator": state}
    if "config" in metadata:
        try:
            content["config"] = json.loads(metadata["config"])
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{path}: the configuration stored in it is not JSON ({error}).") from error
    return replace(unwrap(content, str(path)), mapped=True, made_from=metadata.get(MADE_FROM))
