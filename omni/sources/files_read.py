"""Rows of CSV, JSON lines, Parquet, Excel files and access logs, in batches of bounded memory.

A row that has no right shape (cells missing, broken JSON) is given as broken, with its line; a file that
cannot be read to its end raises. What a cell says is left to the contract's types, except where a file's own
ways must be undone first: decimal commas, dates in another order, times without a zone.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from itertools import islice
from pathlib import Path, PurePath
from typing import IO, Any

import msgspec
import polars as pl

from omni.errors import SchemaError, SourceError, TransientError
from omni.sources import access_log
from omni.sources.files_format import Format
from omni.sources.parse import ExactFloat

BATCH = 5_000
MAX_LINE = 64 * 2**20
"""Bytes of one JSON line; a longer one is no line."""
PACKED = (".gz", ".zst")
KINDS = {
    ".csv": "csv", ".tsv": "csv", ".txt": "csv", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet",
    ".xlsx": "excel", ".xls": "excel", ".xlsb": "excel", ".ods": "excel", ".log": "log",
}  # fmt: skip

Rows = Iterator[tuple[int, "dict[str, Any] | str"]]
"""Line and row, or line and what is wrong with it."""


@dataclass
class Batch:
    """Some rows of a file.

    Attributes:
        lines: where each row stands; for Parquet its number.
        rows: by column.
        broken: line and reason of each that is no row.
    """

    lines: list[int] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    broken: list[tuple[int, str]] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Rows, broken ones included."""
        return len(self.rows) + len(self.broken)


def kind_of(path: PurePath, form: Format | None = None) -> str | None:
    """What a file is by its stream's `format` or its name: csv, json, parquet, excel, log.

    None for what is not read.
    """
    if form is not None and form.format == "combined":
        return "log"
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = bool(suffixes) and suffixes[-1] in PACKED
    kind = KINDS.get(suffixes[-2] if packed and len(suffixes) > 1 else suffixes[-1] if suffixes else "")
    return None if packed and kind not in ("csv", "json", "log") else kind


def header(path: Path, form: Format) -> list[str] | None:
    """A file's column names; None for JSON lines, where each row has its own.

    Raises:
        SourceError: the file cannot be read.
        SchemaError: a name occurs twice.
    """
    kind = kind_of(path, form)
    with _readable(path, form):
        if kind == "csv":
            with _text(path, form) as lines:
                return _names(next(_reader(lines, path, form), []), path)
        if kind == "parquet":
            import pyarrow.parquet as pq

            return list(pq.read_schema(path).names)
        if kind == "log":
            return list(access_log.COLUMNS)
        return _sheet(path, form, rows=1).columns if kind == "excel" else None


def count(path: Path, form: Format) -> int:
    """Rows of a file, broken ones included; raises as `batches`."""
    kind = kind_of(path, form)
    with _readable(path, form):
        if kind == "parquet":
            import pyarrow.parquet as pq

            return int(pq.read_metadata(path).num_rows)
        if kind == "csv":
            with _text(path, form) as lines:
                return max(0, sum(1 for cells in _reader(lines, path, form) if cells) - 1)
        return sum(batch.size for batch in batches(path, form))


def batches(path: Path, form: Format) -> Iterator[Batch]:
    """A file's rows.

    Raises:
        SourceError: the file is damaged, cut off or not what its name says.
        TransientError: it went away.
    """
    with _readable(path, form):
        kind = kind_of(path, form)
        if kind in ("parquet", "excel"):
            first = 1 if kind == "parquet" else 2
            for frame in _parquet(path) if kind == "parquet" else _excel(path, form):
                rows = frame_rows(frame)
                yield Batch(list(range(first, first + len(rows))), rows)
                first += len(rows)
            return
        found = _csv(path, form) if kind == "csv" else _log(path) if kind == "log" else _json(path)
        while some := list(islice(found, BATCH)):
            batch = Batch()
            for line, row in some:
                if isinstance(row, str):
                    batch.broken.append((line, row))
                else:
                    batch.lines.append(line)
                    batch.rows.append(row)
            yield batch


@contextmanager
def _readable(path: Path, form: Format) -> Iterator[None]:
    """What reading raises, as errors of the house."""
    import pyarrow as pa

    try:
        yield
    except FileNotFoundError:
        raise TransientError(f"{path}: the file went away while it was read. Run again.") from None
    except (OSError, EOFError, pa.ArrowException, pl.exceptions.PolarsError) as error:
        said = " ".join(str(error).split())[:200]
        raise SourceError(
            f"{path}: cannot be read as {kind_of(path, form)}: {said}. Deliver it again, or remove it."
        ) from None
    except UnicodeError as error:
        raise SourceError(
            f"{path}: not in the encoding that was declared ({error.__class__.__name__}). Set the stream's "
            "encoding, for example cp1252."
        ) from None


@contextmanager
def _bytes(path: Path) -> Iterator[Any]:
    if path.suffix.lower() == ".gz":
        with gzip.open(path) as unpacked:
            yield unpacked
    elif path.suffix.lower() == ".zst":
        import pyarrow as pa

        with pa.OSFile(str(path)) as packed, pa.CompressedInputStream(packed, "zstd") as stream:
            yield io.BufferedReader(stream, 2**18)
    else:
        with path.open("rb") as plain:
            yield plain


@contextmanager
def _text(path: Path, form: Format) -> Iterator[IO[str]]:
    # Bytes of another encoding become surrogates: the parser refuses the cell they are in, not the file.
    with _bytes(path) as raw:
        yield io.TextIOWrapper(raw, form.encoding, errors="surrogateescape", newline="")


