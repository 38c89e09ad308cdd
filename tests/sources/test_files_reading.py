"""Drop folders: what arrives in a window, whole or named as broken, and the same rows however it is split."""

from __future__ import annotations

import gzip
import json
import os
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from omni.errors import ConfigError, SchemaError, SourceError, TransientError
from omni.sources.connection import Connection
from omni.sources.files import VENDOR
from omni.sources.files_format import comma_number, zoned
from omni.sources.parse import NOTE, parse
from omni.sources.vendor import Window
from omni.warehouse.contracts import Column, Contract, Source

EVER = Window(None, datetime(2100, 1, 1, tzinfo=UTC))


def contract(**columns):
    columns["arrived_at"] = {"type": "timestamp", "from": "_arrived"}
    made = {name: Column.model_validate(column) for name, column in columns.items()}
    return [
        Contract(
            table="raw.files__sales",
            description="d",
            owner="o",
            grain="g",
            key=[next(iter(made))],
            columns=made,
            source=Source(vendor="files", object="sales", cursor="arrived_at"),
        )
    ]


SALES = contract(number={"type": "string"}, amount={"type": "decimal"}, day={"type": "date"})


@pytest.fixture
def drop(tmp_path):
    folder = tmp_path / "drop" / "sales"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def opened(drop):
    def start(**options):
        return VENDOR.open(Connection("files", drop.parent.as_uri(), SecretStr(""), options=options))

    return start


def everything(folder, tables=SALES, window=EVER, resume=None):
    return list(VENDOR.read(folder, tables, window, resume))


def records(pages):
    return [record for page in pages for record in page.records]


def aged(path, when, text=None):
    if text is not None:
        path.write_text(HEADER + text)
    os.utime(path, (when.timestamp(), when.timestamp()))
    return path


HEADER = "number,amount,day\n"
FRAME = pl.DataFrame(
    {
        "number": ["1", "2", "3"],
        "amount": [1.5, None, -2.25],
        "day": [date(2026, 1, 1), date(2026, 1, 2), None],
    }
)


def _zst(path, content):
    with pa.OSFile(str(path), "wb") as raw, pa.CompressedOutputStream(raw, "zstd") as packed:
        packed.write(content)


def test_every_kind_of_file_gives_the_same_rows(drop, opened):
    text = FRAME.write_csv().encode()
    lines = "".join(json.dumps(row, default=str) + "\n" for row in FRAME.to_dicts()).encode()
    (drop / "a.csv").write_bytes(b"\xef\xbb\xbf" + text)
    (drop / "b.csv.gz").write_bytes(gzip.compress(text))
    _zst(drop / "c.csv.zst", text)
    (drop / "d.tsv").write_bytes(text.replace(b",", b"\t"))
    (drop / "e.jsonl").write_bytes(lines)
    (drop / "f.ndjson.gz").write_bytes(gzip.compress(lines))
    FRAME.write_parquet(drop / "g.parquet")
    FRAME.write_excel(drop / "h.xlsx")
    with opened() as folder:
        assert VENDOR.check(folder, SALES) == []
        assert VENDOR.count(folder, SALES, EVER) == 24
        pages = everything(folder)
    found = {}
    for record in records(pages):
        amount = None if record["amount"] is None else Decimal(str(record["amount"]))
        found.setdefault(record["id"].split(":")[0], []).append((record["number"], amount, record["day"]))
    expected = [("1", Decimal("1.5"), "2026-01-01"), ("2", None, "2026-01-02"), ("3", Decimal("-2.25"), None)]
    assert found == dict.fromkeys([f.name for f in sorted(drop.iterdir())], expected)


