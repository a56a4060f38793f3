"""Downloads with faults made to order: what comes out is verified, or refused with a reason."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from distill_core.errors import (
    WeightsDownloadError,
    WeightsError,
    WeightsIntegrityError,
    WeightsNotFoundError,
    WeightsOfflineError,
)
from distill_core.weights import WeightsPin, cached, ensure, locks, transfer
from distill_core.weights.faults import Target
from tests import checkpoints
from tests.hub_server import Fault, HubServer, answer_empty

from .conftest import CONFIG, CONTENT, NAME, REPO, use

SIZE = len(CONTENT)


def fetch(pin: WeightsPin) -> Path:
    return ensure(pin, progress=False)


def assert_whole(pin: WeightsPin, folder: Path) -> None:
    assert (folder / NAME).read_bytes() == CONTENT
    assert (folder / "config.json").read_bytes() == CONFIG
    assert cached(pin) == folder


def test_two_files_are_asked_for_once_and_then_nothing(hub: HubServer, cache: Path, pin: WeightsPin) -> None:
    assert cached(pin) is None
    folder = fetch(pin)
    assert_whole(pin, folder)
    assert {request.rpartition(" ")[2] for request in hub.asked()} == {"config.json", NAME}
    assert hub.sent(NAME) == SIZE
    hub.close()
    assert fetch(pin) == folder


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.99])
def test_a_line_that_stays_cut_is_resumed_by_the_next_call(
    hub: HubServer, cache: Path, pin: WeightsPin, fraction: float
) -> None:
    hub.faults.append(Fault(NAME, cut=fraction))
    with pytest.raises(WeightsDownloadError, match=r"broke off.*kept"):
        fetch(pin)
    assert cached(pin) is None
    first = hub.sent(NAME)
    assert first == int(SIZE * fraction)
    hub.forget()
    assert_whole(pin, fetch(pin))
    assert hub.sent(NAME) == SIZE - first


def test_one_call_outlives_a_line_that_breaks_again_and_again(
    hub: HubServer, cache: Path, pin: WeightsPin, caplog: pytest.LogCaptureFixture
) -> None:
    hub.faults += [Fault(NAME, cut=tenth / 10, times=1) for tenth in range(1, 10)]
    assert_whole(pin, fetch(pin))
    assert hub.sent(NAME) == SIZE
    assert sum("broke off" in message for message in caplog.messages) == 9


@pytest.mark.parametrize("old", [False, True])
def test_the_client_of_huggingface_hub_before_1_loses_nothing_either(
    hub: HubServer, cache: Path, pin: WeightsPin, monkeypatch: pytest.MonkeyPatch, old: bool
) -> None:
    requests = pytest.importorskip("requests")
    if old:
        from urllib3 import response

        for kind in (response.HTTPResponse, response.BaseHTTPResponse):
            monkeypatch.delattr(kind, "read1")
    with requests.Session() as session:
        monkeypatch.setattr("huggingface_hub.utils.get_session", lambda: session)
        # 37,037 bytes each time: less than a piece of those that are read
        hub.faults += [Fault(NAME, cut=part / 27, times=1) for part in range(1, 27)]
        assert_whole(pin, fetch(pin))
    lost = hub.sent(NAME) - SIZE
    assert lost < 26 * 1024 if old else lost == 0


def test_a_server_without_ranges_sends_all_again(hub: HubServer, cache: Path, pin: WeightsPin) -> None:
    hub.faults += [Fault(NAME, cut=0.5, times=1), Fault(NAME, ranges=False)]
    assert_whole(pin, ensure(pin, tqdm_class=Bar))
    assert hub.sent(NAME) == int(SIZE * 0.5) + SIZE
    assert Bar.made[-1].n == SIZE + len(CONFIG)


WRONG = {
    "one byte flipped": (Fault(NAME, content=CONTENT[:500] + bytes([CONTENT[500] ^ 1]) + CONTENT[501:]), "sha256"),
    "other content of the right size": (Fault(NAME, content=bytes(SIZE)), "sha256"),
    "truncated": (Fault(NAME, content=CONTENT[:-1000]), f"{SIZE - 1000} bytes"),
    "truncated and honest about it": (Fault(NAME, announce=SIZE - 1000), f"{SIZE - 1000} bytes"),
    "too long": (Fault(NAME, content=CONTENT + b"x"), f"{SIZE + 1} bytes"),
    "a login page": (Fault(NAME, content=b"<!DOCTYPE html><title>Log in</title>", kind="text/html"), "web page"),
    "a login page of the right size": (
        Fault(NAME, content=b"<!DOCTYPE html><title>Log in</title>".ljust(SIZE)),
        "web page",
    ),
    "a wrong config.json": (Fault("config.json", content=CONFIG.replace(b"8", b"9")), "sha256"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_not_as_pinned_is_refused_and_healed_by_the_next_call(
    hub: HubServer, cache: Path, pin: WeightsPin, wrong: str
) -> None:
    fault, said = WRONG[wrong]
    hub.faults.append(replace(fault))
    with pytest.raises(WeightsIntegrityError, match=said):
        fetch(pin)
    assert cached(pin) is None
    hub.forget()
    assert_whole(pin, fetch(pin))


def test_a_login_portal_that_answers_everything(
    hub: HubServer, cache: Path, pin: WeightsPin, unpinned: WeightsPin
) -> None:
    """It has no ETag and no commit to offer, and answers 200 to all."""
    portal = HubServer()
    portal.dispatch = lambda http, path: portal.send(http, b"<html>", Fault(kind="text/html"), {})  # type: ignore
    with portal, pytest.MonkeyPatch.context() as patch:
        use(portal.endpoint, cache, patch)
        with pytest.raises(WeightsError, match=r"6 bytes, pinned are|web page"):
            fetch(pin)
        with pytest.raises(WeightsDownloadError, match="login portal"):
            fetch(unpinned)
    assert_whole(pin, fetch(pin))


STATUSES = {
    "401": (Fault(status=401), WeightsDownloadError, "HF_TOKEN"),
    "403": (Fault(status=403, headers={"X-Error-Code": "GatedRepo"}), WeightsDownloadError, "Ask for access"),
    "404 repository": (
        Fault(status=404, headers={"X-Error-Code": "RepoNotFound"}),
        WeightsNotFoundError,
        f"no repository {REPO}",
    ),
    "404 revision": (Fault(status=404, headers={"X-Error-Code": "RevisionNotFound"}), WeightsNotFoundError, "revision"),
    "404 file": (
        Fault(status=404, headers={"X-Error-Code": "EntryNotFound"}),
        WeightsNotFoundError,
        "no file config.json",
    ),
    "429": (Fault(status=429, headers={"Retry-After": "3600"}), WeightsDownloadError, "in 3600 s"),
    "500": (Fault(status=500), WeightsDownloadError, "500"),
    "403 of the content": (Fault(NAME, status=403, on="CONTENT"), WeightsDownloadError, "403"),
    "503 of the content": (Fault(NAME, status=503, on="CONTENT"), WeightsDownloadError, "503"),
}


@pytest.mark.parametrize("status", STATUSES)
def test_each_answer_has_its_own_message(hub: HubServer, cache: Path, pin: WeightsPin, status: str) -> None:
    fault, error, said = STATUSES[status]
    hub.faults.append(replace(fault))
    with pytest.raises(error, match=said) as caught:
        fetch(pin)
    assert "\n" not in str(caught.value)
    hub.forget()
    assert_whole(pin, fetch(pin))


def test_a_repository_a_revision_and_a_file_that_do_not_exist(hub: HubServer, cache: Path, pin: WeightsPin) -> None:
    wanted = dict(pin.files)
    for other, said in (
        (WeightsPin("nvidia/nothing", pin.revision, wanted), "no repository nvidia/nothing"),
        (WeightsPin(REPO, "0" * 40, wanted), "no revision 0000"),
        (WeightsPin(REPO, pin.revision, {**wanted, "more.pt": (None, None)}), "no file more.pt"),
    ):
        with pytest.raises(WeightsNotFoundError, match=said):
            fetch(other)


def test_retry_after_is_heeded(hub: HubServer, cache: Path, pin: WeightsPin, caplog: pytest.LogCaptureFixture) -> None:
    hub.faults.append(Fault(NAME, status=429, headers={"Retry-After": "1"}, times=1, on="HEAD"))
    started = time.monotonic()
    assert_whole(pin, fetch(pin))
    assert time.monotonic() - started >= 1
    assert "Trying again in 1.0 s" in caplog.text


def test_a_server_that_goes_away_for_a_moment_is_waited_for(
    hub: HubServer, cache: Path, pin: WeightsPin, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.faults.append(Fault(NAME, cut=0.5, times=1))
    real, away = transfer._stream, [True]

    def stream(*arguments):
        if away and hub.sent(NAME):
            away.clear()
            raise ConnectionRefusedError("nobody listens")
        return real(*arguments)

    monkeypatch.setattr(transfer, "_stream", stream)
    assert_whole(pin, fetch(pin))
    assert not away
    assert hub.sent(NAME) == SIZE


@pytest.mark.parametrize("confirmed", [True, False])
def test_a_repository_that_was_renamed_is_found(hub: HubServer, cache: Path, pin: WeightsPin, confirmed: bool) -> None:
    real, name = hub.dispatch, "nvidia/bigvgan_of_today"

    def renamed(http, path):
        if path.startswith(f"/{REPO}/"):
            return answer_empty(http, 307, {"Location": path.replace(REPO, name)})
        return real(http, path)

    asked = hub.pin(REPO, confirmed=confirmed)
    asked = replace(asked, files={each: asked.files[each] for each in pin.files})
    hub.dispatch = renamed  # type: ignore[method-assign]
    for known in (hub.repos, hub.branches):
        known[name] = known.pop(REPO)
    assert_whole(asked, fetch(asked))


def test_500_and_then_200(hub: HubServer, cache: Path, pin: WeightsPin) -> None:
    hub.faults += [Fault(status=500, times=2), Fault(NAME, status=502, times=2, on="CONTENT")]
    assert_whole(pin, fetch(pin))


def test_a_stalled_socket(hub: HubServer, cache: Path, pin: WeightsPin, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    hub.faults.append(Fault(NAME, stall=0.4))
    with pytest.raises(WeightsDownloadError, match="stopped answering"):
        fetch(pin)
    first = hub.sent(NAME)
    hub.forget()
    assert_whole(pin, fetch(pin))
    assert first + hub.sent(NAME) == SIZE


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("http://no-such-host.invalid", "no-such-host.invalid cannot be resolved"),
        ("http://127.0.0.1:1", "cannot be reached"),
    ],
)
def test_a_server_that_is_not_there(
    cache: Path, pin: WeightsPin, monkeypatch: pytest.MonkeyPatch, endpoint: str, said: str
) -> None:
    use(endpoint, cache, monkeypatch)
    with pytest.raises(WeightsOfflineError, match=said) as caught:
        fetch(pin)
    assert "--local-dir DIR" in str(caught.value)


def test_an_address_that_is_none(cache: Path, pin: WeightsPin, monkeypatch: pytest.MonkeyPatch) -> None:
    use("ftp://hub.invalid", cache, monkeypatch)
    with pytest.raises(WeightsDownloadError, match="HF_ENDPOINT"):
        fetch(pin)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Retry-After", "\xb2"),
        ("X-Linked-Size", "\xb2"),
        ("X-Linked-Size", "9" * 5000),
        ("Content-Range", "bytes 0-1/\xb2"),
        ("Location", "http://[::1"),
    ],
)
def test_headers_that_say_no_number_and_no_address_are_passed_over(
    hub: HubServer, cache: Path, pin: WeightsPin, header: str, value: str
) -> None:
    fault = {
        "Retry-After": Fault(status=429, headers={header: value}, times=1),
        "Location": Fault(status=302, headers={header: value}, on="HEAD", times=1),
    }.get(header, Fault(NAME, headers={header: value}))
    if header == "X-Linked-Size":
        linked = {"X-Linked-ETag": f'"{pin.files[NAME][1]}"', "X-Repo-Commit": pin.revision, "Location": "/elsewhere"}
        fault = Fault(NAME, status=302, headers={**linked, header: value}, on="HEAD", times=1)
    hub.faults.append(fault)
    assert_whole(pin, fetch(pin))


@pytest.mark.parametrize("endpoint", ["http://bob:s3cret@127.0.0.1:9", "ftp://bob:s3cret@127.0.0.1:9", "of the hub"])
def test_a_password_in_the_endpoint_is_shown_nowhere(
    hub: HubServer,
    cache: Path,
    pin: WeightsPin,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    endpoint: str,
) -> None:
    hub.faults.append(Fault(status=500))
    use(hub.endpoint.replace("//", "//bob:s3cret@") if endpoint == "of the hub" else endpoint, cache, monkeypatch)
    with pytest.raises(WeightsError, match=r"127\.0\.0\.1:\d") as caught:
        fetch(pin)
    assert "s3cret" not in str(caught.value) + "".join(caplog.messages)


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 512 kB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(mount)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def test_a_full_disk_is_seen_before_the_download(
    hub: HubServer, cache: Path, pin: WeightsPin, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(hub.endpoint, small_disk, monkeypatch)
    with pytest.raises(WeightsError, match=r"too full.*1\.0 MB more.*HF_HOME"):
        fetch(pin)
    assert hub.sent(NAME) == 0


def test_a_disk_that_fills_up_on_the_way(
    hub: HubServer, cache: Path, pin: WeightsPin, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distill_core.weights import download

    monkeypatch.setattr(download, "_check_space", lambda *_: None)  # as if another program took the room
    use(hub.endpoint, small_disk, monkeypatch)
    with pytest.raises(WeightsError, match="disk is full"):
        fetch(pin)
    assert cached(pin) is None


def test_a_file_where_the_cache_should_be(
    hub: HubServer, cache: Path, pin: WeightsPin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    use(hub.endpoint, tmp_path / "file", monkeypatch)
    with pytest.raises(WeightsError, match="Point HF_HOME"):
        fetch(pin)


def test_damage_in_the_cache_is_noticed_and_mended(
    hub: HubServer, cache: Path, pin: WeightsPin, caplog: pytest.LogCaptureFixture
) -> None:
    folder = fetch(pin)
    with (folder / NAME).open("r+b") as file:
        file.seek(1000)
        file.write(b"damage")
    assert cached(pin) is None
    assert "expected" in caplog.text
    hub.forget()
    assert_whole(pin, fetch(pin))
    assert hub.sent() == SIZE


def test_a_partial_file_that_is_not_of_this_file(hub: HubServer, cache: Path, pin: WeightsPin) -> None:
    """Left by something else under the same name: found out at the end, and thrown away."""
    blobs = cache / "hub" / "models--nvidia--bigvgan_test" / "blobs"
    blobs.mkdir(parents=True)
    partial = blobs / f"{pin.files[NAME][1]}.incomplete"
    for left, error in ((b"x" * 1000, True), (b"x" * (SIZE + 5), False)):
        partial.write_bytes(left)
        if error:
            with pytest.raises(WeightsIntegrityError, match="sha256"):
                fetch(pin)
            assert not partial.exists()
    assert_whole(pin, fetch(pin))


def test_a_partial_file_that_is_whole_is_not_asked_for(hub: HubServer, cache: Path, pin: WeightsPin) -> None:
    """Of a process that was stopped before it gave the file its name."""
    blobs = cache / "hub" / "models--nvidia--bigvgan_test" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{pin.files[NAME][1]}.incomplete").write_bytes(CONTENT)
    assert_whole(pin, fetch(pin))
    assert f"GET {NAME}" not in hub.asked()


def test_a_partial_file_that_is_longer_than_the_file_is_thrown_away_where_nobody_said_how_long_that_is(
    hub: HubServer, cache: Path, pin: WeightsPin, tmp_path: Path
) -> None:
    partial, target, moved = tmp_path / "x.incomplete", Target.of(REPO, pin.revision, NAME), [SIZE + 4]
    partial.write_bytes(CONTENT + b"more")
    with pytest.raises(WeightsIntegrityError, match=f"it ends before byte {SIZE + 4}"):
        transfer.download(target, partial, None, moved.append)
    assert (partial.exists(), sum(moved)) == (False, 0)
    transfer.download(target, partial, None, moved.append)
    assert (partial.read_bytes(), sum(moved)) == (CONTENT, SIZE)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_download_goes_through_no_link_and_no_pipe_in_the_cache(
    hub: HubServer, cache: Path, pin: WeightsPin, tmp_path: Path, kind: str
) -> None:
    """A cache on a cluster is written to by others."""
    blobs = cache / "hub" / f"models--{REPO.replace('/', '--')}" / "blobs"
    blobs.mkdir(parents=True)
    precious, partial = tmp_path / "precious", blobs / f"{pin.files[NAME][1]}.incomplete"
    precious.write_text("mine")
    if kind == "link":
        partial.symlink_to(precious)
    else:
        os.mkfifo(partial)
    with pytest.raises(WeightsError, match=r"cannot be stored.*\.incomplete"):
        fetch(pin)
    assert precious.read_text() == "mine"


def test_tokens_go_to_the_hub_and_nowhere_else(
    hub: HubServer, cache: Path, pin: WeightsPin, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.token = "hf_secret"
    with pytest.raises(WeightsError, match="401"):
        fetch(pin)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.forget()
    elsewhere = hub.endpoint.replace("127.0.0.1", hub.content_host) + "/elsewhere"
    hub.faults.append(Fault(NAME, status=302, headers={"Location": elsewhere}, on="HEAD", times=1))
    assert_whole(pin, fetch(pin))
    assert not hub.faults[0].times
    carried = {request.path.split("/")[1]: request.headers.get("authorization") for request in hub.requests}
    assert carried == {"nvidia": "Bearer hf_secret", "cdn": None}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    assert "authorization" not in transfer._headers()


def test_a_proxy_is_used(hub: HubServer, cache: Path, pin: WeightsPin, monkeypatch: pytest.MonkeyPatch) -> None:
    use("http://hub.invalid", cache, monkeypatch)
    monkeypatch.setenv("HTTP_PROXY", hub.endpoint)
    monkeypatch.setenv("http_proxy", hub.endpoint)
    monkeypatch.setenv("no_proxy", "")
    assert_whole(pin, fetch(pin))


def test_a_mirror_of_bare_files_is_enough_for_a_confirmed_pin(
    hub: HubServer, cache: Path, pin: WeightsPin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plain web server with the files at the Hub's paths: no commit, and ETags of its own making."""
    mirror = HubServer()
    files = {"config.json": CONFIG, NAME: CONTENT}

    def serve(http, path):
        content = files[path.rpartition("/")[2]]
        if http.command == "HEAD":
            return answer_empty(http, 200, {"ETag": 'W/"65a-1f"'}, length=len(content))
        return mirror.send(http, content, Fault(), {"ETag": 'W/"65a-1f"'})

    mirror.dispatch = serve  # type: ignore[method-assign]
    with mirror:
        use(mirror.endpoint, cache, monkeypatch)
        assert_whole(pin, fetch(pin))


