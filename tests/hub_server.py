"""A Hugging Face Hub on loopback: speaks its protocol to the real client, with faults made to order.

    with HubServer() as hub:
        hub.add("nvidia/bigvgan_x", {"config.json": b"{}", "bigvgan_generator.pt": data})
        hub.faults.append(Fault("bigvgan_generator.pt", cut=0.5))
        subprocess.run(..., env=hub.env(tmp_path))
        hub.sent("bigvgan_generator.pt")            # bytes of content that went out

As on the Hub: `HEAD` and `GET /{repo}/resolve/{revision}/{file}` answer with X-Repo-Commit and the ETag,
small files directly, large ones with X-Linked-ETag, X-Linked-Size and a redirect to where the content
is; that does ranges. 404 and 401 carry X-Error-Code. The API knows commits and their files, as far as
`hf download` asks. Nothing else exists, and every request is written down.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = 10_000
"""Bytes from which on a file is "LFS": known by its sha256, served from elsewhere."""

_RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)\Z")
_API = re.compile(r"/api/models/([^/]+/[^/]+)/(tree|revision)/([^/]+)\Z")
_CONTENT = re.compile(r"/cdn/([^/]+/[^/]+)/([^/]+)/(.+)\Z")
_BLOCK = 16_384


@dataclass
class Fault:
    """What goes wrong with one file, or with all if `name` is "*".

    Args:
        name: the file's name.
        times: how often, None for always.
        cut: close the connection after this fraction of the file (counted from the file's start).
        stall: send nothing more after this fraction, and keep the connection open.
        hold: stop half-way until this is set, then go on.
        pace: seconds between blocks of 16 kB.
        status, headers: answer with an error instead.
        content: other bytes instead of the file, with headers to match.
        announce: say this size instead of the content's, in the metadata of the file.
        kind: the Content-Type.
        ranges: heed the Range header.
        on: "HEAD", "GET" or "CONTENT" (the redirect's target) for a status; all if empty.
    """

    name: str = "*"
    times: int | None = None
    cut: float | None = None
    stall: float | None = None
    hold: threading.Event | None = None
    pace: float = 0.0
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    announce: int | None = None
    kind: str = "application/octet-stream"
    ranges: bool = True
    on: str = ""


@dataclass
class Request:
    """One request as it came, and the bytes of content that were sent in answer so far."""

    method: str
    path: str
    headers: dict[str, str]
    sent: int = 0


class HubServer:
    """Serves repositories from memory on 127.0.0.1 until it is closed."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {}  # repo -> commit -> name -> content
        self.branches: dict[str, dict[str, str]] = {}  # repo -> branch -> commit
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.token: str | None = None  # if set, requests without it are answered 401
        self.content_host = "localhost"  # where large files are: to a client, another host than 127.0.0.1
        self.xet = False  # advertise Xet storage too, as the Hub does for many repositories
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def env(self, home: Path, **more: str) -> dict[str, str]:
        """An environment in which huggingface_hub uses this server, and `home` for its cache."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
        proxies = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
        kept = {key: value for key, value in kept.items() if key not in proxies}
        return {**kept, "HF_ENDPOINT": self.endpoint, "HF_HOME": str(home), **more}

    def add(self, repo: str, files: Mapping[str, bytes], *, commit: str | None = None, branch: str = "main") -> str:
        """Add a commit, on top of a branch; returns its 40 digits."""
        if commit is None:
            commit = hashlib.sha1(repr((repo, sorted(files.items()))).encode()).hexdigest()
        self.repos.setdefault(repo, {})[commit] = dict(files)
        self.branches.setdefault(repo, {})[branch] = commit
        return commit

    def pin(self, repo: str, *, confirmed: bool = True) -> Any:
        """A `WeightsPin` of the branch `main`: of its commit, sizes and hashes, or of its name alone."""
        from distill_core.weights.pin import WeightsPin

        commit = self.branches[repo]["main"]
        files = self.repos[repo][commit]
        if not confirmed:
            return WeightsPin(repo, "main", dict.fromkeys(files, (None, None)))
        return WeightsPin(repo, commit, {name: (len(data), sha256(data)) for name, data in files.items()})

    def sent(self, name: str | None = None) -> int:
        """Bytes of content sent so far, of one file or of all."""
        with self._lock:
            return sum(each.sent for each in self.requests if name is None or each.path.endswith("/" + name))

    def asked(self) -> list[str]:
        """`METHOD name` of every request so far, in order."""
        with self._lock:
            return [f"{each.method} {each.path.rpartition('/')[2]}" for each in self.requests]

    def forget(self) -> None:
        """Start counting anew, with no faults."""
        with self._lock:
            self.requests.clear()
        self.faults.clear()

    def close(self) -> None:
        """Stop answering; the port is free afterwards."""
        self._closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def __enter__(self) -> HubServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _fault(self, name: str, on: str) -> Fault:
        with self._lock:
            for fault in self.faults:
                if fault.name not in ("*", name) or fault.times == 0 or (fault.on and fault.on != on):
                    continue
                if fault.status is None and fault.announce is None and fault.content is None and on != "CONTENT":
                    continue  # a fault of the content is not used up by asking about it
                if fault.times is not None and (fault.status is not None or on == "CONTENT"):
                    fault.times -= 1
                return fault
        return Fault()

    def _handler(hub) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                hub.answer(self)

            do_GET = do_HEAD

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def answer(self, http: BaseHTTPRequestHandler) -> None:
        """Write a request down and answer it."""
        path = unquote(urlsplit(http.path).path)
        http.asked = Request(http.command, path, dict(http.headers))
        with self._lock:
            self.requests.append(http.asked)
        try:
            self.dispatch(http, path)
        except (BrokenPipeError, ConnectionResetError):
            http.close_connection = True

    def dispatch(self, http: BaseHTTPRequestHandler, path: str) -> None:
        """What the Hub answers to a path."""
        if api := _API.match(path):
            return self.answer_api(http, *api.groups())
        asks, content = _RESOLVE.match(path), _CONTENT.match(path)
        match = asks or content
        if match is None:
            return answer_empty(http, 404)
        repo, revision, name = match.groups()
        fault = self._fault(name, http.command if asks else "CONTENT")
        if fault.status is not None:
            return answer_empty(http, fault.status, fault.headers)
        if asks and self.token is not None and http.headers.get("authorization") != f"Bearer {self.token}":
            return answer_empty(
                http, 401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Invalid username or password."}
            )
        if repo not in self.repos:
            return answer_empty(http, 404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        commit = self.branches[repo].get(revision, revision)
        if commit not in self.repos[repo]:
            return answer_empty(http, 404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
        if name not in self.repos[repo][commit]:
            return answer_empty(http, 404, {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
        data = self.repos[repo][commit][name]
        size = len(data) if fault.announce is None else fault.announce
        if asks is None:
            return self.send(http, data, fault, {})
        about = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if len(data) >= LARGE:
            linked = {"X-Linked-ETag": f'"{sha256(data)}"', "X-Linked-Size": str(size)}
            if self.xet:
                refresh = f"{self.endpoint}/api/models/{repo}/xet-read-token/{commit}"
                linked |= {"X-Xet-Hash": sha256(data), "Link": f'<{refresh}>; rel="xet-auth"'}
            content = self.endpoint.replace("127.0.0.1", self.content_host)
            return answer_empty(http, 302, {**about, **linked, "Location": f"{content}/cdn/{repo}/{commit}/{name}"})
        about["ETag"] = f'"{git_hash(data)}"'
        if http.command == "HEAD":
            return answer_empty(http, 200, about, length=size)
        return self.send(http, data, fault, about)

    def answer_api(self, http: BaseHTTPRequestHandler, repo: str, what: str, revision: str) -> None:
        """What a commit is, or which files it has: what `hf download` asks before it downloads."""
        commit = self.branches.get(repo, {}).get(revision, revision)
        files = self.repos.get(repo, {}).get(commit)
        if files is None:
            return answer_empty(http, 404, {"X-Error-Code": "RevisionNotFound"})
        answer: object = {"id": repo, "sha": commit, "siblings": [{"rfilename": name} for name in files]}
        if what == "tree":
            answer = []
            for name, data in files.items():
                entry: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": git_hash(data)}
                if len(data) >= LARGE:
                    entry["lfs"] = {"oid": sha256(data), "size": len(data), "pointerSize": 130}
                answer.append(entry)
        return self.send(http, json.dumps(answer).encode(), Fault(kind="application/json"), {})

    def send(self, http: BaseHTTPRequestHandler, data: bytes, fault: Fault, headers: Mapping[str, str]) -> None:
        """Answer with content, or the part of it that is asked for, as far as the fault lets it."""
        body = data if fault.content is None else fault.content
        asked = re.match(r"bytes=(\d+)-", http.headers.get("Range") or "") if fault.ranges else None
        start = int(asked[1]) if asked else 0
        if asked and start >= len(body):
            answer_empty(http, 416, {"Content-Range": f"bytes */{len(body)}"})
            return
        http.send_response(206 if asked else 200)
        http.send_header("Content-Type", fault.kind)
        http.send_header("Content-Length", str(len(body) - start))
        if asked:
            http.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        for key, value in {**headers, **fault.headers}.items():
            http.send_header(key, value)
        http.end_headers()
        end = len(body)
        for limit in (fault.cut, fault.stall):
            if limit is not None:
                end = min(end, max(start, int(len(body) * limit)))
        for position in range(start, end, _BLOCK):
            block = body[position : min(position + _BLOCK, end)]
            http.asked.sent += len(block)  # before it goes out, so that who has it finds it counted
            http.wfile.write(block)
            if fault.pace:
                time.sleep(fault.pace)
            if fault.hold and position >= len(body) // 2:
                fault.hold.wait(120)
        if fault.stall is not None:
            self._closing.wait(30)
        if end < len(body):
            _hang_up(http)


def sha256(data: bytes) -> str:
    """As the Hub's ETag of a large file."""
    return hashlib.sha256(data).hexdigest()


def git_hash(data: bytes) -> str:
    """As the Hub's ETag of a small file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def answer_empty(
    http: BaseHTTPRequestHandler, status: int, headers: Mapping[str, str] | None = None, length: int = 0
) -> None:
    """Answer with headers alone."""
    http.send_response(status)
    for key, value in (headers or {}).items():
        http.send_header(key, value)
    http.send_header("Content-Length", str(length))
    http.end_headers()


def _hang_up(http: BaseHTTPRequestHandler) -> None:
    """Let what was written arrive, then break the connection off."""
    http.wfile.flush()
    http.close_connection = True
    http.connection.shutdown(socket.SHUT_WR)
    time.sleep(0.05)
    http.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
