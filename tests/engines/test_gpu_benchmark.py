"""`python -m benchmarks.gpu`, tried out where there is no GPU, so that the first to have one meets no misprint."""

from __future__ import annotations

import contextlib
import json
import sys
from types import SimpleNamespace

import pytest
import torch

from benchmarks import gpu, gpu_bandwidth
from distill_core.engines import selection
from distill_core.engines.gpu.ops import TorchOps

WAYS = ["peer", "peer-fp16", "nvidia-fused", "ours-fp32", "ours-fp16", "ours-bf16"]


def test_a_tiny_run_on_the_cpu_gives_the_whole_table(tmp_path, capsys) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        figures = tmp_path / "figures.json"
        arguments = ["--device", "cpu", "--tiny", "--repeat", "1", "--json", str(figures), "--only", *WAYS]
        assert gpu.main(arguments) == 0
    finally:
        torch.set_num_threads(threads)
    printed = capsys.readouterr().out
    assert "no GPU is measured" in printed
    results = json.loads(figures.read_text())
    assert [row["way"] for row in results["ways"]] == WAYS * 3
    for row in results["ways"]:
        assert f"| {row['label']} |" in printed
        if row["way"] in ("nvidia-fused", "ours-fp16"):
            assert any(word in row["reason"] for word in ("CUDA", "installed", "fp16", "HiFi-GAN"))
        elif row["way"] == "ours-bf16" and (emulated := selection.why_not_on_cpu("bf16", "auto")):
            assert row["reason"] == emulated
        elif "reason" in row:
            assert row["way"].startswith("peer"), row["reason"]
            assert "not installed" in row["reason"] or "not import" in row["reason"]
        else:
            assert row["error"] <= (1e-5 if row["way"].endswith("32") or row["way"] == "peer" else 5e-2)
            assert list(row["cells"]) == ["1 x 4", "1 x 9", "2 x 4", "2 x 9"]
            assert all(cell["seconds"] > 0 and cell["real_time"] > 0 for cell in row["cells"].values())
    assert len(results["bandwidth"]["kernels"]) == 12
    assert all(kernel["bytes_per_second"] > 0 for kernel in results["bandwidth"]["kernels"])
    assert len(results["convolutions"]["convolutions"]) == 6 * 3 * 2 * 2
    assert all(row["lines"] > 0 and row["columns"] > 0 for row in results["convolutions"]["convolutions"])


def test_without_a_gpu_it_says_so_and_how_to_try_it_out(capsys) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    assert gpu.main([]) == gpu.NO_GPU == 3
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "no GPU" in printed.err
    assert "--device cpu --tiny" in printed.err


def test_what_runs_out_of_memory_is_a_cell_of_the_table() -> None:
    subject = gpu.random_subject("24 kHz", torch.device("cpu"), tiny=True)

    def run(mel: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    assert gpu.shown(gpu.cell(subject, run, 1, 4, None)) == "out of memory"


def test_what_was_measured_before_a_card_gave_up_is_written(tmp_path, monkeypatch) -> None:
    rows = [{"model": "24 kHz", "way": "ours-fp32", "label": "distill, fp32", "cells": {}, "error": 1e-6}]

    def measured(subject, args):
        if subject.name != "24 kHz":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return rows

    monkeypatch.setattr(gpu, "measure_all", measured)
    figures = tmp_path / "figures.json"
    with pytest.raises(RuntimeError, match="illegal memory access"):
        gpu.main(["--device", "cpu", "--tiny", "--json", str(figures)])
    assert json.loads(figures.read_text())["ways"] == rows


def test_the_kernels_are_measured_on_their_card_or_there_is_a_reason(monkeypatch) -> None:
    current = []

    def entered(device):
        current.append(device)
        return contextlib.nullcontext()

    def fails(*_):
        raise RuntimeError("Failed to find C compiler.")

    monkeypatch.setattr(torch.cuda, "device", entered)
    monkeypatch.setattr(gpu_bandwidth, "_measured", fails)
    monkeypatch.setitem(sys.modules, "distill_bigvgan.engines.triton_snake", SimpleNamespace(TritonSnakeOps=TorchOps))
    figures = gpu_bandwidth.measure(torch.device("cuda:1"), frames=4, tiny=True)
    assert "RuntimeError: Failed to find C compiler." in gpu_bandwidth.table(figures)
    assert current == [torch.device("cuda:1")]
