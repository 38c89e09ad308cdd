"""Shopify, against a small loopback shop: pages, nested pages, costs, throttles, versions."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import graphql
import polars as pl
import pytest

from omni.errors import AuthError, CountMismatch, SchemaError, SourceError, TransientError
from omni.sources.extract import extract, tables
from omni.sources.shopify import PATH, VERSION, nested_query, query
from omni.sources.shopify_query import SCOPES_QUERY

DAY = datetime(2024, 5, 1, tzinfo=UTC)


def money(amount):
    return {"shopMoney": {"amount": amount}}


def line(number):
    return {
        "id": f"gid://shopify/LineItem/{number}",
        "product": None,
        "title": "Shirt",
        "sku": "",
        "vendor": "v",
        "quantity": 2,
        "originalUnitPriceSet": money("19.99"),
        "totalDiscountSet": money("0.0"),
    }


def order(number, lines=1, **changes):
    when = (DAY + timedelta(seconds=number)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "id": f"gid://shopify/Order/{number}",
        "name": f"#{number}",
        "customer": {"id": "gid://shopify/Customer/1"},
        "email": f"p{number}@example.com",
        "sourceName": "web",
        "displayFinancialStatus": "PAID",
        "displayFulfillmentStatus": "FULFILLED",
        "currencyCode": "EUR",
        "subtotalPriceSet": money("39.98"),
        "totalShippingPriceSet": money("4.9"),
        "totalPriceSet": money("44.88"),
        "totalRefundedSet": money("0.0"),
        "createdAt": when,
        "updatedAt": when,
        "cancelledAt": None,
        "lineItems": [line(number * 1000 + i) for i in range(lines)],
        "refunds": [],
        "transactions": [
            {
                "id": f"gid://shopify/OrderTransaction/{number}",
                "kind": "SALE",
                "status": "SUCCESS",
                "gateway": "card",
                "amountSet": money("44.88"),
                "createdAt": when,
            }
        ],
    } | changes


def page(rows, first, after):
    start = int(after or 0)
    more = start + first < len(rows)
    info = {"hasNextPage": more, "endCursor": str(start + first) if more else None}
    return {"nodes": rows[start : start + first], "pageInfo": info}


class Shop:
    """Answers the project's queries for orders."""

    def __init__(self, answering):
        self.answering = answering
        self.orders = []
        self.override = None
        self.max_first = 250
        self.precision = "EXACT"
        self.headers = {"X-Shopify-API-Version": VERSION}
        self.extensions = {}

    def __call__(self, asked):
        assert (asked.method, asked.path) == ("POST", PATH)
        graphql.parse(asked.body["query"])
        if asked.body["query"] == SCOPES_QUERY:
            scopes = [{"handle": "read_orders"}, {"handle": "read_all_orders"}]
            return self.answering({"data": {"currentAppInstallation": {"accessScopes": scopes}}})
        if self.override and (answer := self.override(asked)):
            return answer
        return self.data(asked.body["query"], asked.body["variables"])

    def data(self, text, given):
        if "ordersCount" in text:
            found = {"ordersCount": {"count": len(self.window(given["query"])), "precision": self.precision}}
        elif "order(id" in text:
            [wanted] = [o for o in self.orders if o["id"] == given["id"]]
            found = {"order": {"lineItems": page(wanted["lineItems"], given["first"], given["after"])}}
        elif given["first"] > self.max_first:
            return self.errors("too expensive", "MAX_COST_EXCEEDED")
        else:
            rows = [o | {"lineItems": page(o["lineItems"], 10, None)} for o in self.window(given["query"])]
            found = {"orders": page(rows, given["first"], given["after"])}
        return self.answering({"data": found, "extensions": self.extensions}, 200, self.headers)

    def errors(self, message, code, status=200, **more):
        entry = {"message": message, "extensions": {"code": code}}
        return self.answering({"errors": [entry]} | more, status, self.headers)

    def window(self, terms):
        bounds = dict(re.findall(r"updated_at:(>=|<)'([^']+)'", terms or ""))
        low, high = bounds.get(">=", ""), bounds.get("<", "~")
        return [o for o in self.orders if low <= o["updatedAt"] < high]


@pytest.fixture
def shop(answering):
    return Shop(answering)


@pytest.fixture
def run(serve, connect, shop, home, tenant, tmp_path):
    server = serve(shop)

    def start(since=None, until=DAY + timedelta(days=9), **options):
        return extract(
            tenant,
            "shopify",
            "orders",
            connect("shopify", server.url, **options),
            since=since,
            until=until,
            run_id="run-1",
            folder=tmp_path / "staged",
        )

    start.server = server
    return start


def rows(staged, table):
    return pl.concat([pl.read_parquet(staged.folder / file) for file in staged.tables[table]])


