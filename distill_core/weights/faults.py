"""What went wrong while fetching, in words for the person who waits, and whether waiting longer helps.

huggingface_hub has used three HTTP libraries over the years. Their exceptions share names, not classes,
so they are told apart by name.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from ..errors import (
    DistillError,
    WeightsDownloadError,
    WeightsError,
    WeightsIntegrityError,
    WeightsNotFoundError,
    WeightsOfflineError,
)
from ..progress import raised_by_a_bar
from ..wording import without_login

_HTTP_LIBRARIES = {"httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3", "ssl", "socket", "h11"}
_NAME_NOT_FOUND = ("name or service not known", "getaddrinfo", "nodename nor servname", "name resolution")
_KEPT = "What has arrived is kept: the next call goes on from there."


@dataclass(frozen=True)
class Target:
    """What is being asked for: one file of a repository at a revision, at `url`."""

    repo: str
    revision: str
    name: str
    url: str

    @property
    def host(self) -> str:
        """For messages: without the name and password that HF_ENDPOINT may have in front of it."""
        return urlsplit(self.url).netloc.rpartition("@")[2]

    def at(self, revision: str) -> Target:
        """The same file at another revision."""
        return self if revision == self.revision else Target.of(self.repo, revision, self.name)

    @classmethod
    def of(cls, repo: str, revision: str, name: str) -> Target:
        """The file at its address on the Hub (`HF_ENDPOINT`)."""
        from huggingface_hub import hf_hub_url

        return cls(repo, revision, name, hf_hub_url(repo, name, revision=revision))

    def __str__(self) -> str:
        return f"{self.repo}/{self.name}"


@dataclass(frozen=True)
class Fault:
    """An `error` to raise. Trying again may help if `transient`, after `wait` seconds if the server said so;
    an `unreachable` server may come back if it was there a moment ago."""

    error: WeightsError
    transient: bool = False
    unreachable: bool = False
    wait: float | None = None


def explain(error: Exception, target: Target) -> Fault:
    """The fault behind an exception of the HTTP client or the file system; others are raised again."""
    if raised_by_a_bar(error):
        raise error
    if isinstance(error, WeightsError):
        return Fault(error, transient=isinstance(error, WeightsDownloadError))
    if isinstance(error, DistillError):
        raise error
    names = {kind.__name__ for kind in type(error).__mro__}
    response = getattr(error, "response", None)
    if "OfflineModeIsEnabled" in names:
        return Fault(WeightsOfflineError("HF_HUB_OFFLINE forbids the network."))
    if response is not None and getattr(response, "status_code", 0) >= 400:
        return _answered(response, names, target)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Fault(WeightsError(f"The disk is full: {target} does not fit ({_where(error)}). {_KEPT}"))
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Fault(WeightsError(f"{target} cannot be stored: {_where(error)}. Point HF_HOME at a folder of yours."))
    root = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    if root & _HTTP_LIBRARIES or isinstance(error, ConnectionError | TimeoutError):
        return _unanswered(error, names, target)
    raise error


def _answered(response: Any, names: set[str], target: Target) -> Fault:
    status, host = response.status_code, target.host
    code = response.headers.get("X-Error-Code", "")
    said = response.headers.get("X-Error-Message") or ""
    quoted = f" It said: {said}" if said else ""
    if status == 401:
        return Fault(
            WeightsDownloadError(
                f"401: {host} wants a valid login for {target.repo}, or the repository does not exist.{quoted} "
                "Set HF_TOKEN to a valid token, or run `hf auth login`; unset it if it is out of date."
            )
        )
    if status in (403, 451):
        gated = " Ask for access on its page." if code == "GatedRepo" else ""
        return Fault(WeightsDownloadError(f"{status}: {host} does not let you have {target}.{gated}{quoted}"))
    if status == 404:
        if code == "RevisionNotFound" or "RevisionNotFoundError" in names:
            missing = f"{target.repo} has no revision {target.revision}"
        elif code == "EntryNotFound" or "EntryNotFoundError" in names:
            missing = f"{target.repo} has no file {target.name} at revision {target.revision}"
        else:
            missing = f"there is no repository {target.repo}"
        return Fault(WeightsNotFoundError(f"404: {missing} at {host}.{quoted} A mirror (HF_ENDPOINT) may lack it."))
    if status == 429:
        wait = _retry_after(response)
        when = f"in {wait:.0f} s" if wait is not None else "later"
        return Fault(
            WeightsDownloadError(f"429: {host} has had too many requests from here. Try again {when}. {_KEPT}"),
            transient=True,
            wait=wait,
        )
    transient = status >= 500 or status == 408
    return Fault(
        WeightsDownloadError(f"{status}: {host} could not serve {target}.{quoted} {_KEPT}"),
        transient=transient,
        wait=_retry_after(response) if transient else None,
    )


def _unanswered(error: Exception, names: set[str], target: Target) -> Fault:
    said = " ".join(str(error).split()).replace(target.url, without_login(target.url)) or type(error).__name__
    if "ProxyError" in names:
        return Fault(WeightsOfflineError(f"the proxy does not let us reach {target.host}: {said}. See HTTPS_PROXY."))
    if "SSLError" in names or "CERTIFICATE_VERIFY_FAILED" in said:
        return Fault(
            WeightsDownloadError(
                f"{target.host} does not prove who it is: {said}. Behind a proxy that opens connections, "
                "point SSL_CERT_FILE at its certificate."
            )
        )
    if any("Timeout" in name for name in names) or "timed out" in said.lower():
        return Fault(WeightsDownloadError(f"{target.host} stopped answering during {target}. {_KEPT}"), transient=True)
    if any(hint in said.lower() for hint in _NAME_NOT_FOUND):
        message = f"the name {target.host} cannot be resolved (is there a network? is HF_ENDPOINT right?)."
        return Fault(WeightsOfflineError(message), unreachable=True)
    if "ConnectError" in names or "NewConnectionError" in said or isinstance(error, ConnectionRefusedError):
        return Fault(WeightsOfflineError(f"{target.host} cannot be reached: {said}."), unreachable=True)
    if {"UnsupportedProtocol", "InvalidURL", "MissingSchema", "InvalidSchema", "TooManyRedirects"} & names:
        return Fault(WeightsDownloadError(f"{without_login(target.url)} cannot be fetched: {said}. Check HF_ENDPOINT."))
    return Fault(WeightsDownloadError(f"The connection to {target.host} broke off ({said}). {_KEPT}"), transient=True)


def refused(target: Target, reason: str) -> WeightsIntegrityError:
    """What came is not what was asked for, and was thrown away."""
    return WeightsIntegrityError(
        f"{target} was refused and thrown away: {reason}. Call again to download it anew; "
        "if that does not help, something between here and the Hub changes files."
    )


def _retry_after(response: Any) -> float | None:
    said = (response.headers.get("Retry-After") or "").strip()
    if said.isascii() and said.isdigit():  # "²" is a digit too, of which no number can be made
        return float(said)
    try:
        from datetime import datetime, timezone

        return max(0.0, (parsedate_to_datetime(said) - datetime.now(timezone.utc)).total_seconds())
    except (TypeError, ValueError):
        return None


def _where(error: OSError) -> str:
    return f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror)
