"""Checkpoint files: mapped, never executed, and exact about what does not fit."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from vendor.bigvgan import CONFIGS, BigVGAN, expected_shapes
from vendor.common.checkpoint import StateDictError, check_shapes, generator_state, load_file
from vendor.hifigan import CONFIGS as HIFIGAN_CONFIGS
from vendor.hifigan import HiFiGAN

H = {**CONFIGS["bigvgan_base_22khz_80band"], "upsample_initial_channel": 32}


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    model = BigVGAN(H)
    model.remove_weight_norm()
    return model.state_dict()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("wrapped", [True, False])
def test_load_file(tmp_path: Path, state: dict[str, Any], zipped: bool, wrapped: bool) -> None:
    path = tmp_path / "bigvgan_generator.pt"
    content = {"generator": OrderedDict(state)} if wrapped else state
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    loaded = load_file(path)
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) for name in state)


def test_a_mapped_file_stays_mapped(tmp_path: Path, state: dict[str, Any]) -> None:
    """What the model computes with are the file's own pages, not a copy."""
    path = tmp_path / "g.pt"
    torch.save({"generator": state}, path)
    loaded = load_file(path)
    model = BigVGAN.from_state_dict(H, loaded)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert tensors.keys() == loaded.keys()
    assert all(tensors[name].data_ptr() == loaded[name].data_ptr() for name in loaded)
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert str(path) in maps.read_text()


class RunsCode:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.witness),)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_a_file_that_runs_code_is_not_run(tmp_path: Path, form: str) -> None:
    path, witness = tmp_path / "g.pt", tmp_path / "witness"
    content = {"generator": {"weight": torch.ones(1), "x": RunsCode(witness)}}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(StateDictError, match="it was not run"):
        load_file(path)
    assert not witness.exists()


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"version https://git-lfs", b"\x80\x02", bytes(range(256))], ids=repr
)
def test_a_file_that_is_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "g.pt"
    path.write_bytes(content)
    with pytest.raises(StateDictError, match="damaged"):
        load_file(path)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.99])
def test_a_truncated_file(tmp_path: Path, state: dict[str, Any], keep: float) -> None:
    path = tmp_path / "g.pt"
    torch.save({"generator": state}, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(StateDictError, match="damaged"):
        load_file(path)


def test_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.pt", tmp_path):
        with pytest.raises(FileNotFoundError, match="no checkpoint at"):
            load_file(path)


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        None,
        torch.ones(1),
        {"generator": {}},
        {"epoch": 3},
        {1: torch.ones(1)},
        {"a": torch.ones(1, dtype=torch.int64)},
        {"a": torch.ones(1, dtype=torch.complex64)},
        {"a": torch.eye(3).to_sparse()},
        {"a": torch.empty(1, device="meta")},
    ],
    ids=str,
)
def test_what_is_no_state_dict(content: Any) -> None:
    with pytest.raises(StateDictError, match="no state dict|not a weight"):
        generator_state(content)


def test_five_are_named_of_each_kind_and_the_rest_counted() -> None:
    expected = {f"layer{i}": (2, 2) for i in range(9)}
    found = {**{f"layer{i}": (2, 2) for i in range(2, 9)}, "layer5": (3, 2), **{f"x{i}": (1,) for i in range(4)}}
    with pytest.raises(StateDictError) as caught:
        check_shapes(found, expected, architecture="BigVGAN")
    assert str(caught.value) == (
        "the checkpoint is not of this BigVGAN configuration: layer5 is [3, 2], expected [2, 2]; "
        "layer0 is missing; x0 is unexpected; layer1 is missing; x1 is unexpected; and 2 more"
    )
    prefixed = {f"wrapped.{name}": shape for name, shape in expected.items()}
    with pytest.raises(StateDictError, match=r"layer0 is missing; wrapped\.layer0 is unexpected"):
        check_shapes(prefixed, expected, architecture="BigVGAN")
    check_shapes(expected, expected, architecture="BigVGAN")
    check_shapes({}, expected, optional=expected, architecture="BigVGAN")


def test_a_checkpoint_of_another_model_is_named(state: dict[str, Any]) -> None:
    cases: list[tuple[Any, Any, Any, str]] = [
        (BigVGAN, {**H, "num_mels": 100}, state, r"conv_pre.weight is \[32, 80, 7\], expected \[32, 100, 7\]$"),
        (BigVGAN, {**H, "activation": "snake"}, state, r"beta is unexpected; .* and 68 more"),
        (BigVGAN, {**H, "use_bias_at_final": False}, state, r"configuration: conv_post.bias is unexpected$"),
        (HiFiGAN, HIFIGAN_CONFIGS["v1"], state, r"HiFi-GAN configuration: .* and \d+ more"),
    ]
    for cls, h, tensors, message in cases:
        with pytest.raises(ValueError, match=message):
            cls.from_state_dict(h, tensors)


def test_a_missing_tensor_is_named(state: dict[str, Any]) -> None:
    del state["resblocks.3.convs2.1.weight"]
    with pytest.raises(StateDictError, match=r"configuration: resblocks\.3\.convs2\.1\.weight is missing$"):
        BigVGAN.from_state_dict(H, state)


def test_half_a_weight_is_named() -> None:
    state = BigVGAN(H).state_dict()
    del state["ups.1.0.weight_g"]
    with pytest.raises(StateDictError, match=r"ups\.1\.0\.weight_g"):
        BigVGAN.from_state_dict(H, state)


def test_a_tensor_that_claims_terabytes_is_refused_before_it_is_touched(state: dict[str, Any]) -> None:
    del state["conv_pre.weight"]
    state["conv_pre.weight_v"] = torch.ones(1, 1, 1).expand(2**20, 2**10, 2**10)
    state["conv_pre.weight_g"] = torch.ones(1, 1, 1).expand(2**20, 1, 1)
    with pytest.raises(StateDictError, match="conv_pre.weight is"):
        BigVGAN.from_state_dict(H, state)


def test_missing_filters_are_rebuilt(state: dict[str, Any]) -> None:
    reference = BigVGAN.from_state_dict(H, state)
    lean = {name: tensor for name, tensor in state.items() if not name.endswith(".filter")}
    assert len(lean) < len(state)
    model, mel = BigVGAN.from_state_dict(H, lean), torch.randn(1, 80, 4)
    assert not any(tensor.is_meta for tensor in model.state_dict().values())
    assert torch.equal(model(mel), reference(mel))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_fp32(state: dict[str, Any], dtype: torch.dtype) -> None:
    model = BigVGAN.from_state_dict(H, {name: tensor.to(dtype) for name, tensor in state.items()})
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}


def test_expected_shapes_are_those_of_a_real_model(state: dict[str, Any]) -> None:
    assert expected_shapes(H) == {name: tuple(tensor.shape) for name, tensor in state.items()}


def test_expected_shapes_allocate_nothing() -> None:
    shapes = expected_shapes({**H, "upsample_initial_channel": 2**20})
    assert shapes["resblocks.0.convs1.0.weight"] == (2**19, 2**19, 3)
