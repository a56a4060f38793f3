"""The report as a person meets it: in Chromium, on a phone and on a desk, by day and by night."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distill_core.evaluation import compare

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install '.[dev]'")
pytest.importorskip("matplotlib")
pytest.importorskip("soundfile")
pytestmark = pytest.mark.xdist_group("heavy")

FLAGS = (
    "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
    "disable-component-update", "disable-sync", "mute-audio",
)  # fmt: skip
SCREENS = {"phone": (390, 844), "desk": (1400, 900)}

# The contrast of every element that holds text of its own, by WCAG 2's formula.
CONTRASTS = """
const rgba = (text) => text.match(/[\\d.]+/g).map(Number).concat(1).slice(0, 4);
const light = (colour) => {
  const linear = (c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const [r, g, b] = colour.map((each) => linear(each / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (element) => {
  for (let each = element; each; each = each.parentElement) {
    const colour = rgba(getComputedStyle(each).backgroundColor);
    if (colour[3] > 0.99) return colour;
  }
  throw new Error("no background");
};
const found = [];
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!own || element.matches("script, style, title, .hidden") || !element.getClientRects().length) continue;
  const style = getComputedStyle(element);
  const ink = rgba(element.closest("svg") ? style.fill : style.color), paper = behind(element);
  const [a, b] = [light(ink), light(paper)].sort((x, y) => y - x);
  const name = element.tagName + "." + element.className + " " + element.textContent.slice(0, 30);
  found.push([(a + 0.05) / (b + 0.05), name]);
}
return found;
"""


@pytest.fixture(scope="module")
def report(trained_hifigan: object, sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files through HiFi-GAN in two trainings; the first has a name that bites."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "speech").mkdir()
    for name, source in (("<img src=x onerror=alert(1)>.wav", "b.wav"), ("noise.wav", "inner/noise.wav")):
        shutil.copy(sounds / source, folder / "speech" / name)
    comparison = compare([folder / "speech", folder / "gone.wav"], "hifigan,hifigan:ljspeech")
    comparison.write_report(folder / "report.html")
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    chromium, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("chromium or chromedriver is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
    chrome.set_script_timeout(30)
    try:
        yield chrome
    finally:
        chrome.quit()


def visit(browser: Any, report: Path, screen: str, scheme: str) -> None:
    width, height = SCREENS[screen]
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": screen == "phone"},
    )
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(report.as_uri())


def wait(browser: Any, script: str) -> Any:
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 20, 0.05).until(lambda each: each.execute_script(f"return {script}"), script)


@pytest.mark.parametrize("screen", SCREENS)
def test_it_fits_the_screen_and_can_be_read_by_day_and_by_night(browser, report: Path, screen: str) -> None:
    paper = set()
    for scheme in ("light", "dark"):
        visit(browser, report, screen, scheme)
        wait(browser, "document.images.length === 10 && [...document.images].every((each) => each.naturalWidth > 0)")
        page = "document.documentElement"
        assert browser.execute_script(f"return {page}.scrollWidth - {page}.clientWidth") == 0
        paper.add(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
        contrasts = browser.execute_script(CONTRASTS)
        assert len(contrasts) > 100
        assert not [each for each in contrasts if each[0] < 4.5]
        small = browser.execute_script(
            "return [...document.querySelectorAll('audio')].filter((each) => each.getBoundingClientRect().width < 240)"
        )
        assert not small
    assert len(paper) == 2


def test_every_player_plays_and_hands_over_to_the_next(browser, report: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    visit(browser, report, "desk", "light")
    count = browser.execute_script("return document.querySelectorAll('audio').length")
    assert count == 6
    wait(browser, "[...document.querySelectorAll('audio')].every((each) => each.duration > 0.4)")
    durations = browser.execute_script("return [...document.querySelectorAll('audio')].map((each) => each.duration)")
    assert durations == pytest.approx([1.2] * 3 + [0.5] * 3, abs=0.01)

    plane = browser.find_element(By.CSS_SELECTOR, "article .plane")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", plane)
    ActionChains(browser).move_to_element(plane).click().perform()  # the middle of the spectrogram: 0.6 s
    wait(browser, "document.querySelectorAll('audio')[0].currentTime > 0.65")
    browser.execute_script("document.querySelectorAll('audio')[1].play()")
    begun = wait(browser, "document.querySelectorAll('audio')[1].currentTime")
    assert begun > 0.6
    assert browser.execute_script("return document.querySelectorAll('audio')[0].paused")
    moved = "getComputedStyle(document.querySelectorAll('.card.playable .head')[1]).transform !== 'none'"
    assert wait(browser, moved)

    # Who says where to begin begins there, whatever plays meanwhile.
    browser.execute_script("""
        const [, playing, next] = document.querySelectorAll("audio");
        const plane = next.closest(".card").querySelector(".plane"), box = plane.getBoundingClientRect();
        playing.currentTime = 0;
        playing.play();
        plane.dispatchEvent(new MouseEvent("click", {clientX: box.left + box.width / 2}));
    """)
    wait(browser, "document.querySelectorAll('audio')[2].ended")
    begun = browser.execute_script("return document.querySelectorAll('audio')[2].played.start(0)")
    assert begun == pytest.approx(0.6, abs=0.01)
    assert browser.execute_script("return document.querySelectorAll('audio')[1].paused")

    for index in range(count):
        player = f"document.querySelectorAll('audio')[{index}]"
        browser.execute_script(f"{player}.currentTime = 0; {player}.play()")
        wait(browser, f"{player}.ended")
        assert browser.execute_script(f"return {player}.played.start(0)") == 0
        assert browser.execute_script(f"return {player}.error && {player}.error.message") is None
    others = browser.execute_script("return [...document.querySelectorAll('audio')].filter((each) => !each.paused)")
    assert others == []


def test_every_player_goes_to_any_place(browser, report: Path) -> None:
    visit(browser, report, "desk", "light")
    wait(browser, "[...document.querySelectorAll('audio')].every((each) => each.duration > 0.4)")
    places = """
        const done = arguments[0];
        const go = (player, at) => new Promise((resolve) => {
          player.onseeked = () => resolve([]);
          player.onerror = () => { player.onerror = null; resolve([[at, player.error.message]]); };
          player.currentTime = at;
        });
        const all = async () => {
          const failed = [];
          for (const player of document.querySelectorAll("audio"))
            for (let place = 19; place >= 0 && !player.error; place--)
              failed.push(...await go(player, (player.duration * place) / 20));
          return failed;
        };
        all().then(done, (error) => done(String(error)));
    """
    assert browser.execute_async_script(places) == []


def test_a_click_or_a_key_sorts(browser, report: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    visit(browser, report, "desk", "light")
    heads = browser.find_elements(By.CSS_SELECTOR, ".figures thead th")
    index = next(index for index, head in enumerate(heads) if head.text.startswith("PESQ"))

    def column() -> list[float | None]:
        cells = f".figures tbody tr > :nth-child({index + 1})"
        script = f"return [...document.querySelectorAll('{cells}')].map((cell) => cell.dataset.value)"
        values = browser.execute_script(script)
        return [None if value is None else float(value) for value in values]

    before = column()
    assert before.count(None) == 2  # noise has none
    numbers = sorted(value for value in before if value is not None)
    button = heads[index].find_element(By.TAG_NAME, "button")
    button.send_keys(Keys.ENTER)
    assert (column(), heads[index].get_attribute("aria-sort")) == ([*numbers, None, None], "ascending")
    button.send_keys(Keys.ENTER)
    assert (column(), heads[index].get_attribute("aria-sort")) == ([*numbers[::-1], None, None], "descending")


def test_it_works_without_scripts(browser, report: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        visit(browser, report, "desk", "light")
        state = "document.documentElement.className"
        assert browser.execute_script(f"return {state}") == ""
        wait(browser, "[...document.querySelectorAll('audio')].every((each) => each.duration > 0.4 && each.controls)")
        assert not browser.execute_script("return document.querySelectorAll('th button').length")
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_nothing_was_asked_for_and_nothing_went_wrong(browser, report: Path) -> None:
    browser.get("data:text/html,<title>begun</title>")
    browser.get_log("performance")
    browser.get_log("browser")
    visit(browser, report, "phone", "dark")
    wait(browser, "[...document.querySelectorAll('audio')].every((each) => each.duration > 0.4)")
    entries = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [each["params"]["request"]["url"] for each in entries if each["method"] == "Network.requestWillBeSent"]
    assert report.as_uri() in urls
    assert not [url for url in urls if url != report.as_uri() and not url.startswith("data:")]
    assert browser.get_log("browser") == []  # not even a warning about the policy
    outside = "return fetch('http://127.0.0.1:9/').then(() => 'asked', () => 'refused')"
    assert browser.execute_script(outside) == "refused"
    assert any("Content Security Policy" in each["message"] for each in browser.get_log("browser"))
