"""A headless Chromium driven over the DevTools protocol with `websockets` alone.

`chromium --screenshot` captures pages before they are drawn; here a page is waited for by a condition in
JavaScript, and its errors and network requests are kept.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--remote-debugging-port=0",
)


def find_chromium() -> str | None:
    """The browser's path: `CHROMIUM`, or the first of the usual names that is installed."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@dataclass
class Page:
    """One tab. `errors` and `requests` fill while `call` and `wait` listen."""

    socket: ClientConnection
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command and return its result; events that arrive meanwhile are kept."""
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv(timeout=20))
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        content = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.errors.append(str(content["exceptionDetails"])[:400])
            case "Runtime.consoleAPICalled" if content["type"] in ("error", "assert", "warning"):
                self.errors.append(
                    " ".join(str(a.get("value", a.get("description"))) for a in content["args"])
                )
            case "Log.entryAdded" if content["entry"]["level"] == "error":
                self.errors.append(content["entry"]["text"])
            case "Network.requestWillBeSent":
                self.requests.append(content["request"]["url"])

    def open(self, url: str, ready: str = "window.__ready === true", *, timeout: float = 20) -> float:
        """Load a page and wait until `ready` holds.

        Returns:
            Seconds from the start of loading, by the page's own clock.

        Raises:
            TimeoutError: it does not hold within `timeout` seconds.
        """
        self.call("Page.navigate", url=url)
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.value(f"Boolean({ready})"):
                return float(self.value("performance.now()")) / 1000
        raise TimeoutError(f"{url}: {ready} did not hold within {timeout:g} s; errors: {self.errors}")

    def value(self, expression: str) -> Any:
        """What a JavaScript expression gives in the page."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        return result["result"].get("value")

    def size(self, width: int, height: int = 900) -> None:
        """Set the window's size in CSS pixels; scroll bars take none of it."""
        self.call("Emulation.setScrollbarsHidden", hidden=True)
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def scheme(self, name: str) -> None:
        """Prefer `light` or `dark`."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def screenshot(self, path: Path, *, height: int | None = None) -> None:
        """Write the page as PNG: all of it, or its upper `height` pixels."""
        whole = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": whole["width"], "height": height or whole["height"], "scale": 1}
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))


@dataclass(frozen=True)
class Browser:
    """A running browser."""

    address: str

    @contextmanager
    def page(self) -> Iterator[Page]:
        """A fresh tab, closed at the end."""
        request = urllib.request.Request(f"http://{self.address}/json/new?about:blank", method="PUT")
        with urllib.request.urlopen(request, timeout=10) as answer:
            target = json.load(answer)
        with connect(target["webSocketDebuggerUrl"], max_size=None, open_timeout=10) as socket:
            page = Page(socket)
            for domain in ("Runtime", "Page", "Network", "Log"):
                page.call(f"{domain}.enable")
            try:
                yield page
            finally:
                page.call("Page.close")


@contextmanager
def running(executable: str, profile: Path) -> Iterator[Browser]:
    """Start a browser with an empty profile and stop it at the end."""
    with subprocess.Popen(
        [executable, *OPTIONS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield Browser(_address(process, profile / "DevToolsActivePort"))
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _address(process: subprocess.Popen[bytes], file: Path) -> str:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the browser ended at once with status {process.returncode}")
        if file.exists() and (lines := file.read_text().splitlines()) and len(lines) > 1:
            return f"127.0.0.1:{lines[0]}"
        time.sleep(0.05)
    raise TimeoutError("the browser did not open its DevTools port within 30 s")


def main(arguments: list[str]) -> int:
    """Picture a page: python tests/support/browser.py PAGE.html PICTURE.png [width [height]]"""
    executable = find_chromium()
    if executable is None or not 2 <= len(arguments) <= 4:
        print("no Chromium found" if executable is None else main.__doc__, file=sys.stderr)
        return 2
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
        running(executable, Path(profile)) as browser,
        browser.page() as page,
    ):
        page.size(int(arguments[2]) if len(arguments) > 2 else 1280)
        page.open(Path(arguments[0]).resolve().as_uri())
        page.screenshot(Path(arguments[1]), height=int(arguments[3]) if len(arguments) > 3 else None)
        return 1 if page.errors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