class _Cells(list[str]):
    """A CSV row; `line` is where it begins, `problem` why it is none."""

    line = 0
    problem = ""


def _reader(lines: IO[str], path: Path, form: Format) -> Iterator[_Cells]:
    """The rows that are not blank; a row in which a quote goes wrong has a `problem`."""
    tab = path.name.lower().removesuffix(".gz").removesuffix(".zst").endswith(".tsv")
    delimiter = "\t" if tab and form.delimiter == "," else form.delimiter
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        begins = reader.line_num + 1
        try:
            row = _Cells(next(reader))
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end" in str(error) or "field limit" in str(error):
                raise SourceError(
                    f"{path}:{begins}: a quoted cell begins here and does not end. Deliver the file again."
                ) from None
            row = _Cells(["?"])
            row.problem = f"not valid CSV: {error}"
        row.line = begins
        if row:
            yield row


def _csv(path: Path, form: Format) -> Rows:
    nulls = {"": None} | dict.fromkeys(filter(None, form.nulls.split("|")))
    with _text(path, form) as lines:
        reader = _reader(lines, path, form)
        names = _names(next(reader, []), path)
        width = len(names)
        for cells in reader:
            if cells.problem:
                yield cells.line, cells.problem
            elif len(cells) != width:
                yield cells.line, f"{len(cells)} cells, but the header has {width}"
            else:
                yield (
                    cells.line,
                    {n: None if c in nulls else c for n, c in zip(names, cells, strict=True)},
                )


def _names(cells: list[str], path: Path) -> list[str]:
    names = [name.strip().lstrip("\ufeff") for name in cells]
    if not names:
        raise SchemaError(f"{path}: the file is empty; its first line should name its columns.")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        # Without a header, the names are data.
        first, second = [n for n, name in enumerate(names, 1) if name == twice[0]][:2]
        raise SchemaError(
            f"{path}: columns {first} and {second} of the header have the same name; is the header missing?"
        )
    return names


_DECODER = msgspec.json.Decoder(float_hook=ExactFloat)


def _json(path: Path) -> Rows:
    with _bytes(path) as lines:
        number = 0
        while raw := lines.readline(MAX_LINE):
            number += 1
            if len(raw) >= MAX_LINE:
                raise SourceError(f"{path}:{number}: a line of more than {MAX_LINE >> 20} MiB.")
            if not raw.strip():
                continue
            try:
                row = _DECODER.decode(raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw)
            except (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError):
                yield number, "not valid JSON"
                continue
            yield number, row if isinstance(row, dict) else "a JSON object was expected"


def _log(path: Path) -> Rows:
    with _bytes(path) as lines:
        number = 0
        while raw := lines.readline(MAX_LINE):
            number += 1
            if not raw.strip():
                continue
            row = access_log.parse(raw)
            if isinstance(row, str) and not raw.endswith(b"\n"):
                return  # its server is still writing it; it comes with the next delivery
            yield number, row


def _parquet(path: Path) -> Iterator[pl.DataFrame]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(BATCH):
            found = pl.from_arrow(batch)
            assert isinstance(found, pl.DataFrame)
            yield found


def _sheet(path: Path, form: Format, rows: int | None = None) -> pl.DataFrame:
    import fastexcel

    try:
        book = fastexcel.read_excel(path)
        if form.sheet and form.sheet not in book.sheet_names:
            raise SchemaError(f"{path}: has no sheet {form.sheet!r}; it has {', '.join(book.sheet_names)}.")
        return book.load_sheet(form.sheet or 0, n_rows=rows, dtype_coercion="coerce").to_polars()
    except fastexcel.FastExcelError as error:
        raise OSError(str(error)) from None


def _excel(path: Path, form: Format) -> Iterator[pl.DataFrame]:
    """Excel has neither whole numbers nor dates: columns of nothing else are read as such."""
    frame = _sheet(path, form)
    whole = [
        name
        for name, kind in frame.schema.items()
        if kind == pl.Float64 and frame[name].is_finite().all() and (frame[name] % 1 == 0).all()
    ]
    days = [
        name
        for name, kind in frame.schema.items()
        if isinstance(kind, pl.Datetime) and (frame[name].dt.time() == time.min).all()
    ]
    columns = [pl.col(whole).cast(pl.Int64), pl.col(days).cast(pl.Date)]
    yield from frame.with_columns(*columns).iter_slices(BATCH)


def frame_rows(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """A frame's rows as JSON has them: moments in ISO 8601, decimals as text."""
    nested = [name for name, kind in frame.schema.items() if kind.is_nested()]
    rows = frame.with_columns([_written(name, kind) for name, kind in frame.schema.items()]).to_dicts()
    for name in nested:
        for row in rows:
            row[name] = plain(row[name])
    return rows


def _written(name: str, kind: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if isinstance(kind, pl.Datetime):
        if kind.time_zone is None:
            return column.dt.to_string("%Y-%m-%dT%H:%M:%S%.6f")
        return column.dt.convert_time_zone("UTC").dt.to_string("%Y-%m-%dT%H:%M:%S%.6fZ")
    if isinstance(kind, (pl.Date, pl.Time)):
        return column.dt.to_string("iso")
    if isinstance(kind, (pl.Decimal, pl.Categorical, pl.Enum)):
        return column.cast(pl.String)
    return column.bin.encode("base64") if isinstance(kind, pl.Binary) else column


def plain(value: Any) -> Any:
    """A value as JSON has it, all the way down."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, datetime):
        return (value.astimezone(UTC) if value.tzinfo else value).isoformat()
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return value.isoformat() if isinstance(value, date) else str(value)
