"""The door for events and the window for watchers, as one web application.

    POST /events/<tenant>        an event, an array of events, or one per line (application/x-ndjson)
    GET  /live/<tenant>          the current window as JSON
    GET  /live/<tenant>/events   the same, again whenever it changes (Server-Sent Events)
    WS   /live/<tenant>/socket   the same over a WebSocket

The key comes as `Authorization: Bearer …`, or as `?key=` where a browser cannot set headers; no access log
is kept. An answer of 202 follows fsync: what was accepted is not lost. What arrives at the same moment shares
one write.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from omni.errors import StorageError
from omni.settings import settings
from omni.tenancy import Tenant
from omni.usage.collect import Collector, Delivery, Malformed
from omni.usage.feed import Feed, State, follow
from omni.usage.keys import Purpose, allowed
from omni.usage.live import Live, run_turns
from omni.usage.spool import Batch, Spool, merged

MAX_BODY = 8 * 1024 * 1024
"""Bytes of a delivery."""
BODY_SECONDS = 10.0
LARGE = 100_000
"""Bodies over this are read in another thread, so that small ones need not wait."""
STORE_SECONDS = 5.0
WAITING_MOST = 2_000
"""Deliveries that may wait to be written; more are answered 503."""
MERGE_BYTES = 64 * 1024 * 1024
"""Bytes of deliveries that share one write."""
FLIGHT_BYTES = 256 * 1024 * 1024
"""Bytes of bodies that are read and not yet answered, of all senders; more are answered 503."""
LOG_SECONDS = 10.0
"""A trouble that every delivery has is logged so often."""
SEAL_SECONDS = 1.0
"""How long events wait in an open segment for another process to load them."""
BEAT_SECONDS = 15.0
LISTENERS_MOST = 500
SHOWN_REFUSALS = 20
LAST_SEEN = re.compile(r"(?:([0-9]{1,18})-)?([0-9]{1,18})")
"""What a stream calls its states: epoch and sequence."""

log = logging.getLogger(__name__)
Waiting = list[tuple[Batch, "asyncio.Future[None]"]]


@dataclass
class Door:
    """What one tenant's deliveries go through; made in the server's event loop."""

    collector: Collector
    spool: Spool
    queue: asyncio.Queue[tuple[Batch, asyncio.Future[None]]] = field(
        default_factory=lambda: asyncio.Queue(WAITING_MOST)
    )
    _logged: float = float("-inf")

    async def read(self, body: bytes, *, lines: bool) -> Delivery:
        """Read a delivery (see `Collector.read`)."""
        if len(body) < LARGE:
            return self.collector.read(body, lines=lines)
        return await asyncio.to_thread(self.collector.read, body, lines=lines)

    async def store(self, batch: Batch) -> None:
        """Wait until a batch is safe.

        Raises:
            TimeoutError, asyncio.QueueFull: it could not be in time.
            StorageError: the spool cannot be written.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.queue.put_nowait((batch, done))
        async with asyncio.timeout(STORE_SECONDS):
            await done

    async def write(self) -> None:
        """Write what has gathered, in turn, until cancelled."""
        while True:
            waiting = [await self.queue.get()]
            await self.put(waiting)

    async def put(self, waiting: Waiting) -> None:
        """Append batches, and those that wait beside them, and tell those who wait."""
        while not self.queue.empty():
            waiting.append(self.queue.get_nowait())
        for together in _portions(waiting):
            await self._append(together)

    async def _append(self, waiting: Waiting) -> None:
        try:
            await asyncio.to_thread(self.spool.append, merged([batch for batch, _ in waiting]))
        except Exception as error:  # noqa: BLE001  a writer that died would refuse all that follow
            if time.monotonic() - self._logged > LOG_SECONDS:
                self._logged = time.monotonic()
                said = error if isinstance(error, StorageError) else type(error).__name__
                log.error("%d deliveries were not accepted: %s", len(waiting), said)  # noqa: TRY400
            for _, done in waiting:
                if not done.done():
                    done.set_exception(StorageError(f"The spool cannot be written: {type(error).__name__}"))
            return
        for _, done in waiting:
            if not done.done():
                done.set_result(None)

    async def seal(self) -> None:
        """Seal the open segment every `SEAL_SECONDS`, until cancelled."""
        while True:
            await asyncio.sleep(SEAL_SECONDS)
            try:
                await asyncio.to_thread(self.spool.seal)
            except StorageError as error:
                log.error("%s", error)  # noqa: TRY400


