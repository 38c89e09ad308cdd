"""Drop folders: CSV, JSON lines, Parquet, Excel files and access logs that someone delivers.

Each stream has a folder of its name below the account's folder. A file belongs to the window in which it
arrived (was written, moved or copied there); with a marker, when its marker did. Names that begin with a dot
or end in .tmp, .part or .filepart are not ready. A file that comes again, under its name or another one,
replaces the rows of the same keys: files are read in the order of arrival, and the last one stands. With
`_arrived` as the cursor it stands against a backfill of older files, too.

A record's `id` is `<file>:<line>`; a column of that name in the file is `_row.id`. Beside the file's own
columns a contract can name `_file`, `_line`, `_arrived` (the moment), and `_nth.<column>`: which row of its
file with that value in the column it is. The last makes a key of a document's lines that does not depend on
how documents are spread over files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from omni.errors import ConfigError, SchemaError, SourceError, TransientError
from omni.files import private_folder
from omni.settings import settings
from omni.sources import files_read
from omni.sources.connection import Connection
from omni.sources.files_format import Format, converters
from omni.sources.files_read import Batch
from omni.sources.parse import EPOCH_START
from omni.sources.records import PARENT, Record
from omni.sources.vendor import Page, Vendor, Window, cursor_path, table_object
from omni.tenancy import Tenant
from omni.warehouse.contracts import Contract

LAG = timedelta(seconds=10)
"""A file must have been left alone for so long before it is read."""
UNREADY = (".tmp", ".part", ".filepart", ".crdownload")
OWN = ("id", "_file", "_line", "_arrived", "_nth", "_row")
"""Paths a record has besides its file's columns."""
ARRIVED = "_arrived"
_NAME = re.compile(r"[A-Za-z_][\w .-]{0,40}")
"""What may be a column's name; anything else in a header may be data."""


@dataclass(frozen=True)
class Folder:
    """An account: its folder and the ways of its streams' files, as options `delimiter` or
    `<stream>.delimiter`; see `Format`."""

    path: Path
    options: Mapping[str, str]

    def form(self, stream: str) -> Format:
        """A stream's ways.

        Raises:
            ConfigError: an option that does not exist, or a value that cannot be.
        """
        known = [f.name for f in fields(Format)]
        chosen: dict[str, str] = {}
        for key in sorted(self.options, key=lambda k: "." in k):
            whose, _, name = key.rpartition(".")
            if name not in known:
                raise ConfigError(f"files: unknown option {key!r}. Known: {', '.join(known)}.")
            if whose in ("", stream):
                chosen[name] = self.options[key]
        return Format(**chosen)


@dataclass(frozen=True, order=True)
class File:
    """A file that arrived.

    Attributes:
        arrived: when, UTC.
        name: below the stream's folder.
        path: of the file.
        stamp: its size and times, to notice that it changes.
        announced: rows its marker says it has.
    """

    arrived: datetime
    name: str
    path: Path
    stamp: tuple[int, ...]
    announced: int | None = None


def configured(tenant: Tenant) -> Connection:
    """A tenant's folder by the settings: by default `drop` in its state folder, which is then made.

    Raises:
        ConfigError: the address holds a placeholder other than {tenant}.
    """
    chosen = settings().files
    options = {"timezone": tenant.timezone} | chosen.options
    if chosen.base_url is None:
        for folder in (tenant.home, tenant.home / "drop"):
            private_folder(folder)
        return Connection("files", (tenant.home / "drop").as_uri(), SecretStr(""), options=options)
    try:
        url = chosen.base_url.format(tenant=tenant.tenant)
    except (KeyError, IndexError, ValueError):
        raise ConfigError("OMNI_FILES__BASE_URL may hold {tenant} and no other placeholder") from None
    return Connection("files", url, SecretStr(""), options=options)


@contextmanager
def _opened(connection: Connection) -> Iterator[Folder]:
    url = urlsplit(connection.base_url)
    if url.scheme not in ("", "file") or url.netloc not in ("", "localhost"):
        raise ConfigError(f"files: {connection.base_url!r} is no folder; for example file:///srv/drop/acme")
    path = Path(unquote(url.path) if url.scheme else connection.base_url)
    if not path.is_dir():
        raise ConfigError(f"files: there is no folder {path}. Create it, or set OMNI_FILES__BASE_URL.")
    yield Folder(path, connection.options)


