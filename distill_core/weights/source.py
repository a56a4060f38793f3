"""What `weights=` may be, turned into a state dict and a configuration: one function for all plug-ins."""

from __future__ import annotations

import os
import re
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError, OptionError, WeightsNotFoundError
from . import folded
from .checkpoint import CheckpointFile, read_checkpoint, read_config, unwrap
from .hub import ensure
from .pin import WeightsPin

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "config.json"
ENDINGS = (".safetensors", ".pt", ".pth", ".pth.tar", ".ckpt", ".bin")
_OF_OTHER_FRAMEWORKS = (".onnx", ".npz", ".h5", ".msgpack", ".tflite")  # which a plug-in may read by itself
_TRAINING = re.compile(r"g_\d+\Z")  # what the training scripts of HiFi-GAN and BigVGAN write, the number being steps
_ANEW = "registry.unload() lets go of this vocoder, and registry.get loads it anew."
_WEIGHT_NORM = ("weight_g", "weight_v", "original0", "original1")


@dataclass(frozen=True)
class Checkpoint:
    """Weights that were read and not yet put into a model.

    Args:
        state_dict: name -> tensor on the CPU; large ones may be mapped from the file.
        config: what decides sizes and mel format; None where only a state dict was given, for which the
            variant's own configuration holds.
        origin: where it came from, for messages.
        path: the file that was read, if there is one: the checkpoint, or what it was converted to.
    """

    state_dict: dict[str, Tensor]
    config: dict[str, Any] | None
    origin: str
    path: Path | None = None

    def misfit(self, error: ValueError, taken_for: str) -> CheckpointError:
        """The error for tensors that do not fit a configuration.

        Args:
            error: says which do not.
            taken_for: what they were taken for if they came without one, for the message.
        """
        message = f"{self.origin}: {error}."
        if self.config is None:
            message += (
                f" It came without a configuration, and was taken for {taken_for}. If it is another, bring its own: "
                'weights={"generator": state dict, "config": mapping}, or config.json beside the file.'
            )
        else:
            message += " Is it a checkpoint of another vocoder? Then name that one. Or is its configuration another's?"
        return CheckpointError(message)

    def rereader(self) -> Callable[[], dict[str, Tensor]] | None:
        """What reads the tensors from the file once more, and meanwhile holds none of them; None without a file.

        It raises `CheckpointError` if the file is another one by then, `WeightsNotFoundError` if it is gone.
        """
        if self.path is None:
            return None
        # Absolute: by then the program may be in another folder.
        path, origin, identity = self.path.absolute(), self.origin, _identity(self.path)

        def reread() -> dict[str, Tensor]:
            if not path.exists():
                raise WeightsNotFoundError(f"The weights have to be read again, and {path} is gone. {_ANEW}")
            if _identity(path) != identity:
                raise CheckpointError(
                    f"The weights have to be read again, and {path} is not what it was when they were loaded from "
                    f"{origin}. {_ANEW}"
                )
            return _owned(read_checkpoint(path))

        return reread


def load_checkpoint(
    weights: str | os.PathLike[str] | Mapping[str, Any] | None,
    pin: WeightsPin | None = None,
    *,
    names: Sequence[str] = (),
    converted: bool = True,
    progress: bool = True,
    tqdm_class: Any = None,
) -> Checkpoint:
    """Read the weights that `registry.get(weights=…)` names.

    Args:
        weights: None for the pinned files from the Hub; a folder with `config.json` and a checkpoint; a
            checkpoint file, with `config.json` beside it if it is not the variant's own architecture; or a
            state dict, `{"generator": state dict}`, either with "config" or "h" beside it.
        pin: of the variant, used if `weights` is None.
        names: what a plug-in's checkpoints are called in a folder, as globs, the best first; by default
            the pin's files. Failing these, the only file that can be a checkpoint is taken.
        converted: prefer what `distill-vocoder weights convert` made of the checkpoint.
        progress: see `ensure`.
        tqdm_class: see `ensure`.

    Raises:
        WeightsNotFoundError: no such folder or file, no `config.json`, no checkpoint.
        UnsafeCheckpointError: the file would run code; see `read_checkpoint`.
        CheckpointError: the file is damaged or holds something else; see `read_checkpoint`.
        OptionError: `weights` is none of these.
        WeightsError: see `ensure`.
    """
    names = names or [name for name in (pin.files if pin else ()) if name != CONFIG]
    if isinstance(weights, Mapping):
        held = unwrap(weights, "weights=")
        # What is done to the caller's tensors afterwards is not done to the vocoder's.
        return Checkpoint(_apart(held.state_dict), held.config, "a state dict")
    if weights is not None:
        check_kind(weights)
        path = Path(os.path.expanduser(weights))
        try:
            if path.is_dir():
                os.listdir(path)  # a folder that may not be read would seem to be empty
                return _from_folder(path, names, converted)
            if path.exists():
                return _from_file(path, converted)
        except OSError as error:  # no permission, a name that is too long, a disk that fails
            raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error
        raise WeightsNotFoundError(
            f"There is no {path}: weights= takes a folder, a file or a state dict that is here already."
        )
    if pin is None:
        raise WeightsNotFoundError("These weights are not on the Hub: pass weights=, a folder, file or state dict.")
    folder = ensure(pin, progress=progress, tqdm_class=tqdm_class)
    return _from_cache(folder, pin, names, converted)


