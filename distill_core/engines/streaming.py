"""A residual stack over a mel that arrives in pieces, with nothing computed twice.

A window of a mel has context on each side, which is computed for its sake alone: the smaller the pieces, the more of
it. Here each layer keeps the end of its input, as far as it will be looked at again, and makes those rows of its
output that no later piece can change. What its rows are added to waits for them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from .channels_last import Conv, Layout, Upsampling
from .residual_stack import Activation, ResidualStack, Stage, Step
from .workspace import Workspace


class StackFlow:
    """As `flow.Flow`. The stack's buffers are in use during a call only."""

    def __init__(self, stack: ResidualStack) -> None:
        self._stack = stack
        self._items: list[_Item] = []

    def __call__(self, mel: Tensor, last: bool) -> Tensor:
        if not self._items:
            self._items = [_Item(self._stack, mel.shape[1]) for _ in mel]
        return torch.stack([item(each.t(), last) for item, each in zip(self._items, mel, strict=True)])


class _Signal:
    """What arrives at a layer: rows that are kept, and those that are put behind them.

    Args:
        space, name: the buffer where they are put together; during a call only, for others use it too.
        channels, dtype: of the signal.
    """

    def __init__(self, space: Workspace, name: str, channels: int, dtype: torch.dtype) -> None:
        self._space, self._name = space, name
        self.rows = torch.empty(0, channels, dtype=dtype, device="cpu")

    def place(self, count: int) -> Tensor:
        """For so many new rows."""
        kept = self.rows
        number, channels = kept.shape
        self.rows = self._space.take(self._name, kept.dtype, number + count, channels)
        if number:
            self.rows[:number] = kept
        return self.rows[number:]

    def put(self, new: Tensor) -> None:
        """These rows behind the others."""
        self.place(len(new)).copy_(new)

    def keep(self, first: int) -> None:
        """The rows from this one on, which is the first from now on."""
        self.rows = self.rows[first:].clone()


class _Layer:
    """A layer that makes what is certain of its signal.

    Args:
        run: (rows, out, layout), as `Conv`; how many rows of the signal lie around these is in the layout.
        signal: its input.
        context: rows on each side of a row that what the layer makes of it depends on.
    """

    def __init__(self, run: Callable[[Tensor, Tensor, Layout], object], signal: _Signal, context: int) -> None:
        self._run, self.signal, self._context = run, signal, context
        self._made = 0  # of the signal's rows

    def __call__(self, last: bool, place: Callable[[int], Tensor]) -> Tensor:
        """Into what `place` gives for so many rows; it is returned."""
        out = self.make(last, place)
        self.forget(self._made)
        return out

    def make(self, last: bool, place: Callable[[int], Tensor]) -> Tensor:
        """The same; the signal's rows stay."""
        rows = self.signal.rows
        number = rows.shape[0]
        start, stop = self._made, max(self._made, number - (0 if last else self._context))
        out = place(stop - start)
        if stop > start:
            self._run(rows[start:stop], out, Layout(1, stop - start, before=start, after=number - stop))
        self._made = stop
        return out

    def forget(self, most: int) -> int:
        """The first rows, which are not looked at again, so many at most; how many is returned."""
        first = min(most, max(0, self._made - self._context))
        self.signal.keep(first)
        self._made -= first
        return first


