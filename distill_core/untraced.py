"""What torch.compile leaves alone, in a program that compiles the code around it."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar, cast

_P = ParamSpec("_P")
_R = TypeVar("_R")


def untraced(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """`function` as it runs by itself, also where the caller is compiled.

    `torch.compiler.disable` would import torch's compiler, which takes longer than all the rest of this package; here
    that is left to the programs that compile.
    """

    @functools.wraps(function)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        if "torch._dynamo" not in sys.modules:
            return function(*args, **kwargs)
        import torch

        plain: Callable[_P, _R] = torch.compiler.disable(function)
        return plain(*args, **kwargs)

    return run


_END = object()


def each_untraced(items: Iterator[_R]) -> Iterator[_R]:
    """`items`, made as by themselves: of a generator torch.compile leaves the frame alone, and not what it calls."""
    while (item := _next(items)) is not _END:
        yield cast(_R, item)


@untraced
def _next(items: Iterator[object]) -> object:
    return next(items, _END)
