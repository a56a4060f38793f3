"""Weight norm in the three spellings that checkpoints use, and folding it away.

A weight-normed convolution keeps its weight as a direction `v` and a length `g` per slice of
the first dimension: `w = g * v / |v|`. Files hold `weight_g` and `weight_v`, or, written by
newer torch, `parametrizations.weight.original0` and `original1`, or, after folding, `weight`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

# (length, direction) relative to the module
SPELLINGS = (
    ("weight_g", "weight_v"),
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
)

_SERIAL = 32_767  # elements that torch still computes on one thread


def fold(g: Tensor, v: Tensor) -> Tensor:
    """The plain weight: each `v[i]` scaled to length `g[i]`. `g` is [n, 1, 1], `v` [n, m, k]."""
    return v * (g / _lengths(v))


def fold_weight_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with every weight plain, whatever the spelling; tensors that are plain are not copied.

    Raises `ValueError` for half a pair, a pair whose shapes disagree, or one weight spelled twice.
    """
    pairs, plain = _pairs(state)
    with ThreadPoolExecutor(min(4, torch.get_num_threads())) as pool:
        folded = pool.map(lambda pair: _fold_in_blocks(*pair), pairs.values())
        return {**plain, **dict(zip(pairs, folded, strict=True))}


def folded_shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """The shapes that `fold_weight_norm` would give, without computing anything. Same errors."""
    pairs, plain = _pairs(state)
    return {
        **{name: tuple(tensor.shape) for name, tensor in plain.items()},
        **{name: tuple(v.shape) for name, (_, v) in pairs.items()},
    }


class _WeightNorm(_ConvNd):
    """Mix-in for convolutions: weight-normed as built, plain after `remove_weight_norm`.

    The parameters are `weight_g`, `weight_v` or `weight`; a state dict in any spelling loads into
    either form.
    """

    def _normalise(self) -> None:
        weight = self.weight.detach()
        del self.weight
        self.weight_g = nn.Parameter(weight[:, :1, :1] if weight.is_meta else _lengths(weight))
        self.weight_v = nn.Parameter(weight)

    @property
    def weight_normed(self) -> bool:
        return "weight_g" in self._parameters

    def plain_weight(self) -> Tensor:
        """The weight as the convolution uses it."""
        return fold(self.weight_g, self.weight_v) if self.weight_normed else self.weight

    def remove_weight_norm(self) -> None:
        """Fold in place; does nothing where that is done already."""
        if self.weight_normed:
            v = self.weight_v.detach()
            weight = v if v.is_meta else self.plain_weight().detach()
            trained = self.weight_v.requires_grad
            del self.weight_g, self.weight_v
            self.weight = nn.Parameter(weight, requires_grad=trained)

    def reset_parameters(self) -> None:
        # torch's meta tensors go through Python for every step of an initialisation nobody will see
        if not self.weight.is_meta:
            super().reset_parameters()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for names in SPELLINGS:
            g, v = (prefix + name for name in names)
            if g in state_dict and v in state_dict:
                pair = state_dict.pop(g), state_dict.pop(v)
                if self.weight_normed:
                    state_dict[prefix + "weight_g"], state_dict[prefix + "weight_v"] = pair
                else:
                    state_dict[prefix + "weight"] = fold(*pair)
                break
        else:
            if self.weight_normed and prefix + "weight" in state_dict:
                weight = state_dict.pop(prefix + "weight")
                state_dict[prefix + "weight_g"] = _lengths(weight)
                state_dict[prefix + "weight_v"] = weight
        super()._load_from_state_dict(state_dict, prefix, *args)


class WeightNormConv1d(_WeightNorm, nn.Conv1d):
    """`nn.Conv1d` with weight norm. [B, in, T] -> [B, out, T']."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._normalise()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self._conv_forward(x, self.plain_weight(), self.bias)
        return y


class WeightNormConvTranspose1d(_WeightNorm, nn.ConvTranspose1d):
    """`nn.ConvTranspose1d` with weight norm, one length per input channel. [B, in, T] -> [B, out, T']."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._normalise()

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        padding = int(self.padding[0])
        return F.conv_transpose1d(x, self.plain_weight(), self.bias, self.stride, padding)


def remove_weight_norm(module: nn.Module) -> None:
    """Fold every weight-normed convolution inside `module`, in place."""
    for child in module.modules():
        if isinstance(child, _WeightNorm):
            child.remove_weight_norm()


def _fold_in_blocks(g: Tensor, v: Tensor) -> Tensor:
    """`fold` without gradients, in blocks that torch does not share out among its own threads.

    Folding is bound by memory, and by hundreds of short parallel loops. Where other processes keep a core
    busy, each such loop waits for the thread that was sent away: a second and more instead of a third
    (`python -m benchmarks.loading` beside a busy process). Threads that take whole weights do not wait.
    """
    g, v = g.detach(), v.detach()
    if v.device.type != "cpu":
        return fold(g, v)
    plain = torch.empty_like(v)
    rows = max(1, _SERIAL // max(1, math.prod(v.shape[1:])))
    for g_rows, v_rows, plain_rows in zip(g.split(rows), v.split(rows), plain.split(rows), strict=True):
        torch.mul(v_rows, g_rows / _lengths(v_rows), out=plain_rows)
    return plain


def _lengths(v: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(v, dim=tuple(range(1, v.dim())), keepdim=True)
    return lengths


def _pairs(state: Mapping[str, Tensor]) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, Tensor]]:
    """Split a state dict into {weight: (g, v)} and what is plain already."""
    plain = dict(state)
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    for g_leaf, v_leaf in SPELLINGS:
        with_g = [name[: -len(g_leaf)] for name in state if _ends_in(name, g_leaf)]
        with_v = [name[: -len(v_leaf)] for name in state if _ends_in(name, v_leaf)]
        if lone := sorted(set(with_g) ^ set(with_v)):
            raise ValueError(
                f"half of a weight-normed weight: only one of {lone[0] + g_leaf} and {lone[0] + v_leaf} is there"
            )
        for module in with_v:
            weight = module + "weight"
            g, v = plain.pop(module + g_leaf), plain.pop(module + v_leaf)
            if weight in plain or weight in pairs:
                raise ValueError(f"{weight} is there in two spellings of weight norm")
            if v.dim() < 2 or tuple(g.shape) != (v.shape[0], *[1] * (v.dim() - 1)):
                raise ValueError(f"{module + g_leaf} {list(g.shape)} does not fit {module + v_leaf} {list(v.shape)}")
            pairs[weight] = g, v
    return pairs, plain


def _ends_in(name: str, leaf: str) -> bool:
    return name == leaf or name.endswith("." + leaf)