class _Upsampling:
    """As `_Layer`; of a row it makes several, and not all of those at the signal's end are certain."""

    def __init__(self, up: Upsampling, signal: _Signal, space: Workspace) -> None:
        self._up, self.signal, self._space = up, signal, space
        self._made = 0  # rows

    def __call__(self, last: bool) -> Tensor:
        up, rows = self._up, self.signal.rows
        made, stop = self._made, max(self._made, len(rows) * up.stride - (0 if last else up.padding))
        start, end = made // up.stride, -(-stop // up.stride)
        out = self._space.take("x", rows.dtype, (end - start) * up.stride, up.channels)
        if end > start:
            up(rows[start:end], out, Layout(1, end - start, before=start, after=len(rows) - end))
        first = max(0, stop // up.stride - up.context)
        self.signal.keep(first)
        self._made = stop - first * up.stride
        return out[made - start * up.stride : stop - start * up.stride]


class _Sum:
    """As `Conv`, with what it makes added to the rows of a signal that have waited for it, one after the other.

    Not a method of `_Step`, which holds it: a ring of the two would keep the whole engine until Python's garbage
    collector comes by, long after a stream has ended and its vocoder was let go.
    """

    def __init__(self, conv: Conv, signal: _Signal, space: Workspace) -> None:
        self._conv, self._signal, self._space = conv, signal, space
        self.done = 0  # of the signal's rows

    def __call__(self, x: Tensor, out: Tensor, layout: Layout) -> Tensor:
        base = self._signal.rows[self.done : self.done + len(out)]
        if x.dtype == torch.float32:
            self._conv.add(x, out, layout, base)
        else:  # it would round the sum
            branch = self._space.take("branch", x.dtype, *out.shape)
            out.copy_(base).add_(self._conv(x, branch, layout))
        return out


class _Step:
    """As `Step`: the rows of its signal wait until what is made of them, in `dtype`, is added to them."""

    def __init__(self, step: Step, dtype: torch.dtype, signal: _Signal, space: Workspace) -> None:
        self.signal = signal
        self._before = _Layer(_activation(step.before), signal, step.before.context)
        inner: list[tuple[Callable[[Tensor, Tensor, Layout], object], int]] = [(step.first, step.first.context)]
        if step.between is not None:
            inner.append((_activation(step.between), step.between.context))
        if step.second is not None:
            inner.append((step.second, step.second.context))
        conv = step.second or step.first
        self._sum = _Sum(conv, signal, space)
        inner[-1] = (self._sum, conv.context)
        names, channels = itertools.cycle(("one", "two")), step.first.channels
        self._inner = [_Layer(run, _Signal(space, next(names), channels, dtype), context) for run, context in inner]

    def __call__(self, last: bool, place: Callable[[int], Tensor]) -> None:
        self._before.make(last, self._inner[0].signal.place)
        for layer, following in itertools.pairwise(self._inner):
            layer(last, following.signal.place)
        self._sum.done += len(self._inner[-1](last, place))
        self._sum.done -= self._before.forget(self._sum.done)


class _Stage:
    """Upsampling, and the mean of blocks; the one that looks furthest says which rows are certain."""

    def __init__(self, stage: Stage, channels: int, space: Workspace) -> None:
        self._space = space
        self._up = _Upsampling(stage.up, _Signal(space, "one", channels, stage.dtype), space)
        self._context = max(sum(step.context for step in block) for block in stage.blocks)
        self._arrived = self._done = 0
        self._blocks: list[list[_Step]] = []
        for block in stage.blocks:
            steps = []
            for i, step in enumerate(block):
                dtype = torch.float32 if i else stage.dtype
                signal = _Signal(space, f"stream {i % 2}", stage.up.channels, dtype)
                steps.append(_Step(step, stage.dtype, signal, space))
            self._blocks.append(steps)
        self._ahead = [_Signal(space, "ahead", stage.up.channels, torch.float32) for _ in stage.blocks]

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        self._up.signal.put(x)
        x = self._up(last)
        self._arrived += len(x)
        count = max(0, self._arrived - (0 if last else self._context) - self._done)
        self._done += count
        total = self._space.take("total", torch.float32, count, x.shape[1]).zero_()
        for block, ahead in zip(self._blocks, self._ahead, strict=True):
            block[0].signal.put(x)
            for step, following in itertools.pairwise(block):
                step(last, following.signal.place)
            block[-1](last, ahead.place)
            total.add_(ahead.rows[:count])
            ahead.keep(count)
        return total.div_(len(self._blocks))


class _Item:
    """One mel: frames [t, n_mels] -> samples [n]."""

    def __init__(self, stack: ResidualStack, bands: int) -> None:
        space = self._space = stack.space
        self._before_up, self._final = stack.before_up, stack.final
        self._pre = _Layer(stack.pre, _Signal(space, "one", bands, torch.float32), stack.pre.context)
        self._wide = stack.pre.channels
        channels = [self._wide, *(stage.up.channels for stage in stack.stages)]
        self._stages = [_Stage(stage, wide, space) for stage, wide in zip(stack.stages, channels, strict=False)]
        activation = stack.before_post
        signal = _Signal(space, "one", channels[-1], torch.float32)
        self._before_post = _Layer(_activation(activation), signal, activation.context)
        self._post = _Layer(stack.post, _Signal(space, "two", channels[-1], torch.float32), stack.post.context)

    def __call__(self, mel: Tensor, last: bool) -> Tensor:
        self._pre.signal.put(mel)
        x = self._pre(last, lambda count: self._space.take("x", torch.float32, count, self._wide))
        for stage in self._stages:
            x = stage(self._before_up(x), last)
        self._before_post.signal.put(x)
        self._before_post(last, self._post.signal.place)
        x = self._post(last, lambda count: self._space.take("x", torch.float32, count, 1))
        return self._final(x[:, 0].clone())


def _activation(activation: Activation) -> Callable[[Tensor, Tensor, Layout], object]:
    return lambda x, out, layout: activation(x, out, layout.before, layout.after)
