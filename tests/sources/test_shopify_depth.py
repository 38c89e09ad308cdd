"""Shopify in depth: reading again by id, lists within lists, tokens that expire, and what is not counted."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from omni.errors import AuthError, ConfigError, SourceError, TransientError
from omni.sandbox.process import running
from omni.sources.connection import Access, Connection
from omni.sources.extract import tables
from omni.sources.shopify import VENDOR
from omni.sources.shopify_bulk import Lines
from omni.sources.vendor import Window

ALL = Window(None, datetime(2100, 1, 1, tzinfo=UTC))


def connection(box, **changes):
    settings = {"requests_per_10s": 100_000, "backoff": 0.001} | changes
    return Connection("shopify", box.url, SecretStr(box.token), **settings)


def records(found):
    return [record for page in found for record in page.records]


def read(account, stream, window=ALL, resume=None):
    with VENDOR.open(account) as shop:
        return records(VENDOR.read(shop, tables("shopify", stream), window, resume))


def reread(account, stream, ids):
    with VENDOR.open(account) as shop:
        return records(VENDOR.reread(shop, tables("shopify", stream), ids))


@pytest.fixture(scope="module")
def box():
    with running("demo") as sandbox:
        yield sandbox


def alter(box, what, **body):
    httpx.post(f"{box.url}/_sandbox/shopify/{what}", json=body).raise_for_status()


@pytest.mark.slow
@pytest.mark.parametrize("stream", ["orders", "customers", "products", "productVariants", "inventoryItems"])
def test_reading_again_gives_the_same_records(box, stream):
    found = {row["id"]: row for row in read(connection(box), stream)}
    wanted = list(found)[:600:2]
    assert reread(connection(box), stream, wanted) == [found[key] for key in wanted]


@pytest.mark.slow
def test_numbers_from_webhooks_are_ids_too_and_asked_for_once(box):
    found = reread(connection(box), "products", ["7001", "gid://shopify/Product/7001", "7002"])
    assert [row["id"] for row in found] == ["gid://shopify/Product/7001", "gid://shopify/Product/7002"]


@pytest.mark.slow
def test_a_deleted_order_is_gone_and_a_changed_one_comes_in_the_next_window(box):
    changed, deleted = "gid://shopify/Order/500011", "gid://shopify/Order/500012"
    moment = "2027-03-04T05:06:07Z"
    alter(box, "change", id=changed, set={"displayFinancialStatus": "REFUNDED"}, at=moment)
    alter(box, "delete", id=deleted)
    [row] = reread(connection(box), "orders", [changed, deleted])
    assert (row["displayFinancialStatus"], row["updatedAt"]) == ("REFUNDED", moment)
    later = Window(datetime(2027, 3, 1, tzinfo=UTC), ALL.until)
    assert [row["id"] for row in read(connection(box), "orders", later)] == [changed]
    with VENDOR.open(connection(box)) as shop:
        assert VENDOR.count(shop, tables("shopify", "orders"), later) == 1


@pytest.mark.slow
def test_refund_lines_add_up_to_the_refunds(box):
    returned = 0
    for order in read(connection(box), "orders"):
        for refund in order["refunds"]:
            lines = [row for row in order["refundLineItems"] if row["within"] == refund["id"]]
            cents = sum(round(float(row["subtotalSet"]["shopMoney"]["amount"]) * 100) for row in lines)
            assert cents == round(float(refund["totalRefundedSet"]["shopMoney"]["amount"]) * 100)
            assert {row["lineItem"]["id"] for row in lines} <= {row["id"] for row in order["lineItems"]}
            returned += len(lines)
    assert returned > 500


@pytest.mark.slow
def test_variants_changed_since_are_read_without_a_count(box):
    variant = "gid://shopify/ProductVariant/40007005"
    alter(box, "change", id=variant, set={"price": "1.23"}, at="2028-01-01T00:00:00Z")
    later = Window(datetime(2027, 12, 1, tzinfo=UTC), ALL.until)
    assert [(row["id"], row["price"]) for row in read(connection(box), "productVariants", later)] == [
        (variant, "1.23")
    ]
    wanted = tables("shopify", "productVariants")
    with VENDOR.open(connection(box)) as shop:
        assert VENDOR.count(shop, wanted, later) is None
        assert VENDOR.count(shop, wanted, ALL) == 300


@pytest.mark.parametrize("wrong", ["gid://shopify/Customer/1", "1; drop", "gid://shopify/Order/", '1"'])
def test_ids_of_another_kind_are_refused(serve, answering, connect, wrong):
    server = serve(lambda _: answering({}))
    with pytest.raises(SourceError, match=r"not of the kind gid://shopify/Order/<number>"):
        reread(connect("shopify", server.url), "orders", [wrong])
    assert server.asked == []


def products(answering, asked):
    ids = asked.body["variables"].get("ids")
    if ids is not None:
        return answering({"data": {"nodes": [{"id": i} for i in ids]}})
    if "Count(" in asked.body["query"]:
        return answering({"data": {"productsCount": {"count": 1, "precision": "EXACT"}}})
    info = {"hasNextPage": False, "endCursor": None}
    page = {"nodes": [{"id": "gid://shopify/Product/1"}], "pageInfo": info}
    return answering({"data": {"products": page}})


def test_rereading_asks_for_no_more_than_the_shop_can_afford(serve, answering, connect):
    def shop(asked):
        if len(asked.body["variables"]["ids"]) > 50:
            error = {"message": "too much", "extensions": {"code": "MAX_COST_EXCEEDED"}}
            return answering({"errors": [error]})
        return products(answering, asked)

    server = serve(shop)
    ids = [str(number) for number in range(1, 261)]
    found = reread(connect("shopify", server.url), "products", ids)
    assert [row["id"].rsplit("/")[-1] for row in found] == ids
    assert [len(a.body["variables"]["ids"]) for a in server.asked] == [250, 100, 50, 50, 50, 50, 50, 10]


class Offline:
    """A login whose tokens run out, as Shopify's expiring offline tokens do."""

    def __init__(self, *tokens):
        self.tokens = list(tokens)
        self.refused = []

    def access(self):
        return Access(SecretStr(self.tokens[0]))

    def renew(self, refused):
        self.refused.append(refused.get_secret_value())
        self.tokens.pop(0)
        return self.access()


