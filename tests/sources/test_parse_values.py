"""Vendors' texts to types: exact, or refused with a reason that quotes nothing."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni.sources.parse import MALFORMED, POLARS_TYPES, ExactFloat, parse


def one(value, kind):
    series, problems = parse([value], kind)
    assert series.dtype == POLARS_TYPES[kind]
    assert len(series) == 1
    return problems[0] if problems else series[0]


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("12", "integer", 12),
        (" 12 ", "integer", 12),
        ("12.0", "integer", 12),
        ("1.2e1", "integer", 12),
        (12, "integer", 12),
        ("-9223372036854775808", "integer", -(2**63)),
        ("", "integer", None),
        (None, "integer", None),
        ("12.5", "decimal", Decimal("12.50")),
        ("+12.50", "decimal", Decimal("12.50")),
        ("12.500", "decimal", Decimal("12.50")),
        ("1.5e3", "decimal", Decimal("1500.00")),
        ("9999999999999999.99", "decimal", Decimal("9999999999999999.99")),
        (ExactFloat("0.1"), "decimal", Decimal("0.10")),
        (7, "decimal", Decimal("7.00")),
        ("0.1", "float", 0.1),
        (True, "boolean", True),
        ("FALSE", "boolean", False),
        ("2024-02-29", "date", date(2024, 2, 29)),
        ("1709164800000", "date", date(2024, 2, 29)),
        ("2024-02-29T00:00:00Z", "date", date(2024, 2, 29)),
        ("2024-02-29T12:00:00.5Z", "timestamp", datetime(2024, 2, 29, 12, 0, 0, 500_000, UTC)),
        ("2024-02-29T12:00:00+02:00", "timestamp", datetime(2024, 2, 29, 10, tzinfo=UTC)),
        ("2024-02-29 12:00:00Z", "timestamp", datetime(2024, 2, 29, 12, tzinfo=UTC)),
        ("1709208000123", "timestamp", datetime(2024, 2, 29, 12, 0, 0, 123_000, UTC)),
        (1709208000123, "timestamp", datetime(2024, 2, 29, 12, 0, 0, 123_000, UTC)),
        ("", "string", ""),
        (5, "string", "5"),
        ({"b": 1, "a": [ExactFloat("1.5")]}, "json", '{"a": [1.5], "b": 1}'),
        ('{"a": 1}', "json", '{"a": 1}'),
    ],
)
def test_a_value_becomes_what_it_says(value, kind, expected):
    assert one(value, kind) == expected


@pytest.mark.parametrize(
    ("value", "kind", "reason"),
    [
        ("12.5", "integer", "not a whole number"),
        ("9223372036854775808", "integer", "out of range|beyond 64 bits"),
        ("1e999", "integer", "beyond 64 bits"),
        ("1_000", "integer", "not a number"),
        ("١٢", "integer", "not a number"),
        ("12.345", "decimal", "more than two decimals"),
        ("12,50", "decimal", r"not a number \(shape '99,99'\)"),
        ("10000000000000000", "decimal", "too large"),
        ("NaN", "decimal", "not a number"),
        ("Infinity", "float", "not a number"),
        ("1e999", "float", "too large"),
        ("yes", "boolean", "neither true nor false"),
        ("2024-02-30", "date", "not a date"),
        ("29/02/2024", "date", "not a date"),
        ("2024-02-29T13:00:00Z", "date", "time of day"),
        ("0000-01-01", "date", "not a date"),
        ("2024-02-29T12:00:00", "timestamp", "without time zone"),
        ("2024-02-30T12:00:00Z", "timestamp", "ISO 8601"),
        ("20240229", "timestamp", "without time zone|ISO 8601"),
        ("1709208000", "timestamp", "ISO 8601"),
        ("0001-01-01T00:00:00+02:00", "timestamp", "range"),
        ("9999-12-31T23:59:59-01:00", "timestamp", "range"),
        ({"a": 1}, "string", "single value"),
        (["a"], "integer", "single value"),
        (MALFORMED, "string", "an object was expected"),
        (MALFORMED, "json", "an object was expected"),
        ("\ud800", "string", "Unicode"),
        ("{", "json", "not valid JSON"),
        ("NaN", "json", "not valid JSON"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(value, kind, reason):
    answer = one(value, kind)
    assert isinstance(answer, str)
    assert re.search(reason, answer), answer


def test_reasons_do_not_quote_values():
    _, problems = parse(["call Ann 0170"], "integer")
    assert problems == {0: "not a number (shape 'aaaa aaa 9999')"}


def test_bad_values_leave_their_neighbours_alone():
    series, problems = parse(["1", "x", None, "3.0", {"a": 1}, ""], "integer")
    assert series.to_list() == [1, None, None, 3, None, None]
    assert set(problems) == {1, 4}


@pytest.mark.parametrize("kind", list(POLARS_TYPES))
def test_an_empty_column_keeps_its_type(kind):
    for values in ([], [None, None]):
        series, problems = parse(values, kind)
        assert series.dtype == POLARS_TYPES[kind]
        assert series.to_list() == values
        assert not problems


@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_whole_numbers_survive(values):
    series, problems = parse([str(value) for value in values], "integer")
    assert not problems
    assert series.to_list() == values


cents = st.integers(-(10**18 - 1), 10**18 - 1)


@given(st.lists(cents), st.integers(0, 3))
def test_money_survives_to_the_cent(values, zeros):
    amounts = [Decimal(value).scaleb(-2) for value in values]
    series, problems = parse([f"{amount:f}" + "0" * zeros for amount in amounts], "decimal")
    assert not problems
    assert series.to_list() == amounts


@given(st.decimals(allow_nan=False, allow_infinity=False, places=None))
def test_an_amount_is_exact_or_refused(amount):
    series, problems = parse([str(amount)], "decimal")
    assert problems or series[0] == amount


moments = st.datetimes(
    datetime(1, 1, 2),  # noqa: DTZ001
    datetime(9999, 12, 30),  # noqa: DTZ001
    timezones=st.integers(-840, 840).map(lambda m: timezone(timedelta(minutes=m))),
)


@given(st.lists(moments))
def test_moments_survive_in_any_zone(values):
    series, problems = parse([value.isoformat() for value in values], "timestamp")
    assert not problems
    assert series.to_list() == [value.astimezone(UTC) for value in values]


@given(st.lists(st.dates()))
def test_dates_survive(values):
    series, problems = parse([value.isoformat() for value in values], "date")
    assert not problems
    assert series.to_list() == values


anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(exclude_categories=[])),
    st.text("0123456789+-.eE:TZ ", max_size=30),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
)


@settings(max_examples=300)
@given(st.lists(anything, max_size=8), st.sampled_from(list(POLARS_TYPES)))
def test_every_value_is_kept_or_explained(values, kind):
    series, problems = parse(values, kind)
    assert series.dtype == POLARS_TYPES[kind]
    assert len(series) == len(values)
    for index, (value, cell) in enumerate(zip(values, series.to_list(), strict=True)):
        blank = value is None or (
            isinstance(value, str) and not value.strip() and kind not in ("string", "json")
        )
        assert (cell is None) == (blank or index in problems)
    json.dumps(problems).encode()


def test_types_match_the_warehouse():
    assert POLARS_TYPES["decimal"] == pl.Decimal(18, 2)
    assert POLARS_TYPES["timestamp"] == pl.Datetime("us", "UTC")
