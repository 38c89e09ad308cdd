"""Stripe's side: paging, bounds, filters, expansion, errors, limits, writes and their events, signatures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from omni.sandbox.company import Company
from omni.sandbox.stripe_account import KINDS, Account
from omni.sandbox.stripe_billing import month
from omni.sandbox.stripe_events import KEPT, signature_header
from omni.sandbox.stripe_routes import VERSION
from omni.settings import settings

Clients = Callable[..., TestClient]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def account(demo: Company) -> Account:
    return Account(demo)


@pytest.fixture
def stripe(client_for: Clients) -> TestClient:
    client = client_for(stripe_per_second=100_000)
    client.headers["Stripe-Version"] = VERSION
    return client


def ask(client: TestClient, path: str, **params: Any) -> dict[str, Any]:
    answer = client.get(f"/v1/{path}", params=params)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def whole(client: TestClient, path: str, **params: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    while True:
        after = {"starting_after": rows[-1]["id"]} if rows else {}
        page = ask(client, path, limit=100, **params, **after)
        assert page["object"] == "list"
        rows += page["data"]
        if not page["has_more"]:
            return rows


@pytest.mark.parametrize("kind", KINDS)
def test_lists_are_whole_newest_first_and_free_of_duplicates(
    stripe: TestClient, account: Account, kind: str
) -> None:
    rows = whole(stripe, kind, **({"status": "all"} if kind == "subscriptions" else {}))
    assert len({row["id"] for row in rows}) == len(rows) == len(account.tables[kind].rows)
    created = [row["created"] for row in rows]
    assert created == sorted(created, reverse=True)


def test_pages_backwards_meet_pages_forwards(stripe: TestClient) -> None:
    rows = whole(stripe, "refunds")
    page = ask(stripe, "refunds", limit=7, ending_before=rows[50]["id"])
    assert page["data"] == rows[43:50]
    assert page["has_more"]
    first = ask(stripe, "refunds", limit=7, ending_before=rows[3]["id"])
    assert (first["data"], first["has_more"]) == (rows[:3], False)


@given(low=st.integers(0, 553), size=st.integers(0, 30))
def test_bounds_select_exactly(account: Account, low: int, size: int) -> None:
    table = account.tables["refunds"]
    start, end = table.created[low], table.created[min(low + size, 553)]
    for below, above in (("gte", "lt"), ("gt", "lte")):
        query = {f"created[{below}]": str(start), f"created[{above}]": str(end), "limit": "100"}
        found = {row["id"] for row in account.listing("refunds", query).payload["data"]}
        expected = {
            row["id"]
            for row in table.rows
            if row is not None
            and (row["created"] >= start if below == "gte" else row["created"] > start)
            and (row["created"] < end if above == "lt" else row["created"] <= end)
        }
        assert found == expected


def test_the_shops_money_is_all_there(demo: Company, account: Account) -> None:
    """Card and Klarna payments and refunds of the shop agree with charges and refunds to the cent."""
    taken = given_back = Decimal(0)
    for order in demo.shop.orders:
        for step in order["transactions"]:
            if step["gateway"] in ("shopify_payments", "klarna") and step["status"] == "SUCCESS":
                amount = Decimal(step["amountSet"]["shopMoney"]["amount"])
                taken += amount if step["kind"] == "SALE" else 0
                given_back += amount if step["kind"] == "REFUND" else 0
    charges = [c for c in account.tables["charges"].rows if c is not None and "order_id" in c["metadata"]]
    assert Decimal(sum(c["amount_captured"] for c in charges)) / 100 == taken > 0
    refunds = [r for r in account.tables["refunds"].rows if r is not None]
    assert Decimal(sum(r["amount"] for r in refunds)) / 100 == given_back > 0


def test_balance_transactions_book_every_captured_charge_and_refund(account: Account) -> None:
    rows = {row["id"]: row for row in account.tables["balance_transactions"].rows if row is not None}
    for kind, amount, sign in (("charges", "amount_captured", 1), ("refunds", "amount", -1)):
        for owner in account.tables[kind].rows:
            if owner is not None and owner["balance_transaction"]:
                booked = rows.pop(owner["balance_transaction"])
                assert (booked["source"], booked["amount"]) == (owner["id"], sign * owner[amount])
                assert booked["net"] == booked["amount"] - booked["fee"]
    assert not rows


def test_subscribers_are_billed_each_month(stripe: TestClient, account: Account) -> None:
    everyone = whole(stripe, "subscriptions", status="all")
    states = Counter(row["status"] for row in everyone)
    assert set(states) == {"active", "canceled"}
    assert len(whole(stripe, "subscriptions")) == states["active"]
    assert len(whole(stripe, "subscriptions", status="canceled")) == states["canceled"]
    invoices = whole(stripe, "invoices")
    assert {i["status"] for i in invoices} >= {"paid", "uncollectible"}
    billed = Counter(i["parent"]["subscription_details"]["subscription"] for i in invoices)
    for row in everyone:
        last = row["ended_at"] or account.tables["events"].created[-1]
        months = sum(month(row["created"], n) < last for n in range(60))
        assert abs(billed[row["id"]] - months) <= 1
    for invoice in invoices:
        lines = whole(stripe, f"invoices/{invoice['id']}/lines")
        assert sum(line["amount"] for line in lines) == invoice["total"]
        assert invoice["lines"]["data"] == lines[:10]
        assert invoice["lines"]["has_more"] == (len(lines) > 10)
    assert max(len(account.lines[i["id"]]) for i in invoices) > 10


def test_an_invoices_payment_leads_to_its_charge(stripe: TestClient, account: Account) -> None:
    charges = {row["payment_intent"]: row for row in account.tables["charges"].rows if row is not None}
    for invoice in whole(stripe, "invoices", **{"expand[]": "data.payments"}):
        for payment in invoice["payments"]["data"]:
            charge = charges[payment["payment"]["payment_intent"]]
            assert (charge["amount"], charge["paid"]) == (invoice["total"], invoice["status"] == "paid")
        assert len(invoice["payments"]["data"]) == (invoice["status"] != "draft")
    alone = whole(stripe, "invoice_payments", invoice=invoice["id"])
    assert alone == invoice["payments"]["data"]
    assert "payments" not in ask(stripe, "invoices", limit=1)["data"][0]


def test_events_reach_back_thirty_days_and_show_the_past(stripe: TestClient) -> None:
    rows = whole(stripe, "events")
    assert rows[0]["created"] - rows[-1]["created"] < KEPT
    refunded = [row for row in rows if row["type"] == "charge.refunded"]
    assert refunded
    assert whole(stripe, "events", type="charge.refunded") == refunded
    both = whole(stripe, "events", **{"types[0]": "charge.refunded", "types[1]": "refund.created"})
    assert Counter(row["type"] for row in both)["charge.refunded"] == len(refunded)
    assert {row["type"] for row in whole(stripe, "events", type="charge.*")} <= {
        "charge.succeeded", "charge.failed", "charge.refunded",
    }  # fmt: skip
    sold = {row["data"]["object"]["id"]: row for row in rows if row["type"] == "charge.succeeded"}
    soon = [row for row in refunded if row["data"]["object"]["id"] in sold]
    for row in soon:
        assert sold[row["data"]["object"]["id"]]["data"]["object"]["amount_refunded"] == 0
    assert all(row["api_version"] != VERSION for row in rows)


def test_ids_expand_to_their_objects(stripe: TestClient) -> None:
    refund = ask(stripe, "refunds", limit=1, **{"expand[]": "data.charge.customer"})["data"][0]
    assert refund["charge"]["customer"]["object"] == "customer"
    one = ask(stripe, f"charges/{refund['charge']['id']}", **{"expand[0]": "refunds"})
    assert one["refunds"]["data"][0]["id"] == refund["id"]
    assert one["customer"].startswith("cus_")
    wrong = stripe.get(f"/v1/charges/{one['id']}", params={"expand[]": "colour"})
    assert (wrong.status_code, wrong.json()["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize(
    ("path", "params", "status", "code", "param"),
    [
        ("charges/ch_none", {}, 404, "resource_missing", "id"),
        ("charges", {"starting_after": "ch_none"}, 400, "resource_missing", "starting_after"),
        ("charges", {"limit": "101"}, 400, "parameter_invalid_integer", "limit"),
        ("charges", {"limit": "many"}, 400, "parameter_invalid_integer", "limit"),
        ("charges", {"created[lt]": "today"}, 400, "parameter_invalid_integer", "created[lt]"),
        ("charges", {"updated[gte]": "1"}, 400, "parameter_unknown", "updated[gte]"),
        ("subscription_items", {}, 400, "parameter_missing", "subscription"),
    ],
)
def test_errors_have_stripes_shape(
    stripe: TestClient, path: str, params: dict[str, str], status: int, code: str, param: str
) -> None:
    answer = stripe.get(f"/v1/{path}", params=params)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (status, code, param)
    assert error["type"] == "invalid_request_error"
    assert answer.headers["Request-Id"].startswith("req_")


def test_key_account_and_version_are_checked(stripe: TestClient) -> None:
    wrong = stripe.get("/v1/charges", headers={"Authorization": "Bearer sk_live_very_secret"})
    assert wrong.status_code == 401
    assert "very_secret" not in wrong.text
    assert stripe.get("/v1/charges", headers={"Stripe-Account": "acct_other"}).status_code == 403
    assert stripe.get("/v1/charges", headers={"Stripe-Version": "2019-13-01"}).status_code == 400
    answer = stripe.get("/v1/charges")
    assert answer.headers["Stripe-Version"] == VERSION
    del stripe.headers["Stripe-Version"]
    assert stripe.get("/v1/charges").headers["Stripe-Version"] == "2022-11-15"


def test_an_endpoint_has_a_quarter_of_the_accounts_limit(client_for: Clients) -> None:
    client = client_for(stripe_per_second=8)
    answers = [client.get("/v1/charges") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    # On a busy machine a second may pass before the third request: it is one of the next few that is refused.
    asked = (client.get("/v1/charges") for _ in range(60))
    limited = next(answer for answer in asked if answer.status_code == 429)
    assert limited.headers["Stripe-Rate-Limited-Reason"] == "endpoint-rate"
    assert "Retry-After" not in limited.headers
    assert limited.json()["error"]["code"] == "rate_limit"
    assert client.get("/v1/refunds").status_code == 200


@pytest.mark.parametrize(
    ("kind", "status"), [("429", 429), ("429_retry_after", 429), ("500", 500), ("503", 503), ("401", 401)]
)
def test_faults_come_in_stripes_shape(stripe: TestClient, kind: str, status: int) -> None:
    stripe.post("/_sandbox/fault", json={"kind": kind, "path": "/v1/charges", "times": 1})
    answer = stripe.get("/v1/charges")
    assert answer.status_code == status
    assert answer.json()["error"]["message"]
    assert ("Retry-After" in answer.headers) == (kind == "429_retry_after")
    assert stripe.get("/v1/charges").status_code == 200


def test_lists_can_lose_their_data_or_half_of_it(stripe: TestClient) -> None:
    stripe.post("/_sandbox/fault", json={"kind": "missing_results", "path": "charges"})
    assert "data" not in ask(stripe, "charges")
    stripe.post("/_sandbox/fault", json={"kind": "truncate_page", "path": "charges"})
    assert len(ask(stripe, "charges", limit=10)["data"]) == 5


def test_customers_change_and_events_tell(stripe: TestClient) -> None:
    made = stripe.post("/v1/customers", data={"email": "a@example.com", "metadata[ref]": "7"}).json()
    changed = stripe.post(f"/v1/customers/{made['id']}", data={"name": "Ann", "metadata[ref]": ""}).json()
    assert (changed["name"], changed["email"], changed["metadata"]) == ("Ann", "a@example.com", {})
    gone = stripe.delete(f"/v1/customers/{made['id']}").json()
    assert gone == {"id": made["id"], "object": "customer", "deleted": True}
    assert ask(stripe, f"customers/{made['id']}") == gone
    assert made["id"] not in {
        row["id"] for row in whole(stripe, "customers", **{"created[gte]": made["created"]})
    }
    told = ask(stripe, "events", limit=3, type="customer.*")["data"]
    assert [row["type"] for row in told] == ["customer.deleted", "customer.updated", "customer.created"]
    assert told[0]["data"]["object"]["name"] == "Ann"
    assert told[1]["data"]["previous_attributes"]["name"] is None
    assert told[2]["data"]["object"]["name"] is None
    assert stripe.post(f"/v1/customers/{made['id']}", data={"name": "B"}).status_code == 404
    after = stripe.get("/v1/customers", params={"starting_after": made["id"]})
    assert (after.status_code, after.json()["error"]["param"]) == (400, "starting_after")


def test_a_write_is_done_once_for_its_key(stripe: TestClient) -> None:
    headers = {"Idempotency-Key": "once"}
    first = stripe.post("/v1/customers", data={"name": "Ann"}, headers=headers)
    again = stripe.post("/v1/customers", data={"name": "Ann"}, headers=headers)
    assert again.json() == first.json()
    assert again.headers["Idempotent-Replayed"] == "true"
    assert len(ask(stripe, "customers", **{"created[gte]": first.json()["created"]})["data"]) == 1
    other = stripe.post("/v1/customers", data={"name": "Bob"}, headers=headers)
    assert (other.status_code, other.json()["error"]["type"]) == (400, "idempotency_error")


def test_the_signature_is_over_time_and_bytes() -> None:
    header = signature_header("whsec_1", b'{"a": 1}', 1_700_000_000)
    assert header.startswith("t=1700000000,v1=")
    assert header != signature_header("whsec_1", b'{"a":1}', 1_700_000_000)
    assert header.split(",")[1] != signature_header("whsec_1", b'{"a": 1}', 1_700_000_001).split(",")[1]


@pytest.mark.real_data
def test_every_payment_of_olist_is_a_charge(olist: Company) -> None:
    payments = pl.read_parquet(settings().real_data / "olist" / "order_payments.parquet")
    charges = [row for row in Account(olist).tables["charges"].rows if row is not None]
    expected = Counter(
        (order, kind, round(value * 100))
        for order, kind, value in payments.select("order_id", "payment_type", "payment_value").iter_rows()
    )
    found = Counter((c["metadata"]["order_id"], c["metadata"]["payment_type"], c["amount"]) for c in charges)
    assert found == expected
    assert {c["currency"] for c in charges} == {"brl"}
