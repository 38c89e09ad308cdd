"""How fast events are accepted and loaded, and how soon they are seen in the live metrics.

    python -m benchmarks.events [--events 1000000] [--rate 1000] [--seconds 40] [--every 5]

1. Accepting: deliveries of 1,000 events, checked, pseudonymised and written with fsync, in one process.
2. Loading: their segments into an empty warehouse, and a small load into the full one.
3. Live: a real server (`omni events serve --live`) over that warehouse; ten deliveries a second over HTTP,
   and a listener of its event stream. An event is seen when the stream tells a metric that counts it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

COMPANY = "demo"
DELIVERY = 1_000


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _deliveries(number: int) -> Iterator[tuple[bytes, int]]:
    from omni.usage.sample import sample_events

    until = datetime.now(UTC).replace(hour=0, minute=0, second=0)
    events, batch = sample_events(number, since=until - timedelta(days=30), until=until, users=50_000), []
    for event in events:
        batch.append(event)
        if len(batch) == DELIVERY:
            yield json.dumps(batch).encode(), len(batch)
            batch = []


def accept_and_load(number: int) -> None:
    """Measure accepting and loading in this process."""
    from omni import tenancy
    from omni.usage.collect import Collector
    from omni.usage.load import load_events
    from omni.usage.spool import Spool, sealed_segments, spool_folder
    from omni.warehouse.database import open_warehouse

    tenant = tenancy.get(COMPANY)
    collector, spool, busy, cpu = Collector(tenant), Spool.of(tenant), 0.0, 0.0
    for body, _ in _deliveries(number):
        started, used = time.perf_counter(), time.process_time()
        spool.append(collector.read(body).batch)
        busy, cpu = busy + time.perf_counter() - started, cpu + time.process_time() - used
    spool.seal()
    print(f"accepting: {number / busy:,.0f} events/s, {number / cpu:,.0f} per CPU s, peak {_peak():,.0f} MiB")
    with open_warehouse(tenant) as warehouse:
        started, used = time.perf_counter(), time.process_time()
        loaded = load_events(warehouse, sealed_segments(spool_folder(tenant)), run_id="bench")
        taken, cpu = time.perf_counter() - started, time.process_time() - used
        print(
            f"loading {loaded.inserted:,}: {loaded.inserted / taken:,.0f} rows/s, "
            f"{loaded.inserted / cpu:,.0f} per CPU s, peak {_peak():,.0f} MiB"
        )
        times = []
        for turn in range(5):
            now = datetime.now(UTC).isoformat()
            sent = [
                {"id": f"small-{turn}-{n}", "source": "web", "type": "login", "time": now, "actor": f"u{n}"}
                for n in range(5_000)
            ]
            spool.append(collector.read(json.dumps(sent).encode()).batch)
            spool.seal()
            started = time.perf_counter()
            load_events(warehouse, sealed_segments(spool_folder(tenant)), run_id="bench")
            times.append(time.perf_counter() - started)
        print(f"loading 5,000 more: {statistics.median(times):.3f} s")


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from omni.cli import app; app()", "events", *arguments]


def _listen(url: str, headers: dict[str, str], seen: list[tuple[float, float]]) -> None:
    """Note when which value of the metric was told."""
    with httpx.stream("GET", f"{url}/live/{COMPANY}/events", headers=headers, timeout=None) as stream:
        for line in stream.iter_lines():
            if line.startswith("data: "):
                value = json.loads(line[6:])["metrics"]["usage_events"]
                seen.append((time.perf_counter(), value or 0.0))


def _send(url: str, headers: dict[str, str], rate: int, seconds: float) -> list[tuple[float, int]]:
    """Send at a rate; gives when each delivery was acknowledged, and how many events were by then."""
    acknowledged, total, size = [], 0, rate // 10
    with httpx.Client(headers=headers) as http:
        begun = time.perf_counter()
        while (elapsed := time.perf_counter() - begun) < seconds:
            time.sleep(max(0.0, total / rate - elapsed))
            now = datetime.now(UTC).isoformat()
            events = [
                {"id": f"live-{total + n}", "source": "web", "type": "page_view", "time": now,
                 "actor": f"user-{(total + n) % 5_000}", "data": {"page": "/live"}}
                for n in range(size)
            ]  # fmt: skip
            answer = http.post(f"{url}/events/{COMPANY}", json=events)
            assert answer.status_code == 202, answer.text
            total += size
            acknowledged.append((time.perf_counter(), total))
    return acknowledged


def live(rate: int, seconds: float, every: float) -> None:
    """Measure how soon events are seen, through a real server."""
    from omni.usage.keys import new_key

    (write, write_digest), (read, read_digest) = new_key("write"), new_key("read")
    variables = os.environ | {
        "OMNI_EVENTS__WRITE_KEYS": json.dumps({COMPANY: write_digest}),
        "OMNI_EVENTS__READ_KEYS": json.dumps({COMPANY: read_digest}),
    }
    started = time.perf_counter()
    subprocess.run(_command("live", "--once"), env=variables, check=True, stdout=subprocess.DEVNULL)
    print(f"first build of the live models: {time.perf_counter() - started:.1f} s")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        _command("serve", "-c", COMPANY, "--live", "--every", str(every), "--port", str(port)),
        env=variables, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while True:
            try:
                httpx.get(
                    f"{url}/live/{COMPANY}", headers={"authorization": f"Bearer {read}"}
                ).raise_for_status()
                break
            except httpx.HTTPError:
                assert server.poll() is None, "the server ended while starting"
                time.sleep(0.05)
        seen: list[tuple[float, float]] = []
        listener = threading.Thread(
            target=_listen, args=(url, {"authorization": f"Bearer {read}"}, seen), daemon=True
        )
        listener.start()
        while not seen:
            time.sleep(0.05)
        base = seen[-1][1]
        sent = _send(url, {"authorization": f"Bearer {write}"}, rate, seconds)
        deadline = time.perf_counter() + 60
        while seen[-1][1] - base < sent[-1][1] and time.perf_counter() < deadline:
            time.sleep(0.05)
        _report(sent, seen, base, server.pid)
    finally:
        server.terminate()
        server.wait()


def _report(
    sent: list[tuple[float, int]], seen: list[tuple[float, float]], base: float, process: int
) -> None:
    delays = []
    for at, total in sent:
        shown = next((when for when, value in seen if value - base >= total), None)
        assert shown is not None, "an acknowledged event was never seen"
        delays.append(shown - at)
    took = sent[-1][0] - sent[0][0]
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    print(
        f"live: {sent[-1][1] / took:,.0f} events/s accepted over HTTP; seen after "
        f"{statistics.median(delays):.2f} s (median), {max(delays):.2f} s at most; "
        f"server's peak {int(status['VmHWM'].split()[0]) / 1024:,.0f} MiB"
    )


def main() -> None:
    """Run all three."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rate", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--every", type=float, default=5.0)
    chosen: Any = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["OMNI_HOME"] = home
        accept_and_load(chosen.events)
        live(chosen.rate, chosen.seconds, chosen.every)


if __name__ == "__main__":
    main()
