"""Shopify's bulk operations: one query over everything, run by the shop, its result fetched as one file.

https://shopify.dev/docs/api/usage/bulk-operations/queries. The result is lines of JSON: each record, and
right behind it its nested connections' rows, each with `__parentId` (`groupObjects`). What was read is
compared with the numbers of objects the shop says it wrote, so that a result cut short is noticed.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from omni.errors import AuthError, SourceError, TransientError
from omni.sources.http import MAX_PAUSE, need
from omni.sources.parse import ExactFloat
from omni.sources.records import Record
from omni.sources.shopify_calls import ADVICE, Shop, answered, ask, messages
from omni.sources.shopify_query import (
    BULK_CANCEL,
    BULK_QUERY,
    BULK_STATE,
    CONNECTIONS,
    bulk_query,
    direct,
    filter_of,
    rows_of,
    where_of,
)
from omni.sources.vendor import Page, Window
from omni.warehouse.contracts import Contract

PAGE = 500
"""Records handed on together."""
SLOWER, SLOWEST = 1.5, 30.0
"""By how much the wait between questions grows, and to how many times the first one."""
STARTS = 60
"""How often a start is tried while other operations take all places."""
BUSY = {"OPERATION_IN_PROGRESS", "LIMIT_REACHED"}
RUNNING = {"CREATED", "RUNNING", "CANCELING"}
OVERLOADED = {"TIMEOUT", "INTERNAL_SERVER_ERROR"}

log = logging.getLogger(__name__)


class Unusable(Exception):
    """The shop cannot give this result (any more); the same records can be had in pages."""


@dataclass(frozen=True)
class _Result:
    operation: str
    url: str | None
    objects: int
    roots: int


def read_bulk(
    shop: Shop, tables: list[Contract], window: Window, resume: dict[str, Any] | None
) -> Iterator[Page]:
    """A stream's records from a bulk operation.

    The first page is empty: its token leads another process to the operation that runs by then.

    Args:
        shop: the shop.
        tables: the stream's contracts.
        window: what to read.
        resume: an operation (`bulk`) and how many of its records were read (`roots`); None starts one.

    Raises:
        Unusable: the operation timed out at the shop, or the result to go on from is gone.
        SourceError: the shop refuses the query, or the result does not hold what it says.
        TransientError: other operations take all places, or it was cancelled, or took too long.
        AuthError: a scope is missing.
    """
    if resume is None:
        operation, done = _start(shop, tables, window), 0
        yield Page([], {"bulk": operation, "roots": 0})
    else:
        operation, done = _token(resume, where_of(tables))
    result = _wait(shop, tables, operation, resumed=resume is not None)
    if result.url is None:
        if result.objects:
            raise SourceError(f"{where_of(tables)}: the bulk operation counts objects but names no result.")
        return
    with tempfile.TemporaryDirectory(prefix="omni-shopify-") as folder:
        file = Path(folder) / "result.jsonl"
        try:
            shop.http.download(result.url, file, authenticated=False)
        except (AuthError, SourceError) as error:
            if resume is None:
                raise SourceError(f"{where_of(tables)}: the bulk result cannot be fetched: {error}") from None
            _gone(tables)
        try:
            yield from _pages(file, tables, result, done)
        except SourceError:
            if resume is None:
                raise
            _gone(tables)


def _token(resume: dict[str, Any], where: str) -> tuple[str, int]:
    return need(resume, "bulk", str, where), need(resume, "roots", int, where)


def _gone(tables: list[Contract]) -> NoReturn:
    log.warning(
        "%s: the bulk result to go on from is gone or not whole; reading starts again.", where_of(tables)
    )
    raise Unusable


def _start(shop: Shop, tables: list[Contract], window: Window) -> str:
    """Start an operation and return its id; wait for a place where others take them all."""
    where, text = where_of(tables), bulk_query(tables, filter_of(tables, window))
    wait = shop.bulk_poll
    for _ in range(STARTS):
        data = answered(shop, tables, BULK_QUERY, {"query": text})
        given = need(data, "bulkOperationRunQuery", dict, where)
        problems = given.get("userErrors")
        if not problems:
            return need(given, "bulkOperation.id", str, where)
        if not (_codes(problems) & BUSY or "already in progress" in messages(problems)):
            raise SourceError(f"{where}: the bulk query was refused: {messages(problems)}")
        shop.http.hold(wait)
        wait = min(wait * SLOWER, shop.bulk_poll * SLOWEST, MAX_PAUSE)
    raise TransientError(
        f"{where}: other bulk operations of this app still take all places after {STARTS} tries. Run again "
        "when they have ended."
    )


def _codes(problems: Any) -> set[str]:
    return {str(p.get("code")) for p in problems if isinstance(p, dict)}


def _wait(shop: Shop, tables: list[Contract], operation: str, *, resumed: bool) -> _Result:
    """Ask until the operation has ended."""
    where = where_of(tables)
    wait, until = shop.bulk_poll, time.monotonic() + shop.bulk_patience
    while True:
        node = ask(shop, tables, BULK_STATE, {"id": operation}).get("node")
        if node is None:
            if resumed:
                _gone(tables)
            raise SourceError(f"{where}: Shopify does not know the bulk operation it just started.")
        status = need(node, "status", str, where)
        if status == "COMPLETED":
            objects, roots = (_number(node, name, where) for name in ("objectCount", "rootObjectCount"))
            return _Result(operation, node.get("url"), objects, roots)
        if status not in RUNNING:
            _ended(node, tables, status, resumed=resumed)
        if time.monotonic() > until:
            ask(shop, tables, BULK_CANCEL, {"id": operation})
            raise TransientError(
                f"{where}: the bulk operation still runs after {shop.bulk_patience:.0f} s; it was cancelled. "
                "Run again when the shop is less busy."
            )
        shop.http.hold(wait)
        wait = min(wait * SLOWER, shop.bulk_poll * SLOWEST, MAX_PAUSE)


def _number(node: Any, name: str, where: str) -> int:
    """A count, which Shopify writes as text."""
    value = need(node, name, object, where)
    if not str(value).isdecimal():
        raise SourceError(f"{where}: {name} should be a number. The vendor's format may have changed.")
    return int(str(value))


def _ended(node: Any, tables: list[Contract], status: str, *, resumed: bool) -> NoReturn:
    """An operation that ended without a whole result. A part it may offer is not taken for the whole."""
    where, code = where_of(tables), str(node.get("errorCode") or "no reason")
    if status == "FAILED" and code == "ACCESS_DENIED":
        raise AuthError(f"{where}: the bulk operation was denied access. {ADVICE}")
    if status == "FAILED" and code in OVERLOADED:
        log.warning("%s: the bulk operation failed at Shopify (%s); reading pages instead.", where, code)
        raise Unusable
    if status == "EXPIRED" and resumed:
        _gone(tables)
    if status in ("CANCELED", "EXPIRED"):
        raise TransientError(
            f"{where}: the bulk operation is {status}, so its result is not there. Run again."
        )
    raise SourceError(f"{where}: the bulk operation ended as {status} ({code}).")


def _pages(file: Path, tables: list[Contract], result: _Result, done: int) -> Iterator[Page]:
    """The file's records behind the first `done`; compares the numbers at the end."""
    with file.open("rb") as text:
        written = sum(1 for line in text if line.strip())
    lines = Lines(tables)
    if written != result.objects:
        _cut_short(tables, "lines", written, result.objects)
    waiting: list[Record] = []
    with file.open("rb") as text:
        for record in lines.records(text):
            if lines.roots <= done:
                continue
            waiting.append(record)
            if len(waiting) == PAGE:
                yield Page(waiting, {"bulk": result.operation, "roots": lines.roots})
                waiting = []
    if lines.roots != result.roots:
        _cut_short(tables, "records", lines.roots, result.roots)
    if waiting:
        yield Page(waiting, {"bulk": result.operation, "roots": lines.roots})


