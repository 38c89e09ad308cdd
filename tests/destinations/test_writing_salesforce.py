"""Scores to Salesforce's contacts by ingest jobs: refused rows set aside, lost calls made good."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni.destinations import salesforce
from omni.destinations.declaration import WriteBack
from omni.destinations.ledger import letters
from omni.destinations.plan import Item
from omni.errors import SchemaError, TransientError
from omni.sandbox.company import load_company
from omni.sandbox.embedded import serving
from omni.sandbox.serving import Options

pytestmark = pytest.mark.slow

ROOT = "/services/data/v68.0"
FIELD = "Lead_Score__c"
TO = {
    "to": {"vendor": "salesforce", "object": "Contact"},
    "key": {"column": "lead", "property": "External_Id__c"},
    "columns": {FIELD: {"column": "score", "decimals": 3}},
}


@pytest.fixture
def org(account):
    with serving(load_company("demo"), Options("sandbox-test")) as sandbox:
        found = account(sandbox.url, "salesforce")
        yield found
        found.api.close()


def scores(org):
    soql = f"SELECT External_Id__c, {FIELD} FROM Contact WHERE {FIELD} != null"
    rows = org.api.get(f"{ROOT}/query", params={"q": soql}).json()["records"]
    return {row["External_Id__c"]: row[FIELD] for row in rows}


def keys(number):
    return [f"L-{n:05d}" for n in range(1, number + 1)]


def test_first_all_then_nothing_then_what_changed(org, published, declared, run):
    rows = {key: n / 1000 for n, key in enumerate(keys(250))}
    published(rows)
    assert run(declared(**TO), org).written == 250
    assert scores(org) == rows
    assert run(declared(**TO), org).written == 0
    published(rows | {"L-00007": 0.5})
    assert run(declared(**TO), org).written == 1
    assert scores(org) == rows | {"L-00007": 0.5}


def test_refused_rows_are_dead_letters_with_a_code_and_no_value(org, published, declared, run, tenant):
    published({"L-00001": "0.1", "L-00002": "secret", "nobody": "0.3"}, "VARCHAR")
    one = declared(**TO | {"columns": {FIELD: "score"}})
    done = run(one, org)
    assert (done.written, done.rejected) == (1, 2)
    found = {letter.key: letter.reason for letter in letters(tenant.tenant, one)}
    assert found["L-00002"].startswith("INVALID_TYPE_ON_FIELD_IN_RECORD")
    assert found["nobody"] == "REQUIRED_FIELD_MISSING (LastName)"
    assert "secret" not in str(found)
    held = run(one, org)
    assert (held.written, held.planned["held"]) == (0, 2)
    published({"L-00001": "0.1", "L-00002": "0.2"}, "VARCHAR")
    assert run(one, org).written == 1
    assert scores(org) == {"L-00001": 0.1, "L-00002": 0.2}


def test_clearing_empties_the_field(org, published, declared, run):
    one = declared(**TO | {"on_leave": {"clear": {FIELD: None}}})
    published({"L-00001": 0.1, "L-00002": 0.2})
    run(one, org)
    published({"L-00001": None})
    assert run(one, org).summary()["leaving"] == 1
    assert scores(org) == {}


def test_salesforces_own_ids_update_only(org, published, declared, run, tenant):
    soql = "SELECT Id FROM Contact WHERE External_Id__c = 'L-00003'"
    (row,) = org.api.get(f"{ROOT}/query", params={"q": soql}).json()["records"]
    published({row["Id"]: 0.3, "003000000000000AAA": 0.4})
    one = declared(**TO | {"key": {"column": "lead", "property": "Id"}})
    done = run(one, org)
    assert (done.written, done.rejected) == (1, 1)
    assert scores(org) == {"L-00003": 0.3}


@pytest.mark.parametrize("kind", ["503", "cut_body", "500"])
@pytest.mark.parametrize("path", ["batches", "jobs/ingest/[^/]+$", "failedResults", "describe"])
def test_lost_calls_are_made_good(org, published, declared, run, kind, path):
    published(dict.fromkeys(keys(20), 0.5))
    org.fault(kind, path, 1)
    assert run(declared(**TO), org).written == 20
    assert scores(org) == dict.fromkeys(keys(20), 0.5)


def test_a_destination_that_stays_down_loses_nothing(org, published, declared, run):
    published(dict.fromkeys(keys(5), 0.5))
    org.fault("503", "batches", None)
    with pytest.raises(TransientError):
        run(declared(**TO), org)
    org.calm()
    assert run(declared(**TO), org).written == 5


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"columns": {"Nope__c": "score"}}, "Contact has no field Nope__c"),
        ({"columns": {"CreatedDate": "score"}}, "CreatedDate cannot be written"),
        ({"key": {"column": "lead", "property": "Email"}}, "Email is no external id"),
        ({"to": {"vendor": "salesforce", "object": "Car"}}, "no object Car"),
    ],
)
def test_what_salesforce_lacks_is_said_before_anything_is_written(
    org, published, declared, run, changes, said
):
    published({"L-00001": 0.5})
    with pytest.raises(SchemaError, match=said):
        run(declared(**TO | changes), org)
    assert not [label for label in org.asked() if "ingest" in label]


def look(org, job):
    """The job's state, which moves on by that."""
    return org.api.get(f"{ROOT}/jobs/ingest/{job}").json()["state"]


