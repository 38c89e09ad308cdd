"""Shopify's side: paging on two levels, search, counts, cost, errors, and the schema's promises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from graphql import GraphQLNonNull, get_named_type, is_leaf_type, is_list_type, parse, validate
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from omni.sandbox.company import Company, Node
from omni.sandbox.limits import Bucket
from omni.sandbox.shopify import SCHEMA, answering_version
from omni.sandbox.shopify_find import Rows, encode, page_of
from omni.sources import shopify_query as texts
from omni.sources.extract import streams, tables

Clients = Callable[..., TestClient]
URL = "/admin/api/2026-10/graphql.json"


def ask(client: TestClient, query: str, **variables: Any) -> dict[str, Any]:
    answer = client.post(URL, json={"query": query, "variables": variables})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def read_all(
    client: TestClient, kind: str, fields: str, size: int = 250, search: str = "", sort: str = "UPDATED_AT"
) -> list[Node]:
    query = (
        "query($n: Int!, $after: String, $q: String) {"
        f" {kind}(first: $n, after: $after, query: $q, sortKey: {sort})"
        f" {{ nodes {{ {fields} }} pageInfo {{ hasNextPage endCursor }} }} }}"
    )
    rows: list[Node] = []
    after = None
    while True:
        body = ask(client, query, n=size, after=after, q=search)
        assert "errors" not in body, body
        page = body["data"][kind]
        rows += page["nodes"]
        if not page["pageInfo"]["hasNextPage"]:
            return rows
        after = page["pageInfo"]["endCursor"]


@pytest.mark.parametrize("kind", ["orders", "customers", "products"])
@pytest.mark.parametrize("sort", ["UPDATED_AT", "ID"])
def test_paging_is_complete_ordered_and_free_of_duplicates(
    client: TestClient, demo: Company, kind: str, sort: str
) -> None:
    rows = read_all(client, kind, "id updatedAt", sort=sort)
    assert sorted(r["id"] for r in rows) == sorted(n["id"] for n in getattr(demo.shop, kind))
    key = (lambda r: r["updatedAt"]) if sort == "UPDATED_AT" else (lambda r: int(r["id"].rsplit("/")[-1]))
    assert [key(r) for r in rows] == sorted(key(r) for r in rows)


def test_nested_lines_page_to_the_end(client: TestClient, demo: Company) -> None:
    order = max(demo.shop.orders, key=lambda o: len(o["lineItems"]))
    query = """
    query($id: ID!, $after: String) {
      order(id: $id) {
        lineItems(first: 2, after: $after) {
          edges { cursor node { id quantity product { handle } } }
          pageInfo { hasNextPage }
        }
      }
    }
    """
    ids: list[str] = []
    after = None
    while True:
        lines = ask(client, query, id=order["id"], after=after)["data"]["order"]["lineItems"]
        ids += [e["node"]["id"] for e in lines["edges"]]
        after = lines["edges"][-1]["cursor"]
        if not lines["pageInfo"]["hasNextPage"]:
            break
    assert ids == [n["id"] for n in order["lineItems"]]
    assert len(ids) >= 4


def test_search_by_time_window_selects_exactly(client: TestClient, demo: Company) -> None:
    low, high = "2026-05-01T00:00:00Z", "2026-05-08T12:30:00Z"
    expected = sorted(o["id"] for o in demo.shop.orders if low <= o["updatedAt"] < high)
    for search in (
        f"updated_at:>='{low}' AND updated_at:<'{high}'",
        f'updated_at:>="{low}" updated_at:<"{high}"',
        f"updated_at:>={low} AND updated_at:<'2026-05-08T14:30:00+02:00'",
    ):
        rows = read_all(client, "orders", "id", size=100, search=search)
        assert sorted(r["id"] for r in rows) == expected
        body = ask(
            client, "query($q: String) { ordersCount(query: $q, limit: null) { count precision } }", q=search
        )
        assert body["data"]["ordersCount"] == {"count": len(expected), "precision": "EXACT"}


def test_a_search_field_that_does_not_exist_is_ignored_with_a_warning(
    client: TestClient, demo: Company
) -> None:
    body = ask(client, '{ ordersCount(query: "colour:red", limit: 50) { count precision } }')
    assert body["data"]["ordersCount"] == {"count": 50, "precision": "AT_LEAST"}
    assert body["extensions"]["search"][0]["warnings"][0]["code"] == "invalid_field"


def test_aliases_fragments_and_directives(client: TestClient, demo: Company) -> None:
    query = """
    query Two($more: Boolean!) {
      a: products(first: 1) { nodes { ...short } }
      b: products(first: 1, reverse: true) { nodes { ...short status @include(if: $more) } }
      node(id: "gid://shopify/Customer/80001") {
        __typename id ... on Customer { createdAt } ... on Order { name }
      }
      shop { name currencyCode }
    }
    fragment short on Product { id __typename }
    """
    data = ask(client, query, more=False)["data"]
    assert data["a"]["nodes"] == [{"id": demo.shop.products[0]["id"], "__typename": "Product"}]
    assert data["b"]["nodes"] == [{"id": demo.shop.products[-1]["id"], "__typename": "Product"}]
    assert data["node"].keys() == {"__typename", "id", "createdAt"}
    assert data["shop"] == {"name": "Demo Outfitters", "currencyCode": "EUR"}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("{ orders(first: 251) { nodes { id } } }", "between 1 and 250"),
        ("{ orders { nodes { id } } }", "first or last"),
        ("{ orders(first: 1) { nodes { colour } } }", "colour"),
        ('{ orders(first: 1, after: "x") { nodes { id } } }', "cursor"),
        ('{ orders(first: 1, query: "a OR (b)") { nodes { id } } }', "syntax"),
        ("{ orders(first: 1, query: \"updated_at:>'soon'\") { nodes { id } } }", "Invalid value"),
        ("query($n: Int!) { orders(first: $n) { nodes { id } } }", "$n"),
        ("{ orders(first: ", "Syntax Error"),
    ],
)
def test_wrong_queries_are_answered_as_errors_in_a_200(client: TestClient, query: str, message: str) -> None:
    body = ask(client, query)
    assert message in body["errors"][0]["message"]
    assert "data" not in body


def test_a_wrong_token_and_an_unknown_version(client: TestClient) -> None:
    refused = client.post(
        URL, json={"query": "{ shop { name } }"}, headers={"X-Shopify-Access-Token": "nope"}
    )
    assert refused.status_code == 401
    assert refused.headers["X-Shopify-API-Version"] == "2026-10"
    for asked, answers in (
        ("2026-07", "2026-07"),
        ("2027-01", "2026-10"),
        ("2020-01", "2026-01"),
        ("x", "2026-01"),
    ):
        assert answering_version(asked) == answers
    old = client.post("/admin/api/2019-04/graphql.json", json={"query": "{ shop { name } }"})
    assert old.headers["X-Shopify-API-Version"] == "2026-01"


PAGE = "{ orders(first: 250) { nodes { id lineItems(first: %d) { nodes { id } } } } }"


def test_a_page_of_orders_with_lines_fits_and_more_does_not(client: TestClient) -> None:
    cost = ask(client, PAGE % 50)["extensions"]["cost"]
    assert cost["requestedQueryCost"] == cost["actualQueryCost"] == 302
    over = ask(client, PAGE % 250)["errors"][0]["extensions"]
    assert over["code"] == "MAX_COST_EXCEEDED"
    assert over["cost"] == 1302
    half = ask(client, '{ products(first: 250, query: "id:<=7010") { nodes { id } } }')["extensions"]["cost"]
    assert (half["requestedQueryCost"], half["actualQueryCost"]) == (52, 4)


def test_the_bucket_empties_and_says_how_far(client_for: Clients) -> None:
    client = client_for(plan="standard")
    throttled = None
    for _ in range(20):
        body = ask(client, PAGE % 50)
        if "errors" in body:
            throttled = body
            break
    assert throttled is not None
    assert throttled["errors"][0]["extensions"]["code"] == "THROTTLED"
    cost = throttled["extensions"]["cost"]
    assert cost["actualQueryCost"] is None
    assert cost["throttleStatus"]["maximumAvailable"] == 2000
    assert cost["throttleStatus"]["restoreRate"] == 100
    assert cost["throttleStatus"]["currentlyAvailable"] < cost["requestedQueryCost"]


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(1, 1000)), max_size=50))
def test_the_bucket_never_gives_more_than_it_got(steps: list[tuple[float, float]]) -> None:
    now = [0.0]
    bucket = Bucket(100, lambda: now[0])
    taken = 0.0
    for gap, cost in steps:
        now[0] += gap
        taken += cost if bucket.take(cost) else 0
        assert taken <= bucket.maximum + 100 * now[0] + 1e-6
        assert 0 <= bucket.available <= bucket.maximum


@pytest.fixture(scope="module")
def rows(demo: Company) -> Rows:
    return Rows(demo.shop)


@given(st.integers(1, 250), st.booleans(), st.sampled_from(["UPDATED_AT", "CREATED_AT", "ID"]))
def test_any_page_size_partitions_the_rows(rows: Rows, size: int, reverse: bool, sort: str) -> None:
    found = rows.find("products", None, sort)
    seen, after = [], None
    while True:
        page = page_of(found, size, after, reverse=reverse)
        seen += [r["id"] for r in page.rows]
        if not page.has_next:
            break
        after = encode(page.keys[-1])
    expected = [r["id"] for r in found.rows]
    assert seen == (expected[::-1] if reverse else expected)


def holds(kind: Any, value: Any) -> bool:
    """Whether a stored value is what the schema says of a field, to any depth."""
    if isinstance(kind, GraphQLNonNull):
        return value is not None and holds(kind.of_type, value)
    if value is None or is_leaf_type(kind):
        return not hasattr(kind, "values") or value is None or value in kind.values
    if is_list_type(kind):
        return all(holds(kind.of_type, item) for item in value)
    if kind.name.endswith("Connection"):
        line = get_named_type(kind.fields["nodes"].type)
        return all(holds(line, item) for item in value)
    return all(holds(field.type, value[name]) for name, field in kind.fields.items())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["demo", "olist"])
def test_every_stored_object_keeps_the_schemas_promises(name: str, request: pytest.FixtureRequest) -> None:
    company: Company = request.getfixturevalue(name)
    for nodes in (company.shop.orders[::7], company.shop.customers[::7], company.shop.products[::7]):
        assert all(holds(SCHEMA.type_map[node["__typename"]], node) for node in nodes)


@pytest.mark.slow
def test_variants_and_stock_keep_the_schemas_promises(demo: Company) -> None:
    rows = Rows(demo.shop)
    for node in [*rows.of("productVariants"), *rows.of("inventoryItems"), *rows.of("locations")]:
        assert holds(SCHEMA.type_map[node["__typename"]], node)


def test_every_query_our_connector_asks_is_valid_in_the_schema() -> None:
    asked = []
    for stream in streams("shopify"):
        wanted = tables("shopify", stream)
        asked += [texts.query(wanted), texts.reread_query(wanted), texts.bulk_query(wanted, "id:1")]
        nested = [c for c in texts.direct(wanted) if texts.rows_of(c) in texts.CONNECTIONS]
        asked += [texts.nested_query(wanted, child) for child in nested]
        asked += [texts.within_query(child) for child in texts.indirect(wanted)]
    asked += [texts.BULK_QUERY, texts.BULK_STATE, texts.BULK_CANCEL, texts.SCOPES_QUERY]
    assert len(asked) >= 22
    for text in asked:
        assert validate(SCHEMA, parse(text)) == [], text
