"""Checks of the work itself: declared, on time, complete, tested, and closed to others."""

from __future__ import annotations

import re
import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

from omni.compliance.facts import Facts, columns_of, count
from omni.compliance.personal import SHOWN, Result

TOKENS = re.compile(
    rb"pat-[a-z]{2,4}\d?-[0-9a-f-]{20,}|shp(at|ca|pa|ss)_[0-9a-fA-F]{16,}|sk-[A-Za-z0-9_-]{20,}"
    rb"|AKIA[0-9A-Z]{16}|xox[abprs]-[A-Za-z0-9-]{10,}|gh[pousr]_[A-Za-z0-9]{20,}"
    rb"|-----BEGIN [A-Z ]*PRIVATE KEY-----|[Bb]earer [A-Za-z0-9._~+/-]{20,}"
    rb"|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"
)
"""Forms of secrets: vendors' tokens, private keys, bearer headers, signed web tokens."""
MOST_FILES, MOST_BYTES = 2_000, 5_000_000

SAFE_SETTINGS = {"PREFECT_RESULTS_DEFAULT_SERIALIZER": "json", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}


def inventory(facts: Facts) -> Result:
    """Tables that are neither declared by a contract or model, nor made by the project's own code."""
    stored = set(columns_of(facts.con))
    if facts.raw is not None:
        stored |= set(columns_of(facts.raw))
    how = {"contract": 0, "model": 0, "code": 0}
    undeclared, ownerless = [], []
    for table in sorted(stored):
        if contract := facts.contracts.get(table):
            how["contract"] += 1
            ownerless += [] if contract.owner.strip() else [table]
        elif model := facts.models.get(table):
            how["model"] += 1
            ownerless += [] if model.header.owner.strip() else [table]
        elif table.partition(".")[0] in facts.code_owned:
            how["code"] += 1
        else:
            undeclared.append(table)
    evidence = {
        "tables": len(stored),
        "declared_by": how,
        "undeclared": undeclared[:SHOWN],
        "undeclared_count": len(undeclared),
        "without_owner": ownerless[:SHOWN],
    }
    if not stored:
        return "unknown", evidence | {"reason": "the warehouse holds no table"}
    return ("fail" if undeclared or ownerless else "pass"), evidence


def fresh(facts: Facts) -> Result:
    """Hours since the last load of each source table that has a limit, for the tenant's own streams."""
    limited = {
        table: contract.freshness_hours
        for table, contract in sorted(facts.contracts.items())
        if contract.freshness_hours and contract.source
        if contract.source.object in facts.tenant.sources.get(contract.source.vendor, [])
    }
    if not limited:
        return "not_applicable", {"tables": 0}
    loaded = dict(facts.con.execute("SELECT table_name, max(loaded_at) FROM ops.loads GROUP BY 1").fetchall())
    never = [table for table in limited if table not in loaded]
    late = {
        table: round((facts.at - loaded[table]) / timedelta(hours=1), 1)
        for table, hours in limited.items()
        if table in loaded and facts.at - loaded[table] > timedelta(hours=hours)
    }
    evidence = {"tables": len(limited), "never_loaded": never, "hours_since_load_of_late": late}
    return ("fail" if never or late else "pass"), evidence


def reconciled(facts: Facts) -> Result:
    """Each stream's last load: what the source counted, what was loaded, what was refused."""
    children = [table for table, contract in facts.contracts.items() if contract.parent]
    rows = facts.con.execute(
        """
        SELECT table_name, source_rows, rows_read, rejected FROM ops.loads
        WHERE NOT list_contains($1::VARCHAR[], table_name)
        QUALIFY row_number() OVER (
            PARTITION BY vendor, stream, table_name ORDER BY loaded_at DESC, run_id
        ) = 1
        ORDER BY table_name
        """,
        [children],
    ).fetchall()
    if not rows:
        return "unknown", {"reason": "nothing was loaded yet"}
    uncounted = [table for table, source, *_ in rows if source is None]
    differs = {
        table: {"source": source, "loaded": read, "refused": refused}
        for table, source, read, refused in rows
        if source is not None and not read <= source <= read + refused
    }
    evidence = {
        "streams": len(rows),
        "source_rows": sum(row[1] or 0 for row in rows),
        "loaded_rows": sum(row[2] for row in rows),
        "refused_rows": sum(row[3] for row in rows),
        "differences": differs,
        "not_counted_by_source": uncounted,
        "refused_and_not_replayed": count(
            facts.con, "SELECT count(*) FROM ops.dead_letters WHERE replayed_at IS NULL"
        ),
    }
    return ("fail" if differs else "unknown" if uncounted else "pass"), evidence