def test_an_expired_token_is_renewed_in_the_middle(serve, answering, connect):
    def shop(asked):
        if asked.headers["x-shopify-access-token"] != "fresh":
            return answering({"errors": "[API] Invalid API key or access token"}, 401)
        return products(answering, asked)

    login = Offline("stale", "fresh")
    server = serve(shop)
    assert len(read(connect("shopify", server.url, login=login), "products")) == 1
    assert login.refused == ["stale"]
    assert [a.headers["x-shopify-access-token"] for a in server.asked] == ["stale", "fresh", "fresh"]


def test_a_new_token_that_is_refused_as_well_ends_it(serve, answering, connect):
    login = Offline("stale", "stale too", "never")
    login.tokens = ["stale", "stale2", "never"]
    server = serve(lambda _: answering({"errors": "Invalid"}, 401))
    with pytest.raises(AuthError, match="access refused with a new token"):
        read(connect("shopify", server.url, login=login), "products")
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("code", "error", "said"),
    [
        ("SHOP_INACTIVE", SourceError, "the shop is closed or frozen"),
        ("ACCESS_DENIED", AuthError, "access refused: no.*read_inventory"),
        ("INTERNAL_SERVER_ERROR", TransientError, "Shopify failed inside"),
    ],
)
def test_errors_name_what_to_do(serve, answering, connect, code, error, said):
    body = {"errors": [{"message": "no", "extensions": {"code": code}}]}
    server = serve(lambda _: answering(body))
    with pytest.raises(error, match=said):
        read(connect("shopify", server.url), "products")