def check_kind(weights: object) -> None:
    """See that `weights=` is something that can be loaded.

    Raises:
        OptionError: it is no path and no mapping, or an empty name, which would be that of the current folder.
    """
    if isinstance(weights, str) and not weights:
        raise OptionError("weights='' names no file or folder; leave weights out, or None, for the variant's own.")
    if not isinstance(weights, str | os.PathLike | Mapping):
        raise OptionError(
            f"weights= takes a folder, a file or a state dict (a mapping of tensors), not {type(weights).__name__}."
        )


def stamp(weights: str | os.PathLike[str] | Mapping[str, Any] | None, pin: WeightsPin | None = None) -> object:
    """What is another value once the content of `weights=` is another, as far as that shows without reading it.

    Of a folder that is of every file in it that can be a checkpoint or its configuration, or is called as one of
    the variant's own, since which of them is taken is the plug-in's to say.
    """
    if weights is None:
        return None
    if isinstance(weights, Mapping):
        return tuple(_versions(weights))
    path = Path(os.path.expanduser(weights))
    try:
        if path.is_dir():
            files = {each for each in path.iterdir() if _counts(each)}
            files |= {path / name for name in (pin.files if pin else ())}
            return tuple((str(each), _identity(each)) for each in sorted(files) if each.is_file())
        return tuple(_identity(each) for each in (path, path.with_name(CONFIG)) if each.is_file())
    except OSError:  # it cannot be looked at, as loading it will say
        return None


def _counts(path: Path) -> bool:
    # Some checkpoints have no ending: those that a training writes, HiFi-GAN's published generator_v1.
    return path.name == CONFIG or path.name.endswith(ENDINGS + _OF_OTHER_FRAMEWORKS) or "." not in path.name


def _versions(state: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    for name, value in state.items():
        if isinstance(value, Mapping):
            yield name, *_versions(value)
        else:
            # torch counts what is done to a tensor in place, unless it was made in inference mode: then even hasattr of
            # its `_version` fails.
            counted = hasattr(value, "is_inference") and not value.is_inference()
            yield name, _Same(value), value._version if counted else None


class _Same:
    """Equal for one and the same object, as long as it lives: what lies at its address afterwards is another."""

    def __init__(self, value: object) -> None:
        self._id = id(value)
        self._held: Callable[[], object]
        try:
            self._held = weakref.ref(value)
        except TypeError:  # a number, a list or None, of a configuration
            self._held = lambda: [value]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Same) or self._id != other._id:
            return False
        return self._held() is not None and other._held() is not None

    __hash__ = None  # type: ignore[assignment]


def find_checkpoint(folder: Path, names: Sequence[str] = ()) -> Path:
    """The checkpoint in a folder: of the first of `names` that is there, else the only candidate.

    Of what a training left behind (`g_00005000`), the last; a converted checkpoint only where it is alone.

    Raises:
        WeightsNotFoundError: none, or several and no way to tell.
    """
    for pattern in (*names, "*"):
        found = [path for path in sorted(folder.glob(pattern)) if path.is_file()]
        if pattern == "*":
            found = [path for path in found if _TRAINING.match(path.name) or path.name.endswith(ENDINGS)]
        if originals := [path for path in found if not path.name.endswith(folded.SUFFIX)]:
            found = originals
        if all(_TRAINING.match(path.name) for path in found):
            found = found[-1:]
        if len(found) > 1:
            some = ", ".join(path.name for path in found[:5])
            raise WeightsNotFoundError(f"{folder} holds several checkpoints ({some}): pass weights= the path of one.")
        if found:
            return found[0]
    wanted = " or ".join(names) or "a .safetensors or .pt file"
    raise WeightsNotFoundError(f"There is no checkpoint in {folder}: expected {wanted}.")


def _from_folder(folder: Path, names: Sequence[str], converted: bool) -> Checkpoint:
    found = _from_file(find_checkpoint(folder, names), converted, folder=True)
    if found.config is None:
        read_config(folder / CONFIG)  # raises: a folder says itself what architecture it holds
    return found


def _from_file(path: Path, converted: bool, *, folder: bool = False) -> Checkpoint:
    """With the configuration beside it where none is stored in it, or where the folder was asked for, whose that is."""
    instead = folded.preferred(path) if converted else None
    read = read_checkpoint(instead or path)
    config, beside = read.config, path.parent / CONFIG
    if beside.exists() and (config is None or instead or folder):
        config = read_config(beside)
    return Checkpoint(_owned(read), config, str(path), instead or path)


def _from_cache(folder: Path, pin: WeightsPin, names: Sequence[str], converted: bool) -> Checkpoint:
    path = find_checkpoint(folder, names)
    path = (folded.preferred(path) if converted else None) or path
    config = read_config(folder / CONFIG) if CONFIG in pin.files else None
    return Checkpoint(read_checkpoint(path).state_dict, config, f"{pin.repo} at {folder.name[:12]}", path)


def _identity(path: Path) -> tuple[int, int, int]:
    about = path.stat()
    return about.st_size, about.st_ino, about.st_mtime_ns


def _owned(read: CheckpointFile) -> dict[str, Tensor]:
    """The tensors with nothing left in the file once weight norm is folded.

    A file of the user's own may be overwritten while the vocoder runs, by a training that saves again:
    tensors mapped from it would change under us, or crash the process where it got shorter. The parts
    of a weight norm are left out, for folding copies them anyway. The cache's files and converted ones
    are replaced, never rewritten.
    """
    if not read.mapped or read.made_from is not None:
        return read.state_dict
    return _apart(read.state_dict)


def _apart(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in memory of their own, once weight norm is folded."""
    return {
        name: value if name.rpartition(".")[2] in _WEIGHT_NORM else value.detach().clone()
        for name, value in state.items()
    }
