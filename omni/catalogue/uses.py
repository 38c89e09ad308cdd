"""Who names which column outside the models' SQL: metrics, checks, experiments, what leaves the house."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlglot
from sqlglot import exp

from omni.bi.exports import load_exports
from omni.bi.metrics import Metric
from omni.catalogue.project import Project
from omni.destinations.copy_declaration import load_copies
from omni.destinations.declaration import load_write_backs
from omni.experiments.declaration import load_experiments
from omni.ml.declaration import load_predictions
from omni.warehouse.checks import Check


@dataclass(frozen=True)
class Use:
    """One column that a declaration names.

    Attributes:
        kind: metric, dashboard, contract, model header, experiment, prediction, write-back, copy, export.
        name: the declaration's.
        file: where it is written.
        field: the field that names the column.
        table: the table it is read from.
        column: the column; `*` for the table as a whole.
    """

    kind: str
    name: str
    file: str
    field: str
    table: str
    column: str


def all_uses(project: Project) -> list[Use]:
    """Every column that a declaration names, models' SQL apart."""
    return [
        *_of_headers(project),
        *_of_contracts(project),
        *_of_metrics(project),
        *_of_dashboards(project),
        *_of_analyses(project),
        *_of_leaving(project),
    ]


def _of_headers(project: Project) -> Iterator[Use]:
    for model in project.models.values():
        if model.name.startswith("metrics."):
            continue  # made from the metric's own declaration, which is looked at as such
        header = model.header
        named = [("grain", c) for c in header.grain]
        named += [(f, c) for f in ("time_column", "updated_column") if (c := getattr(header, f, None))]
        for field, column in named:
            yield Use("model header", model.name, model.origin, field, model.name, column)
        yield from _of_checks("model header", model.name, model.origin, header.checks)


def _of_contracts(project: Project) -> Iterator[Use]:
    files = _files(project.folder / "contracts")
    for contract in project.contracts.values():
        origin = files.get(contract.table, f"contract of {contract.table}")
        yield from _of_checks("contract", contract.table, origin, contract.checks)


def _files(folder: Path) -> dict[str, str]:
    """By table, the contract's file: they are named after their tables or the tables' last part."""
    found = {}
    for path in sorted(folder.rglob("*.yml")):
        found[f"{path.parent.name}.{path.stem}"] = str(path)
        first = path.read_text(encoding="utf-8").partition("table:")[2].split("\n")[0].strip()
        found[first] = str(path)
    return found


def _of_checks(kind: str, table: str, file: str, checks: list[Check]) -> Iterator[Use]:
    for check in checks:
        for other, column in columns_of_check(check):
            yield Use(kind, table, file, f"checks {check.name}", other or table, column)


def columns_of_check(check: Check) -> list[tuple[str | None, str]]:
    """Columns a check names, with their table where it is not the checked one."""
    found: list[tuple[str | None, str]] = []
    for name in sorted(check.model_fields_set - {"reconcile"}):
        found += _named(name, getattr(check, name))
    if other := check.reconcile:
        for table, measure, where in (
            (None, other.measure, other.where),
            (other.to, other.to_measure or other.measure, other.to_where),
        ):
            for sql in filter(None, (measure, where)):
                found += [(table, column) for column in columns_of_condition(sql)]
            found += [(table, column) for column in other.by]
    return list(dict.fromkeys(found))


def _named(field: str, value: Any) -> list[tuple[str | None, str]]:
    """Columns within one part of a check, told by what its fields are called."""
    if isinstance(value, list) and field in ("not_null", "unique", "columns", "key"):
        return [(None, column) for column in value if isinstance(column, str)]
    if isinstance(value, str) and field in ("column", "time_column", "group_by"):
        return [(None, value)]
    if isinstance(value, str) and field == "to" and value.count(".") == 2:
        table, _, column = value.rpartition(".")
        return [(table, column)]
    if isinstance(value, str) and field in ("sql", "where", "filter"):
        return [(None, column) for column in columns_of_condition(value)]
    if hasattr(value, "model_fields_set"):
        return [pair for name in value.model_fields_set for pair in _named(name, getattr(value, name))]
    return []


