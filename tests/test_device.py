"""Which device is taken where there are several, or one that fails. None is here: torch is made to say there is."""

from __future__ import annotations

import logging

import pytest
import torch

from distill_core import device, errors
from tests.toy import ToyModel, ToyVocoder


@pytest.mark.parametrize("spec", ["gpu", "cpu:1", "mps:1", "xpu", "meta", "", None, 0.5])
def test_what_names_no_device_is_told_the_names_there_are(spec) -> None:
    with pytest.raises(errors.DeviceError, match="no device .*: write auto, cuda, cuda:N, mps or cpu"):
        device.select_device(spec)


def test_a_device_that_is_not_here_or_not_supported_is_refused_with_the_reason(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for spec, among, words in (
        ("cuda", device.KINDS, "'cuda' cannot be used: this torch .* sees no CUDA device"),
        ("cpu", ("cuda", "mps"), "does not run on 'cpu'; it runs on cuda, mps"),
        ("auto", ("cuda",), "None of the devices this vocoder runs on .cuda. is usable here"),
    ):
        with pytest.raises(errors.DeviceError, match=words):
            device.select_device(spec, among=among)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(errors.DeviceError, match="'cuda:1' cannot be used: there are 1 CUDA devices, numbered from 0"):
        device.select_device("cuda:1")


def test_a_device_that_miscalculates_is_not_used(monkeypatch) -> None:
    monkeypatch.setattr(torch, "ones", lambda *size, **how: torch.full(size, 0.5))
    with pytest.raises(errors.DeviceError, match="a matrix product of ones came out as 128.0, not 512"):
        device.select_device("cpu")


def test_cuda_without_a_number_is_the_device_that_tensors_there_say(monkeypatch) -> None:
    """torch.device("cuda") equals no tensor's device: the engine for it would be made, and never asked."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(ToyModel, "to", lambda model, *_: model)
    vocoder = ToyVocoder(device="cuda")
    assert vocoder.device == vocoder._home == torch.device("cuda:1")
    assert device.parsed(torch.device("cuda")) == torch.device("cuda:1")
    assert device.parsed("cuda:2") == torch.device("cuda:2")
    assert device.parsed("cpu:0") == torch.device("cpu")
    assert device.parsed("xpu:1") == torch.device("xpu:1")


def test_a_driver_that_fails_is_passed_over_by_auto_and_is_an_error_where_it_was_asked_for(monkeypatch, caplog) -> None:
    """As in a process forked after CUDA began: torch still counts the devices there, and fails when asked for one."""
    ones = torch.ones

    def fail() -> int:
        raise RuntimeError("Cannot re-initialize CUDA in forked subprocess")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "current_device", fail)
    monkeypatch.setattr(
        torch, "ones", lambda *size, **how: fail() if how["device"].type == "cuda" else ones(*size, **how)
    )
    with caplog.at_level(logging.WARNING):
        assert device.select_device("auto", among=("cuda", "cpu")) == torch.device("cpu")
    assert "Passing over cuda:0" in caplog.text and "forked subprocess" in caplog.text
    with pytest.raises(errors.DeviceError, match="'cuda' cannot be used: RuntimeError: Cannot re-initialize CUDA"):
        device.select_device("cuda")


def test_the_trial_does_not_depend_on_the_callers_default_dtype(monkeypatch) -> None:
    """MPS has no float64, and would be passed over by whoever computes in it elsewhere."""
    made = []
    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda *size, **how: made.append(ones(*size, **how)) or made[-1])
    torch.set_default_dtype(torch.float64)
    try:
        assert device.why_unusable(torch.device("cpu")) is None
    finally:
        torch.set_default_dtype(torch.float32)
    assert [each.dtype for each in made] == [torch.float32]


def test_an_allocator_that_refuses_to_empty_its_cache_is_left_alone(monkeypatch) -> None:
    def refuse() -> None:
        raise RuntimeError("captures_underway.empty() INTERNAL ASSERT FAILED")

    monkeypatch.setattr(torch.cuda, "empty_cache", refuse)
    device.empty_caches()