def _portions(waiting: Waiting, most: int = MERGE_BYTES) -> Iterator[Waiting]:
    portion: Waiting = []
    size = 0
    for one in waiting:
        if portion and size + one[0].bytes > most:
            yield portion
            portion, size = [], 0
        portion.append(one)
        size += one[0].bytes
    if portion:
        yield portion


@dataclass
class Flight:
    """Bytes of the bodies that are held now, of `most` that may be."""

    most: int = FLIGHT_BYTES
    held: int = 0


@dataclass
class Hold:
    """What one request holds of them."""

    flight: Flight
    bytes: int = 0

    def take(self, size: int) -> bool:
        """Take so many more; False if there are not so many."""
        if self.flight.held + size > self.flight.most:
            return False
        self.flight.held += size
        self.bytes += size
        return True

    def __enter__(self) -> Hold:
        return self

    def __exit__(self, *_: object) -> None:
        self.flight.held -= self.bytes


def _answer(status: int, said: str, **headers: str) -> Response:
    return JSONResponse({"status": said}, status, headers)


def _may(connection: HTTPConnection, purpose: Purpose) -> bool:
    scheme, _, key = connection.headers.get("authorization", "").partition(" ")
    given = key.strip() if scheme.lower() == "bearer" else connection.query_params.get("key", "")
    return allowed(connection.path_params["tenant"], purpose, given)


async def _body(request: Request, hold: Hold) -> bytes | Response:
    """The raw body, or the answer why there is none; no further is read than the cap."""
    announced = request.headers.get("content-length", "")
    parts, size = [], int(announced) if announced.isdigit() else 0
    if size <= MAX_BODY:
        size = 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for part in request.stream():
                    size += len(part)
                    if size > MAX_BODY:
                        break
                    if not hold.take(len(part)):
                        return _answer(503, "too much at once; send again", **{"Retry-After": "5"})
                    parts.append(part)
        except TimeoutError:
            return _answer(408, "the body did not arrive in time", connection="close")
        except ClientDisconnect:
            return _answer(400, "the body was cut")
    if size > MAX_BODY:
        return _answer(413, f"at most {MAX_BODY} bytes", connection="close")
    return b"".join(parts)


def _told(delivery: Delivery) -> Response:
    refused = [{"index": one.index, "reason": one.reason} for one in delivery.refused[:SHOWN_REFUSALS]]
    said = {"accepted": delivery.accepted, "refused": len(delivery.refused), "reasons": refused}
    return JSONResponse(said, 202 if delivery.accepted else 400)


def _collect(doors: Mapping[str, Door], flight: Flight) -> Callable[[Request], Any]:
    async def collect(request: Request) -> Response:
        with Hold(flight) as hold:
            return await taken(request, hold)

    async def taken(request: Request, hold: Hold) -> Response:
        door = doors.get(request.path_params["tenant"])
        if not _may(request, "write") or door is None:
            return _answer(401, "a write key of this tenant is needed", connection="close")
        body = await _body(request, hold)
        if isinstance(body, Response):
            return body
        lines = "ndjson" in (kind := request.headers.get("content-type", "")) or "jsonl" in kind
        try:
            delivery = await door.read(body, lines=lines)
        except Malformed as error:
            return _answer(400, str(error))
        try:
            await door.store(delivery.batch)
        except (StorageError, TimeoutError, asyncio.QueueFull):
            return _answer(503, "cannot be stored now; send again", **{"Retry-After": "5"})
        return _told(delivery)

    return collect


def _feed(feeds: Mapping[str, Feed], connection: HTTPConnection) -> Feed | Response:
    """What a watcher may watch, or the answer why there is nothing."""
    feed = feeds.get(connection.path_params["tenant"])
    if not _may(connection, "read") or feed is None:
        return _answer(401, "a read key of this tenant is needed", connection="close")
    if feed.listeners >= LISTENERS_MOST:
        return _answer(503, "too many watch", **{"Retry-After": "30"})
    return feed


