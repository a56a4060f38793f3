"""Every figure equals what its package says when it is called directly, on the same two sounds."""

from __future__ import annotations

import math
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from distill_core.audio import read_audio
from distill_core.errors import InvalidAudioError
from distill_core.evaluation import METRICS, Scorer, Scores, measure
from distill_core.evaluation.metrics import _COMPUTE, _Pair
from tests.conftest import ROOT

soxr = pytest.importorskip("soxr")
pytest.importorskip("soundfile")

RATE = 22_050
FIGURES = [key for key in METRICS if key != "rtf"]


def speech(start: float = 0.0, stop: float = 3.0) -> np.ndarray:
    wave, rate = read_audio(ROOT / "samples" / "speech.flac")
    assert rate == RATE
    return wave[0, round(start * rate) : round(stop * rate)].numpy()


def damaged(wave: np.ndarray, rate: int) -> np.ndarray:
    """At another rate, with noise and a missing end."""
    noise = np.random.default_rng(0).standard_normal(len(wave)) * 0.003
    made = soxr.resample(0.8 * wave + noise, RATE, rate, "VHQ").astype(np.float32)
    return made[: -rate // 50]


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray, Scores]:
    """A reference at 22.05 kHz, a result at 24 kHz, and what we make of them."""
    reference = speech()
    result = damaged(reference, 24_000)
    return reference, result, measure(reference, result, RATE, result_rate=24_000)