def test_the_queries_follow_the_contracts():
    for stream in ("orders", "customers", "products"):
        graphql.parse(query(tables("shopify", stream)))
    text = query(tables("shopify", "orders"))
    assert "originalUnitPriceSet { shopMoney { amount } }" in text
    assert "lineItems(first: 10) { nodes {" in text
    assert "refunds { id" in text
    customers = query(tables("shopify", "customers"))
    assert "defaultEmailAddress { emailAddress marketingState }" in customers
    assert "firstName" not in customers
    orders = tables("shopify", "orders")
    graphql.parse(nested_query(orders, orders[1]))


def test_orders_come_with_lines_payments_and_exact_amounts(shop, run):
    shop.orders = [order(number) for number in range(1, 301)]
    staged = run()
    assert staged.rows == {
        "raw.shopify__orders": 300,
        "raw.shopify__order_lines": 300,
        "raw.shopify__transactions": 300,
        "raw.shopify__refunds": 0,
        "raw.shopify__refund_lines": 0,
    }
    first = rows(staged, "raw.shopify__orders").row(0, named=True)
    assert first["shipping"] == Decimal("4.90")
    assert first["created_at"] == DAY + timedelta(seconds=1)
    assert rows(staged, "raw.shopify__order_lines")["order_id"][299] == "gid://shopify/Order/300"
    assert b"p1@example.com" not in b"".join(file.read_bytes() for file in staged.folder.iterdir())
    assert {asked.headers["x-shopify-access-token"] for asked in run.server.asked} == {"token-for-tests"}


def test_long_orders_are_read_to_the_last_line(shop, run):
    shop.orders = [order(1, lines=3), order(2, lines=523), order(3, lines=10), order(4, lines=11)]
    staged = run()
    lines = rows(staged, "raw.shopify__order_lines")
    assert lines["id"].n_unique() == lines.height == 3 + 523 + 10 + 11


def test_a_window_reads_its_changes_only(shop, run):
    shop.orders = [order(number) for number in range(1, 10)]
    staged = run(since=DAY + timedelta(seconds=3), until=DAY + timedelta(seconds=6))
    assert rows(staged, "raw.shopify__orders")["name"].to_list() == ["#3", "#4", "#5"]


def test_a_full_read_keeps_orders_edited_meanwhile(shop, run):
    """Else they would seem to be absent, and be removed."""
    shop.orders = [order(number) for number in range(1, 301)]

    def edited(asked):
        if asked.body["variables"].get("after"):
            shop.override = None
            last = shop.orders[-1]
            last["updatedAt"] = (DAY + timedelta(days=20)).strftime("%Y-%m-%dT%H:%M:%SZ")

    shop.override = edited
    staged = run()
    assert rows(staged, "raw.shopify__orders")["name"].to_list() == [f"#{n}" for n in range(1, 301)]
    assert (staged.source_rows, staged.rows["raw.shopify__order_lines"]) == (299, 300)


def test_pages_shrink_until_the_shop_can_afford_them(shop, run):
    shop.orders = [order(number) for number in range(1, 121)]
    shop.max_first = 50
    assert run().source_rows == 120
    asked = [a.body["variables"]["first"] for a in run.server.asked if "first" in a.body["variables"]]
    assert asked == [250, 100, 50, 50, 50]
    shop.max_first = 9
    shop.orders.append(order(500))
    with pytest.raises(SourceError, match="a page of 10 records costs more"):
        run(until=DAY + timedelta(days=8))


@pytest.mark.slow
@pytest.mark.parametrize("status", [200, 429])
def test_throttles_are_waited_for_as_long_as_the_bucket_needs(shop, run, status):
    shop.orders = [order(1)]
    cost = {
        "requestedQueryCost": 112,
        "actualQueryCost": None,
        "throttleStatus": {"maximumAvailable": 2000.0, "currentlyAvailable": 12, "restoreRate": 1000.0},
    }
    left = [1] * 10

    def throttled(asked):
        return (
            left and left.pop() and shop.errors("Throttled", "THROTTLED", status, extensions={"cost": cost})
        )

    shop.override = throttled
    started = datetime.now(UTC)
    assert run().source_rows == 1
    # ten waits of (112 - 12) / 1000 s each, whatever the number of tries allowed for failures
    assert (datetime.now(UTC) - started).total_seconds() >= 1


def test_a_throttle_without_figures_backs_off(shop, run):
    shop.orders = [order(1)]
    left = [1] * 3
    shop.override = lambda _: left and left.pop() and shop.errors("Throttled", "THROTTLED")
    assert run().source_rows == 1


def test_the_next_query_waits_for_the_bucket(shop, run):
    shop.orders = [order(1)]
    shop.extensions = {
        "cost": {
            "requestedQueryCost": 100,
            "throttleStatus": {"currentlyAvailable": 50.0, "restoreRate": 500.0},
        }
    }
    started = datetime.now(UTC)
    run()
    assert (datetime.now(UTC) - started).total_seconds() >= 0.1


