"""Both generators as their users meet them: built, loaded, folded, run."""

from __future__ import annotations

import ast
import copy
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from vendor import bigvgan, hifigan

VENDOR = Path(__file__).resolve().parents[2] / "vendor"
MODELS = {
    "bigvgan": (
        bigvgan.BigVGAN,
        {**bigvgan.CONFIGS["bigvgan_base_22khz_80band"], "upsample_initial_channel": 32},
        "bigvgan_generator.pt",
    ),
    "hifigan": (
        hifigan.HiFiGAN,
        {**hifigan.CONFIGS["v1"], "upsample_initial_channel": 32},
        "generator_v1",
    ),
}


@pytest.fixture(params=MODELS)
def parts(request: pytest.FixtureRequest) -> tuple[Any, dict[str, Any], str]:
    return MODELS[request.param]


@pytest.fixture
def folder(parts: tuple[Any, dict[str, Any], str], tmp_path: Path) -> Path:
    cls, h, name = parts
    torch.save({"generator": cls(h).state_dict()}, tmp_path / name)
    (tmp_path / "config.json").write_text(json.dumps(h))
    return tmp_path


def test_from_pretrained_takes_a_folder_or_a_file(folder: Path, parts: Any) -> None:
    cls, h, name = parts
    mel = torch.randn(2, 80, 5)
    by_folder, by_file = cls.from_pretrained(folder), cls.from_pretrained(str(folder / name))
    assert by_folder.h == h
    assert by_folder(mel).shape == (2, 1, 5 * 256)
    assert torch.equal(by_folder(mel), by_file(mel))


