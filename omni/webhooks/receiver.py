"""The door for deliveries: verify on the raw bytes, store, answer; what it means is found out later.

All requests' events go through one writer, which commits whatever has gathered since its last commit: the
answer follows the commit, so an accepted delivery is never lost, and two hundred at once cost a few commits.
Whenever that cannot be done in time the answer is 503, on which every vendor sends again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import sqlalchemy as sa
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from omni import tenancy
from omni.control.database import now
from omni.errors import OmniError, StorageError
from omni.webhooks import bodies, inbox
from omni.webhooks.events import Malformed, events, harmless, storable
from omni.webhooks.signatures import SCHEMES, SIGNED_BY, TOKENS, Message, Refused, verify, verify_token

MAX_BODY = 10 * 1024 * 1024
"""Bytes of a delivery; the largest of any vendor's limits."""
CONNECTIONS = 200
"""Connections served at once; more are answered 503."""
STORE_SECONDS = 4.0
"""How long storing may take before the answer is 503; Shopify waits five seconds."""
WAITING_MOST = 2_000
"""Deliveries that may wait for the writer; more are answered 503."""
GATHER = 1_000
"""Events after which a commit waits for no more, so that the first answers are not as late as the last."""
COUNT_SECONDS = 5.0
"""How long refusals wait to be counted when nothing else is stored."""

Secrets = Callable[[str, str], tuple[str, ...]]
"""Tenant and sender to the secrets that stand."""

UNREACHABLE = (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError, StorageError)
"""Failures of the database and not of what is stored."""

log = logging.getLogger(__name__)


@dataclass
class Writer:
    """Commits what has gathered, in turn; made in the server's event loop."""

    queue: asyncio.Queue[tuple[inbox.Incoming, asyncio.Future[int]]] = field(
        default_factory=lambda: asyncio.Queue(WAITING_MOST)
    )
    refused: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    async def store(self, delivery: inbox.Incoming) -> None:
        """Wait until a delivery is committed.

        Raises:
            TimeoutError, asyncio.QueueFull: it could not be in time.
            StorageError: the database refuses.
        """
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.queue.put_nowait((delivery, done))
        async with asyncio.timeout(STORE_SECONDS):
            await done

    async def run(self) -> None:
        """Commit until cancelled."""
        while True:
            waiting = []
            try:
                async with asyncio.timeout(COUNT_SECONDS):
                    waiting.append(await self.queue.get())
            except TimeoutError:
                pass
            while not self.queue.empty() and sum(len(one.events) for one, _ in waiting) < GATHER:
                waiting.append(self.queue.get_nowait())
            await self.commit(waiting)

    async def commit(self, waiting: list[tuple[inbox.Incoming, asyncio.Future[int]]]) -> None:
        """Store deliveries and the refusals so far, and tell those who wait."""
        counted = Counter(self.refused)
        if waiting or counted:
            await self._put(waiting, counted)

    async def _put(
        self,
        waiting: list[tuple[inbox.Incoming, asyncio.Future[int]]],
        counted: Counter[tuple[str, str, str]],
    ) -> None:
        try:
            await asyncio.to_thread(inbox.store, [delivery for delivery, _ in waiting], counted)
        except Exception as error:  # noqa: BLE001  a writer that died would refuse all that follow
            if len(waiting) > 1 and not isinstance(error, UNREACHABLE):
                await self._halves(waiting)
                return
            log.warning("Webhooks not stored, answered 503: %s", type(error).__name__)
            for _, done in waiting:
                if not done.done():
                    done.set_exception(StorageError("The inbox cannot be written now."))
            return
        self.refused -= counted
        for _, done in waiting:
            if not done.done():
                done.set_result(1)

    async def _halves(self, waiting: list[tuple[inbox.Incoming, asyncio.Future[int]]]) -> None:
        """What one delivery holds must not keep the others out. Refusals are counted the next time."""
        middle = len(waiting) // 2
        for part in (waiting[:middle], waiting[middle:]):
            await self._put(part, Counter())


def _answer(status: int, said: str, **headers: str) -> Response:
    return JSONResponse({"status": said}, status, headers)


