"""Vendors' texts to typed columns, whole columns at a time.

A value either becomes exactly what it says or is reported; nothing is rounded, guessed or nulled. Empty
text counts as no value everywhere but in text columns, because vendors clear a field by emptying it.

Each type has a pattern that Polars then casts. Texts outside the pattern are rewritten one by one into it
(`"1e3"` to `"1000"`, epoch milliseconds to ISO 8601) or refused with a reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Self

import polars as pl

from omni.warehouse.contracts import Type

POLARS_TYPES: dict[Type, pl.DataType] = {
    "string": pl.String(),
    "integer": pl.Int64(),
    "float": pl.Float64(),
    "decimal": pl.Decimal(18, 2),
    "boolean": pl.Boolean(),
    "date": pl.Date(),
    "timestamp": pl.Datetime("us", "UTC"),
    "json": pl.String(),
}

MALFORMED = object()
"""Stands for a cell whose surroundings are of the wrong shape, e.g. a text where an object belongs."""

NOTE = "\x1f"
"""Ends what a source wrote, where its module adds why that is no value of the column's type."""

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
EPOCH = re.compile(r"-?[0-9]{11,14}")
"""Epoch milliseconds. Shorter ones are refused: ten digits are as likely seconds, eight a date."""
ISO_DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
ISO_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:?[0-9]{2})$"
INT64 = 2**63
EPOCH_START = datetime(1970, 1, 1, tzinfo=UTC)


class ExactFloat(float):
    """A JSON number with a fraction that remembers its text, so that money never passes through a float."""

    text: str

    def __new__(cls, text: str) -> Self:
        number = super().__new__(cls, text)
        number.text = text
        return number


def polars_type(kind: Type, scale: int = 2) -> pl.DataType:
    """Polars' type of a contract's."""
    return pl.Decimal(18, scale) if kind == "decimal" else POLARS_TYPES[kind]


def parse(values: pl.Series | list[Any], kind: Type, scale: int = 2) -> tuple[pl.Series, dict[int, str]]:
    """A column of decoded JSON values in its contract's type.

    Args:
        values: text, numbers, booleans, None; objects and lists for `json`. A series holds text or null.
        kind: the contract's type.
        scale: decimals of a decimal.

    Returns:
        The typed series, and for each position that did not parse the reason; there it is null. Reasons
        describe a value's shape and never quote it.
    """
    texts, problems = _texts(values, kind)
    if kind in ("string", "json"):
        return texts, problems
    stripped = texts.str.strip_chars()
    stripped = stripped.set(stripped == "", None)
    cast, rewrite = CASTS.get(kind) or _decimal_cast(scale), REWRITES.get(kind) or _decimal_rewrite(scale)
    typed = cast(stripped)
    failed = (stripped.is_not_null() & typed.is_null()).arg_true().to_list()
    if not failed:
        return typed, problems
    rewritten = stripped.to_list()
    for index in failed:
        text = rewritten[index]
        try:
            rewritten[index] = rewrite(text)
        except (ValueError, OverflowError) as error:
            written, _, note = text.partition(NOTE)
            problems[index] = f"{error} (shape {shape(written)}{note and f', {note}'})"
            rewritten[index] = None
    series = pl.Series(rewritten, dtype=pl.String)
    typed = cast(series)
    for index in (series.is_not_null() & typed.is_null()).arg_true().to_list():
        problems[index] = f"out of range for {kind}"
    return typed, problems


def shape(text: str) -> str:
    """A value's outline for messages: letters become a, digits 9. `"Ann, 42"` gives `"aaa, 99"`."""
    outline = "".join("9" if c.isdigit() else "a" if c.isalpha() else c for c in text[:24])
    return repr(outline + ("…" if len(text) > 24 else ""))


def _texts(values: pl.Series | list[Any], kind: Type) -> tuple[pl.Series, dict[int, str]]:
    if kind != "json" and isinstance(values, pl.Series):
        return values, {}
    if kind != "json":
        try:
            return pl.Series(values, dtype=pl.String, strict=True), {}
        except (TypeError, ValueError, OverflowError):
            pass  # some cell is no plain text: go cell by cell
    cells: list[str | None] = []
    problems: dict[int, str] = {}
    for index, value in enumerate(values):
        try:
            cells.append(_json(value) if kind == "json" else _text(value))
        except ValueError as error:
            problems[index] = str(error)
            cells.append(None)
    return pl.Series(cells, dtype=pl.String), problems


def _text(value: Any) -> str | None:
    if value is None:
        return None
    if value is MALFORMED:
        raise ValueError("an object was expected around this value")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list)):
        raise ValueError("a single value was expected, not an object or list")  # noqa: TRY004
    if isinstance(value, ExactFloat):
        return value.text
    return _encodable(value if isinstance(value, str) else str(value))


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("not valid Unicode") from None
    return text


