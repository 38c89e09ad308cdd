"""The sandbox's SOQL against plain Python."""

from __future__ import annotations

import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni.sandbox.salesforce_org import Invalid, ObjectType, Org, OrgField, long_id, record_id, system_fields
from omni.sandbox.salesforce_soql import QueryError, parse, run

ACCOUNT = ObjectType(
    "Account",
    "001",
    (
        *system_fields(),
        OrgField("Name"),
        OrgField("Size__c", "int"),
        OrgField("Begun__c", "date"),
        OrgField("ParentId", "reference", target="Account", relationship="Parent"),
    ),
)
OPERATORS = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def time(second):
    return f"2026-01-01T00:00:{second:02d}.000Z"


def org_of(*rows):
    """An org of accounts given as (second, values)."""
    org = Org((ACCOUNT,))
    for number, (second, values) in enumerate(rows, 1):
        org.put("Account", number, time(0), time(second), values)
    return org


def found(org, text, *, deleted=False):
    query = parse(org, text)
    return [org.value_at(query.kind, row, "Name") for row in run(org, query, deleted=deleted)]


@pytest.fixture
def three():
    org = org_of(
        (3, {"Name": "Ann's", "Size__c": 5, "Begun__c": "2020-01-01"}),
        (1, {"Name": "beta", "Size__c": None}),
        (2, {"Name": "Ceta", "Size__c": 7, "ParentId": record_id("001", 1)}),
    )
    org.delete("Account", record_id("001", 2))
    return org


@pytest.mark.parametrize(
    ("condition", "names"),
    [
        ("Name = 'BETA'", ["beta"]),
        (r"Name = 'Ann\'s'", ["Ann's"]),
        ("Name LIKE '%ETA'", ["beta", "Ceta"]),
        ("Name LIKE '_eta'", ["beta", "Ceta"]),
        ("Size__c > 5", ["Ceta"]),
        ("Size__c < 7", ["Ann's"]),
        ("Size__c = null", ["beta"]),
        ("Size__c != null AND Begun__c = null", ["Ceta"]),
        ("Begun__c >= 2020-01-01", ["Ann's"]),
        ("IsDeleted = true OR (Size__c = 5 AND Name != 'x')", ["Ann's", "beta"]),
        ("NOT Name IN ('beta', 'ceta')", ["Ann's"]),
        ("Name NOT IN ('beta', 'ceta')", ["Ann's"]),
        ("Parent.Name = 'ann\\'s'", ["Ceta"]),
        ("Parent.Size__c = null", ["Ann's", "beta"]),
        ("CreatedDate = 2026-01-01T01:00:00+01:00", ["Ann's", "beta", "Ceta"]),
        (f"Id > '{record_id('001', 1)}'", ["beta", "Ceta"]),
        (f"Id IN ('{record_id('001', 1)[:15]}')", ["Ann's"]),
    ],
)
def test_conditions(three, condition, names):
    assert found(three, f"SELECT Id FROM Account WHERE {condition} ORDER BY Id", deleted=True) == names


def test_the_recycle_bin_is_shown_on_request_only(three):
    assert found(three, "SELECT Id FROM Account ORDER BY Name DESC") == ["Ceta", "Ann's"]
    assert found(three, "SELECT Id FROM Account ORDER BY Name", deleted=True) == ["Ann's", "beta", "Ceta"]


