"""HubSpot in depth, against the sandbox: what changes, comes, goes and merges between two readings."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import httpx
import polars as pl
import pytest
from pydantic import SecretStr

from omni.errors import SchemaError, SourceError
from omni.sandbox.company import Company, CrmObjects, CrmRecord, Shop, both_ways, crm_time, load_company
from omni.sandbox.crm_schema import PROPERTIES
from omni.sandbox.embedded import serving
from omni.sandbox.serving import Options
from omni.settings import PROJECT, settings
from omni.sources import hubspot
from omni.sources.connection import Connection
from omni.sources.extract import extract, tables
from omni.sources.vendor import Field, Window
from omni.warehouse.contracts import Contract
from omni.warehouse.database import open_warehouse
from omni.warehouse.load import load

pytestmark = pytest.mark.slow

V = hubspot.VERSION
TOKEN = "sandbox-test"
FAST = {"hubspot_per_10s": 100_000, "searches_per_second": 100_000}
LATER = datetime(2100, 1, 1, tzinfo=UTC)
T0 = 1_767_225_600_000
DAY = datetime.fromtimestamp(T0 / 1000, UTC)


class Hub:
    """A sandbox account, the connector's client of it, and a plain client for writing."""

    def __init__(self, sandbox):
        self.connection = Connection(
            "hubspot", sandbox.url, SecretStr(TOKEN), requests_per_10s=100_000, searches_per_second=100_000,
            backoff=0.01,
        )  # fmt: skip
        self.api = httpx.Client(base_url=sandbox.url, headers={"Authorization": f"Bearer {TOKEN}"})

    def read(self, stream, since=None, until=LATER, resume=None):
        with hubspot.client(self.connection) as http:
            return list(hubspot.read(http, tables("hubspot", stream), Window(since, until), resume))

    def rows(self, stream, since=None, until=LATER):
        return {row["id"]: row for page in self.read(stream, since, until) for row in page.records}

    def reread(self, stream, *ids):
        with hubspot.client(self.connection) as http:
            pages = list(hubspot.reread(http, tables("hubspot", stream), list(ids)))
        return {row["id"]: row for page in pages for row in page.records}

    def write(self, method, path, **body):
        answer = self.api.request(method, path, json=body or None)
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None

    def fault(self, kind, path, times=1):
        fault = {"kind": kind, "path": path, "times": times}
        self.api.post("/_sandbox/fault", json=fault).raise_for_status()

    def now(self):
        """A moment after everything that was written and before anything that will be."""
        time.sleep(0.003)
        now = datetime.now(UTC)
        return now.replace(microsecond=now.microsecond // 1000 * 1000)


@pytest.fixture(scope="module")
def demo():
    return load_company("demo")


@pytest.fixture
def hub(demo):
    with serving(demo, Options(TOKEN, **FAST)) as sandbox:
        found = Hub(sandbox)
        yield found
        found.api.close()


def crowd(records):
    contacts = CrmObjects("contacts", PROPERTIES["contacts"], tuple(records))
    return Company("crowd", "UTC", {"contacts": contacts}, {}, Shop("s", "EUR", (), (), ()), None)


def person(number, changed_ms, archived_ms=None):
    values = {
        "hs_object_id": str(number),
        "createdate": crm_time(T0),
        "lastmodifieddate": crm_time(changed_ms),
    }
    return CrmRecord(str(number), values, T0, changed_ms, archived_ms)


def test_tickets_come_with_their_contacts(hub, demo):
    rows = hub.rows("tickets")
    assert rows.keys() == {record.id for record in demo.crm["tickets"].records}
    assert sum(row["archived"] for row in rows.values()) == 6
    assert all("content" not in row and "subject" not in row for row in rows.values())
    linked = {k: [a["id"] for a in row["associations"]["contacts"]] for k, row in rows.items()}
    assert linked == {k: list(v) for k, v in demo.associations["tickets", "contacts"].items()}


def test_owners_come_whole_with_those_who_left(hub, demo, home, tenant, tmp_path):
    full = hub.rows("owners")
    assert {key: row["archived"] for key, row in full.items()} == {
        o["id"]: o["archived"] for o in demo.owners
    }
    assert hub.rows("owners", since=hub.now()) == full
    assert hub.reread("owners", "901", "904", "1") == {key: full[key] for key in ("901", "904")}
    staged = extract(
        tenant,
        "hubspot",
        "owners",
        hub.connection,
        since=None,
        until=LATER,
        run_id="r",
        folder=tmp_path / "s",
    )
    assert staged.rows == {"raw.hubspot__owners": 5, "raw.hubspot__owner_teams": 5}
    content = b"".join(file.read_bytes() for file in staged.folder.iterdir())
    assert b"outfitters.example" not in content
    assert b"Brandt" not in content


def test_a_type_the_account_made_is_addressed_by_its_number(hub, demo):
    rows = hub.rows("reviews")
    assert len(rows) == len(demo.crm["reviews"].records)
    asked = hub.api.get("/_sandbox/stats").json()["requests"]
    assert asked["hubspot list 2-30000001"] > 1
    assert asked["hubspot schemas"] == 1
    assert len(hub.rows("reviews", since=DAY)) > 0


def test_a_type_the_account_lacks_is_named():
    with serving(crowd([]), Options(TOKEN, **FAST)) as sandbox:
        hub = Hub(sandbox)
        with pytest.raises(SchemaError, match=r"no object type 'reviews'\. Those this account made: none"):
            hub.rows("reviews")
        hub.api.close()


def test_links_to_a_type_the_account_made(demo):
    """Which no list page can name, so that they are always asked for by batch."""
    contacts = CrmObjects("contacts", PROPERTIES["contacts"], tuple(person(n, T0 + n) for n in range(1, 151)))
    links = both_ways({("contacts", "reviews"): [("7", "30001"), ("7", "30002"), ("140", "30001")]})
    crm = {"contacts": contacts, "reviews": demo.crm["reviews"]}
    company = Company("linked", "UTC", crm, links, Shop("s", "EUR", (), (), ()), None)
    child = tables("hubspot", "tickets")[1].model_dump(by_alias=True)
    source = {"vendor": "hubspot", "object": "contacts", "rows": "associations.reviews"}
    wanted = [tables("hubspot", "contacts")[0], Contract.model_validate({**child, "source": source})]
    with serving(company, Options(TOKEN, **FAST)) as sandbox:
        hub = Hub(sandbox)
        for since in (None, DAY):
            with hubspot.client(hub.connection) as http:
                pages = list(hubspot.read(http, wanted, Window(since, LATER), None))
            found = {
                row["id"]: [link["id"] for link in row["associations"]["reviews"]]
                for page in pages for row in page.records
                if row["associations"]["reviews"]
            }  # fmt: skip
            assert found == {"7": ["30001", "30002"], "140": ["30001"]}
        hub.api.close()


def test_a_new_property_becomes_a_column_where_the_contract_lets_it(hub, home, tenant, tmp_path, monkeypatch):
    text = (PROJECT / "data/contracts/raw/hubspot__companies.yml").read_text()
    folder = tmp_path / "data" / "contracts"
    folder.mkdir(parents=True)
    (folder / "companies.yml").write_text(text + "evolution: {new_fields: evolve}\n")
    monkeypatch.setenv("OMNI_DATA", str(tmp_path / "data"))
    settings.cache_clear()
    key = next(iter(hub.rows("companies")))
    made = {"label": "New", "groupName": "g"}
    path = f"/crm/properties/{V}/companies"
    hub.write("POST", path, name="fleet", type="number", fieldType="number", **made)
    hub.write(
        "POST", path, name="union", type="string", fieldType="text", dataSensitivity="sensitive", **made
    )
    hub.write("PATCH", f"/crm/objects/{V}/companies/{key}", properties={"fleet": 12.5, "union": "ver.di"})
    staged = extract(
        tenant,
        "hubspot",
        "companies",
        hub.connection,
        since=None,
        until=LATER,
        run_id="r",
        folder=tmp_path / "s",
    )
    frame = pl.concat([pl.read_parquet(staged.folder / f) for f in staged.tables["raw.hubspot__companies"]])
    row = frame.filter(pl.col("id") == key)
    assert (row["fleet"].to_list(), row["fleet"].dtype) == ([12.5], pl.Float64)
    assert row["union"].to_list() == [None]
    assert b"ver.di" not in b"".join(file.read_bytes() for file in staged.folder.iterdir())


def test_archived_restored_and_created_show_in_the_next_window(hub):
    gone, back = list(hub.rows("companies"))[:2]
    hub.write("DELETE", f"/crm/objects/{V}/companies/{back}")
    since = hub.now()
    hub.write("DELETE", f"/crm/objects/{V}/companies/{gone}")
    hub.write("POST", "/_sandbox/hubspot/restore", type="companies", id=back)
    made = hub.write("POST", f"/crm/objects/{V}/companies", properties={"name": "New"})["id"]
    rows = hub.rows("companies", since)
    assert {key: row["archived"] for key, row in rows.items()} == {gone: True, back: False, made: False}
    again = hub.reread("companies", gone, back, made, "1")
    assert {key: row["archived"] for key, row in again.items()} == {gone: True, back: False, made: False}


def test_a_merge_tells_in_the_next_window_that_both_old_records_are_gone(hub):
    one, two = list(hub.rows("contacts"))[:2]
    since = hub.now()
    path = f"/crm/objects/{V}/contacts/merge"
    made = hub.write("POST", path, primaryObjectId=one, objectIdToMerge=two)["id"]
    pages = hub.read("contacts", since)
    assert [row["id"] for page in pages for row in page.records] == [made]
    assert {key for page in pages for key in page.gone} == {one, two}
    assert hub.reread("contacts", one, two).keys() == {made}
    assert not {one, two} & hub.rows("contacts").keys()
    assert hub.rows("contacts", since, datetime.now(UTC) - timedelta(hours=1)) == {}


def test_merged_records_leave_the_table_and_stay_away(hub, home, tenant, tmp_path):
    """When the winner is edited after a full read, too."""
    one, two = list(hub.rows("contacts"))[:2]
    steps = [None, hub.now()]
    made = hub.write(
        "POST", f"/crm/objects/{V}/contacts/merge", primaryObjectId=one, objectIdToMerge=two
    )["id"]  # fmt: skip
    steps += [hub.now(), None, hub.now()]
    names = "SELECT id FROM raw.hubspot__contacts WHERE id IN (?, ?, ?) ORDER BY id"
    found = []
    windows = [(None, steps[1]), (steps[1], steps[2]), (None, steps[4]), (steps[4], None)]
    with open_warehouse(tenant) as warehouse:
        for number, (since, until) in enumerate(windows):
            if until is None:
                path = f"/crm/objects/{V}/contacts/{made}"
                hub.write("PATCH", path, properties={"firstname": "Ada"})
                until = hub.now()
            staged = extract(
                tenant, "hubspot", "contacts", hub.connection, since=since, until=until, run_id=f"r{number}",
                folder=tmp_path / f"s{number}",
            )  # fmt: skip
            load(warehouse, staged)
            rows = warehouse.cursor().execute(names, [one, two, made]).fetchall()
            found.append({row[0] for row in rows})
    assert found[1:] == [{made}] * 3


def test_a_forgotten_person_is_gone_when_read_again(hub):
    (key,) = list(hub.rows("contacts"))[:1]
    since = hub.now()
    hub.write("POST", f"/crm/objects/{V}/contacts/gdpr-delete", objectId=key)
    assert hub.reread("contacts", key) == {}
    assert hub.rows("contacts", since) == {}
    assert key not in hub.rows("contacts")


def test_reading_again_gives_what_reading_gives(hub):
    rows = hub.rows("deals")
    keys = list(rows)[:250]
    assert hub.reread("deals", *keys) == {key: rows[key] for key in keys}
    gone = next(key for key, row in hub.rows("tickets").items() if row["archived"])
    assert hub.reread("tickets", gone) == {gone: hub.rows("tickets")[gone]}


@pytest.mark.parametrize("since", [None, DAY])
@pytest.mark.parametrize("stream", ["deals", "contacts", "owners"])
def test_going_on_behind_any_page_gives_the_rest(hub, stream, since):
    """Some merges included, so that the pages which note them are among the places to go on from."""
    ids = list(hub.rows("contacts"))
    for one, two in ((ids[5], ids[900]), (ids[1500], ids[1501])):
        path = f"/crm/objects/{V}/contacts/merge"
        hub.write("POST", path, primaryObjectId=one, objectIdToMerge=two)
    pages = hub.read(stream, since)
    whole = {row["id"]: row for page in pages for row in page.records}
    for number in {0, 1, len(pages) // 2, len(pages) - 2, len(pages) - 3} & set(range(len(pages))):
        if (token := pages[number].resume) is not None:
            head = [row for page in pages[: number + 1] for row in page.records]
            tail = [row for page in hub.read(stream, since, resume=token) for row in page.records]
            assert {row["id"]: row for row in [*head, *tail]} == whole


@pytest.fixture(scope="module")
def crowded():
    """12,500 contacts changed in one millisecond, some before and after, some archived."""
    people = [person(n, T0 + 5) for n in range(1, 12_501)]
    people += [person(n, T0 + 6 + n % 40) for n in range(12_501, 12_701)]
    people += [person(n, T0, T0 + 9) for n in range(12_701, 12_751)]
    with serving(crowd(people), Options(TOKEN, **FAST)) as sandbox:
        hub = Hub(sandbox)
        yield hub
        hub.api.close()


@pytest.fixture(scope="module")
def crowded_pages(crowded):
    return crowded.read("contacts", DAY)


def test_a_millisecond_of_twelve_thousand_is_read_whole(crowded_pages):
    ids = [row["id"] for page in crowded_pages for row in page.records]
    assert len(set(ids)) == 12_750
    assert len(ids) - 12_750 <= 10_000


def test_it_can_be_gone_on_with_from_every_page(crowded, crowded_pages):
    """What follows each token is the page that followed it the first time, its token included; so, page by
    page, all the rest is."""
    with hubspot.client(crowded.connection) as http:
        for page, after in pairwise(crowded_pages):
            window = Window(DAY, LATER)
            following = next(hubspot.read(http, tables("hubspot", "contacts"), window, page.resume))
            assert [row["id"] for row in following.records] == [row["id"] for row in after.records]
            assert following.resume == after.resume
    assert crowded_pages[-1].resume is None


def test_a_property_made_mid_run_is_a_field_of_its_type(hub):
    def fields():
        with hubspot.client(hub.connection) as http:
            return hubspot.fields(http, tables("hubspot", "contacts"))

    before = fields()
    assert before == {"omni_lead_score": Field("float")}
    path = f"/crm/properties/{V}/contacts"
    kinds = {
        "number": "number",
        "string": "text",
        "bool": "booleancheckbox",
        "date": "date",
        "datetime": "date",
    }
    for kind, shown in kinds.items():
        hub.write("POST", path, name=f"new_{kind}", label="New", type=kind, fieldType=shown, groupName="g")
    hub.write(
        "POST", path, name="union", label="Union", type="string", fieldType="text", groupName="g",
        dataSensitivity="highly_sensitive",
    )  # fmt: skip
    assert fields() == before | {
        "new_number": Field("float"),
        "new_string": Field("string"),
        "new_bool": Field("boolean"),
        "new_date": Field("date"),
        "new_datetime": Field("timestamp"),
        "union": Field("string", sensitive=True),
    }


def test_few_calls_left_and_another_version_are_told_once(caplog, demo):
    with serving(demo, Options(TOKEN, **FAST, hubspot_per_day=40)) as sandbox:
        hub = Hub(sandbox)
        for _ in range(35):
            hub.api.get(f"/crm/objects/{V}/deals", params={"limit": 1})
        hub.rows("owners")
        hub.api.close()
    assert [r.getMessage() for r in caplog.records if "calls of today" in r.getMessage()] == [
        "HubSpot: 3 of the account's 40 calls of today are left"
    ]


def test_an_answer_by_another_version_is_noticed(serve, answering, connect, caplog):
    def page(asked):
        link = "https://api.hubapi.com/crm/objects/2027-03/contacts?after=1"
        if asked.query.get("after"):
            return answering({"results": []})
        return answering({"results": [], "paging": {"next": {"after": "1", "link": link}}})

    with hubspot.client(connect("hubspot", serve(page).url)) as http:
        list(hubspot.list_all(http, tables("hubspot", "contacts"), archived=False))
    assert "answers with version 2027-03 where 2026-09 was asked for" in caplog.text


@pytest.mark.parametrize("status", [301, 307, 410, 426])
def test_a_version_that_ended_stops_the_reading(serve, answering, connect, status):
    moved = {"location": "/crm/objects/2027-03/contacts"}
    server = serve(lambda _: answering({"message": "version no longer supported"}, status, moved))
    with (
        hubspot.client(connect("hubspot", server.url)) as http,
        pytest.raises(SourceError, match=r"does not answer at version 2026-09.*move VERSION"),
    ):
        hubspot.check(http, tables("hubspot", "contacts"))
    assert len(server.asked) == 1


@pytest.mark.parametrize("kind", ["429", "429_retry_after", "503", "cut_body", "401"])
def test_owners_and_custom_types_bear_faults_too(hub, kind):
    if kind == "401":
        hub.fault(kind, "owners")
        with pytest.raises(Exception, match="access refused"):
            hub.rows("owners")
        return
    whole = hub.rows("owners"), hub.rows("reviews")
    hub.fault(kind, "owners|schemas|2-30000001", 3)
    assert (hub.rows("owners"), hub.rows("reviews")) == whole