def _json(value: Any) -> str | None:
    if value is None:
        return None
    if value is MALFORMED:
        raise ValueError("an object was expected around this value")
    if isinstance(value, str):
        try:
            json.loads(value, parse_constant=_refuse)
        except (ValueError, RecursionError):
            raise ValueError("not valid JSON") from None
        return _encodable(value)
    return _encodable(json.dumps(value, sort_keys=True, ensure_ascii=False))


def _refuse(_: str) -> None:
    raise ValueError


def _guarded(texts: pl.Series, pattern: str) -> pl.Series:
    return texts.set(~texts.str.contains(pattern), None)


def _cast_integer(texts: pl.Series) -> pl.Series:
    return _guarded(texts, r"^[+-]?[0-9]{1,19}$").cast(pl.Int64, strict=False)


def _decimal_cast(scale: int) -> Callable[[pl.Series], pl.Series]:
    # The pattern comes first because the cast cuts further decimals off without a word.
    fraction = rf"(\.[0-9]{{1,{scale}}}0*)?" if scale else r"(\.0+)?"
    pattern = rf"^-?[0-9]{{1,{18 - scale}}}{fraction}$"
    return lambda texts: _guarded(texts, pattern).cast(pl.Decimal(18, scale), strict=False)


def _cast_float(texts: pl.Series) -> pl.Series:
    numbers = _guarded(texts, rf"^{NUMBER.pattern}$").cast(pl.Float64, strict=False)
    return numbers.set(numbers.is_infinite(), None)


def _cast_boolean(texts: pl.Series) -> pl.Series:
    lower = texts.str.to_lowercase()
    return _guarded(lower, "^(true|false)$") == "true"


def _cast_date(texts: pl.Series) -> pl.Series:
    days = _guarded(texts, ISO_DATE).str.to_date("%Y-%m-%d", strict=False)
    return days.set(~days.dt.year().is_between(1, 9999), None)


def _cast_timestamp(texts: pl.Series) -> pl.Series:
    moments = _guarded(texts, ISO_TIME).str.to_datetime(
        "%Y-%m-%dT%H:%M:%S%.f%#z", time_zone="UTC", time_unit="us", strict=False
    )
    return moments.set(~moments.dt.year().is_between(1, 9999), None)


def _decimal(text: str) -> Decimal:
    if not NUMBER.fullmatch(text):
        raise ValueError("not a number")
    return Decimal(text)


def _rewrite_integer(text: str) -> str:
    number = _decimal(text)
    if abs(number) > INT64:
        raise ValueError("a whole number beyond 64 bits")
    if number != int(number):
        raise ValueError("not a whole number")
    return str(int(number))


def _decimal_rewrite(scale: int) -> Callable[[str], str]:
    def rewrite(text: str) -> str:
        number = _decimal(text)
        if abs(number) >= 10 ** (18 - scale):
            raise ValueError(f"too large for DECIMAL(18,{scale})")
        exact = number.quantize(Decimal(1).scaleb(-scale))
        if exact != number:
            raise ValueError("more than two decimals" if scale == 2 else f"more than {scale} decimals")
        return f"{exact:f}"

    return rewrite


def _rewrite_float(text: str) -> str:
    _decimal(text)
    raise ValueError("too large for a float")


def _rewrite_boolean(_: str) -> str:
    raise ValueError("neither true nor false")


def moment(text: str) -> datetime:
    """A moment from ISO 8601 with zone, or from epoch milliseconds, in UTC.

    Raises:
        ValueError: it is neither.
    """
    if EPOCH.fullmatch(text):
        return EPOCH_START + timedelta(milliseconds=int(text))
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("not a date and time in ISO 8601") from None
    if parsed.tzinfo is None:
        raise ValueError("a date and time without time zone")
    return parsed.astimezone(UTC)


def _rewrite_date(text: str) -> str:
    try:
        parsed = moment(text)
    except (ValueError, OverflowError):
        raise ValueError("not a date (YYYY-MM-DD)") from None
    if parsed.timetz() != datetime.min.time().replace(tzinfo=UTC):
        raise ValueError("a date with a time of day")
    return date.isoformat(parsed.date())


def _rewrite_timestamp(text: str) -> str:
    return moment(text).isoformat()


CASTS: dict[Type, Callable[[pl.Series], pl.Series]] = {
    "integer": _cast_integer,
    "float": _cast_float,
    "boolean": _cast_boolean,
    "date": _cast_date,
    "timestamp": _cast_timestamp,
}
REWRITES: dict[Type, Callable[[str], str]] = {
    "integer": _rewrite_integer,
    "float": _rewrite_float,
    "boolean": _rewrite_boolean,
    "date": _rewrite_date,
    "timestamp": _rewrite_timestamp,
}
