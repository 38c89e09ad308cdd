"""Shopify's bulk operations, lookups by id, stock, changes, REST paging and webhook signatures."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from omni.sandbox.company import Company, Node
from omni.sandbox.shopify_bulk import LIFETIME, Operations, allowed
from omni.sandbox.shopify_events import webhook_headers
from omni.sandbox.shopify_find import Rows, number_of

Clients = Callable[..., TestClient]
URL = "/admin/api/2026-10/graphql.json"
RUN = """
mutation($q: String!, $g: Boolean! = true) {
  bulkOperationRunQuery(query: $q, groupObjects: $g) {
    bulkOperation { id status } userErrors { field message code }
  }
}
"""
STATE = """
query($id: ID!) { node(id: $id) { ... on BulkOperation {
  status errorCode objectCount rootObjectCount url partialDataUrl fileSize completedAt
} } }
"""
LINES = "{ orders { edges { node { id name lineItems { edges { node { id quantity } } } } } } }"
SIX = " ".join(f"{name}: lineItems {{ nodes {{ id }} }}" for name in "abcdef")
IDS = "{ products { nodes { id } } }"


def ask(client: TestClient, query: str, **variables: Any) -> dict[str, Any]:
    answer = client.post(URL, json={"query": query, "variables": variables})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def start(client: TestClient, query: str, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = ask(client, RUN, q=query, **more)["data"]["bulkOperationRunQuery"]
    return found


def ended(client: TestClient, operation: str) -> dict[str, Any]:
    for _ in range(5):
        state: dict[str, Any] = ask(client, STATE, id=operation)["data"]["node"]
        if state["status"] not in ("CREATED", "RUNNING", "CANCELING"):
            return state
    raise AssertionError("it never ends")


def fetched(client: TestClient, state: dict[str, Any]) -> list[dict[str, Any]]:
    answer = client.get(state["url"], headers={"X-Shopify-Access-Token": ""})
    assert answer.status_code == 200
    return [json.loads(line) for line in answer.content.splitlines()]


def test_an_operation_moves_on_and_gives_every_order_before_its_lines(
    client: TestClient, demo: Company
) -> None:
    begun = start(client, LINES)
    assert begun["bulkOperation"]["status"] == "CREATED"
    running = ask(client, STATE, id=begun["bulkOperation"]["id"])["data"]["node"]
    assert (running["status"], running["url"]) == ("RUNNING", None)
    state = ended(client, begun["bulkOperation"]["id"])
    lines = fetched(client, state)
    assert state["status"] == "COMPLETED"
    assert int(state["objectCount"]) == len(lines)
    assert int(state["rootObjectCount"]) == len(demo.shop.orders)
    expected = [
        line
        for order in demo.shop.orders
        for line in [
            {"id": order["id"], "name": order["name"]},
            *(
                {"id": n["id"], "quantity": n["quantity"], "__parentId": order["id"]}
                for n in order["lineItems"]
            ),
        ]
    ]
    assert lines == expected


def test_ungrouped_lines_hold_the_same_objects(client: TestClient) -> None:
    grouped, loose = (
        fetched(client, ended(client, start(client, LINES, g=g)["bulkOperation"]["id"]))
        for g in (True, False)
    )
    assert sorted(map(json.dumps, grouped)) == sorted(map(json.dumps, loose))
    assert grouped != loose


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("{ orders { edges { node { colour } } } }", "colour"),
        ("{ shop { name } }", "exactly one connection"),
        ("{ orders { edges { node { id } } } products { edges { node { id } } } }", "exactly one"),
        ("{ orders { edges { node { name lineItems { edges { node { id } } } } } } }", "select the 'id'"),
        (
            "{ orders { edges { node { id refunds { refundLineItems { nodes { id } } } } } } }",
            "within a list",
        ),
        (f"{{ orders {{ nodes {{ id {SIX} }} }} }}", "more than 5 connections"),
        ("{ orders { pageInfo { hasNextPage } } }", "must select 'nodes'"),
        ('{ orders(query: "colour:red") { edges { node { id } } } }', "unknown field 'colour'"),
        ("{ orders { edges { node { id } } }", "Syntax Error"),
    ],
)
def test_queries_that_cannot_run_in_bulk(client: TestClient, query: str, said: str) -> None:
    found = start(client, query)
    assert found["bulkOperation"] is None
    assert said in found["userErrors"][0]["message"]


def test_at_most_five_run_at_once_and_one_before_2026(client: TestClient, demo: Company) -> None:
    for _ in range(5):
        assert start(client, IDS)["userErrors"] == []
    busy = start(client, IDS)["userErrors"][0]
    assert busy["code"] == "OPERATION_IN_PROGRESS"
    assert "already in progress: gid://shopify/BulkOperation/5" in busy["message"]
    assert start(client, IDS)["userErrors"][0]["code"] == "OPERATION_IN_PROGRESS"
    assert start(client, IDS)["userErrors"] == [], "trying moved the others on"
    older = Operations(Rows(demo.shop))
    assert allowed("2025-10") == 1
    assert older.start(IDS, grouped=True, places=allowed("2025-10"), base="")[1] == []
    assert older.start(IDS, grouped=True, places=allowed("2025-10"), base="")[1] != []


def test_cancelling(client: TestClient) -> None:
    operation = start(client, IDS)["bulkOperation"]["id"]
    given = "bulkOperation { status } userErrors { message }"
    text = f"mutation($id: ID!) {{ bulkOperationCancel(id: $id) {{ {given} }} }}"
    found = ask(client, text, id=operation)["data"]["bulkOperationCancel"]
    assert found == {"bulkOperation": {"status": "CANCELING"}, "userErrors": []}
    assert ended(client, operation)["status"] == "CANCELED"
    again = ask(client, text, id=operation)["data"]["bulkOperationCancel"]
    assert "when it is canceled" in again["userErrors"][0]["message"]
    current = ask(client, "{ currentBulkOperation { id status } }")["data"]["currentBulkOperation"]
    assert current == {"id": operation, "status": "CANCELED"}


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("bulk_failed", "FAILED", "ACCESS_DENIED"),
        ("bulk_timeout", "FAILED", "TIMEOUT"),
        ("bulk_expired", "EXPIRED", None),
        ("bulk_canceled", "CANCELED", None),
    ],
)
def test_ends_on_request(client: TestClient, kind: str, status: str, code: str | None) -> None:
    client.post("/_sandbox/fault", json={"kind": kind, "path": "bulkOperationRunQuery"})
    state = ended(client, start(client, IDS)["bulkOperation"]["id"])
    assert (state["status"], state["errorCode"], state["url"]) == (status, code, None)
    assert bool(state["partialDataUrl"]) == (status == "FAILED")


def test_a_result_lives_seven_days_at_an_address_nobody_guesses(demo: Company) -> None:
    now = [1000.0]
    operations = Operations(Rows(demo.shop), lambda: now[0])
    begun, _ = operations.start(IDS, grouped=True, places=5, base="http://h")
    assert begun is not None
    states = [operations.ask(begun["id"], "http://h") for _ in range(3)]
    url = states[-1] and states[-1]["url"]
    assert url
    key = url.partition("?Signature=")[2]
    assert len(key) >= 40
    assert operations.result(key)
    assert operations.result(key[:-1]) is None
    assert operations.result("") is None
    now[0] += LIFETIME + 1
    assert operations.result(key) is None
    last = operations.ask(begun["id"], "http://h")
    assert last is not None
    assert (last["status"], last["url"]) == ("EXPIRED", None)


def test_nodes_come_in_the_order_asked_for(client: TestClient, demo: Company) -> None:
    refund = next(r for o in demo.shop.orders for r in o["refunds"])
    ids = [demo.shop.orders[3]["id"], "gid://shopify/Order/1", demo.shop.products[0]["id"], refund["id"]]
    query = """query($ids: [ID!]!) { nodes(ids: $ids) {
      ... on Order { name } ... on Product { handle }
      ... on Refund { refundLineItems(first: 5) { nodes { quantity lineItem { id } } } }
    } }"""
    found = ask(client, query, ids=ids)["data"]["nodes"]
    assert found[:3] == [
        {"name": demo.shop.orders[3]["name"]},
        None,
        {"handle": demo.shop.products[0]["handle"]},
    ]
    assert len(found[3]["refundLineItems"]["nodes"]) == len(refund["refundLineItems"]) > 0
    assert (
        "greater than the maximum"
        in ask(client, query, ids=["gid://shopify/Order/1"] * 251)["errors"][0]["message"]
    )
    assert "Invalid global id" in ask(client, query, ids=["17"])["errors"][0]["message"]


def test_stock_follows_the_orders(demo: Company) -> None:
    rows = Rows(demo.shop)
    waiting: dict[str, int] = {}
    for order in demo.shop.orders:
        if order["displayFulfillmentStatus"] != "FULFILLED" and not order["cancelledAt"]:
            for line in order["lineItems"]:
                product = line["product"]["id"]
                waiting[product] = waiting.get(product, 0) + line["quantity"]
    assert sum(waiting.values()) > 50
    for variant in rows.of("productVariants"):
        [first, *_] = variant["inventoryItem"]["inventoryLevels"]
        amounts = {q["name"]: q["quantity"] for q in first["quantities"]}
        assert amounts["committed"] == waiting.get(variant["product"]["id"], 0)
        assert amounts["on_hand"] == amounts["available"] + amounts["committed"]


def test_variants_are_counted_only_as_a_whole(client: TestClient) -> None:
    query = "query($q: String) { productVariantsCount(query: $q) { count precision } }"
    whole = ask(client, query)
    assert whole["data"]["productVariantsCount"] == {"count": 300, "precision": "EXACT"}
    searched = ask(client, query, q="updated_at:>'2026-01-01'")
    assert searched["data"] == whole["data"]
    assert searched["extensions"]["search"]


def test_changes_and_deletions_show_and_leave_the_company_alone(client: TestClient, demo: Company) -> None:
    order, other = demo.shop.orders[10], demo.shop.orders[11]
    body = {"id": order["id"], "set": {"displayFulfillmentStatus": "FULFILLED"}, "at": "2027-01-02T03:04:05Z"}
    assert client.post("/_sandbox/shopify/change", json=body).status_code == 200
    assert client.post("/_sandbox/shopify/delete", json={"id": other["id"]}).status_code == 200
    query = "query($q: String) { ordersCount(query: $q, limit: null) { count } }"
    assert ask(client, query, q="updated_at:>'2027-01-01'")["data"]["ordersCount"] == {"count": 1}
    assert ask(client, query)["data"]["ordersCount"] == {"count": len(demo.shop.orders) - 1}
    node = "query($id: ID!) { node(id: $id) { ... on Order { displayFulfillmentStatus updatedAt } } }"
    assert ask(client, node, id=order["id"])["data"]["node"]["updatedAt"] == "2027-01-02T03:04:05Z"
    assert ask(client, node, id=other["id"])["data"]["node"] is None
    assert order["updatedAt"] < "2027"
    gone = client.post("/_sandbox/shopify/delete", json={"id": other["id"]})
    wrong = client.post("/_sandbox/shopify/change", json={"id": order["id"], "set": {"colour": 1}})
    assert (gone.status_code, wrong.status_code) == (404, 400)


def rest(client: TestClient, path: str) -> Any:
    return client.get(f"/admin/api/2026-10/{path}")


@pytest.mark.parametrize(
    "path", ["nothing.json", "orders/1.json", "orders/x.json", "products/1/variants.json"]
)
def test_rest_knows_what_there_is_not(client: TestClient, path: str) -> None:
    assert rest(client, path).status_code == 404


def test_rest_refuses_wrong_parameters_and_tokens(client: TestClient) -> None:
    assert rest(client, "orders.json?limit=251").status_code == 400
    assert rest(client, "orders.json?page_info=x").status_code == 400
    assert rest(client, "inventory_levels.json").status_code == 422
    link = rest(client, "orders.json?limit=1").headers["link"].split(";")[0][1:-1]
    assert client.get(link + "&status=any").status_code == 400
    refused = client.get("/admin/api/2026-10/shop.json", headers={"X-Shopify-Access-Token": "nope"})
    assert refused.status_code == 401


def test_rest_throttles(client_for: Clients) -> None:
    client = client_for(plan="standard")
    answers = [rest(client, "shop.json") for _ in range(45)]
    assert answers[0].headers["x-shopify-shop-api-call-limit"].endswith("/40")
    assert answers[-1].status_code == 429
    assert answers[-1].headers["retry-after"] == "2.0"


def test_rest_orders_are_the_open_ones_unless_asked(client: TestClient, demo: Company) -> None:
    every = rest(client, "orders/count.json?status=any").json()["count"]
    cancelled = sum(o["cancelledAt"] is not None for o in demo.shop.orders)
    assert every == len(demo.shop.orders)
    assert rest(client, "orders/count.json").json()["count"] == every - cancelled
    recent = rest(client, "orders.json?status=any&limit=250&updated_at_min=2026-10-31T00:00:00Z").json()[
        "orders"
    ]
    assert [o["id"] for o in recent] == [
        number_of(o) for o in demo.shop.orders if o["updatedAt"] >= "2026-10-31T00:00:00Z"
    ]


@given(
    st.binary(max_size=200), st.text(min_size=1, max_size=30), st.sampled_from(["orders/updated", "app/x"])
)
def test_webhooks_are_signed_over_the_raw_body(payload: bytes, secret: str, topic: str) -> None:
    headers = webhook_headers(secret, topic, payload, "w-1")
    digest = hmac.new(secret.encode(), payload, hashlib.sha256).digest()
    assert base64.b64decode(headers["X-Shopify-Hmac-Sha256"]) == digest
    assert headers["X-Shopify-Topic"] == topic
    other = webhook_headers(secret, topic, payload + b" ", "w-1")
    assert other["X-Shopify-Hmac-Sha256"] != headers["X-Shopify-Hmac-Sha256"]
    repeated = webhook_headers(secret, topic, payload, "w-1")
    assert repeated["X-Shopify-Webhook-Id"] == headers["X-Shopify-Webhook-Id"] == "w-1"


def test_a_changed_shop_still_has_each_row_once(demo: Company) -> None:
    rows = Rows(demo.shop)
    wanted: Node = demo.shop.orders[5]
    assert rows.change(wanted["id"], {}, "2027-01-01T00:00:00Z")
    assert [r["id"] for r in rows.of("orders")] == [o["id"] for o in demo.shop.orders]
    assert rows.find("orders", None, "UPDATED_AT").rows[-1]["id"] == wanted["id"]
