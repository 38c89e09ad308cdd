"""Reading Salesforce: ties, the recycle bin, faults, going on after a crash, refusals, sessions that end."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from pydantic import SecretStr

from omni.errors import AuthError, CountMismatch, SchemaError, SourceError, TransientError
from omni.sandbox.company import Company, Shop
from omni.sandbox.embedded import serving
from omni.sandbox.salesforce_oauth import CLIENT_ID
from omni.sandbox.salesforce_org import Org, OrgField, org_time
from omni.sandbox.salesforce_schema import account, contact, opportunity, product, user
from omni.sandbox.server import Options
from omni.sources.connection import Connection
from omni.sources.extract import tables
from omni.sources.oauth import AppLogin, Client
from omni.sources.oauth_providers import PROVIDERS
from omni.sources.salesforce import VENDOR
from omni.sources.salesforce_calls import LimitReached, Refused, usage
from omni.sources.vendor import Field, Window
from omni.warehouse.contracts import Column

pytestmark = pytest.mark.slow

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
END = datetime(2026, 4, 1, tzinfo=UTC)
ALL = Window(None, END)
SOME = Window(BEGIN, END)
TOKEN = "token-for-tests"


def at(seconds):
    return org_time(BEGIN + timedelta(seconds=seconds))


def new_org(*custom, bulk=True):
    kinds = account(*custom), contact(), opportunity(("Open", "Won")), user(), product()
    return Org((replace(kinds[0], bulk=bulk), *kinds[1:]))


def fill(org, count, moment=lambda number: number):
    for number in range(1, count + 1):
        org.put("Account", number, at(0), at(moment(number)), {"Name": f"Company {number}"})
    return org


class Place:
    """A served org and ways to read it."""

    def __init__(self, org, url):
        self.org, self.url = org, url

    def connection(self, **changes):
        options = {"bulk_from": "1000000"} | changes.pop("options", {})
        chosen = {"requests_per_10s": 1_000_000, "backoff": 0.001, "attempts": 4} | changes
        return Connection("salesforce", self.url, SecretStr(TOKEN), options=options, **chosen)

    def read(self, window=ALL, resume=None, stream="Account", wanted=None, **changes):
        """Pages of a window, read by a new client."""
        with VENDOR.open(self.connection(**changes)) as client:
            yield from VENDOR.read(client, wanted or tables("salesforce", stream), window, resume)

    def records(self, *args, **changes):
        return [record for page in self.read(*args, **changes) for record in page.records]

    def ids(self, *args, **changes):
        return [record["id"] for record in self.records(*args, **changes)]

    def count(self, window=ALL, stream="Account"):
        with VENDOR.open(self.connection()) as client:
            return VENDOR.count(client, tables("salesforce", stream), window)

    def control(self, **body):
        httpx.post(f"{self.url}/_sandbox/salesforce", json=body).raise_for_status()

    def fault(self, kind, path, times=1):
        body = {"kind": kind, "path": path, "times": times}
        httpx.post(f"{self.url}/_sandbox/fault", json=body).raise_for_status()

    def asked(self):
        return httpx.get(f"{self.url}/_sandbox/stats").json()["requests"]


@pytest.fixture
def serve_org():
    from contextlib import ExitStack

    with ExitStack() as stack:

        def start(org):
            shop = Shop("none", "EUR", (), (), ())
            company = Company("test", "UTC", {}, {}, shop, None, org=lambda: org)
            return Place(org, stack.enter_context(serving(company, Options(token=TOKEN))).url)

        yield start


BULK = {"options": {"bulk_from": "1"}}
WAYS = pytest.mark.parametrize("way", [{}, BULK], ids=["rest", "bulk"])


@WAYS
def test_all_of_one_millisecond_is_read_and_gone_on_with_from_every_page(serve_org, way) -> None:
    place = serve_org(fill(new_org(), 12_000, moment=lambda _: 5))
    pages = [page for page in place.read(SOME, **way) if page.records]
    ids = [record["id"] for page in pages for record in page.records]
    assert ids == sorted(place.org.rows["Account"])
    assert place.count(SOME) == 12_000
    done = 0
    for page in pages:
        done += len(page.records)
        assert place.ids(SOME, page.resume, **way) == ids[done:]


@pytest.mark.parametrize("rows", [700, 2_000, 2_300])
def test_results_in_several_parts_are_gone_on_with_from_every_page(serve_org, rows) -> None:
    place = serve_org(fill(new_org(), 4_600))
    place.control(action="parts", rows=rows)
    place.fault("cut_body", "results", times=2)
    pages = list(place.read(**BULK))
    ids = [record["id"] for page in pages for record in page.records]
    assert ids == sorted(place.org.rows["Account"])
    done = 0
    for page in pages:
        done += len(page.records)
        assert place.ids(ALL, page.resume, **BULK) == ids[done:]
    assert place.asked()["salesforce bulk query"] == 1


def test_pages_go_on_in_order_of_change_from_every_token(serve_org) -> None:
    place = serve_org(fill(new_org(), 5_000, moment=lambda number: number * 7919 % 90))
    pages = list(place.read(SOME))
    ids = [record["id"] for page in pages for record in page.records]
    stamps = [place.org.rows["Account"][i]["SystemModstamp"] for i in ids]
    assert len(set(ids)) == 5_000
    assert stamps == sorted(stamps)
    for number, page in enumerate(pages):
        rest = [record["id"] for later in pages[number + 1 :] for record in later.records]
        assert place.ids(SOME, page.resume) == rest


@WAYS
def test_a_window_holds_its_beginning_and_not_its_end(serve_org, way) -> None:
    org = new_org()
    moments = (-0.001, 0, 0.001, 59.999, 60, 60.001)
    for number, seconds in enumerate(moments, 1):
        org.put("Account", number, at(seconds), at(seconds), {"Name": str(seconds)})
    place = serve_org(org)
    window = Window(BEGIN, BEGIN + timedelta(seconds=60))
    assert [r["Name"] for r in place.records(window, **way)] == ["0", "0.001", "59.999"]
    assert place.count(window) == 3
    assert place.count(Window(None, window.until)) == 4
    assert len(place.records(Window(None, window.until), **way)) == 6


@WAYS
def test_deleted_and_restored_records_come_as_changes(serve_org, way) -> None:
    place = serve_org(fill(new_org(), 4))
    first, second, third, _ = sorted(place.org.rows["Account"])
    now = BEGIN + timedelta(days=1)
    place.org.delete("Account", first, now)
    place.org.delete("Account", second, now)
    place.org.undelete("Account", second, now)
    place.org.change("Account", third, {"Name": "Renamed"}, now)
    later = Window(now, END)
    found = {r["id"]: (str(r["IsDeleted"]).lower(), r["Name"]) for r in place.records(later, **way)}
    assert found == {
        first: ("true", "Company 1"),
        second: ("false", "Company 2"),
        third: ("false", "Renamed"),
    }
    assert place.count(later) == 3
    place.org.purge("Account", first)
    assert place.count(later) == 2


def test_users_have_no_recycle_bin(serve_org) -> None:
    place = serve_org(new_org())
    place.org.put("User", 1, at(0), at(1), {"LastName": "A", "Username": "a@b.example", "IsActive": True})
    assert [r["IsActive"] for r in place.records(stream="User")] == [True]
    assert "salesforce queryAll" not in place.asked()


@WAYS
def test_relationships_lead_to_other_objects(serve_org, way) -> None:
    org = fill(new_org(), 1)
    values = {"Name": "Deal", "StageName": "Won", "Amount": 1234.5, "IsWon": True, "IsClosed": True}
    org.put("Opportunity", 1, at(0), at(1), {**values, "AccountId": next(iter(org.rows["Account"]))})
    org.put("Opportunity", 2, at(0), at(2), values)
    found = serve_org(org).records(stream="Opportunity", **way)
    names = [(r["Account"] or {}).get("Name") for r in found]
    assert names == ["Company 1", None]
    assert [str(r["Amount"]) for r in found] == ["1234.5", "1234.5"]


PASSING = ("429", "500", "503", "cut_body", "malformed_json")
PATHS = ("query", "describe", "/query/", "jobs/query$", "jobs/query/", "results")
FAULTS = [(kind, path) for kind in PASSING for path in PATHS if (kind, path) != ("malformed_json", "results")]


@pytest.mark.parametrize(("kind", "path"), [*FAULTS, ("429_retry_after", "queryAll")])
def test_passing_faults_lose_nothing(serve_org, kind, path) -> None:
    place = serve_org(fill(new_org(), 2_500))
    place.fault(kind, path, times=2)
    way = BULK if "jobs" in path or path == "results" else {}
    assert sorted(place.ids(SOME, **way)) == sorted(place.org.rows["Account"])


@pytest.mark.parametrize("code", [406, 420])
def test_other_statuses_that_pass_are_repeated(serve, answering, connect, code) -> None:
    answers = [answering([{"errorCode": "BUSY", "message": "later"}], code), answering({"totalSize": 7})]
    described = answering({"fields": []})
    server = serve(lambda asked: described if "describe" in asked.path else answers.pop(0))
    with VENDOR.open(connect("salesforce", server.url)) as client:
        assert VENDOR.count(client, tables("salesforce", "User"), ALL) == 7


def test_a_page_that_loses_rows_is_noticed(serve_org) -> None:
    place = serve_org(fill(new_org(), 2_500))
    place.fault("truncate_page", "queryAll.*ORDER")
    with pytest.raises(CountMismatch, match="1500 records came of 2500"):
        place.ids()


def test_bulk_results_that_end_early_are_noticed(serve_org) -> None:
    place = serve_org(fill(new_org(), 500))
    place.fault("malformed_json", "results")
    with pytest.raises((CountMismatch, SourceError), match=r"bulk (job|results)"):
        place.ids(**BULK)


def test_a_page_without_records_is_refused(serve_org) -> None:
    place = serve_org(fill(new_org(), 3))
    place.fault("missing_results", "queryAll.*ORDER")
    with pytest.raises(SourceError, match="lacks records"):
        place.ids()


def test_an_expired_locator_is_gone_on_from_by_key(serve_org) -> None:
    place = serve_org(fill(new_org(), 7_000, moment=lambda number: number % 3))
    place.fault("error_code:INVALID_QUERY_LOCATOR", r"/query/.*-4000")
    ids = place.ids(SOME)
    assert len(ids) == len(set(ids)) == 7_000


def test_a_locator_that_never_holds_is_given_up(serve_org) -> None:
    place = serve_org(fill(new_org(), 2_500))
    place.fault("error_code:INVALID_QUERY_LOCATOR", "query", times=None)
    with pytest.raises(Refused, match="INVALID_QUERY_LOCATOR"):
        place.ids()


def test_records_changed_while_reading_come_in_the_next_window(serve_org) -> None:
    place = serve_org(fill(new_org(), 4_500))
    pages = place.read(SOME)
    seen = [r["id"] for r in next(pages).records]
    changed = sorted(place.org.rows["Account"])[-1]
    place.org.change("Account", changed, {"Name": "Late"}, END + timedelta(seconds=1))
    seen += [r["id"] for page in pages for r in page.records]
    assert len(seen) == 4_500
    assert place.ids(Window(END, END + timedelta(days=1))) == [changed]


def test_large_windows_go_by_bulk_and_small_ones_by_rest(serve_org) -> None:
    place = serve_org(fill(new_org(), 30))
    options = {"options": {"bulk_from": "20"}}
    assert len(place.ids(ALL, **options)) == 30
    assert place.asked()["salesforce bulk query"] == 1
    assert len(place.ids(Window(BEGIN, BEGIN + timedelta(seconds=10)), **options)) == 9
    assert place.asked()["salesforce bulk query"] == 1


def test_what_bulk_refuses_comes_over_rest(serve_org, caplog) -> None:
    place = serve_org(fill(new_org(bulk=False), 3))
    with caplog.at_level(logging.INFO):
        assert len(place.ids(**BULK)) == 3
    assert "Bulk refuses it" in caplog.text
    assert "salesforce bulk query" in place.asked()


def test_a_job_that_ends_as_unserved_comes_over_rest(serve_org) -> None:
    place = serve_org(fill(new_org(), 3))
    place.control(
        action="fate", state="Failed", message="Selecting compound data not supported in Bulk Query"
    )
    assert len(place.ids(**BULK)) == 3


def test_compound_fields_never_go_to_bulk(serve_org) -> None:
    org = new_org()
    org.put("Account", 1, at(0), at(1), {"Name": "A", "BillingCity": "Bonn"})
    place = serve_org(org)
    parent = tables("salesforce", "Account")[0]
    wanted = [parent.with_columns({"address": Column(type="json", **{"from": "BillingAddress"})})]
    assert place.records(wanted=wanted, **BULK)[0]["BillingAddress"]["city"] == "Bonn"
    assert "salesforce bulk query" not in place.asked()


def test_queries_too_long_for_an_address_go_by_bulk(serve_org) -> None:
    names = [f"A_field_with_a_long_name_number_{n}__c" for n in range(600)]
    org = new_org(*(OrgField(name) for name in names))
    org.put("Account", 1, at(0), at(1), {"Name": "A", names[-1]: "last"})
    place = serve_org(org)
    extra = {f"c{n}": Column(type="string", **{"from": name}) for n, name in enumerate(names)}
    wanted = [tables("salesforce", "Account")[0].with_columns(extra)]
    assert place.records(wanted=wanted)[0][names[-1]] == "last"
    assert place.asked()["salesforce bulk query"] == 1


@pytest.mark.parametrize("state", ["Failed", "Aborted"])
def test_a_job_that_fails_stops_the_run(serve_org, state) -> None:
    place = serve_org(fill(new_org(), 3))
    place.control(action="fate", state=state, message="QUERY_TIMEOUT: the query ran too long")
    with pytest.raises(SourceError, match=f"{state}: QUERY_TIMEOUT"):
        place.ids(**BULK)


@pytest.mark.parametrize("path", ["COUNT", "ORDER", "/query/"])
def test_a_query_timeout_stops_the_run(serve_org, path) -> None:
    place = serve_org(fill(new_org(), 2_500))
    place.fault("error_code:QUERY_TIMEOUT", path)
    with pytest.raises(Refused, match="QUERY_TIMEOUT") as error:
        place.ids() if path != "COUNT" else place.count()
    assert error.value.code == "QUERY_TIMEOUT"


def test_a_job_that_takes_too_long_is_left_to_a_later_run(serve_org) -> None:
    place = serve_org(fill(new_org(), 3))
    options = {"bulk_from": "1", "job_patience": "0"}
    with pytest.raises(TransientError, match="still InProgress"):
        place.ids(options=options)
    began = next(iter(place.read(options=options)))
    assert began.records == []
    assert len(place.ids(ALL, began.resume)) == 3
    assert place.asked()["salesforce bulk query"] == 2


def test_a_job_of_another_version_is_not_gone_on_with(serve_org) -> None:
    place = serve_org(fill(new_org(), 3))
    asked = {"operation": "queryAll", "query": "SELECT Id FROM Account"}
    headers = {"Authorization": f"Bearer {TOKEN}"}
    job = httpx.post(f"{place.url}/services/data/v59.0/jobs/query", json=asked, headers=headers).json()["id"]
    with pytest.raises(Refused, match="409") as error:
        place.ids(ALL, {"job": job, "locator": None, "skip": 0, "done": 0})
    assert error.value.status == 409


def test_a_job_that_is_gone_is_told(serve_org) -> None:
    place = serve_org(fill(new_org(), 3))
    with pytest.raises(Refused, match="404"):
        place.ids(ALL, {"job": "750Q00000000009AAA", "locator": None, "skip": 1, "done": 1})


def test_used_up_requests_stop_at_once(serve_org) -> None:
    place = serve_org(fill(new_org(), 3))
    place.control(action="usage", used=10, allowed=10)
    with pytest.raises(LimitReached, match="24 hours"):
        place.ids()
    assert sum(place.asked().values()) == 1


def test_too_many_at_a_time_is_waited_out(serve, answering, connect) -> None:
    words = "ConcurrentRequests (Concurrent API Requests) Limit exceeded."
    answers = [
        answering([{"errorCode": "REQUEST_LIMIT_EXCEEDED", "message": words}], 403),
        answering({"fields": []}),
        answering({"totalSize": 1}),
    ]
    server = serve(lambda _: answers.pop(0))
    with VENDOR.open(connect("salesforce", server.url)) as client:
        assert VENDOR.count(client, tables("salesforce", "User"), ALL) == 1


def test_nearly_used_up_requests_are_told_once(serve_org, caplog) -> None:
    place = serve_org(fill(new_org(), 2_500))
    place.control(action="usage", used=95, allowed=100)
    place.ids()
    assert caplog.text.count("API requests of 24 hours are used") == 1


def login(place):
    provider = replace(PROVIDERS["salesforce"], tokens_at=f"{place.url}/services/oauth2/token")
    return AppLogin(provider, Client(CLIENT_ID, "client_credentials", SecretStr(TOKEN)))


@WAYS
def test_a_session_that_ends_while_reading_is_renewed(serve_org, way) -> None:
    place = serve_org(fill(new_org(), 4_500))
    pages = place.read(SOME, login=login(place), **way)
    ids = [r["id"] for r in next(pages).records]
    place.control(action="expire")
    for page in pages:
        ids += [r["id"] for r in page.records]
        place.control(action="expire")
    assert sorted(ids) == sorted(place.org.rows["Account"])
    assert place.asked()["salesforce token"] >= 2


def test_a_session_without_login_ends_with_advice(serve_org) -> None:
    place = serve_org(fill(new_org(), 3))
    place.fault("401", "queryAll")
    with pytest.raises(AuthError, match="INVALID_SESSION_ID") as error:
        place.ids()
    assert TOKEN not in str(error.value)


def test_records_are_read_again_by_id(serve_org) -> None:
    place = serve_org(fill(new_org(), 500))
    ids = sorted(place.org.rows["Account"])
    place.org.delete("Account", ids[0])
    place.org.purge("Account", ids[1])
    place.org.change("Account", ids[2], {"Name": "Now"})
    with VENDOR.open(place.connection()) as client:
        assert VENDOR.reread
        wanted = tables("salesforce", "Account")
        pages = list(VENDOR.reread(client, wanted, ids))
        found = {r["id"]: r for page in pages for r in page.records}
        assert sorted(found) == [ids[0], *ids[2:]]
        assert (found[ids[0]]["IsDeleted"], found[ids[2]]["Name"]) == (True, "Now")
        with pytest.raises(SourceError, match="15 or 18"):
            list(VENDOR.reread(client, wanted, ["' OR Name != '"]))


def test_the_contract_is_checked_against_the_org(serve_org) -> None:
    place = serve_org(new_org(OrgField("External_Id__c", calculated=True)))

    def check(stream="Account"):
        with VENDOR.open(place.connection()) as client:
            return VENDOR.check(client, tables("salesforce", stream))

    assert ["formula" in notice for notice in check()] == [True]
    place.fault("drop_property:Industry", "describe")
    with pytest.raises(SchemaError, match=r"'Industry' \(column industry\) is missing"):
        check()
    place.fault("change_type:IsClosed:string", "Opportunity/describe")
    with pytest.raises(SchemaError, match="is_closed: boolean"):
        check("Opportunity")
    place.fault("drop_property:Name", "Account/describe")
    with pytest.raises(SchemaError, match=r"'Account\.Name'"):
        check("Opportunity")
    place.fault("drop_property:SystemModstamp", "describe")
    with pytest.raises(SchemaError, match="SystemModstamp"):
        check()


def test_notices_of_check(serve_org) -> None:
    org = new_org()
    place = serve_org(org)
    parent = tables("salesforce", "Opportunity")[0]
    stage = parent.columns["stage"].model_copy(update={"accepted": ["Open"]})
    changed = parent.model_copy(update={"columns": {**parent.columns, "stage": stage}})
    source = parent.source.model_copy(update={"cursor": "created_at"})
    with VENDOR.open(place.connection()) as client:
        assert VENDOR.check(client, [changed]) == [
            "raw.salesforce__opportunities.stage: Salesforce also offers Won"
        ]
        other = parent.model_copy(update={"source": source})
        assert "SystemModstamp moves with more changes than CreatedDate" in VENDOR.check(client, [other])[0]
        whole = parent.model_copy(update={"source": source.model_copy(update={"cursor": None})})
        assert "read whole each time" in VENDOR.check(client, [whole])[0]


def test_what_the_org_classifies_and_the_contract_does_not_is_told(serve_org) -> None:
    place = serve_org(new_org(OrgField("External_Id__c", security="Restricted")))
    with VENDOR.open(place.connection()) as client:
        assert VENDOR.check(client, tables("salesforce", "Account")) == [
            "raw.salesforce__accounts.external_id: Salesforce classifies it as personal or confidential"
        ]
    place.fault("error_code:INVALID_TYPE", "FieldDefinition")
    with VENDOR.open(place.connection()) as client:
        assert VENDOR.check(client, tables("salesforce", "Account")) == []


def test_an_object_there_is_not(serve_org) -> None:
    place = serve_org(new_org())
    parent = tables("salesforce", "Account")[0]
    elsewhere = parent.model_copy(update={"source": parent.source.model_copy(update={"object": "Other__c"})})
    with VENDOR.open(place.connection()) as client, pytest.raises(SchemaError, match="no object Other__c"):
        VENDOR.check(client, [elsewhere])


def test_without_a_cursor_all_is_read_by_id(serve_org) -> None:
    place = serve_org(fill(new_org(), 4_100, moment=lambda number: -number))
    parent = tables("salesforce", "Account")[0]
    wanted = [parent.model_copy(update={"source": parent.source.model_copy(update={"cursor": None})})]
    pages = list(place.read(wanted=wanted))
    ids = [r["id"] for page in pages for r in page.records]
    assert ids == sorted(place.org.rows["Account"])
    assert place.ids(ALL, pages[0].resume, wanted=wanted) == ids[2_000:]


def test_own_fields_are_told_with_their_types(serve_org) -> None:
    custom = {
        "Flag__c": ("boolean", Field("boolean")),
        "Count__c": ("int", Field("integer")),
        "Share__c": ("percent", Field("float")),
        "Worth__c": ("currency", Field("decimal")),
        "Day__c": ("date", Field("date")),
        "When__c": ("datetime", Field("timestamp")),
        "Kind__c": ("picklist", Field("string")),
        "Mail__c": ("email", Field("string", sensitive=True)),
        "Secret__c": ("string", Field("string", sensitive=True)),
        "Blob__c": ("base64", None),
        "External_Id__c": ("string", None),
    }
    marks = {"Secret__c": "PII;GDPR"}
    place = serve_org(
        new_org(*(OrgField(n, kind, compliance=marks.get(n)) for n, (kind, _) in custom.items()))
    )
    with VENDOR.open(place.connection()) as client:
        assert VENDOR.fields
        found = VENDOR.fields(client, tables("salesforce", "Account"))
    assert found == {name: field for name, (_, field) in custom.items() if field}


def test_options_that_are_no_numbers_are_refused(connect) -> None:
    from omni.errors import ConfigError

    wrong = connect("salesforce", "http://127.0.0.1:9", options={"bulk_from": "many"})
    with pytest.raises(ConfigError, match="bulk_from"), VENDOR.open(wrong):
        pass


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("api-usage=11/15000", (11, 15_000)),
        ("per-app-api-usage=17/250(appName=x); api-usage=1/2", None),
        ("", (0, 0)),
    ],
)
def test_the_limit_header(header, expected) -> None:
    assert usage(header) == (expected or (1, 2))


@pytest.mark.parametrize(
    "body",
    [{"fields": {}}, {"fields": [{"type": "id"}]}, {}, [], {"fields": [{"name": 1}]}],
)
def test_a_description_of_another_shape_is_refused(serve, answering, connect, body) -> None:
    server = serve(lambda _: answering(body))
    with VENDOR.open(connect("salesforce", server.url)) as client, pytest.raises(SourceError):
        VENDOR.check(client, tables("salesforce", "Account"))