def test_from_pretrained_says_what_is_missing(folder: Path, parts: Any) -> None:
    cls, _, name = parts
    with pytest.raises(FileNotFoundError, match=r"nvidia/bigvgan_v2.*downloads nothing.*registry\.get"):
        cls.from_pretrained("nvidia/bigvgan_v2_44khz_128band_512x")
    (folder / "g_00000001").write_bytes((folder / name).read_bytes())
    assert cls.from_pretrained(folder) is not None  # the published name goes before training's
    (folder / name).unlink()
    (folder / "g_00000002").write_bytes((folder / "g_00000001").read_bytes())
    with pytest.raises(FileNotFoundError, match="several checkpoints .g_00000001, g_00000002."):
        cls.from_pretrained(folder)
    for path in folder.glob("g_*"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match="no checkpoint in"):
        cls.from_pretrained(folder)
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no config\.json in"):
        cls.from_pretrained(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1]", b"null", b"[" * 100_000])
def test_from_pretrained_with_a_broken_config(folder: Path, parts: Any, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json (is not JSON|holds)"):
        parts[0].from_pretrained(folder)


def test_ready_for_inference(parts: Any) -> None:
    cls, h, _ = parts
    source = cls(h)
    random_state = torch.get_rng_state()
    model = cls.from_state_dict(h, source.state_dict())
    assert torch.equal(torch.get_rng_state(), random_state), "weights were drawn only to be overwritten"
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert not any(name.endswith(("weight_g", "weight_v")) for name in model.state_dict())
    mel = torch.randn(1, 80, 6)
    torch.testing.assert_close(model(mel), source(mel).detach(), rtol=0, atol=1e-6)


def test_remove_weight_norm_is_silent_and_done_once(parts: Any, capsys: pytest.CaptureFixture[str]) -> None:
    cls, h, _ = parts
    model, mel = cls(h), torch.randn(1, 80, 6)
    before = model(mel).detach()
    model.remove_weight_norm()
    after = model(mel).detach()
    model.remove_weight_norm()
    assert torch.equal(model(mel).detach(), after)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-6)
    assert all(p.requires_grad for p in model.parameters())
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("shape", [(80, 5), (1, 5, 80), (1, 81, 5), (1, 80, 0), (1, 1, 80, 5)], ids=str)
def test_a_mel_of_another_shape(parts: Any, shape: tuple[int, ...]) -> None:
    cls, h, _ = parts
    with pytest.raises(ValueError, match=r"expected \[batch, 80 bands, at least 1 frame\]"):
        cls(h)(torch.zeros(shape))


def test_inference_and_training_compute_the_same_and_leave_the_mel_alone(parts: Any) -> None:
    cls, h, _ = parts
    model, mel = cls(h), torch.randn(2, 80, 7)
    kept = mel.clone()
    trained = model(mel)
    with torch.no_grad():
        without_gradient = model(mel)
    with torch.inference_mode():
        inferred = model(mel)
    assert trained.requires_grad
    assert torch.equal(inferred, without_gradient)
    torch.testing.assert_close(trained.detach(), inferred, rtol=0, atol=1e-6)
    assert torch.equal(mel, kept)


def test_every_parameter_gets_its_gradient(parts: Any) -> None:
    cls, h, _ = parts
    model = cls({**h, "upsample_initial_channel": 16}).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    mel = torch.randn(1, 80, 2, dtype=torch.float64)
    target = torch.randn(1, 1, 512, dtype=torch.float64)

    def loss() -> torch.Tensor:
        return (model(mel) * target).sum()

    loss().backward()
    parameters = dict(model.named_parameters())
    assert not [name for name, p in parameters.items() if p.grad is None or not p.grad.abs().max() > 0]

    directions = {name: torch.randn_like(p) for name, p in parameters.items()}
    expected = sum((parameters[name].grad * d).sum() for name, d in directions.items())
    step, ends = 1e-7, []
    with torch.no_grad():
        for move in (step, -2 * step):
            for name, direction in directions.items():
                parameters[name].add_(direction, alpha=move)
            ends.append(loss())
    torch.testing.assert_close((ends[0] - ends[1]) / (2 * step), expected, rtol=1e-4, atol=0)


def test_copies_and_pickles(parts: Any) -> None:
    cls, h, _ = parts
    mel = torch.randn(1, 80, 3)
    for model in (cls(h).eval(), cls.from_state_dict(h, cls(h).state_dict())):
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(twin(mel), model(mel))
            assert twin.h == model.h


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions(parts: Any, dtype: torch.dtype) -> None:
    cls, h, _ = parts
    model = cls.from_state_dict(h, cls(h).state_dict())
    mel = torch.randn(1, 80, 3)
    expected = model(mel)
    wave = model.to(dtype)(mel.to(dtype))
    assert wave.dtype == dtype
    torch.testing.assert_close(wave.float(), expected, rtol=0, atol=0.05 * float(expected.abs().max()))


def test_the_cuda_kernel_is_refused_with_a_warning(tmp_path: Path) -> None:
    cls, h, name = MODELS["bigvgan"]
    with pytest.warns(RuntimeWarning, match="use_cuda_kernel=True is ignored") as caught:
        model = cls(h, use_cuda_kernel=True)
    assert caught[0].filename == __file__
    torch.save({"generator": model.state_dict()}, tmp_path / name)
    (tmp_path / "config.json").write_text(json.dumps(h))
    with pytest.warns(RuntimeWarning, match="use_cuda_kernel=True is ignored") as caught:
        cls.from_pretrained(tmp_path, use_cuda_kernel=True)
    assert caught[0].filename == __file__


def test_names_in_tracebacks() -> None:
    assert hifigan.Generator is hifigan.HiFiGAN
    assert hifigan.HiFiGAN.__name__ == "HiFiGAN"
    assert repr(bigvgan.BigVGAN(MODELS["bigvgan"][1])).startswith("BigVGAN(")


def test_vendor_imports_torch_and_the_standard_library_only() -> None:
    allowed = {*sys.stdlib_module_names, "torch"}
    for path in VENDOR.rglob("*.py"):
        tree = ast.parse(path.read_text())
        for_types = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            if id(node) in for_types:
                continue
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            else:
                continue
            assert {name.partition(".")[0] for name in names} <= allowed, f"{path.name}: {names}"
