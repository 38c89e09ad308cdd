"""Reading a server over HTTP, against programs that answer otherwise than they should."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from omni.errors import AuthError, OmniError, SourceError, TransientError
from omni.orchestrator import api, process

Serve = Callable[[int, str], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a program that answers everything with one status and body; gives its address."""
    servers: list[ThreadingHTTPServer] = []

    def start(status: int, body: str) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body.encode())

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.do_GET()

            def log_message(self, *_: object) -> None:
                return

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/api"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [(200, "true", True), (200, "<html>", False), (200, '{"ok": true}', False), (500, "true", True)],
    ids=["Prefect", "another page", "another API", "only the body counts"],
)
def test_health_is_prefects_answer(serve: Serve, status: int, body: str, expected: bool) -> None:
    assert api.healthy(serve(status, body)) is expected


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/api", "not a url", "http://[::bad/api"])
def test_nobody_there_is_not_healthy(url: str) -> None:
    assert not api.healthy(url, 1.0)
    assert api.version(url) is None


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (401, "", AuthError),
        (503, "", TransientError),
        (404, "", SourceError),
        (200, "<html>", SourceError),
        (200, "{}", SourceError),
    ],
    ids=["refused", "overloaded", "no such route", "no JSON", "other JSON"],
)
def test_wrong_answers_become_our_errors(
    serve: Serve, status: int, body: str, error: type[OmniError]
) -> None:
    url = serve(status, body)
    with pytest.raises(error):
        api.count_task_runs(url)
    with pytest.raises(error):
        api.recent_runs(url)


def test_drain_gives_up_in_time(serve: Serve) -> None:
    begun = time.monotonic()
    records = api.drain(serve(200, "3"), "run", expected=5, timeout=0.5)
    assert (records.finished, records.expected, records.complete) == (3, 5, False)
    assert time.monotonic() - begun < 5


def test_drain_on_a_dead_server_raises() -> None:
    with pytest.raises(TransientError):
        api.drain(f"http://127.0.0.1:{process.free_port(0)}/api", "run", expected=1, timeout=0.3)


def test_settle_waits_for_rest(serve: Serve) -> None:
    assert api.settle(serve(200, json.dumps(4)), quiet=0.3, timeout=5)
