"""The address it is served at, and who is let in."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from distill_core.cli import main
from distill_core.playground import server
from distill_core.playground.server import AddressError, bind
from tests.playground.browser import Server


def test_a_taken_port_is_said_and_without_one_the_next_is_taken(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    pytest.importorskip("gradio")
    with bind(port=0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AddressError, match=f"Port {port} of 127.0.0.1 is taken.*--port"):
            bind(port=port)
        assert main(["playground", "--port", str(port)]) == 1
        assert capsys.readouterr().err == f"error: {server._refused('127.0.0.1', port, OSError(98, ''))}\n"
        monkeypatch.setattr(server, "PORT", port)
        with bind() as other:
            assert port < other.getsockname()[1] < port + 50


@pytest.mark.parametrize(
    ("host", "port", "words"),
    [("no.such.host.invalid", 0, "no such address"), ("127.0.0.1", 70_000, "0 to 65535"), ("8.8.8.8", 0, "cannot be")],
)
def test_an_address_that_cannot_be_is_said(host: str, port: int, words: str) -> None:
    with pytest.raises(AddressError, match=words):
        bind(host, port)


def test_the_address_to_open() -> None:
    with bind("0.0.0.0", 0) as everywhere, bind("127.0.0.1", 0) as here:
        assert server.url(everywhere) == f"http://127.0.0.1:{everywhere.getsockname()[1]}/"
        assert not server.is_loopback(everywhere)
        assert server.is_loopback(here)
    if socket.has_ipv6:
        with bind("::1", 0) as six:
            assert server.url(six).startswith("http://[::1]:")


async def _page(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"1")]})
    await send({"type": "http.response.body", "body": b"page"})


def ask(host: str, *, local: bool = True, origin: str | None = None) -> tuple[int, dict[bytes, bytes]]:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"host", host.encode())] + ([] if origin is None else [(b"origin", origin.encode())])
    scope = {"type": "http", "headers": headers}
    asyncio.run(server._guarded(_page, local)(scope, None, send))
    return sent[0]["status"], dict(sent[0]["headers"])


@pytest.mark.parametrize("host", ["localhost:7860", "127.0.0.1", "[::1]:7860", "LOCALHOST.", "a.localhost:1"])
def test_names_of_this_machine_are_answered_with_a_policy(host: str) -> None:
    status, headers = ask(host)
    assert status == 200
    assert headers[b"x-own"] == b"1"
    assert b"default-src 'self'" in headers[b"content-security-policy"]
    assert b"http" not in headers[b"content-security-policy"]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "localhost.evil.example", "", "10.0.0.5", "[x"])
def test_other_names_are_not_unless_it_is_open_to_others(host: str) -> None:
    assert ask(host)[0] == 421
    assert ask(host, local=False)[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "https://localhost.evil.example:7860", "null", ""])
def test_pages_from_elsewhere_can_send_nothing(origin: str) -> None:
    assert ask("localhost:7860", origin=origin)[0] == 403
    assert ask("localhost:7860", origin=origin, local=False)[0] == 200


@pytest.mark.parametrize("origin", ["http://localhost:7860", "http://127.0.0.1:1", "http://[::1]:7860"])
def test_the_own_page_can(origin: str) -> None:
    assert ask("localhost:7860", origin=origin)[0] == 200


def test_an_unknown_vocoder_is_said_before_anything_starts(capsys) -> None:
    assert main(["playground", "--vocoder", "hifigam"]) == 1
    assert "Did you mean 'hifigan'" in capsys.readouterr().err


def test_it_ends_in_words_while_a_browser_has_not_read_what_it_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    running = Server(env=dict(os.environ, TMPDIR=str(tmp_path)))
    sound = next(tmp_path.glob("*/sounds")) / "long.wav"
    sound.write_bytes(bytes(30 << 20))  # more than the connection's buffers hold
    host, port = running.host.split(":")
    with socket.socket() as browser:
        browser.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        browser.settimeout(30)
        browser.connect((host, int(port)))
        browser.sendall(f"GET /gradio_api/file={sound} HTTP/1.1\r\nHost: {running.host}\r\n\r\n".encode())
        assert browser.recv(1024).startswith(b"HTTP/1.1 200 ")
        code, said = running.end()
    assert code == 0
    assert said.splitlines() == [f"The playground is at {running.url}  (Ctrl-C ends it)", "The playground has ended."]
    assert list(tmp_path.iterdir()) == []


def test_help_needs_no_gradio() -> None:
    script = "import sys; sys.modules['gradio'] = None; from distill_core.cli import main; main(['playground', '-h'])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "--port" in done.stdout
