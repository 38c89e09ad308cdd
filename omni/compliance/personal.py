"""Checks of personal data: declared, protected, nowhere readable, not kept too long."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any, Literal

from omni.compliance.facts import Facts, columns_of, count, quoted

Result = tuple[Literal["pass", "fail", "not_applicable", "unknown"], dict[str, Any]]

NAMES = re.compile(
    r"(^|_)(e?_?mail|phone|mobile|first_?name|last_?name|sur_?name|full_?name|birth|birthday|dob|ssn|passport"
    r"|iban|street|address|postcode|zip|ip_address|latitude|longitude)(_|$)"
)
"""Column names that suggest personal data, unless the next says otherwise (`email_sent_at`)."""
NOT_A_VALUE = re.compile(r"_(id|at|date|count|rate|opened|sent|clicked|verified)$|^(is|has|accepts)_")

ADDRESS = r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}"
READERS = ("core", "marts", "metrics", "ml", "experiments", "anomaly")
"""Schemas that analysts and other programs read; documents (`rag`) may print addresses on purpose."""

SHOWN = 20


def declared(facts: Facts) -> Result:
    """Columns whose name looks personal are declared; declared ones have all that must be said of them."""
    stored = columns_of(facts.con)
    if facts.raw is not None:
        stored |= columns_of(facts.raw)
    undeclared = sorted(
        f"{table}.{column}"
        for table, columns in stored.items()
        if table.partition(".")[0] not in facts.code_owned
        for column in columns
        if NAMES.search(column) and not NOT_A_VALUE.search(column)
        if column not in facts.personal.get(table, frozenset())
    )
    incomplete = sorted(
        f"{table}.{name}"
        for table, contract in facts.contracts.items()
        for name, column in contract.columns.items()
        if column.personal is not None
        if not (contract.lawful_basis and column.personal.category and column.personal.protect)
    )
    total = sum(len(contract.personal_columns) for contract in facts.contracts.values())
    evidence = {
        "tables_looked_at": len(stored),
        "declared_personal_columns": total,
        "undeclared": undeclared[:SHOWN],
        "undeclared_count": len(undeclared),
        "incomplete": incomplete[:SHOWN],
    }
    return ("fail" if undeclared or incomplete else "pass"), evidence


def protected(facts: Facts) -> Result:
    """Stored values have the form their declared protection leaves: 64 hexadecimal digits, or nothing."""
    wanted = [
        (table, name, column.personal.protect)
        for table, contract in sorted(facts.contracts.items())
        for name, column in contract.columns.items()
        if column.personal is not None and column.personal.protect != "clear"
    ]
    if not wanted:
        return "not_applicable", {"protected_columns": 0}
    if facts.raw is None:
        return "unknown", {"reason": "the raw tables were not given", "protected_columns": len(wanted)}
    stored = columns_of(facts.raw)
    wrong: dict[str, int] = {}
    missing, rows, values = [], 0, 0
    for table, name, protect in wanted:
        if name not in stored.get(table, {}):
            missing.append(f"{table}.{name}")
            continue
        column = quoted(name)
        fits = f"regexp_matches({column}, '^[0-9a-f]{{64}}$')" if protect == "hash" else "false"
        rows += count(facts.raw, f"SELECT count(*) FROM {quoted(table)}")
        values += count(facts.raw, f"SELECT count({column}) FROM {quoted(table)}")
        if bad := count(
            facts.raw, f"SELECT count(*) FROM {quoted(table)} WHERE {column} IS NOT NULL AND NOT {fits}"
        ):
            wrong[f"{table}.{name}"] = bad
    evidence = {
        "protected_columns": len(wanted),
        "stored_values": values,
        "unprotected_values": wrong,
        "columns_not_stored": missing,
    }
    if not rows:
        return "unknown", evidence | {"reason": "nothing is stored that could be looked at"}
    return ("fail" if wrong else "unknown" if missing else "pass"), evidence


def no_addresses(facts: Facts) -> Result:
    """Text in readers' tables that matches an e-mail address, counted; columns declared clear left out."""
    found: dict[str, int] = {}
    looked_at, left_out = 0, []
    for table, columns in columns_of(facts.con).items():
        if table.partition(".")[0] not in READERS:
            continue
        for column, kind in columns.items():
            if not ("VARCHAR" in kind or kind == "JSON"):
                continue
            if column in facts.clear.get(table, frozenset()):
                left_out.append(f"{table}.{column}")
                continue
            looked_at += 1
            hits = count(
                facts.con,
                f"SELECT count(*) FROM {quoted(table)} "
                f"WHERE regexp_matches(CAST({quoted(column)} AS VARCHAR), '{ADDRESS}')",
            )
            if hits:
                found[f"{table}.{column}"] = hits
    evidence = {"text_columns": looked_at, "declared_clear": sorted(left_out), "rows_with_address": found}
    if not looked_at:
        return "unknown", evidence | {"reason": "no table to look at"}
    return ("fail" if found else "pass"), evidence


def retained(facts: Facts) -> Result:
    """Rows past their contract's period; a row without a time of its own is as old as its last load."""
    limited = {table: c for table, c in sorted(facts.contracts.items()) if c.retention}
    if not limited:
        return "not_applicable", {"tables": {}}
    if facts.raw is None:
        return "unknown", {"reason": "the raw tables were not given", "tables": sorted(limited)}
    stored = columns_of(facts.raw)
    tables: dict[str, Any] = {}
    for table, contract in limited.items():
        if table not in stored:
            continue
        assert contract.retention is not None
        oldest = before(facts.at, contract.retention)
        time = f"CAST({quoted(contract.time_column)} AS TIMESTAMPTZ)" if contract.time_column else "NULL"
        overdue = count(
            facts.raw,
            f"SELECT count(*) FROM {quoted(table)} WHERE coalesce({time}, _loaded_at) < $1",
            [oldest],
        )
        tables[table] = {"retention": contract.retention, "rows_past_it": overdue}
    if not tables:
        return "unknown", {"reason": "none of the tables is stored", "tables": {}}
    return ("fail" if any(t["rows_past_it"] for t in tables.values()) else "pass"), {"tables": tables}


def before(moment: datetime, period: str) -> datetime:
    """A moment moved back by an ISO 8601 period of days, months or years.

    A month without that day gives its last one: 29 February less a year is 28 February.
    """
    amount, unit = int(period[1:-1]), period[-1]
    if unit == "D":
        return moment - timedelta(days=amount)
    months = moment.year * 12 + moment.month - 1 - amount * (12 if unit == "Y" else 1)
    for day in (moment.day, 30, 29, 28):
        try:
            return moment.replace(year=months // 12, month=months % 12 + 1, day=min(day, moment.day))
        except ValueError:
            continue
    raise AssertionError("every month has 28 days")
