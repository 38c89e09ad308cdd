"""HubSpot's own Python client, unchanged, against the sandbox: it reads the rows our connector reads."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hubspot import Client
from hubspot.crm.associations.v4 import BatchInputPublicFetchAssociationsBatchRequest as Links
from hubspot.crm.associations.v4 import PublicFetchAssociationsBatchRequest as Link
from hubspot.crm.contacts import PublicObjectSearchRequest, SimplePublicObjectInput
from hubspot.crm.contacts.exceptions import ApiException
from hubspot.crm.objects import (
    BatchInputSimplePublicObjectBatchInputUpsert,
    SimplePublicObjectBatchInputUpsert,
)
from hubspot.crm.properties import PropertyCreate
from pydantic import SecretStr

from omni.sandbox.embedded import serving
from omni.sandbox.serving import Options
from omni.sources import hubspot
from omni.sources.connection import Connection
from omni.sources.extract import tables
from omni.sources.hubspot_objects import properties
from omni.sources.parse import moment
from omni.sources.vendor import Window

pytestmark = pytest.mark.slow

TOKEN = "sandbox-test"
END = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def sandbox(demo):
    with serving(demo, Options(TOKEN, hubspot_per_10s=100_000, searches_per_second=100_000)) as running:
        yield running


@pytest.fixture(scope="module")
def sdk(sandbox):
    return Client.create(access_token=TOKEN, host=sandbox.url)


@pytest.fixture(scope="module")
def ours(sandbox):
    """All rows of a stream as our connector reads them, by id."""

    def read(stream):
        connection = Connection(
            "hubspot", sandbox.url, SecretStr(TOKEN), requests_per_10s=100_000, searches_per_second=100_000
        )
        with hubspot.client(connection) as http:
            pages = hubspot.read(http, tables("hubspot", stream), Window(None, END), None)
            return {row["id"]: row for page in pages for row in page.records}

    return read


def everything(sdk, kind, names):
    source = getattr(sdk.crm, kind, None)
    rows = []
    for archived in (False, True):
        more = {"properties": names, "archived": archived}
        rows += source.get_all(**more) if source else sdk.crm.objects.get_all(kind, **more)
    return {row.id: row for row in rows}


@pytest.mark.parametrize("kind", ["contacts", "companies", "deals", "tickets", "2-30000001"])
def test_it_reads_the_same_rows(sdk, ours, kind):
    stream = "reviews" if kind.startswith("2-") else kind
    wanted = tables("hubspot", stream)
    names = list(properties(wanted[0]))
    theirs, mine = everything(sdk, kind, names), ours(stream)
    assert theirs.keys() == mine.keys()
    for key, row in theirs.items():
        assert row.archived == mine[key]["archived"]
        assert {n: row.properties.get(n) for n in names} == {n: mine[key].get(n) for n in names}
        assert row.updated_at == moment(mine[key]["updatedAt"])


def test_owners(sdk, ours):
    theirs = [*sdk.crm.owners.get_all(), *sdk.crm.owners.get_all(archived=True)]
    mine = ours("owners")
    assert {o.id: (o.email, o.archived, o.user_id_including_inactive) for o in theirs} == {
        key: (row["email"], row["archived"], row["userIdIncludingInactive"]) for key, row in mine.items()
    }
    assert sdk.crm.owners.owners_api.get_by_id(901).first_name == "Nora"


def test_associations_of_tickets_and_deals(sdk, ours):
    for stream, link in (("tickets", "contacts"), ("deals", "companies")):
        mine = {key: [a["id"] for a in row["associations"][link]] for key, row in ours(stream).items()}
        keys, found = list(mine), {}
        for start in range(0, len(keys), 100):
            asked = Links(inputs=[Link(id=key) for key in keys[start : start + 100]])
            answer = sdk.crm.associations.v4.batch_api.get_page(stream, link, asked)
            for row in answer.results:
                found[row._from.id] = [to.to_object_id for to in row.to]
        assert found == {key: ids for key, ids in mine.items() if ids}


def test_search(sdk, ours):
    mine = {key: row for key, row in ours("contacts").items() if not row["archived"]}
    cut = sorted(row["lastmodifieddate"] for row in mine.values())[-150]
    entry = {"propertyName": "lastmodifieddate", "operator": "GTE", "value": cut}
    found, after = [], None
    while True:
        request = PublicObjectSearchRequest(
            filter_groups=[{"filters": [entry]}], properties=["email"], limit=100, after=after
        )
        page = sdk.crm.contacts.search_api.do_search(request)
        found += [row.id for row in page.results]
        if page.paging is None:
            break
        after = page.paging.next.after
    assert page.total == len(found) == 150
    assert set(found) == {key for key, row in mine.items() if row["lastmodifieddate"] >= cut}


def test_properties_and_schemas(sdk):
    found = {p.name: p for p in sdk.crm.properties.core_api.get_all("contacts").results}
    assert (found["employees"].type, found["employees"].hubspot_defined) == ("number", False)
    assert found["email"].hubspot_defined
    schemas = sdk.crm.schemas.core_api.get_all().results
    assert {s.name: s.object_type_id for s in schemas}["reviews"] == "2-30000001"


def test_it_writes_too(sdk):
    made = PropertyCreate(
        name="made_by_sdk", label="Made", type="number", field_type="number", group_name="g"
    )
    assert sdk.crm.properties.core_api.create("contacts", made).name == "made_by_sdk"
    key = sdk.crm.contacts.basic_api.get_page(limit=1).results[0].id
    change = SimplePublicObjectInput(properties={"made_by_sdk": "7"})
    sdk.crm.contacts.basic_api.update(key, change)
    again = sdk.crm.contacts.basic_api.get_by_id(key, properties=["made_by_sdk", "email"])
    assert again.properties["made_by_sdk"] == "7"
    batch = BatchInputSimplePublicObjectBatchInputUpsert(
        inputs=[
            SimplePublicObjectBatchInputUpsert(
                id=again.properties["email"], id_property="email", properties={"made_by_sdk": "8"}
            )
        ]
    )
    answer = sdk.crm.objects.batch_api.upsert("contacts", batch)
    assert [(row.id, row.new, row.properties["made_by_sdk"]) for row in answer.results] == [(key, False, "8")]
    with pytest.raises(ApiException) as caught:
        sdk.crm.contacts.basic_api.update(key, SimplePublicObjectInput(properties={"nope": "1"}))
    assert caught.value.status == 400
    assert "PROPERTY_DOESNT_EXIST" in caught.value.body