def test_rows_that_are_none_are_named_by_file_and_line_and_count_as_read(drop, opened):
    (drop / "a.csv").write_text(
        HEADER + '1,2.00,2026-01-01\n\n"two\nlines",3,\n4,5\n5,1,2,3\n6,"1"x,\n7,1,\n'
    )
    (drop / "b.jsonl").write_text('{"number": "8", "amount": 1, "day": null}\n{"number": \n[1]\n')
    with opened() as folder:
        assert VENDOR.count(folder, SALES, EVER) == 9
        pages = everything(folder)
    assert [record["id"] for record in records(pages)] == ["a.csv:2", "a.csv:4", "a.csv:9", "b.jsonl:1"]
    assert [(r["key"], r["reason"].partition(": ")[2]) for page in pages for r in page.rejected] == [
        ("a.csv:6", "2 cells, but the header has 3"),
        ("a.csv:7", "4 cells, but the header has 3"),
        ("a.csv:8", "not valid CSV: ',' expected after '\"'"),
        ("b.jsonl:2", "not valid JSON"),
        ("b.jsonl:3", "a JSON object was expected"),
    ]


def test_a_missing_column_stops_before_reading_and_a_further_one_is_kept(drop, opened):
    (drop / "a.csv").write_text(HEADER.replace("day", "day,note") + "1,2,2026-01-01,hello\n")
    with opened() as folder:
        assert VENDOR.count(folder, SALES, EVER) == 1
        assert records(everything(folder))[0]["note"] == "hello"
        (drop / "b.csv").write_text("number,day\n1,2026-01-01\n")
        for step in (VENDOR.check, lambda f, t: VENDOR.count(f, t, EVER)):
            with pytest.raises(SchemaError, match=r"b\.csv: lacks column 'amount' of raw\.files__sales"):
                step(folder, SALES)
        (drop / "b.csv").unlink()
        (drop / "c.jsonl").write_text('{"number": 1, "amount": null}\n{"number": 2, "amount": 3}\n')
        with pytest.raises(SchemaError, match=r"c\.jsonl: lacks column 'day'"):
            everything(folder)
        optional = contract(
            number={"type": "string"}, amount={"type": "decimal"}, day={"type": "date", "optional": True}
        )
        assert len(records(everything(folder, optional))) == 3


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv.gz", gzip.compress(HEADER.encode() + b"1,2,\n" * 9000)[:-20], "cannot be read as csv"),
        ("a.csv.gz", b"plain text", "cannot be read as csv"),
        ("a.csv", HEADER.encode() + b'1,2,\n1,"2,\n' + b"3,4,\n" * 50_000, r"a\.csv:3: a quoted cell begins"),
        ("a.parquet", b"PAR1 no more", "cannot be read as parquet"),
        ("a.xlsx", b"PK no workbook", "cannot be read as excel"),
    ],
)
def test_a_damaged_file_stops_the_load_and_is_named(drop, opened, name, content, said):
    (drop / name).write_bytes(content)
    with opened() as folder, pytest.raises(SourceError, match=said) as error:
        everything(folder)
    assert name in str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "the file is empty"),
        ("a,b,a\n1,2,3\n", "columns 1 and 3 of the header have the same name"),
        ("Ann,ann@x.example,2026-01-01\n", "has 3 columns, none of them known; is the header missing?"),
        ("Ann,Ann,2026-01-01\n", "columns 1 and 2 of the header have the same name"),
        ("number,day,ann@x.example,note\n", r"it has 'number', 'day', 'note' and 1 more\."),
    ],
)
def test_a_header_that_is_none_is_refused_and_not_quoted(drop, opened, content, said):
    (drop / "a.csv").write_text(content)
    for step in (lambda f, t: VENDOR.count(f, t, EVER), VENDOR.check):
        with opened() as folder, pytest.raises(SchemaError, match=said) as error:
            step(folder, SALES)
        assert "ann" not in str(error.value).lower().replace("cannot", "")


def test_a_full_read_takes_files_that_came_after_its_end_and_waits_for_those_that_come(drop, opened):
    """Else what is delivered again just then would seem to be absent."""
    start = datetime(2026, 3, 1, tzinfo=UTC)
    for day in range(3):
        aged(drop / f"{day}.csv", start + timedelta(days=day), f"{day},1,\n")
    window = Window(None, start + timedelta(days=2))
    with opened(arrival="modified") as folder:
        assert VENDOR.count(folder, SALES, window) == 2
        assert [r["number"] for r in records(everything(folder, window=window))] == ["0", "1", "2"]
    with (
        opened() as folder,
        pytest.raises(TransientError, match=r"0\.csv: arrived less than 10 s ago and may be incomplete"),
    ):
        everything(folder, window=window)


