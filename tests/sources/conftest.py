"""Loopback servers for the sources' tests: real HTTP, whatever answers a test wants."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from pydantic import SecretStr

from omni.sources.connection import Connection


@dataclass
class Asked:
    """One request as the server saw it."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    headers: dict[str, str]
    target: str


@dataclass
class Answer:
    """What to send back; `cut` announces more bytes than follow."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False


@dataclass
class Server:
    """A running loopback server and what it was asked."""

    url: str
    asked: list[Asked]


@contextmanager
def _serving(answer: Callable[[Asked], Answer]) -> Iterator[Server]:
    asked: list[Asked] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def _handle(self) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
            parts = urlsplit(self.path)
            headers = {k.lower(): v for k, v in self.headers.items()}
            body = json.loads(raw) if raw else None
            request = Asked(self.command, parts.path, dict(parse_qsl(parts.query)), body, headers, self.path)
            with lock:
                asked.append(request)
                reply = answer(request)
            content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content) + 100 * reply.cut))
            self.end_headers()
            self.wfile.write(content)
            self.wfile.flush()
            self.close_connection = reply.cut

        do_GET = do_POST = _handle

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    thread = threading.Thread(target=httpd.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield Server(f"http://127.0.0.1:{httpd.server_port}", asked)
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


@pytest.fixture
def serve():
    """Start a server that answers each request by a function; it ends with the test."""
    with ExitStack() as stack:
        yield lambda answer: stack.enter_context(_serving(answer))


@pytest.fixture
def answering():
    """Make an answer: `answering(body, status, headers, cut=…)`."""
    return Answer


@pytest.fixture
def connect():
    """A connection without long waits: `connect("hubspot", url)`."""

    def make(vendor: str, url: str, **changes: Any) -> Connection:
        options = {"backoff": 0.001, "requests_per_10s": 100_000, "searches_per_second": 100_000}
        token = SecretStr(changes.pop("token", "token-for-tests"))
        return Connection(vendor, url, token, **(options | changes))

    return make
