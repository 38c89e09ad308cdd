"""Exports: files that hold the rows, are safe to open, and are whole or absent."""

from __future__ import annotations

import csv
import re
import zipfile
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import duckdb
import fastexcel
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from omni.bi.export_files import EXCEL_ROWS, write_export
from omni.bi.exports import Export, load_exports, refuse_personal, refuse_undeclared
from omni.errors import ConfigError
from omni.spreadsheet import formula_safe

COLUMNS = ["id", "said", "amount", "day", "at", "good", "share"]


def export(**changed: Any) -> Export:
    given_values = {"name": "notes", "title": "Notes", "owner": "a@b.example", "table": "core.notes"}
    values = given_values | {"columns": COLUMNS, "order_by": ["id"]} | changed
    return Export(**values)


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as opened:
        opened.execute("SET TimeZone = 'UTC'")
        opened.execute("CREATE SCHEMA core")
        opened.execute(
            "CREATE TABLE core.notes (id BIGINT, said VARCHAR, amount DECIMAL(18, 2), day DATE, "
            '"at" TIMESTAMPTZ, good BOOLEAN, share DOUBLE)'
        )
        opened.execute(
            "INSERT INTO core.notes VALUES "
            "(1, '=1+1', -3.50, '2026-05-01', '2026-05-01 10:00:00+02', true, 0.25), "
            "(2, 'a \"quoted\", text\nof two lines', 1234567.89, NULL, NULL, false, NULL), "
            "(3, '-', 0, '1899-12-31', '2026-05-01 10:00:00.25+00', NULL, 1e300)"
        )
        yield opened


