"""The site: built strictly, whole without a network, and searched in a browser."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.conftest import ROOT
from tests.contrast import contrast

MKDOCS = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir"]  # --quiet would be deaf to warnings


def build(source: Path, site: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "HTTPS_PROXY": "http://127.0.0.1:9"}
    return subprocess.run([*MKDOCS, str(site)], cwd=source, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it."""
    pytest.importorskip("mkdocstrings", reason="the site's generator is not installed: pip install '.[docs]'")
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    return folder


class Page(HTMLParser):
    """What one page links to, what it fetches by itself, and its anchors."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.anchors: set[str] = {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.anchors.update(filter(None, (given.get("id"), given.get("name") if tag == "a" else None)))
        if tag == "a" and given.get("href"):
            self.links.append(str(given["href"]))
        elif tag == "link" and "canonical" not in str(given.get("rel")):
            self.fetched.append(str(given.get("href")))
        elif given.get("src"):
            self.fetched.append(str(given["src"]))


def test_every_link_and_picture_leads_somewhere_in_the_site(site: Path) -> None:
    pages = {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(pages) > 15
    for path, page in pages.items():
        for target in page.fetched + page.links:
            url = urlsplit(target)
            if url.scheme in ("http", "https") and target in page.links:
                continue
            assert not url.scheme and not url.netloc, f"{path.name} fetches {target}"
            goal = (path.parent / unquote(url.path)).resolve() if url.path else path
            assert goal.exists(), f"{path.name} -> {target}"
            if goal in pages and not url.fragment.startswith("__"):
                assert unquote(url.fragment) in pages[goal].anchors, f"{path.name} -> {target}"


def test_stylesheets_fetch_nothing_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.css"):
        for target in re.findall(r"url\(([^)]*)\)", path.read_text(encoding="utf-8")):
            assert target.strip("'\"").startswith(("data:", "#", ".")), f"{path.name}: {target}"


def test_the_reference_has_every_public_name(site: Path) -> None:
    import distill_core
    from distill_core import errors, evaluation, mel, playground, testing, weights

    anchors = {name for path in (site / "reference").glob("*.html") for name in Page(path).anchors}
    names = {anchor.rpartition(".")[2] for anchor in anchors}
    for module in (distill_core, evaluation, mel, playground, testing, weights):
        for name in module.__all__:
            # Said in words: the instance, the marker, a module; and what only the kit itself uses.
            assert name in names | {"registry", "hookimpl", "errors", "Subject"}, f"{module.__name__}.{name}"
    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert {f"distill_core.errors.{each.__name__}" for each in classes} <= anchors
    called = {"mel.adapter.MelAdapter.__call__", "evaluation.metrics.Scores.__getitem__", "corpus.plan.Plan.__iter__"}
    assert {f"distill_core.{each}" for each in called} <= anchors


def test_every_exception_that_is_raised_leads_to_what_it_is(site: Path) -> None:
    from distill_core import errors

    plain = []
    for path in (site / "reference").glob("*.html"):
        named = re.findall(r'<li class="doc-section-item field-body">\s*<code>(.*?)</code>', path.read_text("utf-8"))
        words = {word for each in named for word in re.findall(r"\w+", re.sub(r"<a .*?</a>", "", each))}
        plain += [f"{path.name}: {word}" for word in words if hasattr(errors, word)]
    assert not plain


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("[gone](gone.md)", "gone.md"),
        ("[gone](index.md#gone)", "#gone"),
        ("![gone](img/gone.svg)", "gone.svg"),
        ("::: distill_core.gone", "distill_core.gone"),
    ],
)
def test_what_is_broken_does_not_build(page: str, complaint: str, tmp_path: Path) -> None:
    pytest.importorskip("mkdocstrings", reason="the site's generator is not installed: pip install '.[docs]'")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(f"# Home\n\n{page}\n")
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[0]
    settings = settings.replace("  - css/site.css", "  []").replace("[tools/", f"[{ROOT}/tools/")
    (tmp_path / "mkdocs.yml").write_text(settings)
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert complaint in done.stdout + done.stderr


# In a browser


@pytest.fixture
def served(site: Path) -> Iterator[str]:
    """The site on loopback."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def browser(tmp_path: Path):
    """Chromium without a window, which writes down what it asks the network for."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install '.[dev]'")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("chromium or chromedriver is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for name in (
        "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
        "disable-component-update", "disable-sync", f"user-data-dir={tmp_path / 'profile'}",
    ):  # fmt: skip
        options.add_argument(f"--{name}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
    chrome.get("data:text/html,<title>begun</title>")
    chrome.get_log("performance")  # what the browser's own first page asked for
    yield chrome
    chrome.quit()


@pytest.mark.xdist_group("heavy")
def test_a_reader_finds_things_in_light_and_dark_without_any_other_host(browser, served, site) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    wait = WebDriverWait(browser, 20)
    for name in ("index", "architecture", "mel-formats", "reference/vocoder", "reference/evaluation"):
        page = f"{name}.html"
        browser.get(f"{served}/{page}")
        pictures = browser.execute_script("return [...document.images].map(each => each.naturalWidth)")
        assert all(pictures), page
        for width in (390, 1280):
            browser.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride",
                {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600},
            )
            beyond = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
            message = f"{page} is wider than {width} pixels"
            wait.until(lambda each, script=beyond: each.execute_script(script) == 0, message)
        signatures = "return [...document.querySelectorAll('.doc pre > code')]"  # at the last width, a desk's
        cut = f"{signatures}.filter(it => it.scrollWidth > it.clientWidth + 1).map(it => it.innerText)"
        assert not browser.execute_script(cut), page

    browser.get(f"{served}/index.html")
    copied = """
        return [...document.querySelectorAll(".language-console code")].map(code => {
            code.setAttribute("data-md-copying", "")  // as the copy button does while it reads the text
            const text = code.innerText
            code.removeAttribute("data-md-copying")
            return text
        })"""
    commands = [line for text in browser.execute_script(copied) for line in text.splitlines() if line]
    assert commands[0] == "make demo"
    assert not [line for line in commands if not line.startswith(("make ", "pip ", "distill-vocoder "))]

    shades = set()
    for _ in range(3):  # as the system, light, dark
        browser.execute_script("document.querySelector('form[data-md-component=palette] label:not([hidden])').click()")
        back, link = browser.execute_script("""
            return [getComputedStyle(document.body).backgroundColor,
                    getComputedStyle(document.querySelector(".md-content p a")).color]""")
        assert contrast(back, link) >= 4.5, (back, link)  # WCAG 2, level AA
        bar = browser.execute_script("""
            const bar = document.querySelector(".md-header"), style = getComputedStyle(bar)
            return [style.color, style.backgroundColor]""")
        assert contrast(*bar) >= 4.5, bar
        shades.add(back)
    assert len(shades) == 2

    for home in (served, site.as_uri()):  # from a server, and opened as a file
        browser.get(f"{home}/index.html")
        browser.execute_script("document.querySelector('label[for=__search]').click()")
        browser.find_element(By.CSS_SELECTOR, "input.md-search__input").send_keys("halo")
        found = wait.until(lambda each: each.find_elements(By.CSS_SELECTOR, ".md-search-result__item a"))
        assert any("architecture" in str(each.get_attribute("href")) for each in found)

    asked = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [each["params"]["request"]["url"] for each in asked if each["method"] == "Network.requestWillBeSent"]
    assert len(urls) > 10
    own = (f"{served}/", f"{site.as_uri()}/", "data:", "blob:", "about:")
    assert not [url for url in urls if not url.startswith(own)]
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