def columns_of_condition(sql: str) -> list[str]:
    """Columns a condition names; those of subqueries left out."""
    try:
        parsed = sqlglot.parse_one(sql, read="duckdb")
    except sqlglot.errors.SqlglotError:
        return []
    inner = {id(c) for query in parsed.find_all(exp.Query) for c in query.find_all(exp.Column)}
    return sorted({c.name for c in parsed.find_all(exp.Column) if id(c) not in inner})


def _of_metrics(project: Project) -> Iterator[Use]:
    for metric in project.metrics.values():
        file = _metric_file(project, metric)
        for field, columns in metric.columns.items():
            for column in columns:
                yield Use("metric", metric.name, file, field, metric.model or "", column)
        for alias, join in metric.joins.items():
            for column in [join.target, *join.dimensions]:
                yield Use("metric", metric.name, file, f"joins.{alias}", join.model, column)
        for part in metric.parts:
            yield Use("metric", metric.name, file, "measure", f"metrics.{part}", "value")


def _metric_file(project: Project, metric: Metric) -> str:
    return str(project.folder / "metrics" / f"{metric.name}.yml")


def _of_dashboards(project: Project) -> Iterator[Use]:
    for file, board in project.boards.items():
        for number, panel in enumerate(board.panels, 1):
            metric = project.metrics.get(panel.metric or "")
            if metric is None:
                continue
            where = f"panel {number} ({panel.kind})"
            yield Use("dashboard", Path(file).stem, file, where, metric.table, "value")
            for part in [project.metrics[p] for p in metric.parts if p in project.metrics] or [metric]:
                if panel.dimension and part.model:
                    alias, _, column = panel.dimension.rpartition(".")
                    table = part.joins[alias].model if alias in part.joins else part.model
                    yield Use("dashboard", Path(file).stem, file, where, table, column)


def _of_analyses(project: Project) -> Iterator[Use]:
    folder = project.folder / "experiments"
    for experiment in load_experiments(folder).values():
        file = str(folder / f"{experiment.name}.yml")
        for column in experiment.columns:
            yield Use("experiment", experiment.name, file, "columns", experiment.table, column)
        for name in experiment.metrics:
            yield Use("experiment", experiment.name, file, "outcomes", f"metrics.{name}", "value")
    folder = project.folder / "predictions"
    for prediction in load_predictions(folder).values():
        file = str(folder / f"{prediction.name}.yml")
        for field in ("entity", "time", "label"):
            column = getattr(prediction, field)
            yield Use("prediction", prediction.name, file, field, prediction.table, column)
        yield Use("prediction", prediction.name, file, "features", prediction.table, "*")


def _of_leaving(project: Project) -> Iterator[Use]:
    folder = project.folder / "writebacks"
    for back in load_write_backs(folder).values():
        file = str(folder / f"{back.name}.yml")
        yield from _leaving("write-back", back, back.used, file)
    folder = project.folder / "copies"
    for copy in load_copies(folder).values():
        file = str(folder / f"{copy.name}.yml")
        yield from _leaving("copy", copy, copy.columns, file)
    folder = project.folder / "exports"
    for export in load_exports(folder).values():
        named = [*export.columns, *(text.split()[0] for text in export.order_by)]
        yield from _leaving("export", export, list(dict.fromkeys(named)), str(folder / f"{export.name}.yml"))


def _leaving(kind: str, one: Any, columns: list[str], file: str) -> Iterator[Use]:
    for column in columns:
        yield Use(kind, one.name, file, "columns", one.table, column)
    where = getattr(one, "where", None)
    for column in columns_of_condition(where) if where else ():
        yield Use(kind, one.name, file, "where", one.table, column)