def read_csv(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_csv_is_typed_text_that_no_spreadsheet_runs(con: Any, tmp_path: Path) -> None:
    written = write_export(con, export(), tmp_path / "out" / "notes.csv", "csv")
    assert written.rows == 3
    assert read_csv(written.path) == [
        COLUMNS,
        ["1", "'=1+1", "-3.50", "2026-05-01", "2026-05-01T08:00:00+00:00", "true", "0.25"],
        ["2", 'a "quoted", text\nof two lines', "1234567.89", "", "", "false", ""],
        ["3", "'-", "0.00", "1899-12-31", "2026-05-01T10:00:00.250000+00:00", "", "1e+300"],
    ]


def test_parquet_keeps_types(con: Any, tmp_path: Path) -> None:
    written = write_export(con, export(), tmp_path / "notes.parquet", "parquet")
    frame = pl.read_parquet(written.path)
    assert frame.schema["amount"] == pl.Decimal(18, 2)
    assert frame.row(0) == (
        1, "=1+1", Decimal("-3.50"), date(2026, 5, 1), datetime(2026, 5, 1, 8, tzinfo=UTC), True, 0.25
    )  # fmt: skip
    empty = write_export(con, export(where="id > 9"), tmp_path / "none.parquet", "parquet")
    assert (empty.rows, pl.read_parquet(empty.path).columns) == (0, COLUMNS)


def test_excel_cells_are_typed_and_texts_stay_texts(con: Any, tmp_path: Path) -> None:
    con.execute("UPDATE core.notes SET day = '2026-05-03' WHERE id = 3")
    written = write_export(con, export(), tmp_path / "notes.xlsx", "xlsx")
    frame = fastexcel.read_excel(written.path).load_sheet("notes").to_polars()
    assert frame["said"].to_list() == ["=1+1", 'a "quoted", text\nof two lines', "-"]
    assert frame["amount"].to_list() == [-3.5, 1234567.89, 0.0]
    assert frame["good"].to_list() == [True, False, None]
    assert str(frame["day"].to_list()[0]).startswith("2026-05-01")
    assert str(frame["at (UTC)"].to_list()[0]).startswith("2026-05-01 08:00:00")


def cells(path: Path, row: int) -> list[tuple[str, str]]:
    """What stands in a row's cells, and the format it is shown in."""
    name = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
    with zipfile.ZipFile(path) as book:
        sheet, styles = (ET.fromstring(book.read(f"xl/{n}.xml")) for n in ("worksheets/sheet1", "styles"))
    shapes = {one.get("numFmtId"): one.get("formatCode") for one in styles.iter(f"{name}numFmt")}
    formats = [shapes.get(one.get("numFmtId"), "") for one in styles.find(f"{name}cellXfs") or ()]
    found = [one for one in sheet.iter(f"{name}row") if one.get("r") == str(row)]
    return [("".join(cell.itertext()), str(formats[int(cell.get("s", 0))])) for cell in found[0]]


def test_what_a_cell_cannot_hold_exactly_becomes_text(con: Any, tmp_path: Path) -> None:
    """Spreadsheets agree on no day before March 1900. Excel keeps 15 digits and knows no zones."""
    con.execute("SET TimeZone = 'America/New_York'")
    con.execute(
        "CREATE TABLE core.odd AS SELECT DATE '1900-02-28' AS day, DATE '1900-03-01' AS first, "
        "TIMESTAMPTZ '1850-01-01 00:00:00+00' AS \"at\", TIMESTAMPTZ '2026-01-01 18:00:00+00' AS late, "
        "9999999999999999.99 :: DECIMAL(18, 2) AS long, 0.00691234 :: DECIMAL(28, 8) AS rate, "
        "-12.50 :: DECIMAL(18, 2) AS money"
    )
    odd = export(
        table="core.odd", columns=["day", "first", "at", "late", "long", "rate", "money"], order_by=[]
    )
    path = write_export(con, odd, tmp_path / "odd.xlsx", "xlsx").path
    assert [text for text, _ in cells(path, 1)][2:4] == ["at (UTC)", "late (UTC)"]
    assert cells(path, 2) == [
        ("1900-02-28", ""),
        ("61", "yyyy-mm-dd"),
        ("1850-01-01 00:00:00", ""),
        ("46023.75", "yyyy-mm-dd hh:mm:ss"),
        ("9999999999999999.99", ""),
        ("0.00691234", "#,##0.00000000"),
        ("-12.50", "#,##0.00"),
    ]


def test_what_a_sheet_cannot_hold_is_refused_and_leaves_no_file(con: Any, tmp_path: Path) -> None:
    con.execute("UPDATE core.notes SET said = repeat('x', 40000) WHERE id = 2")
    with pytest.raises(ConfigError, match="said holds a text of 40,000 characters"):
        write_export(con, export(), tmp_path / "notes.xlsx", "xlsx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_more_rows_than_a_sheet_holds_are_refused(con: Any, tmp_path: Path) -> None:
    con.execute(f"CREATE TABLE core.long AS SELECT range AS id FROM range({EXCEL_ROWS + 1})")
    long = export(table="core.long", columns=["id"])
    with pytest.raises(ConfigError, match="more than 1,048,575 rows"):
        write_export(con, long, tmp_path / "long.xlsx", "xlsx")
    assert write_export(con, long, tmp_path / "long.csv", "csv").rows == EXCEL_ROWS + 1


def test_a_failure_leaves_the_old_file(con: Any, tmp_path: Path) -> None:
    path = tmp_path / "notes.csv"
    write_export(con, export(), path, "csv")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"Has core\.notes been built and published"):
        write_export(con, export(columns=["id", "nowhere"]), path, "csv")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["notes.csv"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"where": "id >"}, "not a SQL condition"),
        ({"where": "id IN (SELECT 1)"}, "only conditions on the table's own columns"),
        ({"columns": ["id", "id"]}, "stands there twice"),
        ({"personal": {"mail": "asked for"}}, "mail is no column"),
        ({"deliver": {"to": ["ann"]}}, "not an e-mail address"),
        ({"deliver": {"to": ["ann@acme.example, bob@acme.example"]}}, "not an e-mail address"),
        ({"deliver": {"to": ["ann@acme.example\x00"]}}, r"'ann@acme.example\\x00' is not an e-mail address"),
        ({"deliver": {"to": ["ann@acme.example"], "subject": "Sales \u202efdp"}}, "control characters"),
        ({"title": "Sales\x1b[2J"}, "control characters"),
        ({"title": " \n"}, "empty"),
        ({"format": "pdf"}, "csv"),
    ],
)
def test_wrong_declarations_are_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        export(**changed)