def test_order_and_limits(three):
    text = "SELECT Id FROM Account ORDER BY Size__c ASC NULLS LAST, Id"
    assert found(three, text, deleted=True) == ["Ann's", "Ceta", "beta"]
    assert found(three, text.replace("LAST", "FIRST"), deleted=True) == ["beta", "Ann's", "Ceta"]
    assert found(three, f"{text} LIMIT 1 OFFSET 1", deleted=True) == ["Ceta"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "MALFORMED_QUERY"),
        ("SELECT FROM Account", "MALFORMED_QUERY"),
        ("SELECT Id FROM Account WHERE", "MALFORMED_QUERY"),
        ("SELECT Id FROM Account WHERE Name = 'a", "MALFORMED_QUERY"),
        ("SELECT Id FROM Account WHERE Name = 'a' AND Size__c = 1 OR Size__c = 2", "MALFORMED_QUERY"),
        ("SELECT Id FROM Account LIMIT x", "MALFORMED_QUERY"),
        ("SELECT Id FROM Account extra", "MALFORMED_QUERY"),
        (f"SELECT Id FROM Account WHERE {'(' * 60}Size__c = 1{')' * 60}", "MALFORMED_QUERY"),
        ("SELECT Id FROM Nothing", "INVALID_TYPE"),
        ("SELECT Nothing FROM Account", "INVALID_FIELD"),
        ("SELECT Parent.Nothing FROM Account", "INVALID_FIELD"),
        ("SELECT Owner.Name FROM Account", "INVALID_FIELD"),
        ("SELECT Id FROM Account WHERE Size__c = '1'", "INVALID_FIELD"),
        ("SELECT Id FROM Account WHERE SystemModstamp > '2026-01-01T00:00:00Z'", "INVALID_FIELD"),
    ],
)
def test_wrong_queries_are_refused_by_code(three, text, code):
    with pytest.raises(QueryError) as error:
        parse(three, text)
    assert error.value.code == code


@given(st.text(alphabet="SELECTFROMidA ,.()'<>=!0123456789-:TZ%\\\n", max_size=60))
def test_any_text_is_a_query_or_refused(text):
    org, refused = org_of((1, {"Name": "a"})), set()
    try:
        parse(org, f"SELECT Id FROM Account WHERE {text}")
    except QueryError as error:
        refused.add(error.code)
    assert refused <= {"MALFORMED_QUERY", "INVALID_FIELD"}


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(-3, 3) | st.none()), max_size=12),
    st.sampled_from(sorted(OPERATORS)),
    st.integers(-3, 3),
)
def test_comparisons_agree_with_python(rows, sign, bound):
    org = org_of(*((second, {"Name": str(n), "Size__c": size}) for n, (second, size) in enumerate(rows)))
    text = f"SELECT Id FROM Account WHERE Size__c {sign} {bound} ORDER BY SystemModstamp, Id"
    kept = [
        (second, n)
        for n, (second, size) in enumerate(rows)
        if (sign == "!=" if size is None else OPERATORS[sign](size, bound))
    ]
    assert found(org, text) == [str(n) for _, n in sorted(kept)]


@given(st.integers(1, 62**6))
def test_ids_order_as_they_were_made_and_stand_for_their_short_form(number):
    first, second = record_id("001", number), record_id("001", number + 1)
    assert len(first) == 18
    assert first < second
    assert long_id(first[:15]) == first


def test_an_id_of_the_vendors_documents_gets_its_suffix():
    assert long_id("001D000000IqhSL") == "001D000000IqhSLIAZ"


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"Nothing": "1"}, "INVALID_FIELD"),
        ({"Size__c": "many"}, "INVALID_TYPE_ON_FIELD_IN_RECORD"),
        ({"Begun__c": "1.1.2020"}, "INVALID_TYPE_ON_FIELD_IN_RECORD"),
        ({"ParentId": "nobody"}, "MALFORMED_ID"),
        ({"SystemModstamp": time(1)}, "INVALID_FIELD_FOR_INSERT_UPDATE"),
        ({"Name": "x" * 300}, "STRING_TOO_LONG"),
    ],
)
def test_writes_are_validated_and_leave_the_record(three, values, code):
    before = dict(three.rows["Account"][record_id("001", 1)])
    with pytest.raises(Invalid) as error:
        three.change("Account", record_id("001", 1), values)
    assert error.value.code == code
    assert three.rows["Account"][record_id("001", 1)] == before


def test_changes_move_the_times(three):
    one = record_id("001", 1)
    before = three.rows["Account"][one]["SystemModstamp"]
    three.change("Account", one[:15], {"Size__c": "8"})
    row = three.rows["Account"][one]
    assert row["Size__c"] == 8
    assert row["SystemModstamp"] > before
    three.delete("Account", one)
    with pytest.raises(Invalid, match="deleted"):
        three.change("Account", one, {"Size__c": "9"})
    three.undelete("Account", one)
    assert not row["IsDeleted"]
    three.purge("Account", one)
    assert found(three, "SELECT Id FROM Account WHERE Size__c = 8", deleted=True) == []
