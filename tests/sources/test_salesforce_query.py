"""SOQL from contracts, against the sandbox's evaluator, and CSV results against Python's writer."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni.errors import ConfigError, SourceError
from omni.sandbox.salesforce_org import ObjectType, Org, OrgField, org_time, record_id, system_fields
from omni.sandbox.salesforce_soql import parse, run
from omni.sources.extract import tables
from omni.sources.parse import moment
from omni.sources.salesforce_bulk import rows_in
from omni.sources.salesforce_calls import opened
from omni.sources.salesforce_query import Selection, checked_id, field_at, literal, paths
from omni.sources.vendor import Window
from omni.warehouse.contracts import Column

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
KIND = ObjectType("Account", "001", (*system_fields(), OrgField("Name")))
CHOSEN = Selection("Account", ("Id", "SystemModstamp"), "SystemModstamp", deleted=True, compound=False)


def at(tick):
    return BEGIN + timedelta(milliseconds=tick)


def asked(org, soql):
    return [(row["SystemModstamp"], row["Id"]) for row in run(org, parse(org, soql), deleted=True)]


ticks = st.integers(0, 6)


@given(st.lists(ticks, max_size=12), ticks, ticks, st.integers(0, 11))
def test_behind_any_record_comes_what_sorts_behind_it(changed, since, until, which) -> None:
    org = Org((KIND,))
    for number, tick in enumerate(changed, 1):
        org.put("Account", number, org_time(BEGIN), org_time(at(tick)), {})
    window = Window(at(since) if since else None, at(until))
    inside = sorted(
        (org_time(at(tick)), record_id("001", number))
        for number, tick in enumerate(changed, 1)
        if not since or since <= tick < until
    )
    assert asked(org, CHOSEN.soql(CHOSEN.window(window))) == inside
    if not inside:
        return
    place = inside[which % len(inside)]
    token = CHOSEN.place({"id": place[1], "SystemModstamp": place[0].replace("Z", "+0000")})
    behind = asked(org, CHOSEN.soql(CHOSEN.behind(window, token)))
    assert behind == [row for row in inside if row > place]


@given(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_literals_are_exact_to_the_millisecond(when) -> None:
    floor = when - timedelta(microseconds=when.microsecond % 1000)
    assert moment(literal(floor)) == floor


@pytest.mark.parametrize("identity", ["", "001", "' OR Id != '", "001000000000001'", "a" * 16, "a" * 19])
def test_ids_that_could_leave_their_quotes_are_refused(identity) -> None:
    with pytest.raises(SourceError, match="15 or 18"):
        checked_id(identity)
    with pytest.raises(SourceError, match="15 or 18"):
        CHOSEN.behind(Window(None, BEGIN), {"id": identity, "at": literal(BEGIN)})


@pytest.mark.parametrize("path", ["Name FROM User", "Name,Id", "a..b", "a.b.c.d.e.f.g", "1a", "Na me"])
def test_paths_that_are_no_names_are_refused(path) -> None:
    wrong = tables("salesforce", "Account")[0].with_columns({"x": Column(type="string", **{"from": path})})
    with pytest.raises(ConfigError, match="no field of Salesforce"):
        paths(wrong)


@pytest.mark.parametrize("value", [None, "", "yesterday", 5, "2026-01-01T00:00:00"])
def test_a_record_without_a_time_cannot_be_a_place(value) -> None:
    with pytest.raises(SourceError, match="SystemModstamp"):
        CHOSEN.place({"id": record_id("001", 1), "SystemModstamp": value})


def test_a_relationship_to_several_objects_takes_the_first_that_has_the_field(
    serve, answering, connect
) -> None:
    objects = {
        "Task": [{"name": "WhoId", "relationshipName": "Who", "referenceTo": ["Hidden", "Contact", "Lead"]}],
        "Contact": [{"name": "Name", "type": "string"}],
        "Lead": [{"name": "Rating", "type": "picklist"}, {"name": "Name", "type": "other"}],
    }

    def answer(asked):
        name = asked.path.split("/")[-2]
        if name not in objects:
            return answering([{"errorCode": "NOT_FOUND", "message": "none"}], 404)
        return answering({"fields": objects[name]})

    with opened(connect("salesforce", serve(answer).url)) as client:
        assert field_at(client, "Task", "Who.Rating")["type"] == "picklist"
        assert field_at(client, "Task", "Who.Name")["type"] == "string"
        assert field_at(client, "Task", "Who.Nothing") is None
        assert field_at(client, "Task", "Owner.Name") is None
        assert field_at(client, "Task", "WhoId.Name") is None


cells = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
lines = st.lists(st.tuples(cells, cells), max_size=6)


def written(rows):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerows([("Id", "Name", "Account.Name"), *((f"id{n}", *row) for n, row in enumerate(rows))])
    return text.getvalue().encode()


def expected(rows):
    return [
        {"Id": f"id{n}", "id": f"id{n}", "Name": name or None, "Account": {"Name": other or None}}
        for n, (name, other) in enumerate(rows)
    ]


@given(lines)
def test_any_text_survives_csv(tmp_path_factory, rows) -> None:
    path = tmp_path_factory.mktemp("csv") / "results.csv"
    path.write_bytes(written(rows))
    assert list(rows_in(path)) == expected(rows)


@given(lines, st.integers(0, 200))
def test_results_cut_anywhere_never_show_another_row_but_the_last(tmp_path_factory, rows, end) -> None:
    path = tmp_path_factory.mktemp("csv") / "results.csv"
    path.write_bytes(written(rows)[:end])
    found = []
    try:
        found += rows_in(path)
    except SourceError as error:
        assert "Salesforce bulk results" in str(error)  # noqa: PT017
    assert [record["id"] for record in found] == [f"id{n}" for n in range(len(found))]
    assert found[:-1] == expected(rows)[: max(len(found) - 1, 0)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no column Id"),
        (b'"Name"\n"a"\n', "no column Id"),
        (b'"Id","Name"\n"1"\n', "row 1 has 1 of 2"),
        (b'"Id","Name"\n"1","2","3"\n', "row 1 has 3 of 2"),
        (b'"Id","Name"\n"1","a"\n"2","\xff"\n', "cannot be read"),
        (b'"Id","Name"\n"1","open\n', "cannot be read"),
    ],
)
def test_results_that_are_no_table_are_refused_without_their_content(tmp_path, content, words) -> None:
    path = tmp_path / "results.csv"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=words) as error:
        list(rows_in(path))
    assert "open" not in str(error.value)
