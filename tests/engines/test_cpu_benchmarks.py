"""The smaller benchmarks for CPUs, tried out on a narrow model: their tables are whole, and their errors are small."""

from __future__ import annotations

import itertools
import sys

import pytest

from benchmarks import chunks, convolutions, precision, streams
from distill_core.engines import selection
from distill_core.vocoder import VocoderBase


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|\n").split("|")]


def test_precision_has_a_row_for_every_engine_and_says_what_cannot_run(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("bigvgan")
    precision.bigvgan(0.05, 64)
    rows = [cells(line) for line in capsys.readouterr().out.splitlines()[2:]]
    assert [tuple(row[:3]) for row in rows] == list(precision.settings())
    for device, engine, each, error in rows:
        if device != "cpu" or (engine == "channels-last" and selection.why_not_channels_last(each)):
            continue
        assert 0 < float(error) < (1e-5 if each == "fp32" else 5e-2)


def test_chunks_gives_a_time_for_every_size_with_its_halo_and_without(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []
    compute = VocoderBase._compute

    def watched(self, mel, *, context):
        seen.append((mel.shape[-1], context))
        return compute(self, mel, context=context)

    monkeypatch.setattr(VocoderBase, "_compute", watched)
    arguments = ["--channels", "64", "--sizes", "2", "7", "--precision", "fp32", "--turns", "1"]
    monkeypatch.setattr(sys, "argv", ["chunks", *arguments])
    chunks.main()
    assert seen == 2 * [(2 + 2 * 21, (21, 21)), (7 + 2 * 21, (21, 21)), (2, (0, 0)), (7, (0, 0))]
    head, _, kept, computed = (cells(line) for line in capsys.readouterr().out.splitlines()[2:])
    assert head == ["chunk_frames", "2", "7"]
    assert kept[0] == "fp32"
    assert computed[0] == "fp32, no halo"
    assert all(float(cell) > 0 for cell in kept[1:] + computed[1:])


def test_streams_has_a_time_for_every_size_and_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    computed: list[int] = []
    compute = VocoderBase._compute

    def watched(self, mel, context=(0, 0)):
        computed.append(mel.shape[-1])
        return compute(self, mel, context)

    monkeypatch.setattr(VocoderBase, "_compute", watched)
    arguments = ["--vocoders", "bigvgan", "--channels", "64", "--sizes", "7", "--frames", "50", "--turns", "1"]
    monkeypatch.setattr(sys, "argv", ["streams", *arguments])
    streams.main()
    head, _, kept, with_halo = (cells(line) for line in capsys.readouterr().out.splitlines()[2:])
    assert head == ["frames a piece", "a frame lasts", "7", "all"]
    assert [row[:2] for row in (kept, with_halo)] == [["bigvgan", "11.6"], ["bigvgan, halo computed", "11.6"]]
    assert all(float(cell) > 0 for cell in kept[2:] + with_halo[2:])
    assert min(computed) == 28  # with which the first seven are certain
    assert computed.count(50) == 4  # the whole, twice each way; pieces of a stream flow, half of the time


def test_convolutions_has_a_row_for_every_layer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("numba")
    monkeypatch.setattr(convolutions, "VALUES", 1 << 14)
    monkeypatch.setattr(sys, "argv", ["convolutions", "--channels", "32", "48", "--turns", "1"])
    convolutions.main()
    head, _, *rows = (cells(line) for line in capsys.readouterr().out.splitlines()[2:])
    assert head == ["channels", "taps", "dilation", "oneDNN", "torch's transforms", "compiled kernel"]
    assert [tuple(row[:3]) for row in rows] == list(itertools.product(("32", "48"), ("3", "7", "11"), ("1", "3")))
    assert all(cell.isdigit() for row in rows for cell in row[3:])
