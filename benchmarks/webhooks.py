"""How fast deliveries are answered: a real server process, signed HubSpot batches, many senders at once.

    python -m benchmarks.webhooks [--requests 200] [--events 100] [--senders 1 20 200]

Each request is a batch of distinct events, verified, sealed and committed with fsync before it is answered.
Prints the median, the 99th percentile and the slowest answer in milliseconds for each number of senders at
once, and checks that every event is in the inbox.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import httpx

from omni.sandbox.hubspot_events import event, signed

SECRET = "bench-secret"
PATH = "/webhooks/demo/hubspot"


async def _post(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, url: str, body: bytes) -> float:
    """Seconds from the first byte sent to the last one received. By hand, as clients cost more than this."""
    headers = signed(SECRET, "POST", url + PATH, body) | {"Content-Length": str(len(body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    request = f"POST {PATH} HTTP/1.1\r\nHost: {url.partition('//')[2]}\r\n{lines}\r\n".encode() + body
    started = time.perf_counter()
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    await reader.readexactly(int(head.partition("content-length: ")[2].split("\r\n")[0]))
    taken = time.perf_counter() - started
    assert head.startswith("http/1.1 200"), head
    return taken


async def _send(url: str, bodies: list[bytes], senders: int) -> list[float]:
    """Seconds each answer took; connections are made beforehand, as vendors keep them."""
    host, port = url.removeprefix("http://").split(":")
    queue, taken = list(bodies), []
    ends = [await asyncio.open_connection(host, int(port)) for _ in range(senders)]

    async def sender(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while queue:
            taken.append(await _post(reader, writer, url, queue.pop()))

    await asyncio.gather(*(sender(*end) for end in ends))
    for _, writer in ends:
        writer.close()
    return taken


def _start(home: str) -> tuple[subprocess.Popen[str], str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = os.environ | {"OMNI_HOME": home, "OMNI_HUBSPOT__WEBHOOK_SECRET": SECRET}
    command = [sys.executable, "-c", "from omni.cli import app; app()", "webhooks", "serve"]
    child = subprocess.Popen(
        [*command, "--port", str(port)], env=variables, stdout=subprocess.PIPE, text=True
    )
    url = f"http://127.0.0.1:{port}"
    while child.poll() is None:
        try:
            httpx.get(f"{url}/health")
            return child, url
        except httpx.ConnectError:
            time.sleep(0.05)
    raise RuntimeError("the server ended while starting")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--events", type=int, default=100, help="in one request; HubSpot sends at most 100")
    parser.add_argument("--senders", type=int, nargs="+", default=[1, 20, 200])
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        child, url = _start(home)
        try:
            sent = 0
            for senders in chosen.senders:
                bodies = []
                for _ in range(chosen.requests):
                    batch = [event("contact.creation", n, n) for n in range(sent, sent + chosen.events)]
                    bodies.append(json.dumps(batch).encode())
                    sent += chosen.events
                started = time.perf_counter()
                taken = asyncio.run(_send(url, bodies, senders))
                wall = time.perf_counter() - started
                cuts = statistics.quantiles(taken, n=100)
                print(
                    f"{senders:4} senders: median {1000 * cuts[49]:6.1f} ms, p99 {1000 * cuts[98]:6.1f} ms, "
                    f"slowest {1000 * max(taken):6.1f} ms, {chosen.requests / wall:6.0f} requests/s"
                )
        finally:
            child.terminate()
            child.wait()
        os.environ["OMNI_HOME"] = home
        from omni.webhooks import inbox

        assert inbox.listing("demo").counts == [("hubspot", "new", sent)], inbox.listing("demo").counts
        print(f"{sent} events in the inbox")


if __name__ == "__main__":
    main()