def _windows(feeds: Mapping[str, Feed]) -> list[BaseRoute]:
    """The three ways to watch."""

    async def current(request: Request) -> Response:
        feed = _feed(feeds, request)
        if isinstance(feed, Response):
            return feed
        if feed.latest is None:
            return _answer(404, "nothing was counted yet; `omni events live` does it")
        return JSONResponse({**feed.latest}, headers={"cache-control": "no-store"})

    async def stream(request: Request) -> Response:
        feed = _feed(feeds, request)
        if isinstance(feed, Response):
            return feed
        last = LAST_SEEN.fullmatch(request.headers.get("last-event-id", ""))
        epoch, seen = (int(last[1]) if last[1] else None, int(last[2])) if last else (None, None)
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        lines = _lines(feed, seen, epoch)
        return StreamingResponse(lines, media_type="text/event-stream", headers=headers)

    async def socket(connection: WebSocket) -> None:
        feed = _feed(feeds, connection)
        if isinstance(feed, Response):
            await connection.close(1008 if feed.status_code == 401 else 1013)
            return
        await connection.accept()
        sending = asyncio.create_task(_send(connection, feed))
        try:
            with suppress(WebSocketDisconnect, RuntimeError):
                # What a watcher says, text or not, is not listened to, but its leaving is noticed.
                while (await connection.receive())["type"] != "websocket.disconnect":
                    pass
        finally:
            sending.cancel()
        with suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError, OSError):
            await sending

    base = "/live/{tenant}"
    return [Route(base, current), Route(f"{base}/events", stream), WebSocketRoute(f"{base}/socket", socket)]


async def _lines(feed: Feed, seen: int | None, epoch: int | None) -> AsyncIterator[str]:
    async for state in feed.listen(seen, BEAT_SECONDS, epoch):
        if state is None:
            yield ": still here\n\n"
        else:
            yield f"id: {state.get('epoch', 0)}-{state['sequence']}\nevent: window\ndata: {_text(state)}\n\n"


async def _send(connection: WebSocket, feed: Feed) -> None:
    async for state in feed.listen():
        if state is not None:
            await connection.send_text(_text(state))


def _text(state: State) -> str:
    return json.dumps(state, separators=(",", ":"))


def build_app(tenants: Sequence[Tenant], lives: Sequence[Live] = (), every: float = 5.0) -> Starlette:
    """The application.

    Args:
        tenants: whose events are collected.
        lives: whose metrics this process keeps up to date; those of the others are followed as another
            process (`omni events live`) writes them.
        every: seconds from one turn to the next.
    """
    doors: dict[str, Door] = {}
    feeds = {tenant.tenant: Feed() for tenant in tenants}

    @asynccontextmanager
    async def running(_: Starlette) -> AsyncIterator[None]:
        stop = threading.Event()
        tasks, threads = [], []
        for tenant in tenants:
            spool = await asyncio.to_thread(Spool.of, tenant, most_bytes=settings().events.spool_bytes)
            door = Door(Collector(tenant, oldest_days=settings().events.oldest_days), spool)
            doors[tenant.tenant] = door
            tasks.append(asyncio.create_task(door.write()))
            live = next((one for one in lives if one.tenant.tenant == tenant.tenant), None)
            if live is None:
                tasks += [
                    asyncio.create_task(door.seal()),
                    asyncio.create_task(follow(tenant, feeds[tenant.tenant])),
                ]
            else:
                live.feed, live.spool = feeds[tenant.tenant], spool
                threads.append(threading.Thread(target=run_turns, args=(live, every, stop)))
                threads[-1].start()
        yield
        for task in tasks:
            task.cancel()
        for door in doors.values():
            await door.put([])
        stop.set()
        for thread in threads:
            await asyncio.to_thread(thread.join)
        for door in doors.values():
            await asyncio.to_thread(door.spool.seal)

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    flight = Flight()
    collect = Route("/events/{tenant}", _collect(doors, flight), methods=["POST"])
    routes = [Route("/health", health), collect, *_windows(feeds)]
    app = Starlette(routes=routes, middleware=_origins(settings().events.origins), lifespan=running)
    app.state.feeds, app.state.flight = feeds, flight
    return app


def _origins(allowed: Sequence[str]) -> list[Middleware]:
    """Which pages of other origins may send and watch; without any, browsers refuse them."""
    if not allowed:
        return []
    headers = ["authorization", "content-type", "last-event-id"]
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=allowed,
            allow_methods=["GET", "POST"],
            allow_headers=headers,
            expose_headers=["retry-after"],
        )
    ]


def serve(app: Starlette, host: str, port: int) -> None:
    """Serve until interrupted. No access log: addresses may hold keys."""
    import uvicorn

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            for feed in app.state.feeds.values():
                feed.close()  # a stream never ends by itself, and leaving waits for it
            super().handle_exit(sig, frame)

    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
        limit_concurrency=1_000,
        ws_max_size=64 * 1024,
    )
    Server(config).run()
