"""What both generators are besides their layers: built from checkpoints, folded, measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from . import weight_norm
from .checkpoint import StateDictError, check_shapes, generator_state, load_file, read_config
from .config import AttrDict, Upsampler, as_attr_dict

if TYPE_CHECKING:
    from typing_extensions import Self


class Generator(nn.Module):
    """Base of the generators: mel [B, n_mels, T] -> waveform [B, 1, T * hop_length].

    A subclass sets `architecture` and `checkpoint_names` (globs, the first that matches wins) and
    reads `self.h` in its constructor.
    """

    architecture: ClassVar[str]
    checkpoint_names: ClassVar[tuple[str, ...]]
    h: AttrDict
    config: Upsampler
    resblocks: nn.ModuleList

    @classmethod
    def from_state_dict(cls, h: object, state: Mapping[str, Any]) -> Self:
        """A generator ready for inference: weight norm folded, nothing trainable, in `eval` mode.

        `h` is the configuration, `state` a state dict in any spelling of weight norm, or a
        checkpoint that holds one as "generator". Plain fp32 tensors are taken as they are, not
        copied, so a mapped file stays mapped; others become fp32.
        Raises `ConfigError` or `StateDictError`, both `ValueError`.
        """
        tensors = generator_state(state)
        model = cls._empty(h)
        filters = {name for name, _ in model.named_buffers()}
        try:
            found = weight_norm.folded_shapes(tensors)
        except ValueError as error:
            raise StateDictError(f"the checkpoint is no {cls.architecture} state dict: {error}") from error
        check_shapes(found, _shapes(model), optional=filters, architecture=cls.architecture)

        folded = weight_norm.fold_weight_norm({name: t.detach().float() for name, t in tensors.items()})
        folded = {name: t.contiguous() for name, t in folded.items()}
        device = next(iter(folded.values())).device
        for name in filters - folded.keys():
            folded[name] = cls._default_buffer(name).to(device)
        model.load_state_dict(folded, assign=True)
        return model.eval().requires_grad_(False)

    @classmethod
    def from_pretrained(cls, path: str | Path) -> Self:
        """`from_state_dict` of a local folder, or of a checkpoint file with `config.json` beside it.

        Downloads nothing. Raises `FileNotFoundError`, `ConfigError` or `StateDictError`.
        """
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(
                f"{path} is no local folder or file, and {cls.__name__} downloads nothing: "
                "let distill_core.registry.get(...) fetch the checkpoint, or download it and pass its folder"
            )
        folder = path if path.is_dir() else path.parent
        h = read_config(folder / "config.json")
        return cls.from_state_dict(h, load_file(cls._find_checkpoint(path) if path.is_dir() else path))

    def remove_weight_norm(self) -> None:
        """Fold weight norm into plain weights, in place; once folded, does nothing."""
        weight_norm.remove_weight_norm(self)

    def check_mel(self, mel: Tensor) -> None:
        """Raise `ValueError` unless `mel` is [B, n_mels, T] with at least one frame."""
        bands = self.config.num_mels
        if mel.dim() != 3 or mel.shape[1] != bands or mel.shape[2] < 1:
            raise ValueError(f"mel is {list(mel.shape)}, expected [batch, {bands} bands, at least 1 frame]")

    def residual_stage(self, stage: int, x: Tensor) -> Tensor:
        """The mean of a stage's residual blocks. [B, C, T] -> [B, C, T]; `x` is left as it is."""
        count = len(self.config.block_kernels)
        total: Tensor = self.resblocks[stage * count](x)
        for block in range(stage * count + 1, (stage + 1) * count):
            total.add_(self.resblocks[block](x))
        return total.div_(count)

    @classmethod
    def _empty(cls, h: object) -> Self:
        """The folded modules with no memory behind their tensors."""
        with torch.device("meta"):
            model = cls(as_attr_dict(h))
        model.remove_weight_norm()
        return model

    @classmethod
    def _default_buffer(cls, name: str) -> Tensor:
        raise NotImplementedError(f"{cls.__name__} has a buffer {name} and no way to rebuild it")

    @classmethod
    def _find_checkpoint(cls, folder: Path) -> Path:
        for pattern in cls.checkpoint_names:
            found = sorted(path for path in folder.glob(pattern) if path.is_file())
            if len(found) == 1:
                return found[0]
            if found:
                names = ", ".join(path.name for path in found)
                raise FileNotFoundError(f"{folder} holds several checkpoints ({names}): pass the path of one")
        raise FileNotFoundError(f"no checkpoint in {folder}: expected {' or '.join(cls.checkpoint_names)}")


def expected_shapes(cls: type[Generator], h: object) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the folded state dict of `cls` with configuration `h`; allocates no tensor."""
    return _shapes(cls._empty(h))


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