async def _body(request: Request) -> bytes | Response:
    """The raw body, or the answer why there is none."""
    try:
        return await bodies.read(request, MAX_BODY)
    except bodies.TooLarge:
        return _answer(413, f"at most {MAX_BODY} bytes", connection="close")
    except TimeoutError:
        return _answer(408, "the body did not arrive in time", connection="close")
    except ClientDisconnect:
        return _answer(400, "the body was cut")


def _signed(request: Request, secrets: tuple[str, ...]) -> bool:
    """Whether there is a signature to check; if not, the token in the address has been.

    Raises:
        Refused: there is neither, or the token is another one. It is known before the body is read.
    """
    tenant, vendor = request.path_params["tenant"], request.path_params["vendor"]
    if any(name in request.headers for name in SIGNED_BY[vendor]):
        return True
    token, refusal = request.path_params.get("token", ""), Refused("missing")
    for secret in secrets if token and vendor in TOKENS else ():
        try:
            verify_token(secret, tenant, vendor, token)
        except Refused as error:
            refusal = error
        else:
            return False
    raise refusal


def _verified(request: Request, body: bytes, secrets: tuple[str, ...], public_url: str | None) -> None:
    """Check the signature.

    Raises:
        Refused: it does not vouch for the delivery.
    """
    target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    uri = public_url.rstrip("/") + target if public_url else str(request.url)
    headers = {name.lower(): value for name, value in request.headers.items()}
    verify(request.path_params["vendor"], secrets, Message(headers, body, request.method, uri), time.time())


def _receive(writer: Writer, secrets: Secrets, public_url: str | None) -> Callable[[Request], object]:
    async def receive(request: Request) -> Response:
        tenant, vendor = request.path_params["tenant"], request.path_params["vendor"]
        standing = secrets(tenant, vendor) if vendor in SCHEMES and tenant in tenancy.tenants() else ()
        if not standing:
            return _answer(404, "nothing is received here")
        try:
            signed = _signed(request, standing)
        except Refused as refusal:
            writer.refused[tenant, vendor, refusal.reason] += 1
            return _answer(401, f"signature {refusal.reason}", connection="close")
        body = await _body(request)
        if isinstance(body, Response):
            return body
        source = storable(request.path_params.get("source", ""))[:100]
        try:
            if signed:
                _verified(request, body, standing, public_url)
            found = tuple(events(vendor, request.headers, body, source))
        except Refused as refusal:
            writer.refused[tenant, vendor, refusal.reason] += 1
            return _answer(401, f"signature {refusal.reason}")
        except Malformed as error:
            writer.refused[tenant, vendor, "unreadable"] += 1
            return _answer(400, str(error))
        except OmniError as error:
            log.error("Webhooks of %s for %s cannot be verified: %s", vendor, tenant, error)  # noqa: TRY400
            return _answer(503, "not set up rightly; send again", **{"Retry-After": "300"})
        kept = harmless(request.headers)
        try:
            await writer.store(inbox.Incoming(tenant, vendor, source, kept, found, now()))
        except (StorageError, TimeoutError, asyncio.QueueFull):
            return _answer(503, "cannot be stored now; send again", **{"Retry-After": "30"})
        return _answer(200, "received")

    return receive


def build_app(
    secrets: Secrets, *, public_url: str | None = None, more: tuple[BaseRoute, ...] = ()
) -> Starlette:
    """The receiver as an ASGI application.

    Args:
        secrets: gives the secrets that stand for a tenant's sender; without any, it is not received.
        public_url: the address senders use, where a proxy stands before this one; HubSpot signs it.
        more: other routes to serve.
    """

    @asynccontextmanager
    async def writing(_: Starlette) -> AsyncIterator[None]:
        running = asyncio.create_task(writer.run())
        yield
        running.cancel()
        waiting = [writer.queue.get_nowait() for _ in range(writer.queue.qsize())]
        await writer.commit(waiting)

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    writer = Writer()
    receive = _receive(writer, secrets, public_url)
    base = "/webhooks/{tenant}/{vendor}"
    paths = (base, f"{base}/{{source}}", f"{base}/{{source}}/{{token}}")
    routes = [Route(path, receive, methods=["POST"]) for path in paths]
    return Starlette(routes=[Route("/health", health), *routes, *more], lifespan=writing)


def serve(app: Starlette, host: str, port: int) -> None:
    """Serve until interrupted. No access log: addresses may hold tokens."""
    import uvicorn

    uvicorn.run(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
    )
