"""What is to be written: declarations that are refused, values in one form, differences found."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from omni.destinations.declaration import Value, load_write_backs, refuse_personal, validate
from omni.destinations.plan import Known, plan, read_rows, scalar, text
from omni.errors import ConfigError, SchemaError

HOUR = timezone(timedelta(hours=1))


@pytest.mark.parametrize(
    ("value", "decimals", "expected"),
    [
        (0.12349, 3, "0.123"),
        (-0.0001, 3, "0.000"),
        (0.5, 0, "0"),
        (1.5, 0, "2"),
        (Decimal("10.50"), None, "10.50"),
        (Decimal("1E+3"), None, "1000"),
        (float("nan"), 2, None),
        (float("inf"), None, None),
        (7, 2, "7.00"),
        (True, 2, True),
        (1e22, None, 1e22),
        (datetime(2026, 1, 1, 1, 2, 3, 4567, HOUR), None, "2026-01-01T00:02:03.004Z"),
        (datetime(2026, 1, 1), None, "2026-01-01T00:00:00.000Z"),  # noqa: DTZ001
        (date(2026, 1, 1), None, "2026-01-01"),
        ("ä,\n", None, "ä,\n"),
        (None, 3, None),
    ],
)
def test_values_have_one_form(value, decimals, expected):
    assert scalar(value, Value(column="c", decimals=decimals)) == expected


def test_lists_cannot_be_written():
    with pytest.raises(SchemaError, match="column c: a list"):
        scalar([1], Value(column="c"))


@pytest.mark.parametrize(
    ("value", "expected"), [(None, ""), (True, "true"), (0.1, "0.1"), (3, "3"), ("x", "x")]
)
def test_values_as_text(value, expected):
    assert text(value) == expected


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"columns": {}}, "columns"),
        ({"columns": {"hs_object_id": "score"}}, "is the key's property already"),
        ({"on_leave": {"clear": {"other": None}}}, "names other, which columns does not write"),
        ({"on_leave": "delete"}, "on_leave"),
        ({"where": "1=1; DROP TABLE t"}, "one SQL condition"),
        ({"to": {"vendor": "fax", "object": "x"}}, "vendor"),
        ({"limits": {"max_rows": 0}}, "max_rows"),
        ({"tabel": "x"}, "tabel"),
        ({"columns": {"p": "a b"}}, "column"),
    ],
)
def test_wrong_declarations_are_refused(declared, changes, said):
    with pytest.raises(ValidationError, match=said):
        declared(**changes)


def test_the_projects_own_are_right(declared):
    known = load_write_backs()
    assert known["lead_scores"].used == ["lead_id", "score"]


def test_tables_columns_and_tenants_must_exist(declared):
    columns = {"ml.scores": ["lead", "score"]}
    validate({"scores": declared()}, columns, ["demo"])
    with pytest.raises(ConfigError, match=r"no contract and no model declares ml\.other"):
        validate({"scores": declared(table="ml.other")}, columns, ["demo"])
    with pytest.raises(ConfigError, match=r"ml\.scores has no column size"):
        validate({"scores": declared(columns={"p": "size"})}, columns, ["demo"])
    with pytest.raises(ConfigError, match="unknown tenant nobody"):
        validate({"scores": declared(tenants=["nobody"])}, columns, ["demo"])


def test_personal_columns_stay_unless_they_are_readable_and_meant(declared):
    one = declared(columns={"p": "score", "q": "city"})
    refuse_personal(one, {"ml.other": {"score"}}, {})
    with pytest.raises(ConfigError, match=r"ml\.scores\.score holds personal data that is kept hashed"):
        refuse_personal(one, {"ml.scores": {"score"}}, {"ml.scores": {"score"}})
    with pytest.raises(ConfigError, match="key lead holds personal data"):
        refuse_personal(one, {"ml.scores": {"lead"}}, {})
    with pytest.raises(ConfigError, match=r"say why: personal: \{city"):
        refuse_personal(one, {}, {"ml.scores": {"city"}})
    refuse_personal(
        declared(columns={"q": "city"}, personal={"city": "HubSpot told us"}), {}, {"ml.scores": {"city"}}
    )


def test_keys_must_be_there_and_identify(published, declared, tenant):
    published({"": 0.5})
    with pytest.raises(SchemaError, match=r"a row of ml\.scores has no key"):
        read_rows(tenant, declared())
    published({"k" * 201: 0.5})
    with pytest.raises(SchemaError, match="a key of 201 characters; at most 200 are kept"):
        read_rows(tenant, declared())
    published({"1": (0.5, "a"), "2": (0.5, "a")})
    twice = declared(key={"column": "grade", "property": "hs_object_id"})
    with pytest.raises(SchemaError, match=r"1 rows of ml\.scores share their grade"):
        read_rows(tenant, twice)


def test_a_condition_picks_the_segment(published, declared, tenant):
    published({"1": (0.5, "a"), "2": (0.9, "b"), "3": (0.7, "b")})
    assert read_rows(tenant, declared(where="grade = 'b' AND score > 0.8")).keys() == {"2"}
    for wrong in ("grade = ", "no_such > 1", "1 = 1) UNION SELECT 1, 2 --", "SELECT 1 UNION SELECT 2"):
        with pytest.raises(ConfigError, match="write-back scores"):
            read_rows(tenant, declared(where=wrong))


def test_nothing_published_says_what_to_run(control, declared, tenant):
    with pytest.raises(ConfigError, match="omni nightly"):
        plan(tenant, declared(), {})


def ledger_of(found):
    return {item.key: Known(item.content, item.columns, 1, None) for item in found.items}


def test_changed_names_the_columns_that_differ(published, declared, tenant):
    one = declared(columns={"p": "score", "q": "grade"})
    published({"1": (0.5, "a"), "2": (0.6, "b")})
    first = plan(tenant, one, {})
    assert {item.key: item.changed for item in first.new} == {"1": ("p", "q"), "2": ("p", "q")}
    published({"1": (0.5, "c"), "2": (0.6, "b"), "3": (0.6125, None)})
    second = plan(tenant, one, ledger_of(first))
    assert {item.key: item.changed for item in second.changed} == {"1": ("q",)}
    assert second.summary() == {"new": 1, "changed": 1, "leaving": 0, "unchanged": 1, "held": 0}
    assert "0.6125" not in repr(second)


def test_another_property_or_tenant_has_other_digests(published, declared, tenant):
    published({"1": (0.5, "a")})
    one, other = declared(), declared(columns={"p": {"column": "score", "decimals": 3}})
    contents = {plan(tenant, each, {}).items[0].content for each in (one, other)}
    assert len(contents) == 2


@given(st.floats(allow_nan=False, allow_infinity=False, width=32), st.integers(0, 6))
def test_rounding_hides_what_lies_behind_it(value, decimals):
    how = Value(column="c", decimals=decimals)
    shown = scalar(value, how)
    assert scalar(Decimal(str(shown)), how) == shown
    assert abs(Decimal(str(shown)) - Decimal(repr(value))) <= Decimal(5).scaleb(-decimals - 1)


def test_moments_are_utc():
    assert scalar(datetime(2026, 7, 1, tzinfo=UTC), Value(column="c")) == "2026-07-01T00:00:00.000Z"
