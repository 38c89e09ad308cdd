"""Senders that sign by the vendors' published rules, and a receiver to send to."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvicorn
from starlette.testclient import TestClient

from omni.control import database
from omni.sandbox.hubspot_events import signed as hubspot_signed
from omni.webhooks.receiver import build_app

SECRETS = {
    "hubspot": "hubspot-client-secret",
    "shopify": "shopify-client-secret",
    "stripe": "whsec_stripe-secret",
    "zapier": "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode(),
    "generic": "whsec_" + base64.b64encode(b"fedcba98765432100123456789").decode(),
}
BASE = "http://testserver"


def _sign(vendor, body, path, *, at=None, key="msg_1", topic="orders/updated", secret=None):
    """A vendor's headers for a body, computed here from its documentation, not by our code."""
    at, secret = int(at or time.time()), secret or SECRETS[vendor]
    if vendor == "hubspot":
        return hubspot_signed(secret, "POST", BASE + path, body, now=at)
    if vendor == "shopify":
        mac = base64.b64encode(hmac.new(secret.encode(), body, hashlib.sha256).digest()).decode()
        return {"X-Shopify-Hmac-Sha256": mac, "X-Shopify-Topic": topic, "X-Shopify-Webhook-Id": key}
    if vendor == "stripe":
        mac = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
        return {"Stripe-Signature": f"t={at},v1={mac}"}
    raw = base64.b64decode(secret.removeprefix("whsec_"))
    mac = hmac.new(raw, f"{key}.{at}.".encode() + body, hashlib.sha256).digest()
    signature = "v1," + base64.b64encode(mac).decode()
    return {"webhook-id": key, "webhook-timestamp": str(at), "webhook-signature": signature}


@pytest.fixture
def secrets():
    """Each sender's secret."""
    return SECRETS


@pytest.fixture
def sign():
    """Sign as a vendor would: `sign("stripe", body, path)` gives headers."""
    return _sign


@pytest.fixture
def control(home) -> Iterator[None]:
    """An empty control database."""
    database.close()
    yield
    database.close()


@pytest.fixture
def receiver(control) -> Iterator[TestClient]:
    """A receiver for every sender of the demo tenant."""

    def secrets(tenant, vendor):
        return (SECRETS[vendor],) if tenant == "demo" else ()

    with TestClient(build_app(secrets), base_url=BASE) as client:
        yield client


@pytest.fixture
def send(receiver):
    """Send a value signed as its vendor would: `send("stripe", {…})`; `body`, `headers` replace parts."""

    def post(vendor, value, path=None, *, body=None, headers=None, **options):
        raw = json.dumps(value).encode()
        path = path or f"/webhooks/demo/{vendor}"
        made = _sign(vendor, raw, path, **options)
        return receiver.post(path, content=raw if body is None else body, headers={**made, **(headers or {})})

    return post


@pytest.fixture(scope="session")
def sandbox():
    """The sandbox over real HTTP, in this process; yields its address."""
    from omni.sandbox.company import load_company
    from omni.sandbox.server import Options, build_app

    options = Options(
        token="sandbox-test",
        hubspot_per_10s=100_000,
        searches_per_second=100_000,
        zapier_per_second=100_000,
    )
    with _serving(build_app(load_company("demo"), options)) as url:
        yield url


@contextmanager
def _serving(app, **options) -> Iterator[str]:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    config = uvicorn.Config(app, log_config=None, log_level="critical", **options)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture
def serving():
    """Serve an ASGI application over real HTTP: `with serving(app) as url`."""
    return _serving