def test_a_contract_whose_later_deliveries_do_not_stand_is_told(drop, opened):
    [kept] = SALES
    loose = kept.model_copy(update={"source": Source(vendor="files", object="sales")})
    (drop / "a.csv").write_text(HEADER + "1,1,\n")
    with opened() as folder:
        assert VENDOR.check(folder, SALES) == []
        [told] = VENDOR.check(folder, [loose])
        assert told.startswith("raw.files__sales: a backfill of older files undoes newer deliveries")
        early = Window(None, datetime(2026, 3, 1, tzinfo=UTC))
        assert VENDOR.count(folder, [loose], early) == 1


def test_files_belong_to_the_window_they_arrived_in(drop, opened):
    start = datetime(2026, 3, 1, tzinfo=UTC)
    for day in range(4):
        aged(drop / f"{day}.csv", start) if (drop / f"{day}.csv").exists() else None
        (drop / f"{day}.csv").write_text(HEADER + f"{day},1,\n")
        aged(drop / f"{day}.csv", start + timedelta(days=day))
    with opened(arrival="modified") as folder:
        window = Window(start + timedelta(days=1), start + timedelta(days=3))
        assert VENDOR.count(folder, SALES, window) == 2
        assert [r["number"] for r in records(everything(folder, window=window))] == ["1", "2"]
    with opened() as folder:
        # Copied here now with their old times: they arrived now.
        assert VENDOR.count(folder, SALES, window) == 0
        assert VENDOR.count(folder, SALES, Window(datetime.now(UTC) - timedelta(minutes=5), EVER.until)) == 4


def test_unready_and_foreign_files_are_left_alone(drop, opened, tmp_path):
    (tmp_path / "secret.csv").write_text(HEADER + "9,9,\n")
    (drop / "link.csv").symlink_to(tmp_path / "secret.csv")
    (drop / ".hidden").mkdir()
    for name in ("a.csv.tmp", "b.csv.part", ".c.csv", ".hidden/d.csv", "letter.pdf"):
        (drop / name).write_text(HEADER + "1,1,\n")
    with opened() as folder:
        assert everything(folder) == []
        assert VENDOR.check(folder, SALES) == ["files: sales/letter.pdf is of no kind that is read"]


def test_with_a_marker_a_file_waits_for_it_and_its_number_is_the_count(drop, opened):
    (drop / "a.csv").write_text(HEADER + "1,1,\n2,1,\n")
    with opened(marker=".done") as folder:
        assert VENDOR.count(folder, SALES, EVER) == 0
        (drop / "a.csv.done").write_text("3\n")
        assert VENDOR.count(folder, SALES, EVER) == 3
        assert len(records(everything(folder))) == 2
        (drop / "a.csv.done").write_text("")
        assert VENDOR.count(folder, SALES, EVER) == 2


def test_reading_goes_on_behind_any_page_of_any_file(drop, opened):
    for name, rows in (("a", 12_003), ("b", 1), ("c", 5_000)):
        text = "".join(f"{name}{row % 7},{row},\n" if row % 1000 else "broken\n" for row in range(rows))
        (drop / f"{name}.csv").write_text(HEADER + text)
        aged(drop / f"{name}.csv", datetime(2026, 1, 1, tzinfo=UTC))
    tables = contract(number={"type": "string"}, nth={"type": "integer", "from": "_nth.number"})
    with opened(arrival="modified") as folder:
        whole = everything(folder, tables)
        assert len(whole) == 5
        for index, page in enumerate(whole):
            resume = json.loads(json.dumps(page.resume))
            rest = everything(folder, tables, resume=resume)
            assert rest == whole[index + 1 :]
    assert (
        sum(len(p.records) + len(p.rejected) for p in whole) == VENDOR.count(folder, tables, EVER) == 17_004
    )


