"""Catching an OAuth redirect on the loopback interface (RFC 8252)."""

from __future__ import annotations

import hmac
import html
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from omni.errors import AuthError, ConfigError

PATH = "/callback"
SETTLE_SECONDS = 5.0
SHOW_SECONDS = 150.0
"""How long the browser waits to hear how it went."""
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Omni Pipelines</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:32rem;margin:15vh auto;padding:0 1rem}}</style>
<h1>{title}</h1><p>{text}</p></html>"""


@dataclass
class Catcher:
    """Waits for one redirect. `redirect_uri` is where the vendor must send the browser."""

    redirect_uri: str
    _state: str = field(repr=False)
    _came: threading.Event = field(default_factory=threading.Event, repr=False)
    _said: threading.Event = field(default_factory=threading.Event, repr=False)
    _sent: threading.Event = field(default_factory=threading.Event, repr=False)
    _answer: dict[str, str] = field(default_factory=dict, repr=False)
    _shown: tuple[str, str] = ("No answer", "The command has ended.")

    def wait(self, seconds: float) -> dict[str, str]:
        """The redirect's parameters. The browser is kept waiting until `show`.

        Args:
            seconds: how long to wait.

        Raises:
            AuthError: none came in time.
        """
        if not self._came.wait(seconds):
            raise AuthError(
                f"Nobody consented within {seconds:.0f} s; nothing was stored. Run the command again."
            )
        return dict(self._answer)

    def show(self, title: str, text: str) -> None:
        """What the browser shows now."""
        self._shown = (title, text)
        self._said.set()
        self._sent.wait(SETTLE_SECONDS)

    def _take(self, query: str) -> tuple[int, bytes]:
        """Take a redirect's parameters; the first one with our state counts, any page may send others."""
        answer = dict(parse_qsl(query, keep_blank_values=True))
        if not hmac.compare_digest(answer.get("state", "").encode(), self._state.encode()):
            return 400, _page("Not this attempt", "Use the page that the command opened.")
        if not self._came.is_set():
            self._answer = answer
            self._came.set()
        self._said.wait(SHOW_SECONDS)
        return 200, _page(*self._shown)


def _page(title: str, text: str) -> bytes:
    return PAGE.format(title=html.escape(title), text=html.escape(text)).encode()


@contextmanager
def catching(state: str, port: int = 0) -> Iterator[Catcher]:
    """Listen on 127.0.0.1 for a redirect, for the length of a `with` block.

    Args:
        state: what the redirect must carry; others are turned away.
        port: 0 takes a free one; a vendor that wants the address registered needs a fixed one.

    Raises:
        ConfigError: the port cannot be used.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if parts.path != PATH:
                self.send_error(404)
                return
            status, body = catcher._take(parts.query)
            self.send_response(status)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            # The address in the browser holds the code: keep it from other pages and from caches.
            self.send_header("Referrer-Policy", "no-referrer")
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)
            if status == 200:
                catcher._sent.set()

        def log_message(self, *_: object) -> None:
            """Nothing: the line would hold the code."""

    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except (OSError, OverflowError) as error:
        said = getattr(error, "strerror", None) or error
        raise ConfigError(f"Port {port} cannot be used ({said}); choose another or 0.") from None
    server.daemon_threads = True
    catcher = Catcher(f"http://127.0.0.1:{server.server_port}{PATH}", state)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield catcher
    finally:
        catcher._said.set()
        server.shutdown()
        server.server_close()
        thread.join(SETTLE_SECONDS)
