"""Faults: each kind does what it says to the next matching requests, and only to those."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from omni.errors import ConfigError
from omni.sandbox.faults import PASSING, Faults, parse_fault
from omni.sandbox.server import Options

Clients = Callable[..., TestClient]
DEALS = "/crm/objects/2026-09/deals"
SHOP = "/admin/api/2026-10/graphql.json"
ORDERS = {"query": "{ orders(first: 10) { nodes { id name } pageInfo { hasNextPage } } }"}


def force(client: TestClient, kind: str, path: str = "", times: int | None = 1) -> None:
    answer = client.post("/_sandbox/fault", json={"kind": kind, "path": path, "times": times})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("kind", ["500", "502", "503"])
def test_the_vendor_is_down_for_as_often_as_asked(client: TestClient, kind: str) -> None:
    force(client, kind, "deals", 2)
    assert client.get("/crm/objects/2026-09/companies").status_code == 200
    answers = [client.get(DEALS) for _ in range(3)]
    assert [a.status_code for a in answers] == [int(kind), int(kind), 200]
    assert answers[0].json()["status"] == "error"
    assert client.get("/_sandbox/stats").json()["faults"] == {kind: 2}


def test_too_many_requests_with_and_without_a_wait(client: TestClient) -> None:
    force(client, "429_retry_after", "deals")
    force(client, "429", "deals")
    first, second = client.get(DEALS), client.get(DEALS)
    assert (first.status_code, second.status_code) == (429, 429)
    assert first.headers["Retry-After"] == "1"
    assert "Retry-After" not in second.headers
    assert first.json()["errorType"] == "RATE_LIMIT"


def test_the_token_can_be_refused_midway(client: TestClient) -> None:
    force(client, "401", "after=")
    assert client.get(DEALS).status_code == 200
    assert client.get(DEALS, params={"after": "60010"}).status_code == 401


def test_shopify_throttles_with_a_full_bucket(client: TestClient) -> None:
    force(client, "throttled", "#orders")
    assert "errors" not in client.post(SHOP, json={"query": "{ shop { name } }"}).json()
    body = client.post(SHOP, json=ORDERS).json()
    assert body["errors"][0]["extensions"]["code"] == "THROTTLED"
    assert body["extensions"]["cost"]["actualQueryCost"] is None
    assert "data" in client.post(SHOP, json=ORDERS).json()


def test_malformed_json_has_its_full_length(client: TestClient) -> None:
    force(client, "malformed_json", "deals")
    broken = client.get(DEALS)
    assert broken.status_code == 200
    with pytest.raises(ValueError, match=r".*"):
        broken.json()


def test_missing_results_and_truncated_pages(client: TestClient) -> None:
    force(client, "missing_results", "deals")
    force(client, "truncate_page", "deals")
    whole = {"limit": 10}
    assert "results" not in client.get(DEALS, params=whole).json()
    short = client.get(DEALS, params=whole).json()
    assert len(short["results"]) == 5
    assert (
        short["paging"]["next"]["after"] == client.get(DEALS, params=whole).json()["paging"]["next"]["after"]
    )
    force(client, "missing_results", "graphql")
    force(client, "truncate_page", "graphql")
    assert client.post(SHOP, json=ORDERS).json()["data"]["orders"].keys() == {"pageInfo"}
    assert len(client.post(SHOP, json=ORDERS).json()["data"]["orders"]["nodes"]) == 5


def test_a_property_disappears_everywhere(client: TestClient) -> None:
    force(client, "drop_property:amount", "deals", None)
    declared = client.get("/crm/properties/2026-09/deals").json()["results"]
    assert "amount" not in {p["name"] for p in declared}
    assert len(declared) > 5
    rows = client.get(DEALS, params={"properties": "amount,dealname"}).json()["results"]
    assert all("amount" not in r["properties"] and "dealname" in r["properties"] for r in rows)
    assert client.delete("/_sandbox/fault").status_code == 200
    assert "amount" in client.get(DEALS, params={"properties": "amount"}).json()["results"][0]["properties"]
    force(client, "drop_property:name", "#orders")
    assert client.post(SHOP, json=ORDERS).json()["data"]["orders"]["nodes"][0].keys() == {"id"}


def test_a_property_changes_its_type_in_definition_and_values(client: TestClient) -> None:
    force(client, "change_type:employees:string", "contacts", None)
    declared = client.get("/crm/properties/2026-09/contacts").json()["results"]
    assert {p["name"]: p["type"] for p in declared}["employees"] == "string"
    rows = client.get("/crm/objects/2026-09/contacts", params={"properties": "employees"}).json()["results"]
    values = [r["properties"]["employees"] for r in rows]
    assert any(v and v.startswith("about ") for v in values)


def test_slow_is_slow(client: TestClient) -> None:
    force(client, "slow:0.2", "deals")
    assert client.get(DEALS).elapsed.total_seconds() >= 0.2


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "nonsense"},
        {"kind": "slow"},
        {"kind": "slow:soon"},
        {"kind": "500", "path": "("},
        {"kind": "500", "times": 0},
        {},
        [],
    ],
)
def test_a_fault_that_makes_no_sense_is_explained(client: TestClient, body: Any) -> None:
    answer = client.post("/_sandbox/fault", json=body)
    assert answer.status_code == 400
    assert "for example" in answer.json()["error"]


def test_random_faults_repeat_with_their_seed_and_have_their_rate() -> None:
    def draws(seed: int) -> list[str]:
        faults = Faults(0.05, seed)
        return [str(faults.draw("/", shopify=n % 2 == 0)) for n in range(4000)]

    assert draws(1) == draws(1) != draws(2)
    drawn = [d for d in draws(1) if d != "None"]
    assert 140 < len(drawn) < 260
    assert set(drawn) == {*PASSING, "throttled"}


def test_fault_names_round_trip() -> None:
    for text in ("429", "cut_body", "drop_property:email", "change_type:amount:string", "slow:1.5"):
        assert str(parse_fault(text)) == text


@pytest.mark.parametrize(
    "wrong", [{"faults": 1.0}, {"faults": -0.1}, {"plan": "gold"}, {"hubspot_per_10s": 0}]
)
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Options(token="t", **wrong)