def checked(facts: Facts) -> Result:
    """The newest result of each declared check of severity error; of contracts' checks, where one exists."""
    must = {
        (model.name, check.name)
        for model in facts.models.values()
        for check in model.header.checks
        if check.severity == "error"
    }
    may = {
        (contract.table, check.name)
        for contract in facts.contracts.values()
        for check in contract.checks
        if check.severity == "error"
    }
    rows = facts.con.execute(
        "SELECT table_name, check_name, passed FROM ops.check_results WHERE severity = 'error' QUALIFY "
        "row_number() OVER (PARTITION BY table_name, check_name ORDER BY checked_at DESC, run_id, passed) = 1"
    ).fetchall()
    newest = {(table, name): passed for table, name, passed in rows if (table, name) in must | may}
    failed = sorted(f"{table} {name}" for (table, name), passed in newest.items() if not passed)
    never = sorted(f"{table} {name}" for table, name in must - set(newest))
    evidence = {
        "declared": len(must),
        "results": len(newest),
        "failed": failed[:SHOWN],
        "never_run": never[:SHOWN],
        "never_run_count": len(never),
    }
    if not must and not newest:
        return "not_applicable", evidence
    return ("fail" if failed else "unknown" if never else "pass"), evidence


def secrets(facts: Facts) -> Result:
    """Permissions of keys and state, and forms of tokens in what runs leave behind."""
    home = facts.home
    if not home.is_dir():
        return "unknown", {"reason": "the state folder does not exist"}
    state = home / "tenants" / facts.tenant.tenant
    folders = [folder for folder in (home, home / "tenants", state) if folder.is_dir()]
    closed = any(_private(folder) for folder in folders)
    keys = sorted(path for path in (home / "keys").rglob("*") if path.is_file())
    open_keys = [path for path in keys if not _private(path)]
    records = [path for folder in (state / "runs", home / "logs", state / "logs") for path in _files(folder)]
    looked_at, too_many = records[:MOST_FILES], len(records) > MOST_FILES
    tokens = sorted(str(path.relative_to(home)) for path in looked_at if _holds_token(path))
    evidence: dict[str, Any] = {
        "state_closed_to_others": closed,
        "key_files": len(keys),
        "key_files_open_to_others": [str(path.relative_to(home)) for path in open_keys],
        "records_searched": len(looked_at),
        "records_with_token": tokens[:SHOWN],
    }
    if not closed or open_keys or tokens:
        return "fail", evidence
    return (
        ("unknown", evidence | {"reason": "more records than are searched"})
        if too_many
        else ("pass", evidence)
    )


def _private(path: Path) -> bool:
    return not stat.S_IMODE(path.stat().st_mode) & 0o077


def _files(folder: Path) -> list[Path]:
    found = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    return sorted(found, key=lambda path: (-path.stat().st_mtime_ns, path.name))


def _holds_token(path: Path) -> bool:
    """Whether the file, at most its newest part, holds something of a secret's form."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - MOST_BYTES))
        return TOKENS.search(file.read(MOST_BYTES)) is not None


def orchestrator(facts: Facts) -> Result:
    """Prefect's settings in force against those that are safe."""
    if facts.orchestrator is None:
        return "unknown", {"reason": "the orchestrator's settings were not given"}
    found = {name: facts.orchestrator.get(name, "(not set)") for name in sorted(SAFE_SETTINGS)}
    wrong = sorted(name for name, value in found.items() if value.lower() != SAFE_SETTINGS[name])
    return ("fail" if wrong else "pass"), {"settings": found, "unsafe": wrong}
