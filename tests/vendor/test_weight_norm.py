"""Folding weight norm, whatever the spelling, equals what torch's own convolutions compute with."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from vendor.common.weight_norm import (
    WeightNormConv1d,
    WeightNormConvTranspose1d,
    fold_weight_norm,
    folded_shapes,
)

CONVOLUTIONS: dict[str, Callable[[], nn.Module]] = {
    "conv": lambda: nn.Conv1d(4, 6, 3),
    "transposed": lambda: nn.ConvTranspose1d(4, 6, 8, 4, padding=2),
    "one channel": lambda: nn.Conv1d(4, 1, 7, bias=False),
}


@pytest.fixture(params=CONVOLUTIONS)
def normed(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    conv = nn.utils.parametrizations.weight_norm(CONVOLUTIONS[request.param]())
    with torch.no_grad():
        conv.parametrizations.weight.original0.mul_(torch.rand_like(conv.parametrizations.weight.original0) + 1)
    return nn.Sequential(conv)


def old_spelling(state: dict[str, Tensor]) -> dict[str, Tensor]:
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    for new, old in names.items():
        state = {name.replace(new, old): tensor for name, tensor in state.items()}
    return state


def test_both_pairs_fold_to_the_weight_that_torch_uses(normed: nn.Module) -> None:
    state = normed.state_dict()
    assert "0.parametrizations.weight.original0" in state
    for spelled in (state, old_spelling(state)):
        folded = fold_weight_norm(spelled)
        assert set(folded) == {"0.weight"} | ({"0.bias"} if normed[0].bias is not None else set())
        torch.testing.assert_close(folded["0.weight"], normed[0].weight)
        assert folded_shapes(spelled) == {name: tuple(tensor.shape) for name, tensor in folded.items()}


def test_a_top_level_weight_folds_too(normed: nn.Module) -> None:
    torch.testing.assert_close(fold_weight_norm(normed[0].state_dict())["weight"], normed[0].weight)


def test_plain_tensors_are_not_copied() -> None:
    state = nn.Conv1d(2, 3, 5).state_dict()
    folded = fold_weight_norm(state)
    assert folded.keys() == state.keys()
    assert all(folded[name] is state[name] for name in state)


def test_names_that_only_look_alike_are_left_alone() -> None:
    state = {"my_weight_g": torch.ones(1), "weight_g_old": torch.ones(2)}
    assert fold_weight_norm(state) == state


@pytest.mark.parametrize("missing", ["weight_g", "weight_v", "original0", "original1"])
def test_half_a_pair(normed: nn.Module, missing: str) -> None:
    state = dict(normed.state_dict())
    state = old_spelling(state) if missing.startswith("weight") else state
    (name,) = [name for name in state if name.endswith(missing)]
    del state[name]
    with pytest.raises(ValueError, match="half of a weight-normed weight") as caught:
        fold_weight_norm(state)
    assert name in str(caught.value)


def test_two_spellings_of_one_weight(normed: nn.Module) -> None:
    state = normed.state_dict()
    for other in (old_spelling(state), {"0.weight": normed[0].weight}):
        with pytest.raises(ValueError, match=r"0\.weight is there in two spellings"):
            fold_weight_norm({**state, **other})


def test_lengths_of_another_shape(normed: nn.Module) -> None:
    state = old_spelling(normed.state_dict())
    state["0.weight_g"] = torch.ones(3, 1, 1)
    with pytest.raises(ValueError, match=r"0\.weight_g \[3, 1, 1\] does not fit 0\.weight_v"):
        folded_shapes(state)


@pytest.mark.parametrize(
    "build",
    [lambda: WeightNormConv1d(4, 6, 3), lambda: WeightNormConvTranspose1d(4, 6, 8, 4, padding=2)],
    ids=["conv", "transposed"],
)
def test_folding_a_module_keeps_its_output(build: Callable[[], nn.Module]) -> None:
    module, x = build(), torch.randn(2, 4, 20)
    assert set(module.state_dict()) == {"weight_g", "weight_v", "bias"}
    with torch.no_grad():
        module.weight_g.mul_(torch.rand_like(module.weight_g) + 0.5)
    before = module(x)
    module.remove_weight_norm()
    module.remove_weight_norm()
    assert set(module.state_dict()) == {"weight", "bias"}
    assert module.weight.requires_grad
    torch.testing.assert_close(module(x), before)


def test_built_on_meta_the_shapes_are_right() -> None:
    real = WeightNormConvTranspose1d(4, 6, 8, 4)
    with torch.device("meta"):
        empty = WeightNormConvTranspose1d(4, 6, 8, 4)
    for module in (real, empty):
        assert module.weight_g.shape == (4, 1, 1)
        assert module.weight_v.shape == (4, 6, 8)
        module.remove_weight_norm()
        assert module.weight.shape == (4, 6, 8)
    assert empty.weight.is_meta
