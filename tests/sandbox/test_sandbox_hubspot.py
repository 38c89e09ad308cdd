"""HubSpot's side: paging, search, batches, associations, properties, refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from omni.sandbox.company import Company, CrmObjects, CrmRecord, Shop
from omni.sandbox.crm_schema import PROPERTIES
from omni.sandbox.limits import Window
from omni.warehouse.contracts import contracts

BASE = "/crm/objects/2026-09"
Clients = Callable[..., TestClient]


def read_all(client: TestClient, kind: str, **params: Any) -> list[dict[str, Any]]:
    rows, after = [], None
    while True:
        page = client.get(
            f"{BASE}/{kind}", params={"limit": 100, **params, **({"after": after} if after else {})}
        )
        assert page.status_code == 200, page.text
        body = page.json()
        rows += body["results"]
        if "paging" not in body:
            return rows
        assert len(body["results"]) == 100
        after = body["paging"]["next"]["after"]


def search(client: TestClient, kind: str, *filters: dict[str, Any], **more: Any) -> dict[str, Any]:
    body = {"filterGroups": [{"filters": list(filters)}] if filters else [], "limit": 200, **more}
    answer = client.post(f"{BASE}/{kind}/search", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize("kind", ["contacts", "companies", "deals", "reviews", "email_sends", "web_events"])
def test_paging_is_complete_and_free_of_duplicates(client: TestClient, demo: Company, kind: str) -> None:
    rows = read_all(client, kind) + read_all(client, kind, archived="true")
    assert sorted(r["id"] for r in rows) == sorted(r.id for r in demo.crm[kind].records)
    assert all({"id", "properties", "createdAt", "updatedAt", "archived"} <= r.keys() for r in rows)
    assert all("archivedAt" in r for r in rows if r["archived"])


def test_values_are_strings_or_null_and_only_those_asked_for(client: TestClient) -> None:
    rows = read_all(client, "contacts", properties="email,employees,newsletter,nonsense")
    standard = {"hs_object_id", "createdate", "lastmodifieddate"}
    assert {frozenset(r["properties"]) for r in rows} == {
        frozenset({"email", "employees", "newsletter"} | standard)
    }
    assert {type(v) for r in rows for v in r["properties"].values()} == {str, type(None)}


def test_the_older_paths_answer_alike(client: TestClient) -> None:
    new = client.get(f"{BASE}/deals", params={"limit": 7, "associations": "contacts,companies"}).json()
    old = client.get(
        "/crm/v3/objects/deals", params={"limit": 7, "associations": "contacts,companies"}
    ).json()
    assert new["results"] == old["results"]
    assert client.get("/crm/v3/properties/deals").json() == client.get("/crm/properties/2026-09/deals").json()


def test_listed_associations_equal_the_batch(client: TestClient, demo: Company) -> None:
    rows = read_all(client, "deals", associations="contacts,companies")
    listed = {
        r["id"]: [a["id"] for a in r.get("associations", {}).get("companies", {}).get("results", [])]
        for r in rows
    }
    batch: dict[str, list[str]] = {}
    ids = list(listed)
    missing = 0
    for start in range(0, len(ids), 100):
        body = {"inputs": [{"id": i} for i in ids[start : start + 100]]}
        answer = client.post("/crm/v4/associations/deals/companies/batch/read", json=body)
        assert answer.status_code in (200, 207)
        missing += answer.json().get("numErrors", 0)
        for row in answer.json()["results"]:
            batch[row["from"]["id"]] = [t["toObjectId"] for t in row["to"]]
    assert {k: v for k, v in listed.items() if v} == batch
    assert missing == sum(not v for v in listed.values()) > 0
    assert len(demo.associations["deals", "contacts"]) == len(rows)


def test_batch_read_names_what_is_missing(client: TestClient) -> None:
    some = [r["id"] for r in read_all(client, "companies")[:3]]
    body = {"inputs": [{"id": i} for i in [*some, "999"]], "properties": ["name"]}
    answer = client.post(f"{BASE}/companies/batch/read", json=body)
    assert answer.status_code == 207
    assert [r["id"] for r in answer.json()["results"]] == some
    assert answer.json()["errors"][0]["context"] == {"ids": ["999"]}
    too_many = {"inputs": [{"id": str(n)} for n in range(101)]}
    assert client.post(f"{BASE}/companies/batch/read", json=too_many).status_code == 400


def test_search_filters_agree_with_plain_python(client: TestClient) -> None:
    rows = read_all(client, "contacts", properties="email,employees,job_level,lastmodifieddate,newsletter")
    p = {r["id"]: r["properties"] for r in rows}
    cut = "2026-05-01T00:00:00.000Z"
    cases: list[tuple[dict[str, Any], Callable[[dict[str, Any]], bool]]] = [
        (
            {"propertyName": "lastmodifieddate", "operator": "GTE", "value": cut},
            lambda v: v["lastmodifieddate"] >= cut,
        ),
        (
            {"propertyName": "lastmodifieddate", "operator": "LT", "value": "1777593600000"},
            lambda v: v["lastmodifieddate"] < cut,
        ),
        (
            {"propertyName": "employees", "operator": "BETWEEN", "value": "10", "highValue": "20"},
            lambda v: v["employees"] is not None and 10 <= int(v["employees"]) <= 20,
        ),
        (
            {"propertyName": "job_level", "operator": "IN", "values": ["owner", "student"]},
            lambda v: v["job_level"] in ("owner", "student"),
        ),
        ({"propertyName": "job_level", "operator": "NOT_HAS_PROPERTY"}, lambda v: v["job_level"] is None),
        (
            {"propertyName": "newsletter", "operator": "EQ", "value": "true"},
            lambda v: v["newsletter"] == "true",
        ),
        (
            {"propertyName": "newsletter", "operator": "NEQ", "value": "true"},
            lambda v: v["newsletter"] == "false",
        ),
        (
            {"propertyName": "email", "operator": "CONTAINS_TOKEN", "value": "*@mail.example"},
            lambda v: v["email"].lower().endswith("@mail.example"),
        ),
    ]
    for entry, holds in cases:
        expected = {i for i, v in p.items() if holds(v)}
        found, after = set(), "0"
        while after:
            page = search(client, "contacts", entry, after=after)
            assert page["total"] == len(expected), entry
            found |= {r["id"] for r in page["results"]}
            after = page.get("paging", {}).get("next", {}).get("after")
        assert found == expected
    both = search(client, "contacts", cases[3][0], cases[5][0])
    assert both["total"] == sum(cases[3][1](v) and cases[5][1](v) for v in p.values())


def test_search_sorts_and_finds_no_archived(client: TestClient, demo: Company) -> None:
    page = search(
        client, "deals", sorts=[{"propertyName": "amount", "direction": "DESCENDING"}], properties=["amount"]
    )
    amounts = [float(r["properties"]["amount"]) for r in page["results"]]
    assert amounts == sorted(amounts, reverse=True)
    live = [r for r in demo.crm["contacts"].records if r.archived_ms is None]
    assert search(client, "contacts")["total"] == len(live) < len(demo.crm["contacts"].records)


def crowd(size: int) -> Company:
    records = tuple(
        CrmRecord(
            str(n),
            {"hs_object_id": str(n), "createdate": "2026-01-01T00:00:00.000Z"},
            1_767_225_600_000,
            1_767_225_600_000,
        )
        for n in range(1, size + 1)
    )
    contacts = CrmObjects("contacts", PROPERTIES["contacts"], records)
    return Company("crowd", "UTC", {"contacts": contacts}, {}, Shop("s", "EUR", (), (), ()), None)


def test_search_stops_at_ten_thousand_and_the_list_does_not(client_for: Clients) -> None:
    client = client_for(crowd(12_000))
    last = search(client, "contacts", after="9800")
    assert last["total"] == 12_000
    refused = client.post(
        f"{BASE}/contacts/search", json={"limit": 200, "after": last["paging"]["next"]["after"]}
    )
    assert refused.status_code == 400
    assert refused.json()["category"] == "VALIDATION_ERROR"
    assert len(read_all(client, "contacts")) == 12_000


@pytest.mark.parametrize(
    "body",
    [
        {"limit": 201},
        {"limit": 0},
        {"after": "x"},
        {"filterGroups": [{"filters": [{"propertyName": "nope", "operator": "EQ", "value": "1"}]}]},
        {"filterGroups": [{"filters": [{"propertyName": "email", "operator": "LIKE", "value": "1"}]}]},
        {"filterGroups": [{"filters": [{"propertyName": "employees", "operator": "GT", "value": "many"}]}]},
        {"filterGroups": [{"filters": []}] * 6},
        {"filterGroups": ["x"]},
        {"sorts": [{"propertyName": "a"}, {"propertyName": "b"}]},
        [],
    ],
)
def test_malformed_searches_are_refused_in_hubspots_shape(client: TestClient, body: Any) -> None:
    answer = client.post(f"{BASE}/contacts/search", json=body)
    assert answer.status_code == 400
    assert answer.json().keys() >= {"status", "message", "correlationId", "category"}


def test_refusals(client: TestClient) -> None:
    assert client.get(f"{BASE}/nonsense").status_code == 400
    assert client.get(f"{BASE}/contacts", params={"limit": 101}).status_code == 400
    assert client.get(f"{BASE}/contacts", params={"after": "x"}).status_code == 400
    assert client.get(f"{BASE}/contacts/1").json()["category"] == "OBJECT_NOT_FOUND"
    long = client.get(f"{BASE}/contacts", params={"properties": "x" * 9000})
    assert long.status_code == 414
    wrong = client.get(f"{BASE}/contacts", headers={"Authorization": "Bearer nope"})
    assert wrong.status_code == 401
    assert wrong.json()["category"] == "INVALID_AUTHENTICATION"
    assert "nope" not in wrong.text


def test_the_rolling_limit_says_how_long_to_wait_and_the_search_limit_does_not(client_for: Clients) -> None:
    client = client_for(hubspot_per_10s=3, searches_per_second=1)
    assert [client.get(f"{BASE}/deals").status_code for _ in range(4)] == [200, 200, 200, 429]
    refused = client.get(f"{BASE}/deals")
    assert 1 <= int(refused.headers["Retry-After"]) <= 10
    assert refused.json()["policyName"] == "TEN_SECONDLY_ROLLING"
    answers = [client.post(f"{BASE}/deals/search", json={}) for _ in range(2)]
    assert answers[1].status_code == 429
    assert "Retry-After" not in answers[1].headers
    assert client.get("/_sandbox/stats").json()["throttled"] == {
        "hubspot list deals": 2,
        "hubspot search deals": 1,
    }


@given(st.lists(st.floats(0, 3), max_size=60), st.integers(1, 5))
def test_a_window_never_lets_more_in_and_its_wait_is_enough(gaps: list[float], allowed: int) -> None:
    now = [0.0]
    window = Window(allowed, 1.0, lambda: now[0])
    let_in: list[float] = []
    for gap in gaps:
        now[0] += gap
        wait = window.take()
        if wait:
            now[0] += wait + 1e-9
            assert window.take() == 0
        let_in.append(now[0])
        assert sum(t > now[0] - 1.0 + 1e-9 for t in let_in) <= allowed


def test_properties_are_declared_as_the_contracts_ask(client: TestClient) -> None:
    matching = {
        "string": {"string", "enumeration"},
        "integer": {"number"},
        "decimal": {"number"},
        "boolean": {"bool"},
        "date": {"date"},
        "timestamp": {"datetime"},
    }
    checked = 0
    for contract in contracts().values():
        source = contract.source
        if source is None or source.vendor != "hubspot" or source.rows or source.object == "owners":
            continue
        answer = client.get(f"/crm/properties/2026-09/{source.object}").json()["results"]
        types = {p["name"]: p["type"] for p in answer}
        for name, column in contract.columns.items():
            if name not in ("id", "archived"):
                assert types[column.path or name] in matching[column.type], (contract.table, name)
                checked += 1
    assert checked > 40


@pytest.mark.real_data
@pytest.mark.slow
def test_olist_does_not_declare_what_it_never_had(client_for: Clients, olist: Company) -> None:
    client = client_for(olist)
    declared = {p["name"] for p in client.get("/crm/properties/2026-09/contacts").json()["results"]}
    assert {"email", "lead_source", "landing_page"} <= declared
    assert not {"job_level", "employees", "newsletter", "industry"} & declared
    assert client.get("/crm/properties/2026-09/email_sends").status_code == 400
    assert len(read_all(client, "contacts", properties="external_id")) == 8_000
