"""ShopifyAPI, unchanged, reads the whole shop and finds what our connector finds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import shopify
from pydantic import SecretStr

from omni.sandbox.process import Sandbox, running
from omni.sources.connection import Connection
from omni.sources.extract import tables
from omni.sources.shopify import VENDOR
from omni.sources.vendor import Window

pytestmark = pytest.mark.slow
ALL = Window(None, datetime(2100, 1, 1, tzinfo=UTC))
TOKEN = "X-Shopify-Access-Token"


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with running("demo") as sandbox:
        yield sandbox


@pytest.fixture(autouse=True)
def sdk(box: Sandbox) -> Iterator[None]:
    shopify.ShopifyResource.set_site(f"{box.url}/admin/api/2026-10")
    shopify.ShopifyResource.headers[TOKEN] = box.token
    yield
    shopify.ShopifyResource.headers.pop(TOKEN)
    shopify.ShopifyResource.set_site(None)


def ours(box: Sandbox, stream: str) -> dict[str, Any]:
    """Our connector's records by id."""
    options = {"bulk_above": "1000", "bulk_poll": "0.01"}
    account = Connection("shopify", box.url, SecretStr(box.token), requests_per_10s=100_000, options=options)
    with VENDOR.open(account) as shop:
        pages = list(VENDOR.read(shop, tables("shopify", stream), ALL, None))
    return {record["id"]: record for page in pages for record in page.records}


def theirs(resource: Any, **query: Any) -> dict[str, Any]:
    """All of the SDK's objects by global id, page after page."""
    page = resource.find(limit=250, **query)
    found = list(page)
    while page.has_next_page():
        page = page.next_page(no_cache=True)
        found += list(page)
    by_id = {item.admin_graphql_api_id: item for item in found}
    assert len(by_id) == len(found)
    return by_id


def amount(bag: dict[str, Any]) -> Decimal:
    return Decimal(bag["shopMoney"]["amount"])


def test_orders_lines_refunds_and_payments_are_the_same(box: Sandbox) -> None:
    found, expected = theirs(shopify.Order, status="any"), ours(box, "orders")
    assert found.keys() == expected.keys()
    assert len(found) == shopify.Order.count(status="any") > 11_000
    for key, order in found.items():
        mine = expected[key]
        assert Decimal(order.total_price) == amount(mine["totalPriceSet"])
        assert (order.name, order.updated_at, order.currency) == (
            mine["name"],
            mine["updatedAt"],
            mine["currencyCode"],
        )
        assert [(n.admin_graphql_api_id, Decimal(n.price), n.quantity) for n in order.line_items] == [
            (n["id"], amount(n["originalUnitPriceSet"]), n["quantity"]) for n in mine["lineItems"]
        ]
        lines = [(r.admin_graphql_api_id, n.line_item_id) for r in order.refunds for n in r.refund_line_items]
        assert lines == [
            (n["within"], int(n["lineItem"]["id"].rsplit("/")[-1])) for n in mine["refundLineItems"]
        ]
    refunded = [key for key, order in found.items() if order.refunds][:5]
    for key in refunded:
        paid = found[key].transactions()
        assert [(t.admin_graphql_api_id, Decimal(t.amount)) for t in paid] == [
            (t["id"], amount(t["amountSet"])) for t in expected[key]["transactions"]
        ]


def test_customers_products_variants_and_stock_are_the_same(box: Sandbox) -> None:
    customers, expected = theirs(shopify.Customer), ours(box, "customers")
    assert customers.keys() == expected.keys()
    for key, person in customers.items():
        mail = expected[key]["defaultEmailAddress"]
        assert person.email == (mail and mail["emailAddress"])
    products, expected = theirs(shopify.Product), ours(box, "products")
    assert {k: (p.title, p.updated_at) for k, p in products.items()} == {
        k: (p["title"], p["updatedAt"]) for k, p in expected.items()
    }
    variants = ours(box, "productVariants")
    shown = {v.admin_graphql_api_id: v for p in products.values() for v in p.variants}
    assert {k: (Decimal(v.price), v.sku) for k, v in shown.items()} == {
        k: (Decimal(v["price"]), v["sku"]) for k, v in variants.items()
    }
    items = ours(box, "inventoryItems")
    levels = {
        level.admin_graphql_api_id: level.available
        for location in shopify.Location.find()
        for at in range(0, len(items), 100)
        for level in shopify.InventoryLevel.find(
            limit=250,
            location_ids=location.id,
            inventory_item_ids=",".join(k.rsplit("/")[-1] for k in list(items)[at : at + 100]),
        )
    }
    assert levels == {
        level["id"]: level["quantities"]["available"]
        for item in items.values()
        for level in item["inventoryLevels"]
    }


def test_pages_by_the_last_id_seen(box: Sandbox) -> None:
    seen: list[int] = []
    while page := shopify.Customer.find(limit=250, since_id=seen[-1] if seen else 0):
        seen += [person.id for person in page]
    assert seen == sorted({int(key.rsplit("/")[-1]) for key in ours(box, "customers")})


def test_single_objects_the_shop_its_scopes_and_limits(box: Sandbox) -> None:
    assert shopify.Shop.current().currency == "EUR"
    assert "read_all_orders" in {scope.handle for scope in shopify.AccessScope.find()}
    assert shopify.Order.find(500_001).name == "#1001"
    assert shopify.Variant.find(shopify.Product.find(7001).variants[0].id).product_id == 7001
    used, size = shopify.Limits.api_credit_limit_param()
    assert (int(used) < int(size), size) == (True, "400")


def test_graphql_pages_and_a_bulk_operation(box: Sandbox) -> None:
    client = shopify.GraphQL()
    seen: list[str] = []
    after = None
    query = (
        "query($after: String) { products(first: 100, after: $after) "
        "{ nodes { id } pageInfo { hasNextPage endCursor } } }"
    )
    while True:
        page = json.loads(client.execute(query, {"after": after}))["data"]["products"]
        seen += [node["id"] for node in page["nodes"]]
        if not page["pageInfo"]["hasNextPage"]:
            break
        after = page["pageInfo"]["endCursor"]
    assert set(seen) == ours(box, "products").keys()
    start = "mutation($q: String!) { bulkOperationRunQuery(query: $q) { bulkOperation { id } } }"
    every = {"q": "{ products { edges { node { id } } } }"}
    operation = json.loads(client.execute(start, every))["data"]["bulkOperationRunQuery"]["bulkOperation"][
        "id"
    ]
    state = {"status": "CREATED"}
    while state["status"] in ("CREATED", "RUNNING"):
        text = "query($id: ID!) { node(id: $id) { ... on BulkOperation { status objectCount } } }"
        state = json.loads(client.execute(text, {"id": operation}))["data"]["node"]
    assert state == {"status": "COMPLETED", "objectCount": str(len(seen))}
