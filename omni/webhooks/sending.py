"""One request to a subscriber: signed, to an address that was looked at, and over when its time is."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx

from omni.control.database import now
from omni.errors import OmniError
from omni.webhooks import targets
from omni.webhooks.signatures import standard_headers

SEND_SECONDS = 60.0
"""How long one request may take in all: a receiver that answers a byte at a time gets no further."""
LONGEST_WAIT = timedelta(hours=24)
"""The longest `Retry-After` that is followed."""


@dataclass(frozen=True)
class Due:
    """A delivery to make.

    Attributes:
        leased_until: what its row says while it is this sender's; after a lease is lost it says otherwise.
        trouble: why it cannot be made; then it holds no address, secret or body.
    """

    id: int
    subscription: str
    message_id: str
    created_at: datetime
    url: str = field(repr=False)
    secret: str = field(repr=False)
    body: bytes = field(repr=False)
    leased_until: datetime | None = None
    trouble: str = ""


@dataclass(frozen=True)
class Result:
    """How a receiver answered: its status, or why there is none, and the seconds it asked to wait."""

    status: int | None
    reason: str = ""
    retry_after: float | None = None

    @property
    def good(self) -> bool:
        """It was taken."""
        return self.status is not None and 200 <= self.status < 300


def client(timeout: httpx.Timeout, tls: ssl.SSLContext | bool = True) -> httpx.Client:
    """A client that keeps nothing between two requests, since they go to different people.

    No cookies, and no connections: one that was checked for a name must not serve another name that happens
    to have the same address.
    """
    return httpx.Client(
        timeout=timeout,
        follow_redirects=False,
        trust_env=False,
        verify=tls,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        limits=httpx.Limits(max_keepalive_connections=0),
    )


class _Line:
    """The connection of one request, which another thread may cut."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._lock, self.cut = threading.Lock(), False

    def trace(self, name: str, info: Mapping[str, Any]) -> None:
        """Told by httpx of each step. A second handle is kept, since TLS takes the first one over."""
        if name == "connection.connect_tcp.complete":
            with self._lock:
                self._socket = info["return_value"].get_extra_info("socket").dup()
            if self.cut:
                self.end()

    def end(self) -> None:
        """Whoever reads or writes on it is woken with an error."""
        with self._lock:
            self.cut = True
            if self._socket is not None:
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of it."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None


@contextmanager
def _timed(seconds: float) -> Iterator[_Line]:
    line = _Line()
    timer = threading.Timer(seconds, line.end)
    timer.daemon = True
    timer.start()
    try:
        yield line
    finally:
        timer.cancel()
        line.close()


def send(by: httpx.Client, due: Due, *, loopback: bool = False, seconds: float = SEND_SECONDS) -> Result:
    """One request. Whatever goes wrong is an answer; no message names the address.

    Args:
        by: as `client` makes one.
        due: what to send.
        loopback: this machine may be sent to.
        seconds: the most it may take, from the first connection to the end of the answer's headers.
    """
    try:
        target = targets.resolve(due.url, loopback=loopback)
    except OmniError as error:
        return Result(None, str(error))
    headers = {
        **standard_headers(due.secret, due.message_id, int(time.time()), due.body),
        "Content-Type": "application/json",
        "Host": target.host,
        "User-Agent": "omni-pipelines",
    }
    with _timed(seconds) as line:
        more = {"sni_hostname": target.name, "trace": line.trace}
        try:
            with by.stream("POST", target.url, content=due.body, headers=headers, extensions=more) as answer:
                wait = _retry_after(answer.headers.get("retry-after"))
                return Result(answer.status_code, f"status {answer.status_code}", wait)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            if line.cut:
                return Result(None, f"no answer: not within {seconds:g} seconds")
            return Result(None, f"no answer: {type(error).__name__}")


def _retry_after(text: str | None) -> float | None:
    """Seconds, given as a number or a date."""
    if not text:
        return None
    try:
        wait = float(text) if text.strip().isdigit() else _until(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(wait, 0.0), LONGEST_WAIT.total_seconds())


def _until(text: str) -> float:
    at = parsedate_to_datetime(text)
    return (at - now()).total_seconds()
