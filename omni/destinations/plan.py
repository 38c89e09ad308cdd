"""What a write-back has to write: the published rows compared with what was written before."""

from __future__ import annotations

import hmac
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

import duckdb

from omni.control.ledger import LONGEST_KEY
from omni.destinations.declaration import Value, WriteBack, parsed_condition
from omni.errors import ConfigError, SchemaError
from omni.security.hashing import Hasher
from omni.tenancy import Tenant
from omni.warehouse.publish import open_snapshot

Scalar = str | int | float | bool | None
EXACT = Context(prec=400, rounding=ROUND_HALF_EVEN)
"""Holds every double to the last decimal."""
LEFT = "left"
"""Stands in the ledger for the refused content of a row that leaves."""
UNSURE = "?"
"""Begins the ledger's content of a row that is being sent, before what is sent; equal to no content."""


def unsure(content: str | None) -> str:
    """What the ledger holds of a row from before it is sent until its fate is known."""
    return UNSURE + (content or LEFT)


@dataclass(frozen=True)
class Known:
    """What the ledger knows of a row: digests of its content and columns, and of what was refused.

    `letter`: it is listed as a dead letter.
    """

    content: str | None
    columns: dict[str, str]
    writes: int
    rejected: str | None
    letter: bool = False

    @property
    def unsure(self) -> bool:
        """Whether its last sending was never answered, so that the vendor may hold either content."""
        return self.content is not None and self.content.startswith(UNSURE)


