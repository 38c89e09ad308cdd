"""What the catalogue shows: declared things from the declarations, measured ones from the snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import duckdb

from omni.bi.metrics import Metric
from omni.catalogue.graph import Column, Graph, build_graph
from omni.catalogue.project import Project
from omni.catalogue.uses import Use, all_uses
from omni.errors import ConfigError
from omni.privacy.datamap import DataMap, build_map
from omni.tenancy import Tenant
from omni.warehouse.contracts import LINEAGE, ROW_HASH, Contract
from omni.warehouse.models import Model
from omni.warehouse.publish import open_snapshot
from omni.warehouse.unit_tests import build_empty, create_schemas, table_types

HISTORY = 30
"""Results of a check that are drawn, the latest last."""
OWN = {*LINEAGE, ROW_HASH}


@dataclass(frozen=True)
class Measured:
    """What the snapshot knows; empty without one."""

    as_of: str | None = None
    tables: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    builds: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    checks: Mapping[str, dict[str, list[dict[str, Any]]]] = field(default_factory=dict)


def catalogue_content(project: Project, tenant: Tenant) -> dict[str, Any]:
    """The catalogue as plain values.

    Returns:
        `tables` (by schema and name, each with its columns, what it is made of and who uses it), `metrics`,
        `title` and `as_of`, the moment of the newest build, null if nothing is published.
    """
    graph = build_graph(project.contracts, project.models)
    types = _types(project, tenant)
    personal = _marks(build_map(project.contracts, project.models))
    measured = read_measured(tenant)
    uses = _uses_by_table(all_uses(project))
    texts: dict[Column, tuple[str, str]] = {}
    tables = []
    for name in [*project.contracts, *_in_reading_order(project, graph)]:
        one = project.models.get(name) or project.contracts[name]
        columns = [
            _column(name, column, graph, project, types.get(name, {}), personal, texts)
            for column in graph.columns.get(name, [])
            if column not in OWN
        ]
        tables.append(_table(one, columns, graph, measured) | {"uses": uses.get(name, [])})
    return {
        "title": tenant.title,
        "as_of": measured.as_of,
        "tables": sorted(tables, key=lambda t: (_rank(t["name"]), t["name"])),
        "metrics": [_metric(metric) for metric in project.metrics.values()],
    }


def _in_reading_order(project: Project, graph: Graph) -> list[str]:
    return [name for name in graph.readings if name in project.models]


def _rank(table: str) -> int:
    order = ("marts", "core", "metrics", "staging", "raw", "seeds")
    schema = table.split(".")[0]
    return order.index(schema) if schema in order else len(order)


def _types(project: Project, tenant: Tenant) -> dict[str, dict[str, str]]:
    """Types of all columns, by binding every model on empty tables."""
    with duckdb.connect(":memory:", config={"autoinstall_known_extensions": "false"}) as con:
        create_schemas(con)
        build_empty(con, project.models, project.contracts, tenant)
        return table_types(con, project.models, project.contracts)


def _marks(found: DataMap) -> dict[Column, dict[str, str]]:
    marks: dict[Column, dict[str, str]] = {}
    for derived in found.derived:
        held = derived.source.personal
        marks[derived.table, derived.column] = {
            "category": held.category, "protect": held.protect, "through": derived.through,
        }  # fmt: skip
    for declared in found.declared:
        held = declared.personal
        marks[declared.table, declared.column] = {
            "category": held.category, "protect": held.protect, "through": "loaded",
        }  # fmt: skip
    return marks


def _column(
    table: str,
    column: str,
    graph: Graph,
    project: Project,
    types: Mapping[str, str],
    personal: Mapping[Column, dict[str, str]],
    texts: dict[Column, tuple[str, str]],
) -> dict[str, Any]:
    above = graph.above((table, column))
    text, origin = _description(table, column, graph, project, texts)
    texts[table, column] = (text, origin)
    contract = project.contracts.get(table)
    declared = contract.columns.get(column) if contract else None
    found: dict[str, Any] = {
        "name": column,
        "type": types.get(column, ""),
        "text": text,
        "above": [[f"{t}.{c}", through] for (t, c), through in above.items()],
    }
    if origin != table and text:
        found["text_from"] = origin
    if declared and contract and contract.source:
        found["field"] = f"{contract.source.vendor} {contract.source.object}: {declared.path or column}"
    if mark := personal.get((table, column)):
        found["personal"] = mark
    return found


def _description(
    table: str, column: str, graph: Graph, project: Project, texts: Mapping[Column, tuple[str, str]]
) -> tuple[str, str]:
    """A column's own words, else those of the one column it passes on, and the table they are from."""
    contract = project.contracts.get(table)
    if contract and column in contract.columns:
        return contract.columns[column].description or "", table
    if table.startswith("metrics.") and column == "value":
        metric = project.metrics.get(table.partition(".")[2])
        return (metric.description if metric else ""), table
    copied = [origin for origin, through in graph.above((table, column)).items() if through == "copied"]
    told = {texts.get(origin, ("", "")) for origin in copied}
    return told.pop() if len(told) == 1 else ("", table)


