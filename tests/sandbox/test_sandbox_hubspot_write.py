"""HubSpot's write side: what is written is read back, what is wrong is refused as HubSpot does."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from omni.sandbox.company import Company

BASE = "/crm/objects/2026-09"
SCORE = "omni_lead_score"


def first(client: TestClient, kind: str = "contacts", number: int = 1) -> list[str]:
    page = client.get(f"{BASE}/{kind}", params={"limit": number}).json()
    return [row["id"] for row in page["results"]]


def get(client: TestClient, key: str, kind: str = "contacts", **params: Any) -> Any:
    return client.get(f"{BASE}/{kind}/{key}", params={"properties": f"{SCORE},email", **params})


def found(client: TestClient, name: str, value: str) -> list[str]:
    entry = {"propertyName": name, "operator": "EQ", "value": value}
    body = {"filterGroups": [{"filters": [entry]}], "limit": 100}
    return [row["id"] for row in client.post(f"{BASE}/contacts/search", json=body).json()["results"]]


def test_an_update_is_read_searched_and_dated(client: TestClient) -> None:
    (key,) = first(client)
    before = get(client, key).json()
    assert found(client, SCORE, "0.75") == []
    answer = client.patch(f"{BASE}/contacts/{key}", json={"properties": {SCORE: 0.75}})
    assert answer.status_code == 200
    after = get(client, key).json()
    assert after["properties"][SCORE] == "0.75"
    assert after["updatedAt"] > before["updatedAt"]
    assert after["properties"]["lastmodifieddate"] == after["updatedAt"]
    assert found(client, SCORE, "0.75") == [key]


def test_clients_do_not_see_each_others_writes_nor_change_the_company(client_for: Any, demo: Company) -> None:
    one, other = client_for(), client_for()
    (key,) = first(one)
    kept = dict(demo.crm["contacts"].records[0].properties)
    one.patch(f"{BASE}/contacts/{key}", json={"properties": {SCORE: "0.5"}})
    assert get(one, key).json()["properties"][SCORE] == "0.5"
    assert get(other, key).json()["properties"][SCORE] is None
    assert demo.crm["contacts"].records[0].properties == kept


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"no_such": "1"}, "PROPERTY_DOESNT_EXIST"),
        ({SCORE: "high"}, "INVALID_INTEGER"),
        ({SCORE: "nan"}, "INVALID_INTEGER"),
        ({"lifecyclestage": "stranger"}, "INVALID_OPTION"),
        ({"newsletter": "perhaps"}, "INVALID_OPTION"),
        ({"first_contact_date": "yesterday"}, "INVALID_DATE"),
        ({"lastmodifieddate": "2026-01-01"}, "READ_ONLY_VALUE"),
        ({"hs_merged_object_ids": "7"}, "READ_ONLY_VALUE"),
        ({"email": {"a": 1}}, "INVALID_STRING"),
    ],
)
def test_values_that_do_not_fit_are_refused_by_name(client: TestClient, values: Any, code: str) -> None:
    (key,) = first(client)
    before = get(client, key).json()
    answer = client.patch(f"{BASE}/contacts/{key}", json={"properties": values})
    assert answer.status_code == 400
    body = answer.json()
    assert body["category"] == "VALIDATION_ERROR"
    assert [(e["code"], e["context"]["propertyName"]) for e in body["errors"]] == [(code, list(values))]
    assert get(client, key).json() == before


def test_create_archive_restore(client: TestClient) -> None:
    made = client.post(f"{BASE}/contacts", json={"properties": {"email": "new@mail.example"}})
    assert made.status_code == 201
    key = made.json()["id"]
    assert found(client, "email", "new@mail.example") == [key]
    again = client.post(f"{BASE}/contacts", json={"properties": {"email": "NEW@mail.example"}})
    assert again.status_code == 409
    assert again.json()["category"] == "CONFLICT"
    for _ in range(2):
        assert client.delete(f"{BASE}/contacts/{key}").status_code == 204
    assert get(client, key).status_code == 404
    archived = get(client, key, archived="true").json()
    assert archived["archived"]
    assert archived["archivedAt"] >= made.json()["updatedAt"]
    assert found(client, "email", "new@mail.example") == []
    client.post("/_sandbox/hubspot/restore", json={"type": "contacts", "id": key})
    restored = get(client, key).json()
    assert not restored["archived"]
    assert restored["updatedAt"] > archived["updatedAt"]
    assert found(client, "email", "new@mail.example") == [key]


def test_a_merge_makes_a_new_record_and_both_old_ids_lead_to_it(client: TestClient) -> None:
    deals = client.get(f"{BASE}/deals", params={"limit": 2, "associations": "contacts"}).json()["results"]
    kept, gone = (row["associations"]["contacts"]["results"][0]["id"] for row in deals)
    merged = client.post(f"{BASE}/contacts/merge", json={"primaryObjectId": kept, "objectIdToMerge": gone})
    key = merged.json()["id"]
    assert key not in (kept, gone)
    for old in (kept, gone):
        answer = get(client, old, properties="hs_merged_object_ids").json()
        assert (answer["id"], answer["properties"]["hs_merged_object_ids"]) == (key, f"{kept};{gone}")
    body = {"inputs": [{"id": row["id"]} for row in deals]}
    links = client.post("/crm/v4/associations/deals/contacts/batch/read", json=body).json()["results"]
    assert [[to["toObjectId"] for to in row["to"]] for row in links] == [[key], [key]]


def test_a_forgotten_person_is_nowhere(client: TestClient) -> None:
    (key,) = first(client)
    email = get(client, key).json()["properties"]["email"]
    answer = client.post(f"{BASE}/contacts/gdpr-delete", json={"objectId": email, "idProperty": "email"})
    assert answer.status_code == 204
    assert [get(client, key, archived=a).status_code for a in ("false", "true")] == [404, 404]


def test_batches_update_by_id_and_upsert_by_a_unique_property(client: TestClient) -> None:
    keys = first(client, number=100)
    body = {"inputs": [{"id": key, "properties": {SCORE: n / 100}} for n, key in enumerate(keys)]}
    answer = client.post(f"{BASE}/contacts/batch/update", json=body)
    assert answer.status_code == 200
    assert [row["properties"][SCORE] for row in answer.json()["results"]] == [
        str(n / 100) for n in range(100)
    ]
    email = get(client, keys[0]).json()["properties"]["email"]
    inputs = [
        {"id": value, "idProperty": "email", "properties": {SCORE: "1"}, "objectWriteTraceId": value}
        for value in (email.upper(), "b@mail.example")
    ]
    answer = client.post(f"{BASE}/contacts/batch/upsert", json={"inputs": inputs}).json()
    assert [(row["new"], row["id"] == keys[0]) for row in answer["results"]] == [(False, True), (True, False)]
    assert [row["objectWriteTraceId"] for row in answer["results"]] == [email.upper(), "b@mail.example"]


def test_wrong_inputs_are_named_if_they_can_be_told_apart_else_the_batch_is_refused(
    client: TestClient,
) -> None:
    keys = first(client, number=3)
    inputs = [{"id": key, "properties": {SCORE: "0.5"}} for key in (*keys, "1")]
    inputs[1]["properties"] = {SCORE: "much"}
    refused = client.post(f"{BASE}/contacts/batch/update", json={"inputs": inputs})
    assert refused.status_code == 400
    assert found(client, SCORE, "0.5") == []
    traced = [entry | {"objectWriteTraceId": f"t{n}"} for n, entry in enumerate(inputs)]
    answer = client.post(f"{BASE}/contacts/batch/update", json={"inputs": traced})
    assert answer.status_code == 207
    body = answer.json()
    assert [row["objectWriteTraceId"] for row in body["results"]] == ["t0", "t2"]
    assert [(e["category"], e["context"]["objectWriteTraceId"]) for e in body["errors"]] == [
        ("VALIDATION_ERROR", ["t1"]),
        ("OBJECT_NOT_FOUND", ["t3"]),
    ]
    assert sorted(found(client, SCORE, "0.5")) == [keys[0], keys[2]]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"inputs": [1]},
        {"inputs": [{"id": "1"}] * 101},
        {"inputs": [{"id": "x", "properties": {}}]},
        {"inputs": [{"id": "x", "idProperty": "firstname", "properties": {}}]},
        {"inputs": [{"id": "x", "idProperty": "email", "properties": []}]},
    ],
)
def test_malformed_batches_are_refused(client: TestClient, body: Any) -> None:
    assert client.post(f"{BASE}/contacts/batch/upsert", json=body).status_code in (400, 404)


def test_batch_create_and_archive(client: TestClient) -> None:
    inputs = [{"properties": {"email": f"batch{n}@mail.example"}} for n in range(3)]
    made = client.post(f"{BASE}/contacts/batch/create", json={"inputs": inputs})
    assert made.status_code == 201
    keys = [row["id"] for row in made.json()["results"]]
    assert len(set(keys)) == 3
    gone = client.post(f"{BASE}/contacts/batch/archive", json={"inputs": [{"id": key} for key in keys]})
    assert gone.status_code == 204
    assert {get(client, key).status_code for key in keys} == {404}
    clash = [{"properties": {"email": "one@mail.example"}}, {"properties": {"email": "one@mail.example"}}]
    refused = client.post(f"{BASE}/contacts/batch/create", json={"inputs": clash})
    assert refused.status_code == 409
    assert found(client, "email", "one@mail.example") == []


def test_a_property_appears_and_goes(client: TestClient) -> None:
    (key,) = first(client)
    new = {"name": "shoe_size", "label": "Shoe size", "type": "number", "fieldType": "number"}
    body = {**new, "groupName": "g", "dataSensitivity": "sensitive"}
    made = client.post("/crm/properties/2026-09/contacts", json=body)
    assert made.status_code == 201
    assert (made.json()["hubspotDefined"], made.json()["dataSensitivity"]) == (False, "sensitive")
    assert client.post("/crm/v3/properties/contacts", json=body).status_code == 409
    assert client.post("/crm/v3/properties/contacts", json={**body, "name": "No!"}).status_code == 400
    assert client.patch(f"{BASE}/contacts/{key}", json={"properties": {"shoe_size": 43}}).status_code == 200
    assert get(client, key, properties="shoe_size").json()["properties"]["shoe_size"] == "43"
    assert client.delete("/crm/properties/2026-09/contacts/shoe_size").status_code == 204
    assert "shoe_size" not in get(client, key, properties="shoe_size").json()["properties"]


def test_types_the_account_made_are_found_by_number_and_full_name(client: TestClient) -> None:
    schemas = client.get("/crm-object-schemas/2026-09/schemas").json()["results"]
    assert [s["name"] for s in schemas] == ["reviews", "email_sends", "web_events"]
    number, full = schemas[0]["objectTypeId"], schemas[0]["fullyQualifiedName"]
    assert number.startswith("2-")
    pages = [client.get(f"{BASE}/{name}").json()["results"] for name in ("reviews", number, full)]
    assert pages[0] == pages[1] == pages[2] != []
    one, other = (client.get(f"{BASE}/{name}").json()["results"] for name in ("contact", "0-1"))
    assert one == other != []


def test_owners_come_in_their_own_shape(client: TestClient) -> None:
    pages, after = [], "0"
    while after:
        answer = client.get("/crm/owners/2026-09", params={"limit": 2, "after": after}).json()
        pages += answer["results"]
        after = answer.get("paging", {}).get("next", {}).get("after")
    gone = client.get("/crm/owners/2026-09", params={"archived": "true"}).json()["results"]
    assert (len(pages), len(gone)) == (4, 1)
    assert gone[0]["userId"] is None
    assert client.get(f"/crm/v3/owners/{pages[0]['id']}").json() == pages[0]
    assert client.get(f"/crm/owners/2026-09/{gone[0]['id']}").status_code == 404


def test_the_days_calls_are_counted_down_and_end(client_for: Any) -> None:
    client = client_for(hubspot_per_day=3)
    left = [client.get(f"{BASE}/deals").headers["X-HubSpot-RateLimit-Daily-Remaining"] for _ in range(3)]
    assert left == ["2", "1", "0"]
    refused = client.get(f"{BASE}/deals")
    assert (refused.status_code, refused.json()["policyName"]) == (429, "DAILY")
