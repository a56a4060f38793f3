"""A page in headless Chromium, and what it asked the network for."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
)


class Page:
    """One browser window."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self.asked: list[str] = []  # addresses of every request so far

    def open(self, url: str) -> None:
        self.driver.get(url)
        self.wait("#dv-run")
        self.until(lambda: not self.find(".loading"), "the page to be there")

    def find(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements("css selector", selector))

    def wait(self, selector: str, seconds: float = 60) -> Any:
        self.until(lambda: self.find(selector), f"{selector} on the page", seconds)
        return self.find(selector)[0]

    def until(self, true: Callable[[], Any], what: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if true():
                return
            time.sleep(0.05)
        raise AssertionError(f"waited {seconds} s for {what}; the page says:\n{self.text('body')}")

    def text(self, selector: str) -> str:
        return str(self.js("return document.querySelector(arguments[0])?.innerText ?? ''", selector))

    def js(self, script: str, *values: Any) -> Any:
        return self.driver.execute_script(script, *values)

    def choose(self, label: str, option: str) -> None:
        """Take an option of a drop-down list, by the beginning of what it reads."""
        self.wait(f"input[aria-label='{label}']").click()
        self.until(lambda: self.find("ul[role=listbox] li"), f"the list {label}")
        for each in self.find("ul[role=listbox] li"):
            if str(each.get_attribute("aria-label")).startswith(option):
                each.click()
                self.until(lambda: not self.find("ul[role=listbox] li"), f"the list {label} to close")
                return
        raise AssertionError(f"{label} offers {[each.text for each in self.find('ul[role=listbox] li')]}")

    def put(self, selector: str, path: Path) -> None:
        """Upload a file where `selector` is; what was there is taken away first."""
        self.js("document.querySelector(arguments[0] + ' button[aria-label=Clear]')?.click()", selector)
        self.until(lambda: self.find(f"{selector} input[type=file]"), f"a place for a file in {selector}")
        self.find(f"{selector} input[type=file]")[0].send_keys(str(path))
        self.until(lambda: not self.find(f"{selector} input[type=file]"), f"{path.name} to arrive")

    def run(self, seconds: float = 90) -> None:
        """Press Vocode, and wait for the end of it."""
        self.js("document.querySelector('.dv-results, .dv-error')?.classList.add('old')")
        self.wait("#dv-run").click()
        ended = "#dv-results .dv-results:not(.old), #dv-status .dv-note:not(.old)"
        self.until(lambda: self.find(ended) and not self.find("#dv-status .dv-bar"), "the run to end", seconds)

    def pictures(self) -> list[tuple[int, int]]:
        """Size in pixels of the pictures in the results, as decoded."""
        self.until(lambda: all(size[0] for size in self._pictures()), "the pictures to load")
        return self._pictures()

    def _pictures(self) -> list[tuple[int, int]]:
        found = self.js(
            "return [...document.querySelectorAll('#dv-results img')].map(i => [i.naturalWidth, i.naturalHeight])"
        )
        return [tuple(each) for each in found]

    def durations(self) -> list[float]:
        """Seconds of the players in the results."""
        script = "return [...document.querySelectorAll('#dv-results audio')].map(a => a.duration || 0)"
        self.until(lambda: all(self.js(script)), "the players to load")
        return [float(each) for each in self.js(script)]

    def hosts(self) -> set[str]:
        """Where the page's requests went to, so far; the browser's own pages do not count."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] in ("Network.requestWillBeSent", "Network.webSocketCreated"):
                values = message["params"]
                self.asked.append(values.get("url") or values["request"]["url"])
        parts = [urlsplit(url) for url in self.asked]
        return {part.netloc for part in parts if part.scheme not in ("data", "blob", "chrome", "about")}


@contextmanager
def chromium(folder: Path, *, width: int = 1280, height: int = 900) -> Iterator[Page]:
    """A browser with an empty profile in `folder`. Skips where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver")
    program, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (*FLAGS, f"--user-data-dir={folder}", f"--window-size={width},{height}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield Page(chrome)
    finally:
        chrome.quit()


class Server:
    """`distill-vocoder playground` in a process of its own."""

    def __init__(self, *arguments: str, env: dict[str, str] | None = None) -> None:
        command = [sys.executable, "-m", "distill_core.cli", "playground", "--port", "0", *arguments]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)
        self.said: list[str] = []
        self.url = ""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            if "playground is at " in line:
                self.url = line.split("playground is at ")[1].split()[0]
                break
        else:
            raise AssertionError(f"the server did not start: {''.join(self.said)}")

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    def end(self) -> tuple[int, str]:
        """Ctrl-C; the exit code, and what was said on stderr."""
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGINT)
        rest = self.process.communicate(timeout=30)[1]
        return self.process.returncode, "".join(self.said) + rest