@dataclass(frozen=True)
class Item:
    """A row to write.

    Attributes:
        key: of the record at the vendor.
        values: property to value; no values in its representation.
        content: keyed digest of the values, None for a row that leaves.
        columns: keyed digest of each value.
        token: the same for every sending of this change, and for no other.
        changed: properties that differ from what was written last; all of a new row.
    """

    key: str
    values: dict[str, Scalar] = field(repr=False)
    content: str | None
    columns: dict[str, str]
    token: str
    changed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        new: rows of keys that hold nothing of ours yet.
        changed: rows whose content differs.
        leaving: rows that left the table and have to be cleared.
        unchanged: how many rows need nothing.
        held: how many are dead letters and wait for a change or a replay.
        known: how many written rows there were.
        settled: keys of dead letters about which nothing is to be done any more.
    """

    declared: WriteBack
    new: list[Item]
    changed: list[Item]
    leaving: list[Item]
    unchanged: int
    held: int
    known: int
    settled: list[str] = field(default_factory=list)

    @property
    def items(self) -> list[Item]:
        """All there is to write."""
        return [*self.new, *self.changed, *self.leaving]

    def summary(self) -> dict[str, int]:
        """Counts only."""
        return {
            "new": len(self.new),
            "changed": len(self.changed),
            "leaving": len(self.leaving),
            "unchanged": self.unchanged,
            "held": self.held,
        }

    def guard(self) -> None:
        """Refuse a plan that is more likely a mistake upstream.

        Raises:
            ConfigError: more rows than the limits allow.
        """
        limits, name = self.declared.limits, self.declared.name
        advice = "Look with --dry-run; if it is meant, raise limits in its declaration or pass --force."
        if len(self.items) > limits.max_rows:
            raise ConfigError(
                f"write-back {name}: {len(self.items)} rows to write, {limits.max_rows} are allowed. {advice}"
            )
        if len(self.leaving) > limits.max_leaving * self.known:
            raise ConfigError(
                f"write-back {name}: {len(self.leaving)} of {self.known} written rows left "
                f"{self.declared.table}. {advice}"
            )


def plan(tenant: Tenant, declared: WriteBack, known: dict[str, Known], *, replay: bool = False) -> Plan:
    """Compare the published rows with the ledger.

    Args:
        tenant: whose.
        declared: the write-back.
        known: the ledger's rows by key.
        replay: try dead letters again.

    Raises:
        ConfigError: nothing is published, or the snapshot lacks the table or a column.
        SchemaError: two rows share a key, or one has none.
    """
    digests = _Digests(Hasher.for_tenant(tenant.tenant).key, declared)
    new, changed, held = [], [], 0
    same: set[str] = set()
    rows = read_rows(tenant, declared)
    for key, values in rows.items():
        before = known.get(key)
        item = digests.item(key, values, before)
        if before is not None and item.content == before.content:
            same.add(key)
        elif before is not None and item.content == before.rejected and not replay:
            held += 1
        elif before is None or before.content is None:
            new.append(item)
        else:
            changed.append(item)
    written = {key: row for key, row in known.items() if row.content is not None}
    leaving = []
    if (cleared := declared.leaving) is not None:
        for key in sorted(written.keys() - rows.keys()):
            if written[key].rejected == LEFT and not replay:
                held += 1
            else:
                leaving.append(digests.item(key, cleared, written[key], leaves=True))
    settled = _settled(declared, rows, same, known)
    return Plan(declared, new, changed, leaving, len(same), held, len(written), settled)


def _settled(
    declared: WriteBack, rows: Mapping[str, object], same: set[str], known: dict[str, Known]
) -> list[str]:
    """Keys of dead letters whose row is as it was written last, or is gone and need not be cleared."""
    stays = declared.leaving is None
    return [
        key
        for key, row in known.items()
        if row.letter and (key in same or (key not in rows and (stays or row.content is None)))
    ]


@dataclass(frozen=True)
class _Digests:
    """Keyed digests: scores and segments are few enough to guess from plain ones."""

    key: bytes
    declared: WriteBack

    def of(self, *parts: object) -> str:
        text = json.dumps([self.declared.name, self.declared.destination, *parts], sort_keys=True)
        return hmac.digest(self.key, b"write-back " + text.encode(), "sha256").hex()[:32]

    def item(
        self, key: str, values: dict[str, Scalar], before: Known | None, *, leaves: bool = False
    ) -> Item:
        columns = {name: self.of(name, value)[:12] for name, value in values.items()}
        content, writes = self.of(values), before.writes if before else 0
        if before and before.unsure and before.content != unsure(None if leaves else content):
            writes += 1  # as `ledger.intend` counts: another change than the one that was not answered
        earlier = before.columns if before and before.content is not None and not before.unsure else {}
        changed = tuple(name for name in values if columns[name] != earlier.get(name))
        token = self.of(key, content, writes)
        return Item(key, values, None if leaves else content, columns, token, changed)


def read_rows(tenant: Tenant, declared: WriteBack) -> dict[str, dict[str, Scalar]]:
    """The published rows by key, each value in the form it is compared and written in; raises as `plan`."""
    names = ", ".join(f'"{name}"' for name in declared.used)
    who = f"write-back {declared.name}"
    condition = f" WHERE {parsed_condition(declared.where, who)[1]}" if declared.where else ""
    with open_snapshot(tenant) as con:
        try:
            fetched = con.execute(f"SELECT {names} FROM {declared.table}{condition}").fetchall()
        except duckdb.Error as error:
            raise ConfigError(
                f"write-back {declared.name}: {str(error).splitlines()[0]} Is the table published yet?"
            ) from None
    at = {name: number for number, name in enumerate(declared.used)}
    rows: dict[str, dict[str, Scalar]] = {}
    for row in fetched:
        if row[0] is None or str(row[0]).strip() == "":
            raise SchemaError(
                f"write-back {declared.name}: a row of {declared.table} has no key; leave it out by `where`"
            )
        if len(str(row[0])) > LONGEST_KEY:
            raise SchemaError(
                f"write-back {declared.name}: a row of {declared.table} has a key of {len(str(row[0]))} "
                f"characters; at most {LONGEST_KEY} are kept"
            )
        values = {name: scalar(row[at[value.column]], value) for name, value in declared.columns.items()}
        rows[str(row[0])] = values
    if len(rows) != len(fetched):
        raise SchemaError(
            f"write-back {declared.name}: {len(fetched) - len(rows)} rows of {declared.table} share their "
            f"{declared.key.column} with another; it must identify a row"
        )
    return rows


def scalar(value: Any, how: Value) -> Scalar:
    """A value as JSON would hold it: numbers exact, moments in UTC with milliseconds.

    Raises:
        SchemaError: a list or another value no property can hold.
    """
    if how.decimals is not None and isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        exact = Decimal(repr(value) if isinstance(value, float) else value)
        if not exact.is_finite():
            return None
        value = exact.quantize(Decimal(1).scaleb(-how.decimals), context=EXACT)
        value = abs(value) if value == 0 else value
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime):
        moment = value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise SchemaError(f"column {how.column}: a {type(value).__name__} cannot be written back")


def text(value: Scalar) -> str:
    """A value as vendors take it: text, empty where there is none."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)