def _moment(nanoseconds: int) -> datetime:
    return EPOCH_START + timedelta(microseconds=nanoseconds // 1000)


def _arrived(path: Path, form: Format) -> tuple[datetime, tuple[int, ...]]:
    found = path.stat()
    # A file that is moved or copied with its times keeps an old modification time; the change time tells.
    newest = found.st_mtime_ns if form.arrival == "modified" else max(found.st_mtime_ns, found.st_ctime_ns)
    return _moment(newest), (found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def present(folder: Folder, stream: str) -> list[File]:
    """The files of a stream that are ready, in order of arrival."""
    root, form = folder.path / stream, folder.form(stream)
    inside = root.resolve()
    found = []
    for path in root.rglob(form.pattern):
        name = path.relative_to(root)
        if any(part.startswith(".") for part in name.parts) or name.suffix.lower() in UNREADY:
            continue
        if files_read.kind_of(name, form) is None or (form.marker and name.name.endswith(form.marker)):
            continue
        if not path.resolve().is_relative_to(inside):
            continue  # a link out of the folder: whoever delivers files may not have others read
        try:
            if path.is_file() and (file := _file(path, name.as_posix(), form)):
                found.append(file)
        except FileNotFoundError:
            continue
    return sorted(found)


def _file(path: Path, name: str, form: Format) -> File | None:
    arrived, stamp = _arrived(path, form)
    if not form.marker:
        return File(arrived, name, path, stamp)
    marker = path.with_name(path.name + form.marker)
    if not marker.is_file():
        return None
    marked, _ = _arrived(marker, form)
    said = marker.read_text(encoding="utf-8", errors="replace")[:40].strip()
    announced = int(said) if said.isascii() and said.isdigit() else None
    return File(max(arrived, marked), name, path, stamp, announced)


def counted(folder: Folder, tables: list[Contract], window: Window) -> list[File]:
    """The files that arrived within the window; all there are, if a full read could not tell later rows."""
    found = present(folder, table_object(tables))
    if window.since is None and cursor_path(tables[0]) != ARRIVED:
        return found
    return [
        file
        for file in found
        if (window.since is None or file.arrived >= window.since) and file.arrived < window.until
    ]


def due(folder: Folder, tables: list[Contract], window: Window) -> list[File]:
    """The files to read: those of the window, or all there are without `since`.

    A file that comes again just then would seem to be absent, and its rows would be removed.

    Raises:
        TransientError: everything is to be read, and one of the files may still be growing.
    """
    if window.since is not None:
        return counted(folder, tables, window)
    found, now = present(folder, table_object(tables)), datetime.now(UTC)
    for file in found:
        if file.arrived >= window.until and abs(now - file.arrived) < LAG:
            raise TransientError(
                f"{file.path}: arrived less than {LAG.seconds} s ago and may be incomplete. Run again."
            )
    return found


def _paths(tables: list[Contract]) -> list[str]:
    """Every path the contracts name in a record of the file."""
    own = [column.path or name for name, column in tables[0].columns.items()]
    above = [c.path for child in tables[1:] for c in child.columns.values() if c.path]
    lists = [child.source.rows for child in tables[1:] if child.source and child.source.rows]
    return own + [path.removeprefix(PARENT) for path in above if path.startswith(PARENT)] + lists


def _required(tables: list[Contract]) -> set[str]:
    """The columns a file must have."""
    parent = tables[0]
    optional = {c.path or n for n, c in parent.columns.items() if c.optional}
    paths = [path for path in _paths(tables) if path not in optional]
    counted = {path.removeprefix("_nth.") for path in paths if path.startswith("_nth.")}
    inner = {"id"} if "_row.id" in paths else set()
    return ({path.partition(".")[0] for path in paths} - set(OWN)) | counted | inner


def _fits(file: File, names: list[str] | None, tables: list[Contract]) -> None:
    if "id" in (names or ()) and "id" in (paths := _paths(tables)) and "_row.id" not in paths:
        raise SchemaError(
            f"{file.path}: has a column 'id', and {tables[0].table} takes `id`, which is <file>:<line>. "
            "Write `from: _row.id` in the contract for the file's own."
        )
    if names is not None and (missing := sorted(_required(tables) - set(names))):
        raise SchemaError(
            f"{file.path}: lacks column {', '.join(map(repr, missing))} of {tables[0].table}; it has "
            f"{_shown(names, _required(tables))} Deliver it again, or change the contract: another `from`, "
            "or `optional: true`."
        )


def _shown(names: list[str], required: set[str]) -> str:
    """A file's columns for a message. Without a header, the names are the first row's data."""
    if not required & set(names):
        return f"{len(names)} columns, none of them known; is the header missing?"
    fit = [repr(name) for name in names if _NAME.fullmatch(name)][:40]
    others = len(names) - len(fit)
    return ", ".join(fit) + (f" and {others} more." if others else ".")


def check(folder: Folder, tables: list[Contract]) -> list[str]:
    """Compare the contract with the file that arrived last.

    Returns:
        What is worth reporting: files that are of no kind that is read, a contract without a cursor.

    Raises:
        SchemaError: a column is missing.
        SourceError: the file cannot be read.
    """
    stream = table_object(tables)
    form = folder.form(stream)
    notices = []
    if cursor_path(tables[0]) != ARRIVED:
        notices.append(
            f"{tables[0].table}: a backfill of older files undoes newer deliveries, as its cursor is no "
            f"column with `from: {ARRIVED}`"
        )
    if not (folder.path / stream).is_dir():
        return [*notices, f"files: there is no folder {folder.path / stream} yet"]
    for file in present(folder, stream)[-1:]:
        _fits(file, files_read.header(file.path, form), tables)
    others = [
        path.name
        for path in (folder.path / stream).rglob(form.pattern)
        if path.is_file()
        and files_read.kind_of(path, form) is None
        and not path.name.startswith(".")
        and path.suffix.lower() not in UNREADY
        and not (form.marker and path.name.endswith(form.marker))
    ]
    return notices + [f"files: {stream}/{name} is of no kind that is read" for name in sorted(others)[:10]]


def count(folder: Folder, tables: list[Contract], window: Window) -> int:
    """Rows of the window's files, every file checked against the contract; what a marker says stands.

    Raises:
        SchemaError: a file lacks a column.
        SourceError: a file cannot be read.
    """
    form = folder.form(table_object(tables))
    found = counted(folder, tables, window)
    for file in found:
        _fits(file, files_read.header(file.path, form), tables)
    return sum(
        files_read.count(file.path, form) if file.announced is None else file.announced for file in found
    )


def read(folder: Folder, tables: list[Contract], window: Window, resume: Any) -> Iterator[Page]:
    """The rows of the window's files; see `due`. `resume` is `[arrival, file, rows read of it]`.

    Raises:
        SchemaError: a file lacks a column.
        SourceError: a file cannot be read to its end.
        TransientError: a file changed while it was read, or arrives.
    """
    form = folder.form(table_object(tables))
    after = (datetime.fromisoformat(resume[0]), resume[1]) if resume else None
    for file in due(folder, tables, window):
        place = (file.arrived, file.name)
        if after and place < after:
            continue
        yield from _pages(file, tables, form, int(resume[2]) if place == after else 0)


def _pages(file: File, tables: list[Contract], form: Format, skip: int) -> Iterator[Page]:
    names = files_read.header(file.path, form)
    _fits(file, names, tables)
    unseen = _required(tables) if names is None else set()
    shape = _Shape(file, tables, form)
    done = 0
    for batch in files_read.batches(file.path, form):
        for row in batch.rows if unseen else ():
            unseen.difference_update(row)
        records = shape.records(batch)
        done += batch.size
        if done > skip:
            # Pages end where they ended in the first reading, for batches are cut alike.
            rejected = tuple(_letter(file, tables[0], line, why) for line, why in batch.broken)
            yield Page(records, [file.arrived.isoformat(), file.name, done], rejected=rejected)
    if _arrived(file.path, form)[1] != file.stamp:
        raise TransientError(f"{file.path}: changed while it was read. Run again.")
    if done and unseen:
        _fits(file, sorted(_required(tables) - unseen), tables)


def _letter(file: File, parent: Contract, line: int, reason: str) -> dict[str, str]:
    where = f"{file.name}:{line}"
    return {"table": parent.table, "key": where, "column": "", "reason": f"{where}: {reason}"}


class _Shape:
    """A file's rows as records, with what the contracts ask for besides their columns."""

    def __init__(self, file: File, tables: list[Contract], form: Format) -> None:
        paths = _paths(tables)
        self.file = file
        self.own = [name for name in OWN if any(path.partition(".")[0] == name for path in paths)]
        self.identified = "_row" in self.own
        self.counted = {p.removeprefix("_nth."): dict[Any, int]() for p in paths if p.startswith("_nth.")}
        kinds = {column.path or name: column.type for name, column in tables[0].columns.items()}
        self.converters = converters({**kinds}, form)

    def records(self, batch: Batch) -> list[Record]:
        """The batch's rows; to be called for every batch of the file, in order."""
        name, arrived = self.file.name, self.file.arrived.isoformat()
        values = {"_file": name, ARRIVED: arrived}
        shared = {key: values[key] for key in self.own if key in values}
        numbered = "_line" in self.own
        for line, row in zip(batch.lines, batch.rows, strict=True):
            for key, convert in self.converters.items():
                cell = row.get(key)
                if isinstance(cell, str):
                    row[key] = convert(cell)
            row.update(shared)
            if self.identified:
                row["_row"] = {"id": row.get("id")}
            row["id"] = f"{name}:{line}"
            if numbered:
                row["_line"] = line
            if self.counted:
                row["_nth"] = {key: self._nth(seen, row.get(key)) for key, seen in self.counted.items()}
        return batch.rows

    def _nth(self, seen: dict[Any, int], value: Any) -> int:
        try:
            seen[value] = nth = seen.get(value, 0) + 1
        except TypeError:
            raise SourceError(
                f"{self.file.path}: a list or object where a document's number should be."
            ) from None
        return nth


VENDOR = Vendor(
    name="files",
    title="Files",
    open=_opened,
    lag=LAG,
    resolution=timedelta(microseconds=1),
    check=check,
    count=count,
    read=read,
)