def test_personal_columns_stay_unless_there_is_a_reason() -> None:
    hidden, readable = {"core.notes": {"said"}}, {"core.notes": {"amount"}}
    with pytest.raises(ConfigError, match=r"core\.notes\.said holds personal data that is kept hashed"):
        refuse_personal(export(), hidden, readable)
    with pytest.raises(ConfigError, match="if it may leave, say why"):
        refuse_personal(export(columns=["amount"]), hidden, readable)
    refuse_personal(export(columns=["amount"], personal={"amount": "the tax office asks"}), hidden, readable)


def test_tables_that_nobody_describes_stay() -> None:
    refuse_undeclared(export(), {"core.notes"})
    with pytest.raises(ConfigError, match=r"no contract and no model declares core\.notes"):
        refuse_undeclared(export(), {"core.other"})
    with pytest.raises(ConfigError, match=r"ops\.changes"):
        refuse_undeclared(export(table="ops.changes"), {"ops.changes"})


def test_a_title_folded_in_yaml_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "notes.yml").write_text(
        "name: notes\ntitle: >\n  All\n  notes\nowner: a@b.example\ntable: core.notes\ncolumns: [id]\n"
        'deliver: {to: [a@b.example], subject: "Notes\\n"}\n'
    )
    loaded = load_exports(tmp_path)["notes"]
    assert loaded.deliver is not None
    assert (loaded.title, loaded.deliver.subject) == ("All notes", "Notes")


def test_the_projects_exports_load() -> None:
    assert load_exports()["daily_sales"].deliver is not None


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\t\n\r;=@"), max_size=12)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(values=st.lists(texts, min_size=1, max_size=8))
def test_any_text_comes_back_and_never_begins_a_formula(values: list[str], tmp_path: Path) -> None:
    with duckdb.connect() as opened:
        opened.execute("CREATE SCHEMA core")
        opened.execute("CREATE TABLE core.notes (id BIGINT, said VARCHAR)")
        opened.executemany("INSERT INTO core.notes VALUES (?, ?)", list(enumerate(values)))
        written = write_export(opened, export(columns=["id", "said"]), tmp_path / "any.csv", "csv")
    found = [row[1] for row in read_csv(written.path)[1:]]
    assert [text.replace("'", "") for text in found] == [text.replace("'", "") for text in values]
    cells = [cell for text in found for cell in re.split(r"[;\t\r\n]", text)]
    assert not [cell for cell in cells if cell.strip(' "')[:1] in set("=+-@|%")]


UNSEEN = ["", " ", "\u00a0", "\ufeff", "\u3000", "\u200b", "\x0b", "\x00", "\u2066", " \u00a0\u200b"]


@pytest.mark.parametrize("unseen", UNSEEN)
@pytest.mark.parametrize(
    "formula", ["=1+1", "+1", "-1", "@SUM(1)", "\uff1d1+1", "\uff0b1", "\uff0d1", "\uff20a"]
)
def test_nothing_unseen_hides_a_formula(unseen: str, formula: str) -> None:
    assert formula_safe(unseen + formula) == f"'{unseen}{formula}"
    assert formula_safe(f"a;{unseen}{formula}") == f"a;'{unseen}{formula}"
    assert formula_safe(f'a\t{unseen}"{formula}') == f"a\t'{unseen}\"{formula}"


@pytest.mark.parametrize("text", ["", "a=1", "Köln; Bonn", "a - b", "\u00a0x", "3 %", "Tom's", "b\nc"])
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert formula_safe(text) == text


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_no_cell_is_a_formula_whatever_the_country_splits_at(separator: str, tmp_path: Path) -> None:
    with duckdb.connect() as opened:
        opened.execute("CREATE SCHEMA core")
        opened.execute(
            "CREATE TABLE core.notes AS SELECT 1 AS id, 'a;=HYPERLINK(1)' AS said, NULL AS none, '' "
            "AS empty, e'b\\t@x' AS tab, 0.0000000000 :: DECIMAL(20, 10) AS zero"
        )
        columns = ["id", "said", "none", "empty", "tab", "zero"]
        path = write_export(opened, export(columns=columns), tmp_path / "n.csv", "csv").path
    assert path.read_text().splitlines()[1] == """1,"a;'=HYPERLINK(1)",,"","b\t'@x",0.0000000000"""
    with path.open(newline="") as file:
        assert not [c for row in csv.reader(file, delimiter=separator) for c in row if c[:1] in set("=+-@")]