def test_a_job_that_is_not_done_in_time_is_aborted_and_never_undoes_a_later_one(
    org, published, declared, run
):
    published({"L-00001": 0.5})
    hasty = SimpleNamespace(connection=replace(org.connection, options={"job_patience": "0"}, backoff=0.001))
    with pytest.raises(TransientError, match=r"ingest job \w+ is still \w+ after 0 s") as error:
        run(declared(**TO), hasty)
    assert org.asked()["salesforce ingest"] == 1
    job = re.search(r"job (\w+)", str(error.value)).group(1)
    published({"L-00001": 0.75})
    assert run(declared(**TO), org).written == 1
    assert [look(org, job) for _ in range(3)] == ["Aborted"] * 3
    assert scores(org) == {"L-00001": 0.75}


def test_a_job_that_cannot_be_aborted_is_named(org, published, declared, run, caplog):
    published({"L-00001": 0.5})
    org.fault("503", "jobs/ingest/[^/]+$", None)
    with pytest.raises(TransientError):
        run(declared(**TO), org)
    assert "may still be done and undo later values" in caplog.text


def test_rows_whose_results_were_lost_are_sent_again_even_if_they_are_as_before(
    org, published, declared, run
):
    published({"L-00001": 0.25, "L-00002": 0.25})
    run(declared(**TO), org)
    published({"L-00001": 0.5, "L-00002": 0.25})
    org.fault("503", "successfulResults", None)
    with pytest.raises(TransientError):
        run(declared(**TO), org)
    org.calm()
    assert scores(org) == {"L-00001": 0.5, "L-00002": 0.25}
    published({"L-00001": 0.25, "L-00002": 0.25})
    assert run(declared(**TO), org).written == 1
    assert scores(org) == {"L-00001": 0.25, "L-00002": 0.25}


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


names = st.text(min_size=1, max_size=6, alphabet='abc",\n ')


@given(st.dictionaries(names, st.tuples(cells, st.booleans())), st.integers(1, 200))
def test_uploads_hold_every_row_once_within_their_size(rows, most):
    whole = {"name": "n", "title": "t", "owner": "o", "table": "ml.scores", **TO}
    one = WriteBack.model_validate(whole | {"columns": {"A__c": "score", "B__c": "grade"}})
    items = [
        Item(key, {"A__c": value, "B__c": None} if both else {"A__c": value}, "c", {}, "t")
        for key, (value, both) in rows.items()
    ]
    parts = list(salesforce.uploads(one, items, most))
    assert [item for _, part in parts for item in part] == items
    for upload, part in parts:
        assert len(upload) <= most or len(part) == 1
        read = list(csv.DictReader(io.StringIO(upload.decode(), newline="")))
        assert [row["External_Id__c"] for row in read] == [item.key for item in part]
        for row, item in zip(read, part, strict=True):
            assert row["A__c"] == (item.values["A__c"] or "#N/A")
            assert row["B__c"] == ("#N/A" if "B__c" in item.values else "")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("INVALID_EMAIL_ADDRESS:Email: invalid email address: a@b:Email --", "INVALID_EMAIL_ADDRESS (Email)"),
        ("STRING_TOO_LONG:First Name: data value too large: Ann:FirstName, LastName --",
         "STRING_TOO_LONG (FirstName, LastName)"),
        ("UNKNOWN_EXCEPTION", "UNKNOWN_EXCEPTION"),
        ("", "no reason given"),
    ],
)  # fmt: skip
def test_reasons_leave_values_out(said, reason):
    assert salesforce.reason_of(said) == reason
