"""The stripe library, unchanged, against the sandbox: the same rows as our connector, and our signatures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import stripe
from pydantic import SecretStr

from omni.sandbox.process import Sandbox, running
from omni.sandbox.stripe_events import event, signature_header
from omni.security.hashing import Hasher
from omni.sources.connection import Connection
from omni.sources.extract import tables
from omni.sources.records import Shield, typed
from omni.sources.stripe import VENDOR
from omni.sources.stripe_client import VERSION
from omni.sources.stripe_streams import STREAMS
from omni.sources.vendor import Window
from omni.warehouse.contracts import Contract

pytestmark = pytest.mark.slow
END = datetime(2027, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with running("demo") as found:
        yield found


@pytest.fixture(scope="module")
def sdk(sandbox: Sandbox) -> stripe.StripeClient:
    return stripe.StripeClient(sandbox.token, base_addresses={"api": sandbox.url})


def listed(sdk: stripe.StripeClient, stream: str) -> list[dict[str, Any]]:
    """Everything the library's own paging finds, nested lists too."""
    params: Any = {"limit": 100, "created": {"lt": int(END.timestamp())}}
    if stream == "subscriptions":
        params["status"] = "all"
    if stream == "invoices":
        params["expand"] = ["data.payments"]
    rows = []
    for found in getattr(sdk.v1, stream).list(params).auto_paging_iter():
        row = json.loads(str(found))
        if stream == "invoices" and row["lines"]["has_more"]:
            lines = sdk.v1.invoices.line_items.list(row["id"], {"limit": 100}).auto_paging_iter()
            row["lines"]["data"] = [json.loads(str(line)) for line in lines]
        rows.append(row)
    return rows


def dated(value: Any, contract: Contract) -> None:
    """Stripe's seconds as text, for the columns that are moments."""
    for name, column in contract.columns.items():
        *outer, last = (column.path or name).split(".")
        inner = value
        for key in outer:
            inner = inner.get(key) if isinstance(inner, dict) else None
        if column.type == "timestamp" and isinstance(inner, dict) and isinstance(inner.get(last), int):
            inner[last] = datetime.fromtimestamp(inner[last], UTC).isoformat()


@pytest.mark.parametrize("stream", list(STREAMS))
def test_the_library_finds_the_same_rows(sandbox: Sandbox, sdk: stripe.StripeClient, stream: str) -> None:
    contracts = tables("stripe", stream)
    account = Connection("stripe", sandbox.url, SecretStr(sandbox.token), requests_per_10s=100_000)
    with VENDOR.open(account) as http:
        ours = [r for page in VENDOR.read(http, contracts, Window(None, END), None) for r in page.records]
    theirs = listed(sdk, stream)
    for row in theirs:
        row["deleted"] = False
        dated(row, contracts[0])
        for child in contracts[1:]:
            assert child.source is not None
            for inner in row[(child.source.rows or "").partition(".")[0]]["data"]:
                dated(inner, child)
    shield = Shield(Hasher(b"0" * 32))
    mine, other = (typed(rows, contracts, shield) for rows in (ours, theirs))
    assert not mine.rejected
    assert not other.rejected
    for contract in contracts:
        assert mine.frames[contract.table].height > 0
        assert mine.frames[contract.table].equals(other.frames[contract.table])


def test_the_library_pins_the_version_we_pin() -> None:
    assert stripe._api_version._ApiVersion.CURRENT == VERSION


def test_every_event_we_ask_for_is_one_the_library_knows() -> None:
    from typing import get_args, get_type_hints

    from stripe._event import Event

    known = set(get_args(get_type_hints(Event)["type"]))
    for stream in STREAMS.values():
        assert set(stream.events) <= known
        assert stream.deletions <= set(stream.events)
        assert len(stream.events) <= 20


def test_the_library_writes_customers_and_reads_errors(sdk: stripe.StripeClient) -> None:
    made = sdk.v1.customers.create({"email": "a@example.com", "metadata": {"ref": "7"}})
    assert sdk.v1.customers.retrieve(made.id).email == "a@example.com"
    sdk.v1.customers.update(made.id, {"name": "Ann"})
    assert sdk.v1.customers.delete(made.id).deleted
    newest = next(iter(sdk.v1.events.list({"limit": 1, "type": "customer.deleted"}).data))
    assert newest.data.object["id"] == made.id
    with pytest.raises(stripe.InvalidRequestError) as missing:
        sdk.v1.charges.retrieve("ch_none")
    assert (missing.value.code, missing.value.param) == ("resource_missing", "id")


def test_a_wrong_key_is_the_librarys_authentication_error(sandbox: Sandbox) -> None:
    other = stripe.StripeClient("sk_test_wrong", base_addresses={"api": sandbox.url})
    with pytest.raises(stripe.AuthenticationError):
        other.v1.charges.list()


def test_the_library_accepts_our_signature() -> None:
    told = event("charge.succeeded", 1_700_000_000, {"id": "ch_1", "object": "charge"})
    payload = json.dumps(told).encode()
    header = signature_header("whsec_test", payload, 1_700_000_000)
    generated = stripe.WebhookSignature.generate_signature_header(
        payload.decode(), "whsec_test", timestamp=1_700_000_000
    )
    assert header == generated
    far = 10**10  # the library measures the age against the clock; the moment is fixed here
    found = stripe.Webhook.construct_event(payload, header, "whsec_test", tolerance=far)
    assert (found.type, found.data.object["id"]) == ("charge.succeeded", "ch_1")
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(payload + b" ", header, "whsec_test", tolerance=far)
