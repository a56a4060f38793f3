"""compare: what it says of every two presets, and why."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from distill_core.errors import MelFormatError
from distill_core.mel import MelAdapter, MelSpec, compare
from distill_core.mel.compare import floor_db
from distill_core.mel.filters import band_edges

VAE = "distill-vae"
B44 = "bigvgan-44khz-128band-512x"
B44_256 = "bigvgan-44khz-128band-256x"
B24 = "bigvgan-24khz-100band-256x"
B22 = "bigvgan-22khz-80band-256x"
F8K = "bigvgan-22khz-80band-fmax8k-256x"
HIFIGAN = "hifigan-22khz-80band"
VOCOS = "vocos-24khz-100band"

ENDS, DROPPED, FEWER, TIME, PITCH, FLOOR, POWER = (
    "stay silent",
    "is dropped",
    "bands stand for",
    "time resolution",
    "frequency resolution: windows",
    "floor",
    "how evenly a band is filled",
)
ALL = {ENDS, DROPPED, FEWER, TIME, PITCH, FLOOR, POWER}

# (source, target): all that must be named as lost, and nothing else; None is "exact".
# Why, by field: fmax decides ENDS and DROPPED; the windows' milliseconds (42.7 of the VAE and the 24 kHz
# formats, 46.4 of 44.1 kHz 512x and 22 kHz, 23.2 of 44.1 kHz 256x) decide TIME and PITCH, as do the hops
# TIME; bands over the common range decide FEWER; a floor the target lacks or has lower, FLOOR.
TABLE: dict[tuple[str, str], set[str] | None] = {
    (VAE, VAE): None,
    (VAE, B44): {DROPPED, PITCH, POWER},
    (VAE, B44_256): {DROPPED, TIME, POWER},
    (VAE, B24): {DROPPED, POWER},
    (VAE, B22): {DROPPED, PITCH, POWER},
    (VAE, HIFIGAN): {DROPPED, PITCH, POWER},
    (VAE, F8K): {DROPPED, PITCH, POWER},
    (VAE, VOCOS): {DROPPED, POWER},
    (B44, VAE): {ENDS, TIME, FLOOR, POWER},
    (B44, B44): None,
    (B44, B44_256): {TIME},
    (B44, B24): {DROPPED, TIME},
    (B44, B22): {DROPPED},
    (B44, HIFIGAN): {DROPPED},
    (B44, F8K): {DROPPED},
    (B44, VOCOS): {DROPPED, TIME, FLOOR},
    (B44_256, VAE): {ENDS, PITCH, FLOOR, POWER},
    (B44_256, B44): {PITCH, FLOOR},
    (B44_256, B44_256): None,
    (B44_256, B24): {DROPPED, PITCH, FLOOR},
    (B44_256, B22): {DROPPED, PITCH, FLOOR},
    (B44_256, HIFIGAN): {DROPPED, PITCH, FLOOR},
    (B44_256, F8K): {DROPPED, PITCH, FLOOR},
    (B44_256, VOCOS): {DROPPED, PITCH, FLOOR},
    (B24, VAE): {ENDS, FLOOR, POWER},
    (B24, B44): {ENDS, FEWER, PITCH, FLOOR},
    (B24, B44_256): {ENDS, FEWER, TIME},
    (B24, B24): None,
    (B24, B22): {DROPPED, PITCH},
    (B24, HIFIGAN): {DROPPED, PITCH, FLOOR},
    (B24, F8K): {DROPPED, PITCH, FLOOR},
    (B24, VOCOS): {FLOOR},
    (B22, VAE): {ENDS, FEWER, TIME, FLOOR, POWER},
    (B22, B44): {ENDS, FLOOR, FEWER},
    (B22, B44_256): {ENDS, TIME, FEWER},
    (B22, B24): {ENDS, TIME, FEWER},
    (B22, B22): None,
    (B22, HIFIGAN): {DROPPED, FEWER, FLOOR},
    (B22, F8K): {DROPPED, FEWER, FLOOR},
    (B22, VOCOS): {ENDS, TIME, FEWER, FLOOR},
    (HIFIGAN, VAE): {ENDS, FEWER, TIME, FLOOR, POWER},
    (HIFIGAN, B44): {ENDS, FEWER, FLOOR},
    (HIFIGAN, B44_256): {ENDS, FEWER, TIME},
    (HIFIGAN, B24): {ENDS, TIME, FEWER},
    (HIFIGAN, B22): {ENDS},
    (HIFIGAN, HIFIGAN): None,
    (HIFIGAN, F8K): None,
    (HIFIGAN, VOCOS): {ENDS, FEWER, TIME, FLOOR},
    (VOCOS, VAE): {ENDS, FLOOR, POWER},
    (VOCOS, B44): {ENDS, FEWER, PITCH},
    (VOCOS, B44_256): {ENDS, FEWER, TIME},
    (VOCOS, B24): set(),
    (VOCOS, B22): {DROPPED, PITCH},
    (VOCOS, HIFIGAN): {DROPPED, PITCH},
    (VOCOS, F8K): {DROPPED, PITCH},
    (VOCOS, VOCOS): None,
}
# BigVGAN's fmax8k format is HiFi-GAN's.
TABLE.update({(F8K, target): lost for (source, target), lost in list(TABLE.items()) if source == HIFIGAN})


def test_the_table_has_every_pair() -> None:
    assert set(TABLE) == {(source, target) for source in MelSpec.presets() for target in MelSpec.presets()}


@pytest.mark.parametrize(("source", "target"), TABLE, ids=[f"{source} to {target}" for source, target in TABLE])
def test_two_presets(source: str, target: str) -> None:
    found = compare(MelSpec.preset(source), MelSpec.preset(target))
    expected = TABLE[source, target]
    assert found.kind == ("exact" if expected is None else "convertible")
    assert not found.reasons
    named = {mark for mark in ALL if any(mark in line for line in found.lost)}
    assert named == (expected or set()), str(found)


@pytest.mark.parametrize("name", [HIFIGAN, B44, VOCOS])
@pytest.mark.parametrize("changes", [{}, {"power": 2.0}, {"win_length": 800}])
def test_the_floor_is_the_level_of_a_sine_that_just_reaches_it(name: str, changes: dict[str, float]) -> None:
    spec = dataclasses.replace(MelSpec.preset(name), **changes)  # type: ignore[arg-type]
    middle = spec.n_mels // 2
    turns = band_edges(spec)[middle + 1] * torch.arange(spec.sample_rate, dtype=torch.float64) / spec.sample_rate
    sine = 10 ** (floor_db(spec) / 20) * torch.sin(2 * torch.pi * turns)
    bare = dataclasses.replace(spec, log=None, floor=0.0, eps=0.0)
    level = bare.analyze(sine)[0, middle].median()
    assert 20 / spec.power * torch.log10(level / spec.floor) == pytest.approx(0, abs=0.3)
    between_bins = dataclasses.replace(spec, fmin=spec.fmax - 1.0)  # where a band has no sine, nothing reaches it
    assert floor_db(between_bins) == -math.inf


def test_where_the_lowest_bands_begin_is_told_in_both_directions() -> None:
    spec = MelSpec.preset(HIFIGAN)
    higher = dataclasses.replace(spec, fmin=300.0)
    assert "bandwidth: the source begins at 300 Hz; below it the target stays silent" in compare(higher, spec).lost
    assert "bandwidth: what the source has below 300 Hz is dropped" in compare(spec, higher).lost


def test_nothing_is_lost_only_where_each_value_has_its_own() -> None:
    """Formats that share every size and width, but whose frames or bands lie elsewhere, are interpolated."""
    spec = MelSpec.preset(HIFIGAN)
    rewritten = compare(dataclasses.replace(spec, log="log10", norm=None, eps=0.0), spec)
    assert rewritten.lost == ("nothing of note: only the representation differs",)
    for changes in ({"center": True}, {"n_mels": 82}):
        assert "estimated" in " ".join(compare(dataclasses.replace(spec, **changes), spec).lost)


def test_of_frames_that_lie_elsewhere_alone_it_is_said_how_to_lose_nothing() -> None:
    """The sound is as much later as said: centred frame k is at k * hop, and is taken to be half a hop after it."""
    spec = MelSpec.preset(HIFIGAN)
    centred = dataclasses.replace(spec, center=True, log="log10", eps=0.0)
    [line] = compare(centred, spec).lost
    assert "center=False" in line
    assert "5.8 ms later" in line
    assert "center=True" in compare(spec, centred).lost[-1]
    assert "5.8 ms earlier" in compare(spec, centred).lost[-1]
    assert not any("center" in each for each in compare(dataclasses.replace(centred, n_mels=82), spec).lost)

    click = torch.zeros(1, 12_800)
    click[0, 6400] = 1.0  # at the centre of frame 25, of those that are centred
    loudest = MelAdapter(dataclasses.replace(centred, center=False), spec)(centred.analyze(click)).mean(1).argmax()
    assert loudest * spec.hop_length + spec.first_center - 6400 == spec.hop_length / 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"fmin": 23000.0, "fmax": 24000.0}, "no frequency in common"),
        ({"fmax": 300.0, "n_mels": 20}, "of the target's 128 bands"),
        ({"n_mels": 12}, "too few to tell"),
        ({"hop_length": 2048 * 2, "n_fft": 4096, "win_length": 4096}, "frames are 85.3 ms apart"),
    ],
)
def test_what_cannot_be_converted_and_why(changes: dict[str, float], reason: str) -> None:
    poor = dataclasses.replace(MelSpec.preset(VAE), **changes)  # type: ignore[arg-type]
    found = compare(poor, MelSpec.preset(B44))
    assert found.kind == "incompatible"
    assert not found.lost
    assert any(reason in line for line in found.reasons), str(found)


def test_formats_may_be_named() -> None:
    app, full = MelSpec.preset("distill-vae"), MelSpec.preset("hifigan-22khz-80band")
    assert compare("distill-vae", "hifigan-22khz-80band") == compare(app, full)
    adapter = MelAdapter("distill-vae", "hifigan-22khz-80band")
    assert (adapter.source, adapter.target) == (app, full)
    for wrong in (5, None, {}):
        with pytest.raises(MelFormatError, match=f"not {type(wrong).__name__}"):
            compare("distill-vae", wrong)  # type: ignore[arg-type]
        with pytest.raises(MelFormatError, match=f"not {type(wrong).__name__}"):
            MelAdapter(wrong, "distill-vae")  # type: ignore[arg-type]


def test_a_difference_in_one_field_is_not_exact() -> None:
    spec = MelSpec.preset(B44)
    for change in ({"fmax": 8000.0}, {"eps": 0.0}, {"center": True}, {"log": "log10"}, {"norm": None}):
        assert compare(dataclasses.replace(spec, **change), spec).kind == "convertible"  # type: ignore[arg-type]
