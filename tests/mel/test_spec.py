"""MelSpec: validation, equality, presets, configurations."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from types import SimpleNamespace

import pytest

from distill_core.errors import CheckpointError, MelFormatError
from distill_core.mel import MelSpec

NVIDIA = MelSpec.preset("bigvgan-44khz-128band-512x")

CONFIG = {
    "sampling_rate": 44100,
    "num_mels": 128,
    "n_fft": 2048,
    "hop_size": 512,
    "win_size": 2048,
    "fmin": 0,
    "fmax": None,
    "something_else": [1],
}


def test_importing_the_formats_loads_neither_torch_nor_numpy() -> None:
    code = (
        "import sys, distill_core.mel; from distill_core.mel import MelSpec; MelSpec.preset('distill-vae');"
        "print(sorted({'torch', 'numpy', 'soxr'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_no_fmax_is_half_the_sample_rate_to_equality_and_hash() -> None:
    implicit = dataclasses.replace(NVIDIA, fmax=None)
    explicit = dataclasses.replace(NVIDIA, fmax=22050)
    assert implicit == explicit
    assert len({implicit, explicit}) == 1
    assert implicit != dataclasses.replace(NVIDIA, fmax=22000)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sample_rate", 0),
        ("sample_rate", -44100),
        ("sample_rate", True),
        ("sample_rate", "44100"),
        ("sample_rate", float("nan")),
        ("n_fft", 2048.5),
        ("n_fft", 1),
        ("n_fft", 10**12),
        ("n_fft", None),
        ("hop_length", 0),
        ("hop_length", 4096),
        ("win_length", 4096),
        ("n_mels", 0),
        ("n_mels", 10**9),
        ("fmin", -1),
        ("fmin", 30000),
        ("fmax", 30000),
        ("fmax", float("inf")),
        ("scale", "mel"),
        ("scale", ["htk"]),
        ("norm", "htk"),
        ("power", 3),
        ("log", "log2"),
        ("floor", 0),
        ("floor", -1e-5),
        ("floor", 1e-60),
        ("floor", float("nan")),
        ("floor", 1e39),
        ("eps", 1e39),
        ("center", 1),
        ("eps", -1),
    ],
)
def test_a_field_out_of_range_is_named(field: str, value: object) -> None:
    with pytest.raises(MelFormatError, match=field):
        dataclasses.replace(NVIDIA, **{field: value})


def test_numbers_are_stored_in_one_type() -> None:
    import numpy as np

    loose = dataclasses.replace(NVIDIA, sample_rate=np.int64(44100), n_fft=2048.0, fmin=0, power=1)
    assert loose == NVIDIA
    assert hash(loose) == hash(NVIDIA)
    assert type(loose.n_fft) is int
    assert type(loose.power) is float


def test_presets_are_found_by_their_names_and_by_those_of_checkpoints() -> None:
    for name in MelSpec.presets():
        spec = MelSpec.preset(name)
        assert spec.name is not None and MelSpec.preset(spec.name) == spec
        assert name in str(spec)
        assert dataclasses.replace(spec, fmin=20.0).name is None
    for checkpoint, preset in {
        "bigvgan_v2_44khz_128band_512x": "bigvgan-44khz-128band-512x",
        "nvidia/bigvgan_v2_44khz_128band_256x": "bigvgan-44khz-128band-256x",
        "bigvgan_v2_24khz_100band_256x": "bigvgan-24khz-100band-256x",
        "bigvgan_v2_22khz_80band_256x": "bigvgan-22khz-80band-256x",
        "bigvgan_v2_22khz_80band_fmax8k_256x": "hifigan-22khz-80band",
        "nvidia/bigvgan_24khz_100band": "bigvgan-24khz-100band-256x",
        "bigvgan_22khz_80band": "bigvgan-22khz-80band-fmax8k-256x",
        "bigvgan_base_24khz_100band": "bigvgan-24khz-100band-256x",
        "bigvgan_base_22khz_80band": "bigvgan-22khz-80band-fmax8k-256x",
    }.items():
        assert MelSpec.preset(checkpoint) == MelSpec.preset(preset), checkpoint


def test_only_one_format_has_two_names() -> None:
    assert len({MelSpec.preset(name) for name in MelSpec.presets()}) == len(MelSpec.presets()) - 1


def test_an_unknown_preset_comes_with_the_closest_names() -> None:
    with pytest.raises(MelFormatError, match="Did you mean 'distill-vae'"):
        MelSpec.preset("destill-vae")
    with pytest.raises(MelFormatError, match="string"):
        MelSpec.preset(44100)  # type: ignore[arg-type]


def test_a_configuration_gives_its_format() -> None:
    assert MelSpec.from_config(CONFIG) == NVIDIA
    assert MelSpec.from_config(SimpleNamespace(**CONFIG)) == NVIDIA
    assert MelSpec.from_config({**CONFIG, "fmax": 8000}).fmax == 8000
    for none in ("config.json", None, 5):
        with pytest.raises(CheckpointError, match="read already, a mapping"):
            MelSpec.from_config(none)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"num_mels": "many"}, "n_mels"),
        ({"fmax": 1e9}, "fmax"),
        ({"hop_size": -1}, "hop_length"),
        (None, "win_size"),
    ],
)
def test_a_damaged_configuration_is_refused(change: dict[str, object] | None, named: str) -> None:
    damaged = {**CONFIG, **(change or {})}
    if change is None:
        del damaged["win_size"]
    with pytest.raises(CheckpointError, match=named):
        MelSpec.from_config(damaged)


def test_silence_is_the_floor() -> None:
    import math

    assert MelSpec.preset("distill-vae").silence == 0.0
    assert NVIDIA.silence == pytest.approx(math.log(1e-5))
    assert MelSpec.preset("vocos-24khz-100band").silence == pytest.approx(math.log(1e-7))


def test_a_format_is_described_in_words() -> None:
    assert str(NVIDIA) == (
        "bigvgan-44khz-128band-512x (44100 Hz, 128 Slaney-normalised Slaney bands 0-22050 Hz, magnitude (eps 1e-09), "
        "ln above 1e-05, n_fft 2048, hop 512, frames between samples (padding (n_fft - hop) / 2))"
    )
    assert dataclasses.replace(MelSpec.preset("distill-vae"), win_length=1200).describe() == (
        "48000 Hz, 128 HTK bands 0-24000 Hz, power, log1p, n_fft 2048, window 1200, hop 512, frames centred"
    )


CHANGES = {
    "sample_rate": 48000, "n_fft": 4096, "hop_length": 256, "win_length": 1200, "n_mels": 100, "fmin": 20.0,
    "fmax": 8000.0, "scale": "htk", "norm": None, "power": 2.0, "log": "log10", "floor": 1e-6, "center": True,
    "eps": 0.0,
}  # fmt: skip


def test_formats_that_differ_read_differently() -> None:
    assert set(CHANGES) == {field.name for field in dataclasses.fields(MelSpec)}
    for spec in (NVIDIA, dataclasses.replace(NVIDIA, log="log1p"), dataclasses.replace(NVIDIA, log=None)):
        for field, value in CHANGES.items():
            assert dataclasses.replace(spec, **{field: value}).describe() != spec.describe(), field


def test_differences_are_listed_by_field() -> None:
    other = dataclasses.replace(NVIDIA, fmax=8000, log="log10")
    assert NVIDIA.differences(other) == {"fmax": (22050.0, 8000.0), "log": ("ln", "log10")}
    assert NVIDIA.differences("vocos-24khz-100band")["n_mels"] == (128, 100)
    with pytest.raises(MelFormatError, match="NoneType"):
        NVIDIA.differences(None)  # type: ignore[arg-type]
