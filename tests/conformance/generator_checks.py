"""What both generators' conformance tests do: random weights that show mistakes, and the context of a frame."""

from __future__ import annotations

import torch
from torch import Tensor, nn

TOLERANCE = 1e-5


def randomise(model: nn.Module, seed: int = 0) -> None:
    """Weights that keep the signal's size from layer to layer, so that no layer drowns or saturates.

    As built, snakes have parameters of zero and biases near it: a mistake in them would not show.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(shape: torch.Size) -> Tensor:
        return torch.randn(shape, generator=generator)

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            leaf = name.rpartition(".")[2]
            if leaf in ("weight_v", "weight"):
                parameter.copy_(normal(parameter.shape) / parameter[0].numel() ** 0.5)
            elif leaf == "weight_g":
                length = 0.1 if name.startswith("conv_post") else 1.0 if name.startswith("ups") else 0.5
                parameter.copy_(length * (1 + 0.2 * normal(parameter.shape)).abs())
            elif leaf in ("alpha", "beta"):
                # also right where the parameter is the value itself and not its logarithm
                parameter.copy_(0.6 + 0.2 * normal(parameter.shape).clamp(-2, 2))
            else:
                parameter.copy_(0.1 * normal(parameter.shape))


def random_mel(bands: int, frames: int, *, batch: int = 1, seed: int = 0) -> Tensor:
    """A log mel of roughly the range of speech. [batch, bands, frames]"""
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(batch, bands, frames, generator=generator) - 5


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference over the largest value; fails where the reference could hide a mistake."""
    assert ours.shape == theirs.shape
    assert theirs.std() > 1e-3, "the reference is silent"
    assert (theirs.abs() < 0.999).double().mean() > 0.5, "the reference is clipped"
    return float((ours - theirs).abs().max() / theirs.abs().max())


def dependence(model: nn.Module, bands: int, hop_length: int, reach: int) -> tuple[int, int]:
    """Frames before and after a frame that its samples depend on, by differentiation in fp64.

    A gradient keeps its own exponent, so that a path through forty filters' outermost taps, far
    below the resolution of any output sample, is still told from no path.
    """
    model = model.double()
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if "alpha" in name or "beta" in name:
                tensor.zero_()
            elif tensor.dim() == 3:  # all paths positive: none cancels another
                tensor.copy_(1 / tensor[0].numel() * (0.9 + 0.2 * torch.rand_like(tensor)))
    frame = reach + 3
    mel = torch.rand(1, bands, 2 * frame + 1, dtype=torch.float64, requires_grad=True)
    samples = before_final(model, mel)[..., frame * hop_length : (frame + 1) * hop_length]
    (gradient,) = torch.autograd.grad(samples.sum(), mel)
    touched = gradient.abs().sum((0, 1)).nonzero().flatten().tolist()
    assert touched == list(range(touched[0], touched[-1] + 1))
    return frame - touched[0], touched[-1] - frame


def before_final(model: nn.Module, mel: Tensor) -> Tensor:
    """The output of `conv_post`: past it, clamping would hide the gradient."""
    outputs: list[Tensor] = []
    handle = model.conv_post.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    try:
        model(mel)
    finally:
        handle.remove()
    return outputs[0]


def chunk_error(model: nn.Module, mel: Tensor, hop_length: int, halo: int) -> float:
    """Largest difference between a middle part made alone, with `halo` frames around it, and of the whole."""
    model = model.double()
    mel = mel.double()
    first, last = halo + 5, halo + 9
    with torch.no_grad():
        whole = before_final(model, mel)[..., first * hop_length : last * hop_length]
        part = before_final(model, mel[..., first - halo : last + halo])
        part = part[..., halo * hop_length : (halo + last - first) * hop_length]
    return float((whole - part).abs().max() / whole.abs().max())
