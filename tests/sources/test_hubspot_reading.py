"""HubSpot, against a small loopback account with the vendor's caps."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from omni.errors import AuthError, ConfigError, CountMismatch, SchemaError, SourceError
from omni.sources.extract import extract, streams, tables, window_end
from omni.sources.hubspot import MAX_QUERY, VERSION
from omni.sources.reading import PART_ROWS
from omni.warehouse.staged import MANIFEST, REJECTED, Staged

CONTACTS = f"/crm/objects/{VERSION}/contacts"
DAY = datetime(2024, 5, 1, tzinfo=UTC)


def ms(when):
    return int(when.timestamp() * 1000)


@pytest.fixture
def run(serve, connect, account, home, tenant, tmp_path):
    server = serve(account)

    def start(stream="contacts", since=None, until=DAY + timedelta(days=9), name="staged", **options):
        return extract(
            tenant,
            "hubspot",
            stream,
            connect("hubspot", server.url),
            since=since,
            until=until,
            run_id="run-1",
            folder=tmp_path / name,
            **options,
        )

    start.server = server
    return start


def rows(staged, table):
    files = staged.tables[table]
    return pl.concat([pl.read_parquet(staged.folder / file) for file in files]) if files else pl.DataFrame()


def contact(account, number, when=0, **values):
    account.add("contacts", number, ms(DAY) + when, email=f"p{number}@example.com", firstname="Ann", **values)


def test_a_full_load_lists_everything(account, run):
    for number in range(1, 251):
        contact(account, number, number)
    seen = []
    staged = run(progress=seen.append)
    found = rows(staged, "raw.hubspot__contacts")
    assert found["id"].to_list() == [str(number) for number in range(1, 251)]
    assert staged.rows == {"raw.hubspot__contacts": 250}
    assert staged.source_rows == 250
    assert seen == [100, 200, 250]
    assert Staged.load(staged.folder) == staged


def test_nothing_personal_reaches_the_disk_or_is_even_asked_for(account, run, caplog):
    contact(account, 1, employees="call Ann")
    contact(account, 2)
    caplog.set_level("DEBUG")
    staged = run()
    content = b"".join(file.read_bytes() for file in staged.folder.iterdir()) + caplog.text.encode()
    assert b"p1@example.com" not in content
    assert b"p2@example.com" not in content
    assert b"Ann" not in content
    listing = next(a for a in run.server.asked if a.path == CONTACTS)
    assert "email" in listing.query["properties"]
    assert "firstname" not in listing.query["properties"]
    assert staged.rejected == 1


def test_unparsable_values_go_to_the_rejects_and_still_count(account, run):
    for number in range(1, 5):
        contact(account, number, employees="12" if number != 3 else "a dozen")
    staged = run()
    assert staged.rows == {"raw.hubspot__contacts": 3}
    assert staged.source_rows == 4
    lines = [json.loads(line) for line in (staged.folder / REJECTED).read_text().splitlines()]
    assert lines == [
        {
            "table": "raw.hubspot__contacts",
            "key": "3",
            "column": "employees",
            "reason": "not a number (shape 'a aaaaa')",
        }
    ]


def test_an_incremental_load_reads_its_window_only(account, run):
    for number in range(1, 6):
        contact(account, number, number * 1000)
    since, until = DAY + timedelta(seconds=2), DAY + timedelta(seconds=4)
    staged = run(since=since, until=until)
    assert sorted(rows(staged, "raw.hubspot__contacts")["id"]) == ["2", "3"]
    assert (staged.since, staged.until) == (since, until)
    assert not [a for a in run.server.asked if a.path == CONTACTS and a.query["archived"] == "false"]


def test_windows_meet_without_gap_or_overlap(account, run):
    for number in range(1, 40):
        contact(account, number, number * 7)
    cut = DAY + timedelta(milliseconds=133)
    first = run(since=DAY, until=cut, name="a")
    second = run(since=cut, name="b")
    ids = [rows(part, "raw.hubspot__contacts")["id"].to_list() for part in (first, second)]
    assert sorted(map(int, ids[0] + ids[1])) == list(range(1, 40))


def test_an_empty_window_is_no_request(run):
    staged = run(since=DAY, until=DAY - timedelta(hours=1))
    assert staged.source_rows == 0
    assert staged.until == DAY
    assert staged.tables == {"raw.hubspot__contacts": []}


@pytest.mark.slow
def test_twelve_thousand_changes_in_one_millisecond(account, run):
    contact(account, 1, 0)
    for number in range(2, 12_002):
        contact(account, number, 5)
    for number in range(12_002, 12_300):
        contact(account, number, 6 + number % 50)
    staged = run(since=DAY)
    assert rows(staged, "raw.hubspot__contacts")["id"].n_unique() == 12_299
    assert staged.rows == {"raw.hubspot__contacts": 12_299}
    assert len(staged.tables["raw.hubspot__contacts"]) == -(-12_299 // PART_ROWS)


@pytest.mark.slow
def test_more_than_ten_thousand_changes(account, run):
    for number in range(1, 12_501):
        contact(account, number, number // 3)
    staged = run(since=DAY)
    assert staged.rows == {"raw.hubspot__contacts": 12_500}
    assert rows(staged, "raw.hubspot__contacts")["id"].n_unique() == 12_500


def test_a_record_edited_between_two_pages_hides_no_other(account, run):
    """It leaves the window, and all that HubSpot lists behind it moves up by one."""
    for number in range(1, 451):
        contact(account, number, number)

    def edited(asked):
        if asked.path.endswith("/search") and asked.body["limit"] > 1:
            edited.searches += 1
            if edited.searches == 2:
                account.objects["contacts"][4]["changed_ms"] = ms(DAY) + 100_000

    edited.searches = 0
    account.override = edited
    staged = run(since=DAY, until=DAY + timedelta(seconds=1))
    assert set(rows(staged, "raw.hubspot__contacts")["id"]) == set(map(str, range(1, 451)))
    assert edited.searches == 3


def test_archived_objects_come_with_a_full_load_and_with_their_window(account, run):
    contact(account, 1)
    account.add("contacts", 2, ms(DAY), archived_ms=ms(DAY) + 1000)
    account.add("contacts", 3, ms(DAY), archived_ms=ms(DAY) + 5000)
    full = run(until=DAY + timedelta(seconds=3), name="full")
    assert dict(rows(full, "raw.hubspot__contacts")["id", "archived"].rows()) == {"1": False, "2": True}
    later = run(since=DAY + timedelta(seconds=3), name="later")
    assert rows(later, "raw.hubspot__contacts")["id"].to_list() == ["3"]
    assert later.source_rows == 1


@pytest.mark.parametrize("since", [None, DAY])
def test_associations_become_child_rows(account, run, since):
    for number in range(1, 131):
        account.add("deals", number, ms(DAY) + number, dealname="d", amount="10.5")
    account.links[("deals", "companies", "1")] = ["7", "7", "8"]
    account.links[("deals", "contacts", "2")] = [str(i) for i in range(20, 30)]
    staged = run("deals", since=since)
    assert rows(staged, "raw.hubspot__deal_companies").rows() == [("1", "7"), ("1", "8")]
    assert rows(staged, "raw.hubspot__deal_contacts").rows() == [("2", str(i)) for i in range(20, 30)]
    assert staged.rows["raw.hubspot__deals"] == 130


def test_a_failing_association_is_not_taken_for_none(account, run):
    account.add("deals", 1, ms(DAY))
    account.override = lambda asked: (
        account.answering(
            {"results": [], "errors": [{"category": "VALIDATION_ERROR", "message": "bad"}]}, 207
        )
        if "associations" in asked.path
        else None
    )
    with pytest.raises(SourceError, match="links to companies: bad"):
        run("deals", since=DAY)


def test_long_property_lists_travel_by_post(account, run, home, tmp_path, monkeypatch):
    from omni.settings import PROJECT, settings

    text = (PROJECT / "data/contracts/raw/hubspot__companies.yml").read_text()
    extra = [f"a_rather_long_property_name_{number:03d}" for number in range(90)]
    text = text.replace("columns:\n", "columns:\n" + "".join(f"  {n}: {{type: string}}\n" for n in extra))
    folder = tmp_path / "data" / "contracts"
    folder.mkdir(parents=True)
    (folder / "companies.yml").write_text(text)
    monkeypatch.setenv("OMNI_DATA", str(tmp_path / "data"))
    settings.cache_clear()
    for number in range(1, 151):
        account.add("companies", number, ms(DAY), **{extra[-1]: f"v{number}"})
    staged = run("companies")
    assert max(len(asked.target) for asked in run.server.asked) < MAX_QUERY
    assert rows(staged, "raw.hubspot__companies")[extra[-1]].to_list() == [f"v{n}" for n in range(1, 151)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lead_source": None}, "property 'lead_source' .column lead_source. is missing"),
        ({"employees": {"type": "string"}}, "employees: integer. is now of type 'string'"),
        ({"first_contact_date": {"type": "datetime"}}, "is now of type 'datetime'"),
    ],
)
def test_a_changed_property_stops_the_load(account, run, change, said):
    account.properties = change
    with pytest.raises(SchemaError, match=said) as caught:
        run()
    assert "raw.hubspot__contacts" in str(caught.value)
    assert "data/contracts" in str(caught.value)


def test_a_missing_optional_property_does_not(account, run):
    account.properties = {"job_level": None}
    contact(account, 1)
    assert rows(run(), "raw.hubspot__contacts")["job_level"].to_list() == [None]


def test_unknown_choices_are_reported_and_kept(account, run, caplog):
    options = [{"value": "lead"}, {"value": "alumnus"}]
    account.properties = {"lifecyclestage": {"type": "enumeration", "options": options}}
    contact(account, 1, lifecyclestage="alumnus")
    assert rows(run(), "raw.hubspot__contacts")["lifecycle_stage"].to_list() == ["alumnus"]
    assert "HubSpot also offers alumnus" in caplog.text
    assert "does not know: ['alumnus']" in caplog.text


def test_a_page_with_rows_missing_is_noticed(account, run):
    for number in range(1, 151):
        contact(account, number)

    def cut(asked):
        if asked.path == CONTACTS and "after" not in asked.query:
            page = account.listing("contacts", asked.query)
            page.body["results"] = page.body["results"][:60]
            return page
        return None

    account.override = cut
    with pytest.raises(CountMismatch, match=r"read 110 records.*holds 150 \(150 before"):
        run()


def test_a_source_that_moves_is_counted_again(account, run):
    for number in range(1, 151):
        contact(account, number)

    def moving(asked):
        if asked.query.get("after") == "100":
            account.override = None
            contact(account, 151)

    account.override = moving
    assert run().source_rows == 151


def test_a_full_read_keeps_what_changed_after_the_window_as_it_is_not_absent(account, run):
    contact(account, 1, 0)
    contact(account, 2, 5000)
    staged = run(until=DAY + timedelta(seconds=3))
    assert rows(staged, "raw.hubspot__contacts")["id"].to_list() == ["1", "2"]
    assert staged.until == DAY + timedelta(seconds=3)


def test_a_token_revoked_midway_leaves_no_manifest_and_the_next_run_recovers(account, run, tmp_path):
    for number in range(1, 151):
        contact(account, number)
    account.override = lambda a: (
        account.answering({"message": "expired"}, 401) if "after" in a.query else None
    )
    with pytest.raises(AuthError):
        run()
    assert not (tmp_path / "staged" / MANIFEST).exists()
    (tmp_path / "staged" / "left-over.parquet").write_text("x")
    account.override = None
    staged = run()
    assert staged.source_rows == 150
    assert {file.name for file in staged.folder.iterdir()} == {
        MANIFEST,
        REJECTED,
        *staged.tables["raw.hubspot__contacts"],
    }


def test_a_complete_folder_is_not_read_again(account, run):
    contact(account, 1)
    first = run()
    asked = len(run.server.asked)
    assert run() == first
    assert len(run.server.asked) == asked
    assert run(until=DAY + timedelta(days=1)).until == DAY + timedelta(days=1)


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ({}, "lacks results"),
        ({"results": {}}, "results should be list"),
        ({"results": [{"id": "1"}]}, "lacks properties"),
        ({"results": [{"properties": {}, "archived": False}]}, "lacks id"),
        ({"results": [{"id": 1, "properties": {}, "archived": False}]}, "id should be str but is int"),
        ({"results": ["x"]}, "lacks id"),
        ({"results": [], "paging": {}} | {"paging": {"next": {"after": ""}}}, "paging does not advance"),
        ({"results": [], "paging": {"next": {"after": "7"}}}, "paging does not advance"),
        ({"results": [], "paging": {"prev": {}}}, "lacks paging.next"),
    ],
)
def test_malformed_pages_are_refused(account, run, page, said):
    contact(account, 1)
    account.override = lambda a: account.answering(page) if a.path == CONTACTS else None
    with pytest.raises(SourceError, match=said):
        run()


def test_unknown_names_are_answered_with_the_known_ones(connect, tenant, tmp_path):
    with pytest.raises(ConfigError, match="Known: companies, contacts, deals"):
        tables("hubspot", "calls")
    with pytest.raises(ConfigError, match="Known: files, firestore, hubspot"):
        streams("fax")


def test_windows_end_before_now_in_whole_steps():
    now = datetime(2024, 5, 1, 12, 0, 0, 123_456, UTC)
    assert window_end("hubspot", now) == datetime(2024, 5, 1, 11, 0, 0, 123_000, UTC)
    assert window_end("shopify", now) == datetime(2024, 5, 1, 11, 55, tzinfo=UTC)
    with pytest.raises(ValueError, match="time zone"):
        window_end("hubspot", now.replace(tzinfo=None))
