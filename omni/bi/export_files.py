"""The files of exports: CSV, Parquet, Excel; each is whole or absent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb

from omni.bi.exports import Export, Format
from omni.errors import ConfigError
from omni.files import replacing
from omni.spreadsheet import formula_safe

BATCH = 20_000
"""Rows in memory at a time."""
EXCEL_ROWS = 1_048_575
"""Rows a sheet holds below its header."""
EXCEL_TEXT = 32_767
"""Characters a cell holds."""
EXCEL_DIGITS = 15
"""Digits a number in a cell keeps; the rest are rounded away."""
EXCEL_PLACES = 30
"""Decimal places a format shows at most."""
EXCEL_BEGINS = date(1900, 3, 1)
"""The first day on which spreadsheets agree: Excel has none before 1900, but a 29 February 1900."""


@dataclass(frozen=True)
class Exported:
    """A written file."""

    path: Path
    rows: int
    bytes: int


def write_export(con: duckdb.DuckDBPyConnection, export: Export, path: Path, format_: Format) -> Exported:
    """Write an export's rows to a file, which then is whole.

    Args:
        con: a published snapshot.
        export: what.
        path: where; its folder is made.
        format_: how.

    Raises:
        ConfigError: the table is not there yet, or does not fit the format.
        StorageError: the file cannot be written.
    """
    try:
        con.execute(export.sql())
    except duckdb.Error as error:
        raise ConfigError(
            f"export {export.name}: {str(error).splitlines()[0]}. Has {export.table} been built and "
            "published?"
        ) from None
    write = {"csv": _csv, "parquet": _parquet, "xlsx": _excel}[format_]
    with replacing(path) as fresh:
        rows = write(con, export, fresh)
    return Exported(path, rows, path.stat().st_size)


def _batches(con: duckdb.DuckDBPyConnection) -> Iterator[list[tuple[Any, ...]]]:
    while rows := con.fetchmany(BATCH):
        yield rows


def _csv(con: duckdb.DuckDBPyConnection, export: Export, path: Path) -> int:
    """RFC 4180, UTF-8; texts are quoted and those that a spreadsheet would run carry an apostrophe."""
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(_csv_line(export.columns))
        for rows in _batches(con):
            file.writelines(map(_csv_line, rows))
            count += len(rows)
    return count


def _csv_line(row: Sequence[object]) -> str:
    line = ",".join(map(_csv_value, row))
    # A line of one missing value would be no row at all.
    return (line or '""') + "\r\n"


def _csv_value(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case Decimal() if value.is_finite():
            return format(value, "f")
        case int() | float() | Decimal():
            return str(value)
        case datetime():
            return value.isoformat(timespec="seconds" if value.microsecond == 0 else "auto")
        case date():
            return value.isoformat()
        case _:
            text = str(formula_safe(str(value)))
            return '"' + text.replace('"', '""') + '"'


def _parquet(con: duckdb.DuckDBPyConnection, _: Export, path: Path) -> int:
    import pyarrow.parquet as pq

    reader: Any = con.fetch_record_batch(BATCH)
    count = 0
    with pq.ParquetWriter(path, reader.schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_batch(batch)
            count += batch.num_rows
    return count


def _excel(con: duckdb.DuckDBPyConnection, export: Export, path: Path) -> int:
    """One sheet with typed cells; texts stay texts, whatever they begin with."""
    import xlsxwriter

    options = {
        "constant_memory": True,
        "strings_to_formulas": False,
        "strings_to_urls": False,
        "strings_to_numbers": False,
        "nan_inf_to_errors": True,
    }
    count = 0
    with xlsxwriter.Workbook(str(path), options) as book:
        book.set_properties({"title": export.title})
        sheet = _Sheet(book, book.add_worksheet(export.name[:31]), export)
        sheet.head([str(column[1]) for column in con.description or ()])
        for rows in _batches(con):
            if count + len(rows) > EXCEL_ROWS:
                raise ConfigError(
                    f"export {export.name}: more than {EXCEL_ROWS:,} rows do not fit a sheet; use csv or "
                    "parquet, or narrow it by where"
                )
            for row in rows:
                count += 1
                for at, value in enumerate(row):
                    sheet.write(count, at, value)
    return count


@dataclass
class _Sheet:
    """A sheet that is being written; what a cell cannot hold exactly goes into it as text."""

    book: Any
    sheet: Any
    export: Export
    styles: dict[str, Any] = field(default_factory=dict)

    def head(self, types: Sequence[str]) -> None:
        """The first row: names, those of moments with their zone, as a cell has none."""
        bold = self.book.add_format({"bold": True, "bottom": 1})
        self.sheet.freeze_panes(1, 0)
        for at, (name, type_) in enumerate(zip(self.export.columns, types, strict=True)):
            title = f"{name} (UTC)" if type_.startswith(("TIMESTAMP", "DATETIME")) else name
            self.sheet.write_string(0, at, title, bold)
            self.sheet.set_column(at, at, max(10, min(40, len(title) + 4)))

    def write(self, row: int, at: int, value: Any) -> None:
        """One cell."""
        match value:
            case None:
                return
            case bool():
                self.sheet.write_boolean(row, at, value)
            case datetime():
                moment = (value.astimezone(UTC) if value.tzinfo else value).replace(tzinfo=None)
                if moment.date() < EXCEL_BEGINS:
                    self._text(row, at, str(moment))
                else:
                    self.sheet.write_datetime(row, at, moment, self._style("yyyy-mm-dd hh:mm:ss"))
            case date() if value >= EXCEL_BEGINS:
                self.sheet.write_datetime(row, at, datetime.combine(value, time()), self._style("yyyy-mm-dd"))
            case Decimal() if _fits(value):
                places = min(max(2, -int(value.as_tuple().exponent)), EXCEL_PLACES)
                self.sheet.write_number(row, at, value, self._style("#,##0." + "0" * places))
            case int() if abs(value) < 10**EXCEL_DIGITS:
                self.sheet.write_number(row, at, value, self._style("#,##0"))
            case float():
                self.sheet.write_number(row, at, value)
            case _:
                self._text(row, at, format(value, "f") if isinstance(value, Decimal) else str(value))

    def _text(self, row: int, at: int, text: str) -> None:
        if len(text) > EXCEL_TEXT:
            raise ConfigError(
                f"export {self.export.name}: {self.export.columns[at]} holds a text of {len(text):,} "
                f"characters; a cell takes {EXCEL_TEXT:,}. Use csv or parquet."
            )
        self.sheet.write_string(row, at, text)

    def _style(self, shape: str) -> Any:
        if shape not in self.styles:
            self.styles[shape] = self.book.add_format({"num_format": shape})
        return self.styles[shape]


def _fits(number: Decimal) -> bool:
    """Whether a cell keeps every digit of a number."""
    digits = "".join(map(str, number.as_tuple().digits)).strip("0")
    return number.is_finite() and len(digits) <= EXCEL_DIGITS