def test_a_file_that_changes_while_it_is_read_is_noticed(drop, opened):
    (drop / "a.csv").write_text(HEADER + "1,1,\n" * 6000)
    with opened() as folder:
        pages = VENDOR.read(folder, SALES, EVER, None)
        next(pages)
        with (drop / "a.csv").open("a") as file:
            file.write("2,2,\n")
        with pytest.raises(TransientError, match="changed while it was read"):
            list(pages)


def test_the_ways_of_a_stream_are_undone(drop, opened):
    tables = contract(
        number={"type": "string"},
        amount={"type": "decimal"},
        day={"type": "date"},
        at={"type": "timestamp"},
    )
    (drop / "a.csv").write_bytes(
        "number;amount;day;at\nGröße;1.234,50;31.12.2026;1/7/2026 8:05\nNA;1.5;31.02.2026;x\n".encode(
            "cp1252"
        )
    )
    ways = {
        "delimiter": ";",
        "encoding": "cp1252",
        "decimal": ",",
        "nulls": "NA|-",
        "sales.timezone": "Europe/Berlin",
    }
    ways |= {"date_format": "%d.%m.%Y", "timestamp_format": "%m/%d/%Y %H:%M", "other.decimal": "."}
    with opened(**ways) as folder:
        first, second = records(everything(folder, tables))
    assert (first["number"], first["amount"], first["day"]) == ("Größe", "1234.50", "2026-12-31")
    assert first["at"] == "2026-01-07T08:05:00+01:00"
    assert second["number"] is None
    assert second["amount"].split(NOTE) == ["1.5", "with decimal ,"]
    assert second["day"].split(NOTE) == ["31.02.2026", "not %d.%m.%Y"]
    assert parse([second["amount"]], "decimal")[1] == {0: "not a number (shape '9.9', with decimal ,)"}


@pytest.mark.parametrize(
    "options",
    [{"delimeter": ";"}, {"delimiter": ";;"}, {"encoding": "utf-88"}, {"timezone": "Mars"}, {"decimal": "x"}],
)
def test_a_wrong_option_says_what_is_right(opened, options):
    with opened(**options) as folder, pytest.raises(ConfigError, match=r"Known|for example|is \. or"):
        VENDOR.count(folder, SALES, EVER)


def test_an_absent_folder_is_named(tmp_path):
    for url in (f"file://{tmp_path}/none", "https://example.com/x", "file://host/share"):
        with pytest.raises(ConfigError, match="folder"), VENDOR.open(Connection("files", url, SecretStr(""))):
            pass


def test_a_files_own_id_is_told_from_the_rows(drop, opened):
    (drop / "a.csv").write_text("id,v\nx,1\nx,2\n")
    with opened() as folder:
        with pytest.raises(SchemaError, match=r"_row\.id"):
            VENDOR.check(folder, contract(id={"type": "string"}))
        mine = contract(
            number={"type": "string", "from": "_row.id"}, line={"type": "integer", "from": "_line"}
        )
        found = records(everything(folder, mine))
    assert [(r["id"], r["_row"], r["_line"]) for r in found] == [
        ("a.csv:2", {"id": "x"}, 2),
        ("a.csv:3", {"id": "x"}, 3),
    ]


def test_times_the_clocks_skipped_or_showed_twice():
    from zoneinfo import ZoneInfo

    berlin = ZoneInfo("Europe/Berlin")
    assert zoned("2026-10-25 02:30:00", berlin) == "2026-10-25T02:30:00+02:00"
    assert "skipped" in zoned("2026-03-29 02:30:00", berlin)
    assert zoned("2026-03-29T02:30:00Z", berlin) == "2026-03-29T02:30:00+00:00"


@given(st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-(10**12), max_value=10**12))
def test_comma_numbers_come_back_exactly(number):
    text = f"{number:,.2f}".replace(",", " ").replace(".", ",").replace(" ", ".")
    assert Decimal(comma_number(text)) == number
    assert Decimal(comma_number(text.replace(".", ""))) == number