def _cut_short(tables: list[Contract], what: str, found: int, written: int) -> NoReturn:
    raise SourceError(
        f"{where_of(tables)}: the bulk result holds {found} {what}, but Shopify says it wrote {written}. It "
        "cannot be trusted; run again."
    )


class Lines:
    """Lines to records with their nested rows, holding one record at a time.

    Args:
        tables: the stream's contracts.

    Attributes:
        objects: lines read.
        roots: records complete so far.
    """

    def __init__(self, tables: list[Contract]) -> None:
        self.objects = 0
        self.roots = 0
        self._where = where_of(tables)
        self._lists = [rows for child in direct(tables) if (rows := rows_of(child)) in CONNECTIONS]
        self._kinds = {CONNECTIONS[rows]: rows for rows in self._lists}
        self._decoder = msgspec.json.Decoder(float_hook=ExactFloat)

    def records(self, text: Iterable[bytes]) -> Iterator[Record]:
        """The records of a file of lines.

        Raises:
            SourceError: a line is no object, of an unexpected kind, or not behind the record it belongs to.
        """
        current: Record | None = None
        for line in text:
            if not line.strip():
                continue
            self.objects += 1
            found = self._decoded(line)
            parent = found.pop("__parentId", None)
            if parent is not None:
                self._adopt(current, found, parent)
                continue
            if current is not None:
                self.roots += 1
                yield current
            current = found | {rows: [] for rows in self._lists}
        if current is not None:
            self.roots += 1
            yield current

    def _decoded(self, line: bytes) -> dict[str, Any]:
        try:
            found = self._decoder.decode(line)
        except (msgspec.DecodeError, ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise SourceError(f"{self._where}: line {self.objects} of the bulk result is no JSON object.")
        return found

    def _adopt(self, current: Record | None, row: dict[str, Any], parent: str) -> None:
        """Put a nested row into its record."""
        number = self.objects
        if current is None or current.get("id") != parent:
            raise SourceError(
                f"{self._where}: line {number} of the bulk result does not stand behind the record it "
                "belongs to."
            )
        kind = need(row, "id", str, self._where).removeprefix("gid://shopify/").partition("/")[0]
        if kind not in self._kinds:
            raise SourceError(f"{self._where}: line {number} of the bulk result is of an unexpected kind.")
        current[self._kinds[kind]].append(row)
