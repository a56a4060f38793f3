"""The report as a file: nothing from outside, nothing obeyed that a name says, every number and sound in its place."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from distill_core.evaluation import Comparison, compare
from distill_core.evaluation.plots import Axis
from distill_core.evaluation.report import page, write

soundfile = pytest.importorskip("soundfile")
image = pytest.importorskip("PIL.Image")
pytest.importorskip("matplotlib")
pytestmark = pytest.mark.usefixtures("toys")

VOID = {"meta", "link", "img", "wbr", "br"}
EVIL = ("<img src=x onerror=alert(1)>.wav", '"><script>alert(2)<', "a&amp;b' onload='x.wav")


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, text, and that every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text.append(data)

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        return [found for name, found in self.elements if name == tag and wanted.items() <= found.items()]

    def words(self) -> str:
        return " ".join("".join(self.text).split())


@pytest.fixture(scope="module")
def comparison(sounds: Path, toys: None) -> Comparison:
    return compare([sounds], "toy,toy:other,nonsense")


@pytest.fixture(scope="module")
def text(comparison: Comparison) -> str:
    return page(comparison)


def content(uri: str | None) -> tuple[str, bytes]:
    assert uri is not None
    kind, _, data = uri.removeprefix("data:").partition(";base64,")
    return kind, base64.b64decode(data, validate=True)


def test_it_asks_nobody_for_anything_and_its_policy_says_so(text: str) -> None:
    found = Page(text)
    policy = found.all("meta", http_equiv="Content-Security-Policy")[0]["content"]
    assert policy is not None and policy.startswith("default-src 'none'; img-src data:; media-src data:;")
    for kind in ("style", "script"):
        (inline,) = re.findall(rf"<{kind}>(.*?)</{kind}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    for _, attributes in found.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            assert str(attributes.get(name, "#")).startswith(("data:", "#"))
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttpRequest|eval\(|innerHTML", text)


def test_names_are_shown_and_not_obeyed(sounds: Path, tmp_path: Path) -> None:
    made = 0
    for name in EVIL:
        (tmp_path / name.replace("/", "")).with_suffix(".wav").write_bytes((sounds / "b.wav").read_bytes())
        made += 1
    (tmp_path / "<b>bad.wav").write_text("<script>alert(3)</script>")
    evil = "<script>alert(4)</script>"
    comparison = compare([tmp_path], {evil: "toy", "<i>gone": "<u>"}, max_seconds=0.3)
    assert len(comparison.measured) == made
    text = page(comparison, title=f"</title>{evil}")
    found = Page(text)
    assert len(found.all("script")) == len(found.all("style")) == len(found.all("body")) == 1
    assert [tag for tag, _ in found.elements[: found.elements.index(("body", {}))]].count("title") == 1
    assert not found.all("b") and not found.all("i") and not found.all("u")
    assert not [each for each in found.all("img") if not str(each["src"]).startswith("data:image/webp")]
    shown = found.words()
    for name in (evil, "<b>bad.wav", "<i>gone", "<img src=x onerror=alert(1)>.wav"):
        assert name in shown, name


def test_the_numbers_are_those_of_the_comparison(comparison: Comparison, text: str) -> None:
    rows = [Page(f"<table>{row}</table>").words() for row in re.findall(r"<tr>.*?</tr>", text)]
    head, *rows = rows[: len(comparison.summary()) + 1]
    assert "toy:other" in head and "nonsense" in head and "not loaded" in head
    for row, summary in zip(rows, comparison.summary().values(), strict=True):
        assert row.startswith(summary.metric.label)
        for each in summary.vocoders.values():
            assert summary.metric.text(each.mean) in row
        assert row.endswith("–")  # nonsense has no figure
    values = [float(each) for each in re.findall(r'<td[^>]* data-value="([-+.\de]+)"', text)]
    expected = [
        value
        for each in comparison.measured
        for result in each.results.values()
        if result.scores is not None
        for value in result.scores.values.values()
    ]
    assert sorted(values) == pytest.approx(sorted(expected), rel=1e-6)


def test_the_best_is_said_in_words_as_well(sounds: Path) -> None:
    class Quiet(torch.nn.Module):
        def forward(self, mel: torch.Tensor) -> torch.Tensor:
            return torch.full((mel.shape[0], 1, mel.shape[-1] * 16), 1e-4)

    from distill_core import ModuleVocoder
    from tests import toy

    quiet = ModuleVocoder(Quiet(), toy.VARIANT, halo=0)
    comparison = compare([sounds / "b.wav"], {"toy": "toy", "quiet": quiet})
    best = comparison.summary()["level"].best
    assert len(best) == 1
    row = next(row for row in re.findall(r"<tr>.*?</tr>", page(comparison)) if "Level difference" in row)
    cells = re.findall(r"<td.*?</td>", row)
    assert [("(best)" in cell and "<strong>" in cell) for cell in cells] == [
        label in best for label in comparison.labels
    ]


def test_sounds_are_the_sounds(comparison: Comparison, text: str) -> None:
    players = Page(text).all("audio")
    waves = []
    for each in comparison.measured:
        assert each.recording is not None
        waves.append((each.recording.wave, each.sample_rate))
        waves += [(result.wave, result.sample_rate) for result in each.results.values()]
    assert len(players) == len(waves) == 9
    for player, (wave, rate) in zip(players, waves, strict=True):
        kind, data = content(player["src"])
        assert (kind, player["preload"]) == ("audio/wav", "metadata") and player["aria-label"]
        played, at = soundfile.read(io.BytesIO(data), dtype="float32")
        assert at == rate
        assert np.abs(played - wave.clamp(-1, 1 - 1 / 32768).numpy()).max() <= 0.5 / 32768
    labels = [player["aria-label"] for player in players]
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize("rate", [8000, 22_050, 44_100, 96_000])
def test_small_sounds_are_opus_at_a_rate_it_has(rate: int) -> None:
    from distill_core.evaluation.sounds import encode

    wave = 0.5 * torch.sin(2 * torch.pi * 440 * torch.arange(rate) / rate)
    kind, data = encode(wave, rate, "opus")
    played, at = soundfile.read(io.BytesIO(data))
    assert kind.startswith("audio/ogg") and at >= min(rate, 48_000) and len(data) < 12_000
    assert np.abs(np.fft.rfft(played)).argmax() * at / len(played) == pytest.approx(440, abs=2)


def test_every_sound_has_a_spectrogram_and_every_result_a_difference(text: str) -> None:
    pictures = Page(text).all("img")
    kinds = []
    for each in pictures:
        kind, data = content(each["src"])
        assert kind == "image/webp" and len(str(each["alt"])) > 20
        made = image.open(io.BytesIO(data))
        kinds.append(made.mode)
        assert 25 <= made.size[0] <= 600 and made.size[1] >= 40
    assert (kinds.count("RGB"), kinds.count("RGBA")) == (9, 6)
    assert len(text) / 9 < 200_000


def test_a_difference_has_the_colour_of_its_sign_where_it_is() -> None:
    from distill_core.evaluation import images

    rate = 16_000
    time = torch.arange(rate) / rate
    noise = 0.05 * torch.randn(rate, generator=torch.Generator().manual_seed(0))
    view = images.View(1.0, rate / 2)
    reference = view.levels(noise, rate)
    top = images.loudest(reference)
    more = noise + 0.5 * torch.sin(2 * torch.pi * 4000 * time) * (time > 0.5)

    def picture(wave: torch.Tensor) -> np.ndarray:
        data = images.of_difference(view.levels(wave, rate), reference, top)
        return np.asarray(image.open(io.BytesIO(data)).convert("RGBA")).astype(int)

    assert picture(noise)[..., 3].max() == 0
    louder = picture(more)
    rows, columns = louder.shape[:2]
    place = next(place for place, label in view.frequency_ticks(reference) if label == "4")
    spot = louder[round(place * rows) - 2 : round(place * rows) + 3, columns * 5 // 8 : columns * 7 // 8]
    assert spot[..., 3].max(axis=0).min() > 200
    red, _, blue, _ = spot[spot[..., 3] > 200].T
    assert (red > blue + 80).all()
    assert louder[:, : columns * 3 // 8, 3].mean() < 10
    red, _, blue, opaque = picture(noise * 0.05)[rows // 4 : -rows // 4].reshape(-1, 4).T
    assert opaque.mean() > 200 and (blue > red + 80).mean() > 0.95


def test_silence_is_black_also_beside_something_faint() -> None:
    from distill_core.evaluation import images

    def picture(wave: torch.Tensor) -> np.ndarray:
        levels = images.View(1.0, 8000).levels(wave, 16_000)
        data = images.of_levels(levels, images.loudest(levels))
        return np.asarray(image.open(io.BytesIO(data)).convert("RGB")).astype(int)

    silence = torch.zeros(16_000)
    assert picture(silence).max() < 30
    faint = silence.clone()
    faint[:6000] = 1e-3 * torch.randn(6000, generator=torch.Generator().manual_seed(0))
    seen = picture(faint)
    assert seen[:, -40:].max() < 30
    assert seen[:, :40].max() > 200


def test_only_so_many_files_are_shown_and_all_are_listed(sounds: Path) -> None:
    found = Page(page(compare([sounds], "toy", keep=1)))
    assert len(found.all("article")) == 1
    assert "Here: the first recording. The figures of all 3 are below." in found.words()
    assert all(name in found.words() for name in ("b.wav", "a.flac", "noise.wav"))
    assert [each["href"] for each in found.all("a") if str(each["href"]).startswith("#file-")] == ["#file-0"]
    assert not Page(page(compare([sounds], "toy", keep=0))).all("audio")


def test_without_matplotlib_there_are_no_pictures_and_it_says_so(comparison: Comparison, monkeypatch) -> None:
    for name in [each for each in sys.modules if each.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    found = Page(page(comparison))
    assert not found.all("img")
    assert len(found.all("audio")) == 9
    assert "Pictures left out: matplotlib is not installed" in found.words()


def test_what_is_missing_is_said_at_the_top(sounds: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "auraloss", None)
    for name in [each for each in sys.modules if each.startswith("auraloss.")]:
        monkeypatch.delitem(sys.modules, name)
    found = Page(page(compare([sounds / "b.wav", sounds / "gone.wav"], "toy,nonsense")))
    assert "Multi-resolution STFT left out: auraloss is not installed" in found.words()
    assert "gone.wav: there is no such file" in found.words()
    assert "nonsense: There is no vocoder 'nonsense'" in found.words()


def test_tables_have_heads_and_parts_have_names(text: str) -> None:
    found = Page(text)
    assert len(found.all("table")) == 2
    assert all(each.get("scope") in ("col", "row") for each in found.all("th"))
    ids = [str(attributes["id"]) for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in found.elements:
        for name in ("aria-labelledby", "href"):
            target = str(attributes.get(name, ""))
            if target and not target.startswith("data:"):
                assert target.removeprefix("#") in ids
    assert found.all("html", lang="en")
    assert [tag for tag, _ in found.elements if re.fullmatch("h[1-6]", tag)][:3] == ["h1", "h2", "h2"]


def test_the_size_is_that_of_the_file_and_smaller_without_sounds(comparison: Comparison, tmp_path: Path) -> None:
    sizes = {}
    for audio in ("wav", "opus", "none"):
        target = tmp_path / f"{audio}.html"
        sizes[audio] = write(comparison, target, audio=audio)
        assert target.stat().st_size == sizes[audio]
    assert sizes["wav"] > sizes["opus"] > sizes["none"]
    assert not Page((tmp_path / "none.html").read_text()).all("audio")


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0.0, 1.0], ["0.0", "0.5", "1.0"]),
        ([2.31, 3.4], ["2.5", "3.0"]),
        ([-4.0, 12.0], ["0", "5", "10"]),
        ([100.0, 2300.0], ["500", "1000", "1500", "2000"]),
        ([0.001, 0.0042], ["0.001", "0.002", "0.003", "0.004"]),
    ],
)
def test_axes_have_few_round_ticks(values, labels) -> None:
    assert [label for _, label in Axis.around(values).ticks()] == labels


def test_axes_stand_values_that_are_all_one() -> None:
    for value in (0.0, 3.0, -1e-9, 1e9):
        axis = Axis.around([value, value])
        assert axis.place(value) == "50.00%"
        assert 1 <= len(axis.ticks()) <= 6


def test_a_name_survives_the_markup() -> None:
    from distill_core.evaluation.markup import breakable

    name = "a/b_c.d:e@f=<g>&amp;\"'"
    assert html.unescape(re.sub(r"<.*?>", "", breakable(name))) == name
