"""The door and the window over HTTP: who may, what is answered, event streams, WebSockets, slow clients."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import httpx
import pytest
import uvicorn
from starlette.testclient import TestClient

from omni.settings import settings
from omni.usage import server
from omni.usage.collect import Collector
from omni.usage.feed import Feed
from omni.usage.keys import digest, new_key
from omni.usage.live import Live, select_live, take_turn
from omni.usage.spool import read_segment, sealed_segments, spool_folder


@pytest.fixture
def keys(home, monkeypatch):
    """A write key and a read key of acme."""
    made = {purpose: new_key(purpose) for purpose in ("write", "read")}
    for purpose, (_, kept) in made.items():
        monkeypatch.setenv(f"OMNI_EVENTS__{purpose.upper()}_KEYS", json.dumps({"acme": f"{'0' * 64} {kept}"}))
    settings.cache_clear()
    return {purpose: key for purpose, (key, _) in made.items()}


@pytest.fixture
def client(keys, tenant):
    with TestClient(server.build_app([tenant])) as client:
        yield client


def bearer(key):
    return {"authorization": f"Bearer {key}"}


def spooled(tenant):
    segments = [read_segment(path) for path in sealed_segments(spool_folder(tenant))]
    return [name for segment in segments for name in segment.rows["event_id"].to_pylist()]


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def test_accepted_events_are_in_the_spool(keys, tenant, event):
    with TestClient(server.build_app([tenant])) as client:
        one = client.post("/events/acme", json=event(1, now()), headers=bearer(keys["write"]))
        assert (one.status_code, one.json()) == (202, {"accepted": 1, "refused": 0, "reasons": []})
        many = client.post(f"/events/acme?key={keys['write']}", json=[event(2, now()), {"id": 5}])
        assert many.json()["accepted"] == 1
        assert many.json()["reasons"] == [{"index": 1, "reason": "Expected `str`, got `int` - at `$.id`"}]
        lines = "\n".join(json.dumps(event(n, now())) for n in (3, 4))
        headers = {**bearer(keys["write"]), "content-type": "application/x-ndjson"}
        assert client.post("/events/acme", content=lines, headers=headers).json()["accepted"] == 2
    assert spooled(tenant) == ["e1", "e2", "e3", "e4"]


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer omw_wrong", "Basic {write}", "Bearer {read}"])
def test_without_a_write_key_nothing_is_taken(client, keys, tenant, event, given):
    headers = {"authorization": given.format(**keys)}
    assert client.post("/events/acme", json=event(1, now()), headers=headers).status_code == 401
    assert client.post("/events/other", json=event(1), headers=bearer(keys["write"])).status_code == 401
    assert list(spool_folder(tenant).iterdir()) == []


@pytest.mark.parametrize("path", ["/live/acme", "/live/acme/events", "/live/other"])
def test_a_write_key_may_not_watch(client, keys, path):
    assert client.get(path, headers=bearer(keys["write"])).status_code == 401
    assert client.get(path).status_code == 401


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "empty"),
        (b"[{}", 400, "no JSON array"),
        (b"[" * 9_999, 400, "no JSON array"),
        (b"{}", 400, "missing required field"),
        (b"[" + b"{}," * 10_001 + b"{}]", 400, "At most 10000"),
        (b" " * (server.MAX_BODY + 1), 413, "at most"),
    ],
)
def test_bad_deliveries_are_told_why(client, keys, body, status, said):
    answer = client.post("/events/acme", content=body, headers=bearer(keys["write"]))
    assert answer.status_code == status
    assert said in answer.text


def test_a_body_of_unknown_length_is_read_no_further_than_the_cap(client, keys):
    chunks = (b" " * 1024 * 1024 for _ in range(50))
    assert client.post("/events/acme", content=chunks, headers=bearer(keys["write"])).status_code == 413


def test_a_spool_that_cannot_be_written_answers_503(client, keys, tenant, event, caplog):
    spool_folder(tenant).rename(spool_folder(tenant).with_name("away"))
    answer = client.post("/events/acme", json=event(1, now()), headers=bearer(keys["write"]))
    assert answer.status_code == 503
    assert "make the folder writable" in caplog.text
    spool_folder(tenant).with_name("away").rename(spool_folder(tenant))
    assert client.post("/events/acme", json=event(1, now()), headers=bearer(keys["write"])).status_code == 202


def test_a_full_spool_and_too_many_bytes_at_once_answer_503(keys, tenant, event, caplog, monkeypatch):
    monkeypatch.setenv("OMNI_EVENTS__SPOOL_BYTES", "1000000")
    settings.cache_clear()
    with TestClient(server.build_app([tenant])) as client:

        def send():
            return client.post("/events/acme", json=event(1, now()), headers=bearer(keys["write"]))

        client.app.state.flight.most = 20
        assert (send().status_code, client.app.state.flight.held) == (503, 0)
        client.app.state.flight.most = 2_000
        waiting = spool_folder(tenant) / "1.seg"
        waiting.touch()
        os.truncate(waiting, 1_000_000)
        refused = send()
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert "is full" in caplog.text
        assert client.app.state.flight.held == 0
        waiting.unlink()
    with TestClient(server.build_app([tenant])) as client:
        assert client.post(
            "/events/acme", json=event(1, now()), headers=bearer(keys["write"])
        ).status_code == 202  # fmt: skip


def test_deliveries_share_a_write_up_to_so_many_bytes(home, tenant, event):
    batch = Collector(tenant).read(json.dumps(event(1, now())).encode()).batch
    portions = server._portions([(batch, None)] * 5, most=2 * batch.bytes)
    assert [len(portion) for portion in portions] == [2, 2, 1]


def test_pages_of_the_listed_origins_may_send(keys, tenant, event, monkeypatch):
    monkeypatch.setenv("OMNI_EVENTS__ORIGINS", '["https://shop.example"]')
    settings.cache_clear()
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    with TestClient(server.build_app([tenant])) as client:
        for origin, answered in (("https://shop.example", 200), ("https://other.example", 400)):
            answer = client.options("/events/acme", headers={"origin": origin, **asked})
            assert answer.status_code == answered
        sent = client.post(
            "/events/acme", json=event(1, now()),
            headers={"origin": "https://shop.example", **bearer(keys["write"])},
        )  # fmt: skip
        assert (sent.status_code, sent.headers["access-control-allow-origin"]) == (
            202,
            "https://shop.example",
        )


def test_a_watcher_that_sends_bytes_leaves_its_place(client, keys):
    feed = client.app.state.feeds["acme"]
    feed.publish(state(1))
    with client.websocket_connect(f"/live/acme/socket?key={keys['read']}") as watching:
        assert watching.receive_json()["sequence"] == 1
        watching.send_bytes(b"\0")
        feed.publish(state(2))
        assert watching.receive_json()["sequence"] == 2
    assert feed.listeners == 0


@pytest.mark.parametrize("last", [b"x", b"9" * 5_000, b"1-2-3", b"5-7", b"7"])
def test_whatever_a_stream_is_resumed_from_is_answered(client, keys, last):
    client.app.state.feeds["acme"].close()  # so that the stream ends
    headers = {**bearer(keys["read"]), "last-event-id": last}
    assert client.get("/live/acme/events", headers=headers).status_code == 200


def test_what_another_process_keeps_live_is_shown(keys, tenant, live, put, event):
    with TestClient(server.build_app([tenant])) as client:
        assert client.get("/live/acme", headers=bearer(keys["read"])).status_code == 404
    put([event(1)])
    take_turn(live)
    with TestClient(server.build_app([tenant])) as client:
        with client.websocket_connect(f"/live/acme/socket?key={keys['read']}") as socket:
            assert socket.receive_json()["metrics"] == {"events": 1.0}
            put([event(2), event(3, "2026-03-09T11:00:00Z")])
            take_turn(live)
            told = socket.receive_json()
        assert (told["sequence"], told["metrics"]) == (2, {"events": 2.0})
        assert [(one["day"], one["value"]) for one in told["corrections"]] == [("2026-03-09", 1.0)]
        assert client.get("/live/acme", headers=bearer(keys["read"])).json()["sequence"] == 2


@contextmanager
def running(app):
    """A real server on a free port."""
    running = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
    thread.start()
    while not running.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        running.should_exit = True
        thread.join()
        listening.close()


def _next(lines):
    """The next event of a stream: its id and data."""
    found = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if not line and "data" in found:
            return found["id"], json.loads(found["data"])
        found[name] = value
    raise AssertionError("the stream ended")


@pytest.mark.slow
def test_an_accepted_event_is_seen_in_the_stream(keys, tenant, small_models, event):
    """All in one process: the door, the turns and the stream; a reconnecting client gets what it missed."""
    kept = Live(tenant, small_models, select_live(small_models))
    with running(server.build_app([tenant], [kept], every=0.2)) as url, httpx.Client(base_url=url) as http:

        def send(*events):
            assert http.post("/events/acme", json=[*events], headers=bearer(keys["write"])).status_code == 202

        yesterday = time.strftime("%Y-%m-%dT12:00:00Z", time.gmtime(time.time() - 2 * 86_400))
        send(event(1, now()), event(0, yesterday))
        with http.stream("GET", "/live/acme/events", headers=bearer(keys["read"])) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            lines = stream.iter_lines()
            number, state = _next(lines)
            while state["metrics"]["events"] is None:
                number, state = _next(lines)
            assert state["metrics"]["events"] == 1.0
        send(event(2, now()), event(3, yesterday))
        headers = {**bearer(keys["read"]), "last-event-id": number}
        with http.stream("GET", "/live/acme/events", headers=headers) as stream:
            _, state = _next(stream.iter_lines())
        assert state["metrics"]["events"] == 2.0
        assert [one["value"] for one in state["corrections"]] == [2.0]
        assert not state["missed"]


def state(sequence, size=0):
    return {
        "sequence": sequence, "corrections": [], "corrections_since": 0, "metrics": {}, "filling": "x" * size,
    }  # fmt: skip


def test_every_listener_gets_the_latest_and_a_slow_one_skips():
    async def watch():
        feed = Feed()
        slow, quick = feed.listen(), feed.listen()
        feed.publish(state(1))
        assert (await anext(slow))["sequence"] == 1
        for sequence in range(2, 100):
            feed.publish(state(sequence))
            assert (await anext(quick))["sequence"] == sequence
        feed.publish(state(50))
        assert (await anext(slow))["sequence"] == 99
        assert feed.listeners == 2
        await slow.aclose()
        feed.close()
        assert [told async for told in quick] == [told async for told in feed.listen()] == []
        assert feed.listeners == 0

    asyncio.run(watch())


def test_states_from_another_thread_arrive_and_silence_gives_a_beat():
    async def watch():
        feed = Feed()
        listener = feed.listen(beat=0.01)
        assert await anext(listener) is None
        threading.Thread(target=feed.publish, args=(state(1),)).start()
        while (told := await anext(listener)) is None:
            pass
        assert told["sequence"] == 1
        await listener.aclose()

    asyncio.run(watch())


@pytest.mark.slow
def test_a_client_that_does_not_read_costs_no_memory(keys, tenant, monkeypatch):
    """40 MB are published past a client that reads nothing; the server keeps one state and a full buffer."""
    import tracemalloc

    app = server.build_app([tenant])
    feed = app.state.feeds["acme"]
    feed.publish(state(1))
    with running(app) as url:
        host, port = url.removeprefix("http://").split(":")
        request = f"GET /live/acme/events?key={keys['read']} HTTP/1.1\r\nHost: x\r\n\r\n"
        with socket.create_connection((host, int(port))) as sleeping:
            sleeping.sendall(request.encode())
            sleeping.recv(100)
            tracemalloc.start()
            for sequence in range(2, 402):
                feed.publish(state(sequence, 100_000))
            with httpx.Client() as http:
                http.get(f"{url}/health")
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    assert peak < 8_000_000


@pytest.mark.slow
def test_the_served_door_leaves_at_once_although_somebody_watches(keys, home, event):
    """A process of its own: on SIGTERM streams end, what was accepted is sealed, nothing is complained of."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    digests = {purpose: json.dumps({"demo": digest(key)}) for purpose, key in keys.items()}
    variables = {f"OMNI_EVENTS__{purpose.upper()}_KEYS": value for purpose, value in digests.items()}
    command = [sys.executable, "-c", "from omni.cli import app; app()", "events", "serve", "--port"]
    with subprocess.Popen(
        [*command, url.rpartition(":")[2]], env=os.environ | variables, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as serving:  # fmt: skip
        while True:
            try:
                httpx.get(f"{url}/health")
                break
            except httpx.ConnectError:
                assert serving.poll() is None
        answer = httpx.post(f"{url}/events/demo", json=event(1, now()), headers=bearer(keys["write"]))
        assert answer.status_code == 202
        with httpx.stream("GET", f"{url}/live/demo/events", headers=bearer(keys["read"])) as stream:
            serving.send_signal(signal.SIGTERM)
            assert list(stream.iter_lines()) == []
        output = serving.stdout.read()
        assert serving.wait(10) in (0, -signal.SIGTERM)
    assert output == f"{url}/events/demo\n"
    [segment] = sealed_segments(home / "tenants" / "demo" / "spool" / "events")
    assert read_segment(segment).rows["event_id"].to_pylist() == ["e1"]
