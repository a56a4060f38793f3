"""Serves the playground: on loopback, to nobody else, and so that the page can reach nothing but its server.

Gradio's own `launch` asks its address through whatever proxy is set, takes the next port when one is taken,
and may be told by the environment to share the page with the world. Here the page is mounted and served by
uvicorn, on a socket that is bound beforehand.
"""

from __future__ import annotations

import errno
import inspect
import ipaddress
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DistillError
from . import jobs

if TYPE_CHECKING:
    from ..registry import Registry

PORT = 7860
LOOPBACK = "127.0.0.1"

# The page may load, send to and play from its own server alone: whatever Gradio's code would like to fetch.
# Its templates are functions made from text, hence "unsafe-eval".
_POLICY = "; ".join(
    [
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
    ]
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]

Scope = MutableMapping[str, Any]


class AddressError(DistillError):
    """The address to serve at is taken, or is none of this machine."""


def bind(host: str = LOOPBACK, port: int | None = None) -> socket.socket:
    """A socket at that address, not yet listening; without a port 7860 or, if that is taken, the next free one.

    Raises:
        AddressError: the address is taken or cannot be used; the message says what to do.
    """
    ports = [port] if port is not None else list(range(PORT, PORT + 50))
    try:
        family, _, _, _, _ = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise AddressError(f"--host {host}: there is no such address ({error}).") from error
    for candidate in ports:
        listener = socket.socket(family, socket.SOCK_STREAM)
        if os.name == "posix":  # elsewhere it would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, candidate))
            listener.listen(128)
        except OverflowError as error:
            listener.close()
            raise AddressError(f"--port {candidate}: a port is a number from 0 to 65535.") from error
        except OSError as error:
            listener.close()
            if error.errno == errno.EADDRINUSE and port is None:
                continue
            raise AddressError(_refused(host, candidate, error)) from error
        return listener
    raise AddressError(f"The ports {ports[0]} to {ports[-1]} of {host} are all taken. Choose another with --port.")


def application(blocks: Any, folder: Path, *, local: bool = True) -> Callable[..., Any]:
    """The page as an ASGI application.

    Args:
        blocks: from `build`.
        folder: the one that was given to `build`.
        local: answer only to the names of this machine, so that no web page elsewhere can reach it by
            pointing its own name here.
    """
    import gradio as gr
    from fastapi import FastAPI

    wanted: dict[str, Any] = {
        "path": "/",
        "allowed_paths": [str(folder)],
        "footer_links": [],
        "run_history": False,
        "ssr_mode": False,
        "enable_monitoring": False,
        "mcp_server": False,
        "pwa": False,
        "root_path": "",
        "theme": _theme(gr),
        "css": (Path(__file__).with_name("app.css")).read_text("utf-8"),
        "head": '<meta name="color-scheme" content="light dark">',
    }
    known = inspect.signature(gr.mount_gradio_app).parameters
    app: Any = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app = gr.mount_gradio_app(app, blocks, **{name: value for name, value in wanted.items() if name in known})
    return _guarded(app, local)


def serve(
    *,
    host: str = LOOPBACK,
    port: int | None = None,
    open_browser: bool = False,
    registry: Registry | None = None,
    vocoder: str | None = None,
) -> None:
    """Serve the playground until Ctrl-C.

    Args:
        host: of this machine; anything but loopback lets other machines in.
        port: default: 7860 or, if that is taken, the next free one; 0: any.
        open_browser: show the page.
        registry: where vocoders come from; default: the process-wide one.
        vocoder: the name chosen at first.

    Raises:
        AddressError: the address is taken or cannot be used; the message says what to do.
    """
    with tempfile.TemporaryDirectory(prefix="distill-playground-", ignore_cleanup_errors=True) as scratch:
        quiet_environment(Path(scratch))
        from . import build  # before anything else, for it tells what is not installed

        with bind(host, port) as listener:
            _serve(listener, Path(scratch).resolve(), build, open_browser, registry, vocoder)
    sys.stderr.write("The playground has ended.\n")


def _serve(
    listener: socket.socket,
    scratch: Path,
    build: Callable[..., Any],
    open_browser: bool,
    registry: Registry | None,
    vocoder: str | None,
) -> None:
    import uvicorn

    folder = scratch / "sounds"
    folder.mkdir()
    address = url(listener)
    local = is_loopback(listener)
    app = application(build(folder, registry, vocoder=vocoder), folder, local=local)
    sys.stderr.write(f"The playground is at {address}  (Ctrl-C ends it)\n")
    if not local:
        sys.stderr.write("It is not on loopback: who can reach this machine can use it.\n")
    sys.stderr.flush()
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1, access_log=False, ws="none")
    )
    if open_browser:
        threading.Timer(0.5, webbrowser.open, [address]).start()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _as_interrupt)  # to a service manager's, too, what was written is cleared away
    errors = logging.getLogger("uvicorn.error")

    def unasked(record: logging.LogRecord) -> bool:
        """Once it ends, an answer that a browser had not read to its end is no error."""
        return not server.should_exit

    errors.addFilter(unasked)
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:  # uvicorn, its work done, hands on the signal that it had caught
        pass
    finally:
        errors.removeFilter(unasked)
        jobs.stop_all(timeout=5)


def _as_interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def url(listener: socket.socket) -> str:
    """Where a browser on this machine finds it."""
    host, port = listener.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = LOOPBACK
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def is_loopback(listener: socket.socket) -> bool:
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def quiet_environment(scratch: Path) -> None:
    """What Gradio reads when it is first imported: it puts its files there, and reports nothing to anybody."""
    os.environ["GRADIO_TEMP_DIR"] = str(scratch / "uploads")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


def _guarded(app: Callable[..., Any], local: bool) -> Callable[..., Any]:
    async def guarded(scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        said = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if local and not _is_local_name(said.get(b"host", "")):
            await _answer(send, 421, "This playground answers to localhost and 127.0.0.1 only.\n")
            return
        # A browser lets any page send a form here, files included, although it may not read the answer.
        if local and b"origin" in said and not _is_local_name(said[b"origin"].rpartition("/")[2]):
            await _answer(send, 403, "This playground answers to its own page only.\n")
            return

        async def sent(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        await app(scope, receive, sent)

    return guarded


def _is_local_name(host: str) -> bool:
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    name = name.strip("[]").lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


async def _answer(send: Any, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


def _theme(gr: Any) -> Any:
    """Fonts that are on the machine, Gradio's own themes fetch theirs from the network; and labels that can be read."""
    theme = gr.themes.Soft(
        primary_hue="indigo",
        secondary_hue="indigo",
        neutral_hue="slate",
        font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
        font_mono=["ui-monospace", "SFMono-Regular", "Consolas", "monospace"],
    )
    # Soft's labels have a contrast of 3.6 in the light; text asks for 4.5.
    return theme.set(block_label_text_color="*primary_600", block_title_text_color="*primary_600")


def _refused(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} of {host} is taken by another program. Choose another with --port, or 0 for any free one."
    if error.errno == errno.EACCES:
        return f"Port {port} of {host} may not be used by you ({error.strerror}). Choose one above 1023 with --port."
    return f"The playground cannot be served at {host}, port {port}: {error.strerror or error}."