def test_another_version_is_noticed(shop, run):
    shop.headers = {"X-Shopify-API-Version": "2026-07"}
    with pytest.raises(SourceError, match="version 2026-07 instead of 2026-10"):
        run()


@pytest.mark.parametrize(
    ("code", "error", "said"),
    [
        ("ACCESS_DENIED", AuthError, "no scope.*read_orders"),
        ("undefinedField", SchemaError, "no scope.*`from` paths"),
        ("SHOP_INACTIVE", SourceError, "no scope"),
        ("INTERNAL_SERVER_ERROR", TransientError, "no scope; gave up after 6"),
    ],
)
def test_errors_in_a_good_reply_are_errors(shop, run, code, error, said):
    shop.override = lambda _: shop.errors("no scope", code)
    with pytest.raises(error, match=said):
        run()


def test_an_estimate_is_no_count(shop, run):
    shop.precision = "AT_LEAST"
    with pytest.raises(SourceError, match="no exact count"):
        run()


def test_an_ignored_search_term_is_an_error(shop, run):
    shop.extensions = {"search": [{"path": ["orders"], "warnings": [{"field": "updated_at"}]}]}
    with pytest.raises(SourceError, match="ignored part of the search"):
        run()


@pytest.mark.parametrize(
    "message", ["Field 'nope' doesn't exist on type 'Order'", "Cannot query field 'nope' on type 'Order'."]
)
def test_a_field_that_is_gone_names_the_contract(shop, run, message):
    shop.override = lambda _: shop.answering({"errors": [{"message": message}]})
    with pytest.raises(SchemaError, match=r"contracts of raw\.shopify__orders"):
        run()


def test_user_errors_are_errors(shop, run):
    body = {"data": {"ordersCount": {"userErrors": [{"field": ["query"], "message": "unknown term"}]}}}
    shop.override = lambda _: shop.answering(body)
    with pytest.raises(SourceError, match="unknown term"):
        run()


def test_a_wrong_token_says_where_to_set_it(shop, run):
    shop.override = lambda _: shop.answering({"errors": "[API] Invalid API key or access token"}, 401)
    with pytest.raises(AuthError, match=r"Invalid API key.*OMNI_SHOPIFY__TOKEN"):
        run(token="shpat_secret")


def without(node, *path):
    for key in path[:-1]:
        node = node[key]
    del node[path[-1]]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (("data",), "lacks data"),
        (("data", "orders"), "lacks orders"),
        (("data", "orders", "nodes"), "lacks orders.nodes"),
        (("data", "orders", "pageInfo"), "lacks pageInfo"),
        (("data", "orders", "nodes", 0, "id"), "lacks id"),
        (("data", "orders", "nodes", 0, "lineItems"), "lacks lineItems"),
        (("data", "orders", "nodes", 0, "lineItems", "pageInfo"), "lacks pageInfo"),
        (("data", "orders", "nodes", 0, "refunds"), "lacks refunds"),
    ],
)
def test_malformed_pages_are_refused(shop, run, path, said):
    shop.orders = [order(1)]

    def broken(asked):
        if "ordersCount" in asked.body["query"]:
            return None
        answer = shop.data(asked.body["query"], asked.body["variables"])
        without(answer.body, *path)
        return answer

    shop.override = broken
    with pytest.raises(SourceError, match=said):
        run()


def test_a_page_that_leads_nowhere_is_refused(shop, run):
    shop.orders = [order(number) for number in range(1, 4)]

    def stuck(asked):
        if "ordersCount" in asked.body["query"]:
            return None
        answer = shop.data(asked.body["query"], asked.body["variables"])
        answer.body["data"]["orders"]["pageInfo"] = {"hasNextPage": True, "endCursor": "0"}
        return answer

    shop.override = stuck
    with pytest.raises(SourceError, match="does not advance"):
        run()


def test_missing_orders_are_noticed(shop, run):
    shop.orders = [order(number) for number in range(1, 6)]

    def lossy(asked):
        answer = shop.data(asked.body["query"], asked.body["variables"])
        if "orders" in answer.body["data"]:
            answer.body["data"]["orders"]["nodes"].pop()
        return answer

    shop.override = lossy
    with pytest.raises(CountMismatch, match="read 4 records, but Shopify says the window holds 5"):
        run()


def test_an_amount_that_is_no_number_is_rejected_with_its_children(shop, run):
    shop.orders = [order(1), order(2, totalPriceSet=money("12,50"))]
    staged = run()
    assert staged.rows["raw.shopify__orders"] == 1
    assert staged.rows["raw.shopify__order_lines"] == 1
    assert staged.source_rows == 2
    assert staged.rejected == 3
