"""A stream's ways of writing, and how they are undone: decimal commas, other orders of dates, local times."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from zoneinfo import ZoneInfo

from omni.errors import ConfigError
from omni.sources.parse import NOTE


@dataclass(frozen=True)
class Format:
    """A stream's ways of writing.

    Attributes:
        delimiter: between the cells of CSV; "tab" for a tab.
        encoding: of CSV.
        decimal: what stands before the decimals in CSV, "." or ",".
        nulls: texts that mean no value, besides an empty cell, separated by "|".
        timezone: of times without one, for example "Europe/London".
        date_format: of dates that are not YYYY-MM-DD, for example "%d.%m.%Y".
        timestamp_format: of times that are not ISO 8601.
        sheet: of Excel files; the first by default.
        pattern: names of the files to read, for example "orders_*.csv".
        marker: what is added to a file's name by the file that says it is complete, for example ".done". If
            that file holds a number, so many rows the sender counted.
        arrival: "changed": a file is new when it was written, moved or copied here; "modified": when its own
            modification time says so, for folders that are copied with their times.
        format: "combined" for web servers' access logs of any name; by default a file's name says what it is
            (`.log` is such a log).
    """

    delimiter: str = ","
    encoding: str = "utf-8-sig"
    decimal: str = "."
    nulls: str = ""
    timezone: str = ""
    date_format: str = ""
    timestamp_format: str = ""
    sheet: str = ""
    pattern: str = "*"
    marker: str = ""
    arrival: str = "changed"
    format: str = "auto"

    def __post_init__(self) -> None:
        if self.delimiter in ("tab", "\\t"):
            object.__setattr__(self, "delimiter", "\t")
        if len(self.delimiter) != 1:
            raise ConfigError(f"files: delimiter is one character, not {self.delimiter!r}; for example ;")
        if self.decimal not in (".", ","):
            raise ConfigError(f"files: decimal is . or , not {self.decimal!r}")
        if self.arrival not in ("changed", "modified"):
            raise ConfigError(f"files: arrival is changed or modified, not {self.arrival!r}")
        if self.format not in ("auto", "combined"):
            raise ConfigError(f"files: format is auto or combined, not {self.format!r}")
        try:
            "".encode(self.encoding)
            ZoneInfo(self.timezone or "UTC")
        except (LookupError, ValueError, OSError):
            raise ConfigError(
                f"files: unknown encoding {self.encoding!r} or timezone {self.timezone!r}; for example "
                "encoding utf-8, timezone Europe/London"
            ) from None


def converters(kinds: dict[str, str], form: Format) -> dict[str, Callable[[str], str]]:
    """What to do with the texts of some columns, by name; `kinds` has the contract's types."""
    made: dict[str, Callable[[str], str]] = {}
    zone = ZoneInfo(form.timezone) if form.timezone else None
    for name, kind in kinds.items():
        if kind in ("integer", "float", "decimal") and form.decimal == ",":
            made[name] = comma_number
        elif kind == "date" and form.date_format:
            made[name] = lru_cache(65_536)(partial(_day, form=form.date_format))
        elif kind == "timestamp" and (zone or form.timestamp_format):
            made[name] = lru_cache(65_536)(partial(zoned, zone=zone, form=form.timestamp_format))
    return made


_GROUPED = re.compile(r"[+-]?[0-9]{1,3}(\.[0-9]{3})+(,[0-9]+)?")
_SIMPLE = re.compile(r"[+-]?[0-9]+(,[0-9]+)?")


def comma_number(text: str) -> str:
    """`1.234,5` as `1234.5`; anything else gets a note, so that it is no number that could be read wrong."""
    stripped = text.strip()
    if _GROUPED.fullmatch(stripped) or _SIMPLE.fullmatch(stripped):
        return stripped.replace(".", "").replace(",", ".")
    return f"{text}{NOTE}with decimal ,"


def _day(text: str, form: str) -> str:
    try:
        return datetime.strptime(text.strip(), form).date().isoformat()  # noqa: DTZ007 (a date has no zone)
    except ValueError:
        return f"{text}{NOTE}not {form}"


def zoned(text: str, zone: ZoneInfo | None, form: str = "") -> str:
    """A time with its zone.

    A time that the clocks showed twice is taken as the first; one that they skipped is refused.
    """
    try:
        when = datetime.strptime(text.strip(), form) if form else datetime.fromisoformat(text.strip())  # noqa: DTZ007
    except ValueError:
        return f"{text}{NOTE}not {form}" if form else text
    if when.tzinfo is not None or zone is None:
        return when.isoformat()
    local = when.replace(tzinfo=zone)
    if local.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != when:
        return f"{text}{NOTE}skipped by the clocks of {zone.key}"
    return local.isoformat()