def _table(
    one: Model | Contract,
    columns: list[dict[str, Any]],
    graph: Graph,
    measured: Measured,
) -> dict[str, Any]:
    if isinstance(one, Model):
        name, header = one.name, one.header
        facts: dict[str, Any] = {
            "kind": header.kind,
            "owner": header.owner,
            "text": " ".join(header.description.split()),
            "grain": ", ".join(header.grain),
            "sql": "" if header.kind == "seed" or name.startswith("metrics.") else one.sql,
            "reads": [p for p in one.parents if p in graph.columns],
        }
        declared = [check.name for check in header.checks]
    else:
        name = one.table
        facts = {
            "kind": "loaded" if one.source else "result",
            "owner": one.owner,
            "text": " ".join(one.description.split()),
            "grain": one.grain,
            "sql": "",
            "reads": [],
            "source": f"{one.source.vendor} {one.source.object}" if one.source else "",
            "freshness_hours": one.freshness_hours,
            "retention": one.retention,
        }
        declared = [check.name for check in one.checks]
    results = measured.checks.get(name, {})
    checks = [
        {"name": check, "results": results.get(check, [])} for check in dict.fromkeys([*declared, *results])
    ]
    state = {**measured.tables.get(name, {}), **measured.builds.get(name, {})}
    return {"name": name, **facts, "columns": columns, "checks": checks, "state": state}


def _metric(metric: Metric) -> dict[str, Any]:
    return {
        "name": metric.name, "title": metric.title, "text": metric.description, "owner": metric.owner,
        "table": metric.table, "unit": metric.unit, "also": metric.synonyms,
    }  # fmt: skip


def _uses_by_table(uses: list[Use]) -> dict[str, list[dict[str, str]]]:
    """Who but the table itself names its columns."""
    found: dict[str, dict[tuple[str, str], list[str]]] = {}
    for use in uses:
        if use.name != use.table:
            columns = found.setdefault(use.table, {}).setdefault((use.kind, use.name), [])
            if use.column not in columns:
                columns.append(use.column)
    return {
        table: [{"kind": kind, "name": name, "columns": ", ".join(c)} for (kind, name), c in by.items()]
        for table, by in found.items()
    }


def read_measured(tenant: Tenant) -> Measured:
    """Rows, builds and check results from the published snapshot; nothing if there is none."""
    try:
        with open_snapshot(tenant) as con:
            return _measured(con)
    except ConfigError:
        return Measured()


def _measured(con: duckdb.DuckDBPyConnection) -> Measured:
    tables = {
        name: {"rows": rows, "changed": f"{changed:%Y-%m-%d %H:%M}"}
        for name, rows, changed in con.execute(
            "SELECT table_name, rows, changed_at FROM ops.tables"
        ).fetchall()
    }
    builds = {
        name: {"built": f"{built:%Y-%m-%d %H:%M}", "reason": reason, "seconds": seconds}
        for name, built, reason, seconds in con.execute(
            "SELECT model, built_at, reason, seconds FROM ops.models"
        ).fetchall()
    }
    checks: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for table, check, severity, rows, failing, passed, at in con.execute(
        "SELECT table_name, check_name, severity, rows, failing, passed, checked_at FROM ops.check_results "
        "QUALIFY row_number() OVER (PARTITION BY table_name, check_name ORDER BY checked_at DESC) <= $1 "
        "ORDER BY checked_at",
        [HISTORY],
    ).fetchall():
        checks.setdefault(table, {}).setdefault(check, []).append(
            {
                "severity": severity,
                "rows": rows,
                "failing": failing,
                "passed": passed,
                "at": f"{at:%Y-%m-%d %H:%M}",
            }
        )
    newest = con.execute("SELECT max(built_at) FROM ops.models").fetchone()
    as_of = f"{newest[0]:%Y-%m-%d %H:%M}" if newest and newest[0] else None
    return Measured(as_of, tables, builds, checks)