def both_at(rate: int, reference: np.ndarray, result: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two at one rate and length, without any code of ours."""
    ours, theirs = (
        soxr.resample(wave, source, rate, "VHQ").astype(np.float32) if source != rate else wave
        for wave, source in ((reference, RATE), (result, 24_000))
    )
    samples = math.ceil(len(reference) * rate / RATE)
    ours, theirs = (np.pad(wave, (0, max(0, samples - len(wave))))[:samples] for wave in (ours, theirs))
    return ours, theirs


def pyworld() -> types.ModuleType:
    """The package, imported as anybody would; it wants a `pkg_resources`, which setuptools has no more."""
    pytest.importorskip("numpy")
    try:
        import pkg_resources  # noqa: F401
    except ModuleNotFoundError:
        stand_in = types.ModuleType("pkg_resources")
        stand_in.get_distribution = lambda name: types.SimpleNamespace(version="0")  # type: ignore[attr-defined]
        sys.modules["pkg_resources"] = stand_in
        try:
            return pytest.importorskip("pyworld")
        finally:
            del sys.modules["pkg_resources"]
    return pytest.importorskip("pyworld")


# As the packages say


def test_pesq_is_that_of_pesq(pair) -> None:
    pesq = pytest.importorskip("pesq")
    reference, result, scores = pair
    assert scores["pesq"] == pytest.approx(pesq.pesq(16_000, *both_at(16_000, reference, result), "wb"), abs=1e-3)
    assert 1.5 < scores["pesq"] < 4.5


def test_stoi_is_that_of_pystoi(pair) -> None:
    pystoi = pytest.importorskip("pystoi")
    reference, result, scores = pair
    assert scores["stoi"] == pytest.approx(pystoi.stoi(*both_at(16_000, reference, result), 16_000), abs=1e-5)
    assert 0.5 < scores["stoi"] < 0.9999


def test_the_stft_distance_is_that_of_auraloss(pair) -> None:
    auraloss = pytest.importorskip("auraloss")
    reference, result, scores = pair
    ours, theirs = (torch.from_numpy(wave)[None, None] for wave in both_at(RATE, reference, result))
    loss = auraloss.freq.MultiResolutionSTFTLoss()(theirs, ours)
    assert scores["stft"] == pytest.approx(float(loss), rel=1e-5)


def test_pitch_and_voicing_are_those_of_pyworld(pair) -> None:
    world = pyworld()
    reference, result, scores = pair
    ours, theirs = (
        world.harvest(wave.astype(np.float64), 16_000, f0_floor=71.0, f0_ceil=800.0, frame_period=5.0)[0]
        for wave in both_at(16_000, reference, result)
    )
    both = (ours > 0) & (theirs > 0)
    cents = 1200 * np.log2(theirs[both] / ours[both])
    assert both.sum() > 100
    assert scores["f0"] == pytest.approx(np.sqrt(np.mean(cents**2)), rel=1e-3)
    hits = np.sum(both)
    misses, inventions = np.sum((ours > 0) & (theirs == 0)), np.sum((ours == 0) & (theirs > 0))
    assert misses + inventions > 0
    precision, recall = hits / (hits + inventions), hits / (hits + misses)
    assert scores["voicing"] == pytest.approx(2 * precision * recall / (precision + recall), rel=1e-6)


@pytest.mark.parametrize(
    ("key", "rate", "bands", "n_fft", "hop", "top"),
    [("mel", 22_050, 80, 1024, 256, 8000), ("mel_full", 44_100, 128, 2048, 512, 22_050)],
)
def test_the_log_mel_distance_is_what_librosa_and_numpy_make_it(key, rate, bands, n_fft, hop, top, pair) -> None:
    librosa = pytest.importorskip("librosa")
    reference, result, scores = pair

    def log_mel(wave: np.ndarray) -> np.ndarray:
        padded = np.pad(wave, (n_fft - hop) // 2, mode="reflect")
        spectrum = librosa.stft(padded, n_fft=n_fft, hop_length=hop, window="hann", center=False)
        magnitude = np.sqrt(np.abs(spectrum) ** 2 + 1e-9)
        filters = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=bands, fmin=0, fmax=top)
        return np.log(np.maximum(filters @ magnitude, 1e-5))

    ours, theirs = both_at(rate, reference, result)
    nepers = np.abs(log_mel(theirs) - log_mel(ours)).mean()
    assert scores[key] == pytest.approx(nepers * 20 / math.log(10), rel=1e-3)


def test_the_level_is_a_ratio_in_decibel(pair) -> None:
    reference, result, scores = pair
    ours, theirs = both_at(RATE, reference, result)
    assert scores["level"] == pytest.approx(20 * np.log10(np.linalg.norm(theirs) / np.linalg.norm(ours)), abs=1e-4)


# What has to come out


def test_a_sound_equals_itself() -> None:
    pytest.importorskip("pesq")
    wave = speech()
    scores = measure(wave, wave, RATE)
    assert scores.absent == {}
    assert {key: round(scores[key], 3) for key in FIGURES if key not in ("pesq", "stoi")} == {
        "mel": 0, "mel_full": 0, "stft": 0, "f0": 0, "voicing": 1, "level": 0,
    }  # fmt: skip
    assert scores["pesq"] > 4.6
    assert scores["stoi"] > 0.999


def test_a_known_change_of_pitch_and_level_is_found() -> None:
    pyworld()

    def voice(hz: float, amplitude: float) -> np.ndarray:
        time = np.arange(2 * 24_000) / 24_000
        return sum(amplitude / k * np.sin(2 * math.pi * k * hz * time) for k in range(1, 12)).astype(np.float32)

    scores = measure(voice(200, 0.2), voice(202, 0.1), 24_000)
    assert scores["f0"] == pytest.approx(1200 * math.log2(202 / 200), abs=1.0)
    assert scores["level"] == pytest.approx(-6.02, abs=0.05)
    assert scores.absent["pesq"] == scores.absent["stoi"] == "not speech"  # it does not move


def test_more_noise_is_worse() -> None:
    wave = speech(0, 2)
    noise = np.random.default_rng(1).standard_normal(len(wave)).astype(np.float32)
    scorer = Scorer(wave, RATE)
    little, much = (scorer.score(wave + gain * noise, RATE) for gain in (0.002, 0.3))
    assert little.absent == {}
    for key in FIGURES:
        assert METRICS[key].loss(little[key]) < METRICS[key].loss(much[key]), key


def test_speech_is_told_from_what_is_none(speech_files: list[Path], music_files: list[Path], record_property) -> None:
    pyworld()

    def taken(path: Path) -> bool:
        wave, rate = read_audio(path, max_seconds=2.5)
        return Scorer(wave.mean(0), rate).is_speech

    assert [path.name for path in speech_files if not taken(path)] == []
    assert Scorer(speech(), RATE).is_speech
    others = [path for path in music_files if path.stem.split("_")[0] in ("bd", "vinyl", "perc", "sn", "misc")]
    wrong = [path.name for path in others if taken(path)]
    assert len(others) > 30
    assert len(wrong) <= len(others) / 5, wrong
    record_property("measured", f"taken for speech: {len(wrong)} of {len(others)} drums, effects and noises")


def test_whoever_knows_may_say_so() -> None:
    pytest.importorskip("pesq")
    wave = speech(0, 2)
    assert "pesq" in measure(wave, wave, RATE, speech="yes").values
    assert measure(wave, wave, RATE, speech="no").absent == {"pesq": "not speech", "stoi": "not speech"}


def test_pesq_of_a_long_sound_is_the_mean_of_its_pieces() -> None:
    pesq = pytest.importorskip("pesq")
    whole = np.tile(speech(0, 4), 4)  # 16 s
    reference = soxr.resample(whole, RATE, 16_000, "VHQ").astype(np.float32)
    result = reference + np.random.default_rng(2).standard_normal(len(reference)).astype(np.float32) * 0.01
    scores = measure(reference, result, 16_000, speech="yes")
    halves = zip(np.array_split(reference, 2), np.array_split(result, 2), strict=True)
    expected = np.mean([pesq.pesq(16_000, ours, theirs, "wb") for ours, theirs in halves])
    assert scores["pesq"] == pytest.approx(expected, abs=1e-3)


def test_the_stft_distance_of_a_long_sound_is_the_mean_of_its_pieces() -> None:
    auraloss = pytest.importorskip("auraloss")
    reference = np.random.default_rng(4).standard_normal(8000 * 70).astype(np.float32) * np.linspace(0, 1, 8000 * 70)
    reference = reference.astype(np.float32)
    result = (0.9 * reference + 0.01).astype(np.float32)
    loss = auraloss.freq.MultiResolutionSTFTLoss()
    halves = [(result[part], reference[part]) for part in (slice(0, 8000 * 35), slice(8000 * 35, None))]
    expected = [float(loss(*(torch.from_numpy(wave)[None, None] for wave in half))) for half in halves]
    assert expected[0] != pytest.approx(expected[1], rel=0.01)
    assert _COMPUTE["stft"](_Pair(Scorer(reference, 8000), torch.from_numpy(result), 8000)) == pytest.approx(
        np.mean(expected), rel=1e-5
    )


def test_no_piece_in_which_the_result_is_silent_is_passed_over() -> None:
    """PESQ has no score for silence; the mean over the other pieces would say that all is well."""
    pytest.importorskip("pesq")
    reference = soxr.resample(np.tile(speech(0, 4), 4), RATE, 16_000, "VHQ").astype(np.float32)
    half = len(reference) // 2
    silent, pause = reference.copy(), reference.copy()
    silent[half:] = pause[:half] = 0
    assert measure(reference, silent, 16_000, speech="yes").absent["pesq"] == "the result is silent for 8.0 s"
    assert measure(pause, pause, 16_000, speech="yes")["pesq"] > 4.6


def test_the_stft_distance_is_not_divided_by_silence() -> None:
    pytest.importorskip("auraloss")
    silence = np.zeros(8000, np.float32)
    faint = (np.random.default_rng(4).standard_normal(8000 * 70) * 1e-4).astype(np.float32)
    assert measure(silence, faint[:8000], 8000).absent["stft"] == "the reference is silent"
    pause = faint.copy()
    pause[: 8000 * 35] = 0
    distances = [
        _COMPUTE["stft"](_Pair(Scorer(reference, 8000), torch.from_numpy(result), 8000))
        for reference, result in ((pause, 0.5 * faint), (faint[8000 * 35 :], 0.5 * faint[8000 * 35 :]))
    ]
    assert distances[0] == pytest.approx(distances[1], rel=1e-5)


def test_what_kills_pesq_does_not_kill_us() -> None:
    """150 bursts in 60 s: the reference implementation writes beyond its table of utterances."""
    pytest.importorskip("pesq")
    script = (
        "import numpy as np\nfrom distill_core.evaluation.metrics import _COMPUTE, Scorer, _Pair\nimport torch\n"
        "gate = (np.arange(60 * 16000) // 3200) % 2 == 0\n"
        "wave = (np.random.default_rng(0).standard_normal(len(gate)) * 0.1 * gate).astype('float32')\n"
        "scorer = Scorer(wave, 16000)\nprint(_COMPUTE['pesq'](_Pair(scorer, torch.from_numpy(wave), 16000)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 4


# What has no value says why


NOISE = np.random.default_rng(3).standard_normal(RATE).astype(np.float32) * 0.1
ODD = {
    "silent reference": (np.zeros(RATE, np.float32), NOISE),
    "silent result": (speech(0, 1), np.zeros(RATE, np.float32)),
    "both silent": (np.zeros(RATE, np.float32), np.zeros(RATE, np.float32)),
    "one sample": (NOISE[:1], NOISE[:1]),
    "0.1 s": (NOISE[:2205], NOISE[:2205]),
    "0.4 s": (NOISE[:8820], NOISE[:8820]),
    "a click in silence": (np.eye(1, RATE, 9000, dtype=np.float32)[0], NOISE),
    "far too loud": (NOISE * 1e6, NOISE * 1e6),
    "hardly there": (NOISE * 1e-20, NOISE * 1e-20),
    "a result of one sample": (speech(0, 1), NOISE[:1]),
    "a result ten times as long": (speech(0, 1), np.tile(NOISE, 10)),
}


def test_of_a_reference_without_a_steady_pitch_none_is_compared() -> None:
    pyworld()
    absent = measure(NOISE, NOISE, RATE, speech="no").absent
    assert absent["f0"] == absent["voicing"] == "the reference has no steady pitch"


@pytest.mark.parametrize("what", ODD)
@pytest.mark.parametrize("speech_", ["auto", "yes"])
def test_odd_sounds_give_finite_figures_or_reasons(what: str, speech_) -> None:
    scores = measure(*ODD[what], RATE, speech=speech_)
    assert set(scores.values) | set(scores.absent) == set(FIGURES)
    assert not set(scores.values) & set(scores.absent)
    assert all(math.isfinite(value) for value in scores.values.values())
    for why in scores.absent.values():
        assert 5 < len(why) < 100 and "Error" not in why, scores.absent
    with pytest.raises(KeyError, match="no such metric"):
        scores["loudness"]


@pytest.mark.parametrize(
    ("package", "gone"),
    [("pesq", {"pesq"}), ("pystoi", {"stoi"}), ("auraloss", {"stft"}), ("pyworld", {"f0", "voicing", "pesq", "stoi"})],
)
def test_a_missing_package_is_named_and_only_its_metrics_are_left_out(package, gone, monkeypatch) -> None:
    for name in [each for each in sys.modules if each.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    wave = speech(0, 2)
    scores = measure(wave, wave, RATE)
    assert set(scores.absent) == gone
    for why in scores.absent.values():
        assert package in why and 'pip install "distill-core[compare]"' in why


def test_pyworld_is_found_where_setuptools_has_no_pkg_resources() -> None:
    pyworld()
    script = (
        "import sys; sys.modules['pkg_resources'] = None\n"
        "from distill_core.evaluation.packages import load\n"
        "import numpy; print(len(load('pyworld').harvest(numpy.zeros(1600), 16000.0)[0]), load('pyworld').__name__)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.stdout.split() == ["21", "pyworld.pyworld"], done.stderr


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        (np.zeros((2, 100), np.float32), "one waveform"),
        (np.zeros(100, np.int16), "floating point"),
        (np.full(100, np.nan, np.float32), "finite"),
        (np.full(100, 1e300), "finite in float32"),
        (np.zeros(0, np.float32), "must have samples"),
        ("speech.wav", "not str"),
    ],
)
def test_what_is_no_waveform_is_refused(reference, words) -> None:
    with pytest.raises(InvalidAudioError, match=f"The reference .*{words}"):
        measure(reference, NOISE, RATE)
    with pytest.raises(InvalidAudioError, match=f"The result .*{words}"):
        measure(NOISE, reference, RATE)


def test_a_rate_may_be_of_any_type_of_whole_numbers() -> None:
    assert measure(NOISE, NOISE, np.int64(RATE), result_rate=float(RATE))["level"] == 0  # type: ignore[arg-type]


@pytest.mark.parametrize("rate", [0, -1, 22050.5, True, "22050", None])
def test_what_is_no_rate_is_refused(rate) -> None:
    with pytest.raises(InvalidAudioError, match="positive whole number"):
        measure(NOISE, NOISE, rate)
    if rate is not None:
        with pytest.raises(InvalidAudioError, match="positive whole number"):
            measure(NOISE, NOISE, RATE, result_rate=rate)
