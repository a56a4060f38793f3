"""Vocos against the contract, and its head against upstream's."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from distill_vocos import upstream

from distill_core import errors, registry
from distill_core.testing import conformance

TestVocos = conformance("vocos", untrained=True)


@pytest.fixture
def upstream_head(monkeypatch):
    """`vocos.heads.ISTFTHead`. It imports two functions of torchaudio that it does not use."""
    try:
        import torchaudio  # noqa: F401
    except ImportError:
        functional = ModuleType("torchaudio.functional.functional")
        functional._hz_to_mel = functional._mel_to_hz = None
        for name in ("torchaudio", "torchaudio.functional"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        monkeypatch.setitem(sys.modules, functional.__name__, functional)
    return upstream._module("vocos.heads").ISTFTHead


def test_it_equals_upstream_where_both_have_samples(upstream_head) -> None:
    vocoder = registry.get("vocos", device="cpu", untrained=True)
    model = vocoder.model
    head = upstream_head(dim=512, n_fft=1024, hop_length=256, padding="center")
    head.load_state_dict(model.head.state_dict(), strict=True)
    mel = torch.randn(2, 100, 40, generator=torch.Generator().manual_seed(0)) - 4
    with torch.no_grad():
        want = head(model.backbone(mel))
    got = vocoder.mel_to_waveform(mel)[:, 0]
    assert want.shape[-1] == 39 * 256
    assert (got[:, : want.shape[-1]] - want).abs().max() <= 1e-5 * want.abs().max()


def test_upstreams_checkpoint_loads_with_its_feature_extractor_left_out() -> None:
    state = registry.get("vocos", device="cpu", untrained=True).model.state_dict()
    assert {"backbone.embed.weight", "backbone.convnext.7.gamma", "head.out.weight", "head.istft.window"} <= set(state)
    published = {**state, "feature_extractor.mel_spec.mel_scale.fb": torch.zeros(513, 100)}
    vocoder = registry.get("vocos", device="cpu", weights=published)
    assert torch.equal(vocoder.model.head.out.weight, state["head.out.weight"])
    with pytest.raises(errors.CheckpointError, match="head.out.weight is missing"):
        registry.get("vocos", device="cpu", weights={k: v for k, v in state.items() if k != "head.out.weight"})


def test_the_configuration_beside_weights_of_ones_own_is_heeded() -> None:
    state = registry.get("vocos", device="cpu", untrained=True).model.state_dict()
    config = {"sampling_rate": 22050, "num_mels": 100, "n_fft": 1024, "hop_size": 256, "win_size": 1024}
    own = {"generator": state, "config": {**config, "fmin": 0, "fmax": 8000}}
    vocoder = registry.get("vocos", device="cpu", weights=own)
    assert (vocoder.sample_rate, vocoder.mel.fmax) == (22050, 8000.0)


def test_importing_the_backbone_leaves_no_half_of_vocos_behind() -> None:
    upstream.backbone_class()
    assert "vocos" not in sys.modules or hasattr(sys.modules["vocos"], "Vocos")