def test_xet_storage_makes_no_difference(hub: HubServer, cache: Path, pin: WeightsPin) -> None:
    hub.xet = True
    hub.faults.append(Fault(NAME, cut=0.5, times=1))
    assert_whole(pin, fetch(pin))
    assert hub.sent(NAME) == SIZE


def test_etags_and_commits_cannot_lead_out_of_the_cache(
    hub: HubServer,
    cache: Path,
    pin: WeightsPin,
    unpinned: WeightsPin,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    real = transfer._request_head

    def evil(url, headers, timeout):
        response = real(url, headers, timeout)
        response.headers["X-Linked-ETag"] = response.headers["ETag"] = '"../../../evil"'
        response.headers["X-Repo-Commit"] = "../../../evil"
        return response

    monkeypatch.setattr(transfer, "_request_head", evil)
    with pytest.raises(WeightsDownloadError, match="which commit"):
        fetch(unpinned)
    assert_whole(pin, fetch(pin))
    assert not list(tmp_path.rglob("evil*"))


class Bar:
    """tqdm's interface, and a memory."""

    made: list[Bar] = []

    def __init__(self, total=None, initial=0, unit="", unit_scale=False, desc="") -> None:
        self.total, self.n, self.initial, self.unit, self.closed = total, initial, initial, unit, False
        Bar.made.append(self)

    def update(self, count) -> None:
        self.n += count

    def close(self) -> None:
        self.closed = True


def test_progress_in_bytes_to_the_apps_own_bar(hub: HubServer, cache: Path, pin: WeightsPin) -> None:
    Bar.made.clear()
    hub.faults.append(Fault(NAME, cut=0.25))
    with pytest.raises(WeightsDownloadError):
        ensure(pin, tqdm_class=Bar)
    hub.forget()
    ensure(pin, tqdm_class=Bar)
    ensure(pin, tqdm_class=Bar)
    first, second = Bar.made
    assert first.total == SIZE + len(CONFIG)
    assert first.n == int(SIZE * 0.25) + len(CONFIG)
    assert (second.initial, second.n, second.total) == (int(SIZE * 0.25), SIZE, SIZE)
    assert first.closed
    assert second.closed


class Cancelled(Bar):
    """A bar whose user has seen enough after a quarter."""

    reason: Exception

    def update(self, count) -> None:
        super().update(count)
        if self.n > SIZE // 4:
            raise self.reason


@pytest.mark.parametrize(
    "reason",
    [
        RuntimeError("cancelled"),
        InterruptedError("cancelled"),  # an OSError, and no fault of the disk
        BrokenPipeError("the window is gone"),  # a ConnectionError, and no fault of the line
        TimeoutError("nobody answered"),
        WeightsDownloadError("cancelled"),
    ],
    ids=lambda reason: type(reason).__name__,
)
def test_what_a_bar_raises_ends_the_download_and_comes_out(
    hub: HubServer, cache: Path, pin: WeightsPin, monkeypatch: pytest.MonkeyPatch, reason: Exception
) -> None:
    monkeypatch.setattr(Cancelled, "reason", reason, raising=False)
    with pytest.raises(type(reason)) as caught:
        ensure(pin, tqdm_class=Cancelled)
    assert caught.value is reason
    assert Bar.made[-1].closed
    assert hub.asked().count(f"GET {NAME}") == 2  # the Hub, and where it redirects to: nothing was tried again
    hub.forget()
    assert_whole(pin, fetch(pin))
    assert hub.sent(NAME) < SIZE


def test_what_a_bar_raises_is_no_fault_of_the_plugin(hub: HubServer, cache: Path) -> None:
    from distill_core import Registry

    class Refusing(Bar):
        def update(self, count) -> None:
            raise InterruptedError("cancelled")

    hub.add(f"nvidia/bigvgan_{checkpoints.VARIANT}", checkpoints.bigvgan_files())
    registry = Registry()
    with pytest.raises(InterruptedError, match="cancelled"):
        registry.get("bigvgan", variant=checkpoints.VARIANT, device="cpu", tqdm_class=Refusing)
    assert registry.get("bigvgan", variant=checkpoints.VARIANT, device="cpu", progress=False).mel.n_mels == 80


def test_waiting_for_another_download_the_apps_bar_follows_it_and_can_end_the_waiting(
    hub: HubServer, cache: Path, pin: WeightsPin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "INTERVAL", 0.01)
    half, seen = threading.Event(), threading.Event()

    class First(Bar):
        """The one that downloads: stops in the middle until the others have seen it there."""

        def update(self, count) -> None:
            super().update(count)
            if self.n > SIZE // 2:
                half.set()
                assert seen.wait(60)

    class Leaving(Bar):
        def update(self, count) -> None:
            super().update(count)
            raise InterruptedError("cancelled")

    class Following(Bar):
        def update(self, count) -> None:
            super().update(count)
            if self.n > SIZE // 2:
                seen.set()

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(ensure, pin, tqdm_class=First)
        assert half.wait(60)
        with pytest.raises(InterruptedError, match="cancelled"):
            ensure(pin, tqdm_class=Leaving)
        assert Bar.made[-1].closed
        Bar.made.clear()
        other = pool.submit(ensure, pin, tqdm_class=Following)
        assert_whole(pin, other.result(60))
        assert first.result(60) == other.result()
    (bar,) = Bar.made
    assert bar.closed
    assert bar.total == SIZE + len(CONFIG)
    assert SIZE // 2 < bar.n <= bar.total


def test_without_stderr_there_is_no_bar(
    hub: HubServer, cache: Path, pin: WeightsPin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in an app with windows, frozen, or run by pythonw."""
    monkeypatch.setattr(sys, "stderr", None)
    assert_whole(pin, ensure(pin))


def test_progress_is_on_stderr_or_not_at_all(
    hub: HubServer, cache: Path, pin: WeightsPin, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "distill_core"):
        ensure(pin)
    out, err = capfd.readouterr()
    assert out == ""
    assert re.search(r"bigvgan_test: 100%.*1\.00M.*B/s", err)
    assert "downloading nvidia/bigvgan_test" in caplog.text
    (cached(pin) / NAME).unlink()  # type: ignore[operator]
    ensure(pin, progress=False)
    assert capfd.readouterr() == ("", "")


def test_threads_download_once(hub: HubServer, cache: Path, pin: WeightsPin) -> None:
    hub.faults.append(Fault(NAME, pace=0.002))
    folders: list[Path] = []
    threads = [threading.Thread(target=lambda: folders.append(fetch(pin))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(folders) == 8
    assert len(set(folders)) == 1
    assert hub.sent(NAME) == SIZE