@pytest.mark.parametrize("status", [402, 423])
def test_a_shop_that_does_not_pay_or_is_locked_is_told(serve, answering, connect, status):
    server = serve(lambda _: answering({"errors": "Unavailable Shop"}, status))
    with pytest.raises(SourceError, match=rf"HTTP {status}.*Unavailable Shop"):
        read(connect("shopify", server.url), "products")


@pytest.mark.parametrize("scopes", [[], ["read_orders"], ["read_orders", "read_all_orders"]])
def test_a_token_that_sees_two_months_only_is_reported(serve, answering, connect, scopes):
    found = {"accessScopes": [{"handle": scope} for scope in scopes]}
    server = serve(lambda _: answering({"data": {"currentAppInstallation": found}}))
    with VENDOR.open(connect("shopify", server.url)) as shop:
        notices = VENDOR.check(shop, tables("shopify", "orders"))
        assert VENDOR.check(shop, tables("shopify", "products")) == []
    assert len(notices) == ("read_all_orders" not in scopes)
    assert all("the last 60 days only" in notice for notice in notices)


def test_long_lists_within_lists_are_read_to_the_end(serve, answering, connect):
    refunds = {f"gid://shopify/Refund/{n}": 1 + n * 30 for n in range(1, 4)}

    def line(refund, number):
        return {"id": f"{refund}-{number}", "quantity": 1}

    def shop(asked):
        given = asked.body["variables"]
        if "ids" not in given:
            lines = {"nodes": [], "pageInfo": {"hasNextPage": False, "endCursor": None}}
            listed = [{"id": key} for key in refunds]
            node = {"id": "gid://shopify/Order/1", "refunds": listed, "transactions": [], "lineItems": lines}
            page = {"nodes": [node], "pageInfo": {"hasNextPage": False, "endCursor": None}}
            count = {"count": 1, "precision": "EXACT"}
            name = "ordersCount" if "Count(" in asked.body["query"] else "orders"
            return answering({"data": {name: count if name == "ordersCount" else page}})
        nodes = []
        for key in given["ids"]:
            start, end = int(given["after"] or 0), int(given["after"] or 0) + given["first"]
            part = [line(key, n) for n in range(refunds[key])][start:end]
            more = end < refunds[key]
            info = {"hasNextPage": more, "endCursor": str(end) if more else None}
            nodes.append({"id": key, "refundLineItems": {"nodes": part, "pageInfo": info}})
        return answering({"data": {"nodes": nodes}})

    [order] = read(connect("shopify", serve(shop).url), "orders")
    found = [(row["within"], row["id"]) for row in order["refundLineItems"]]
    assert sorted(found) == sorted((key, f"{key}-{n}") for key, size in refunds.items() for n in range(size))


def test_options_must_be_numbers(serve, answering, connect):
    server = serve(lambda _: answering({}))
    with pytest.raises(ConfigError, match="bulk_patience must be numbers"):
        read(connect("shopify", server.url, options={"bulk_above": "many"}), "products")


@given(st.lists(st.integers(0, 4), max_size=30), st.booleans())
def test_lines_become_the_records_they_were_made_of(sizes, spaced):
    expected, lines = [], []
    for number, size in enumerate(sizes):
        order = {"id": f"gid://shopify/Order/{number}", "note": '"__parentId"'}
        rows = [{"id": f"gid://shopify/LineItem/{number}{n}", "quantity": n} for n in range(size)]
        lines += [order, *({**row, "__parentId": order["id"]} for row in rows)]
        expected.append({**order, "lineItems": rows})
    text = [json.dumps(line).encode() + b"\n" + b"\n" * spaced for line in lines]
    reading = Lines(tables("shopify", "orders"))
    assert list(reading.records(text)) == expected
    assert (reading.roots, reading.objects) == (len(expected), len(lines))
