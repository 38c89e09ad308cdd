"""Models: derived tables, each one SELECT with a small header, in dependency order.

    /*
    kind: full
    owner: shop@demo.example
    description: One row per order.
    grain: [order_id]
    checks:
      - unique: [order_id]
    */
    SELECT …

`data/models/core/orders.sql` is `core.orders`. Dependencies come from the SQL itself. `:timezone`,
`:currency` and `:tenant` stand for the tenant's values. A seed is a model too: a table kept as a CSV file
(`omni.warehouse.seeds`).

Kinds: `view`; `full` (built whole); `incremental_by_time` (only the windows that changed);
`incremental_by_key` (evaluated whole, and only the rows that differ are written); `snapshot` (every version
of a row, by its grain: the SELECT's columns, then valid_from, valid_to and is_current); `seed`.
"""

from __future__ import annotations

import difflib
import graphlib
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal, Self

import sqlglot
from pydantic import Field, model_validator
from sqlglot import exp

from omni import yamlfile
from omni.errors import ConfigError
from omni.tenancy import Tenant
from omni.warehouse.checks import Check
from omni.warehouse.contracts import contracts
from omni.warehouse.seeds import read_seed
from omni.yamlfile import Declaration

PARAMETERS = ("timezone", "currency", "tenant")
VALIDITY = {"valid_from": "TIMESTAMPTZ", "valid_to": "TIMESTAMPTZ", "is_current": "BOOLEAN"}
"""Columns a snapshot has besides its SELECT's: when a version began and ended (null: it has not)."""

Kind = Literal["view", "full", "incremental_by_time", "incremental_by_key", "snapshot", "seed"]


class Header(Declaration):
    """What a model's comment declares."""

    kind: Kind
    owner: str
    description: str
    grain: list[str] = Field(min_length=1)
    time_column: str | None = Field(None, description="a DATE in the tenant's zone; a window's first day")
    window: Literal["day", "week", "month"] = Field("day", description="what is rebuilt at a time")
    lookback: int | list[int] = Field(
        0, description="days before a changed day that change with it: 7, or just some as in [0, 1, 7]"
    )
    updated_column: str | None = Field(None, description="of a snapshot: when the source changed the row")
    rebuild_on: list[str] = Field([], description="inputs without the model's days: any change rebuilds it")
    checks: list[Check] = []

    @model_validator(mode="after")
    def _time(self) -> Self:
        if self.kind == "incremental_by_time" and self.time_column is None:
            raise ValueError("incremental_by_time needs a time_column")
        if self.kind == "view" and self.checks:
            raise ValueError("a view has no checks: put them on the table that reads it")
        if self.kind != "incremental_by_time" and (self.window != "day" or self.lookback or self.rebuild_on):
            raise ValueError("window, lookback and rebuild_on belong to incremental_by_time")
        if self.kind != "snapshot" and self.updated_column:
            raise ValueError("updated_column belongs to a snapshot")
        if any(days < 0 for days in self.lookbacks):
            raise ValueError("lookback counts days back: it is not negative")
        return self

    @property
    def lookbacks(self) -> tuple[int, ...]:
        """How many days after a changed day a row may still depend on it, 0 among them."""
        days = range(self.lookback + 1) if isinstance(self.lookback, int) else self.lookback
        return tuple(sorted({0, *days})) if self.lookback != 0 else (0,)


@dataclass(frozen=True)
class Model:
    """One derived table: its header, its SELECT as written, and where it came from."""

    name: str
    header: Header
    sql: str
    origin: str

    @cached_property
    def query(self) -> exp.Query:
        """The parsed SELECT."""
        try:
            statements = [s for s in sqlglot.parse(self.sql, read="duckdb") if s is not None]
        except sqlglot.errors.SqlglotError as error:
            raise ConfigError(
                f"{self.origin}: the SQL does not parse: {str(error).splitlines()[0]}"
            ) from None
        if len(statements) != 1 or not isinstance(statements[0], exp.Query):
            raise ConfigError(f"{self.origin}: a model is exactly one SELECT")
        return statements[0]

    @cached_property
    def parents(self) -> tuple[str, ...]:
        """Tables the SELECT reads, sorted; names of its own WITH clauses left out."""
        if self.header.kind == "seed":
            return ()
        own = {cte.alias for cte in self.query.find_all(exp.CTE)}
        found = set()
        for table in self.query.find_all(exp.Table):
            if table.db:
                found.add(f"{table.db}.{table.name}")
            elif table.name and table.name not in own:
                raise ConfigError(
                    f"{self.origin}: table {table.name!r} needs its schema, e.g. core.{table.name}"
                )
        return tuple(sorted(found))

    @cached_property
    def checked_against(self) -> tuple[str, ...]:
        """Tables that its checks compare it with."""
        checks = self.header.checks
        found = {check.relationship.to.rpartition(".")[0] for check in checks if check.relationship}
        found |= {check.reconcile.to for check in checks if check.reconcile}
        return tuple(sorted(found - {self.name}))

    def bound(self, tenant: Tenant) -> str:
        """The SELECT in DuckDB's dialect with the tenant's values in place of the parameters.

        Raises:
            ConfigError: the SQL uses a parameter that does not exist.
        """
        if self.header.kind == "seed":
            return self.sql
        key = (tenant.timezone, tenant.currency, tenant.tenant)
        if key not in self._bound:
            self._bound[key] = self.bound_query(tenant).sql("duckdb", comments=False)
        return self._bound[key]

    def bound_query(self, tenant: Tenant) -> exp.Query:
        """The parsed SELECT, a copy of the caller's own, with the tenant's values in it.

        Raises:
            ConfigError: as `bound`.
        """
        values = {"timezone": tenant.timezone, "currency": tenant.currency, "tenant": tenant.tenant}

        def bind(node: exp.Expression) -> exp.Expression:
            if not isinstance(node, exp.Placeholder):
                return node
            if node.name not in values:
                raise ConfigError(
                    f"{self.origin}: unknown parameter :{node.name}; known: {', '.join(values)}"
                )
            return exp.Literal.string(values[node.name])

        query = self.query.copy().transform(bind, copy=False)
        assert isinstance(query, exp.Query)
        return query

    def stored(self, tenant: Tenant) -> str:
        """A SELECT with the columns of the stored table: the model's own, and a snapshot's validity."""
        if self.header.kind != "snapshot":
            return self.bound(tenant)
        validity = ", ".join(
            f"CAST({'true' if name == 'is_current' else 'NULL'} AS {kind}) AS {name}"
            for name, kind in VALIDITY.items()
        )
        return f"SELECT built.*, {validity} FROM ({self.bound(tenant)}) AS built"

    @cached_property
    def _bound(self) -> dict[tuple[str, ...], str]:
        """The SELECT for all values that were asked for; writing it out takes milliseconds."""
        return {}


def parse_model(path: Path, folder: Path) -> Model:
    """Read one file.

    Args:
        path: the `.sql` file.
        folder: the models' root; the file's folder below it is the schema.

    Raises:
        ConfigError: no header, a wrong header, SQL that does not parse or is not one SELECT.
    """
    text = path.read_text(encoding="utf-8").strip()
    head, closed, body = text.partition("*/")
    if not text.startswith("/*") or not closed:
        raise ConfigError(f"{path}: a model begins with /* a YAML header */")
    header = yamlfile.parse(head[2:], Header, str(path))
    if header.kind == "seed":
        raise ConfigError(f"{path}: a seed is a CSV file under data/seeds, not a SELECT")
    name = ".".join([*path.relative_to(folder).parent.parts, path.stem])
    model = Model(name, header, body.strip().rstrip(";"), str(path))
    _ = model.parents
    return model


def load_models(folder: Path) -> dict[str, Model]:
    """All models under a folder, and the seeds in the folder `seeds` beside it, by name."""
    models = [parse_model(path, folder) for path in sorted(folder.rglob("*.sql"))]
    seeds = [_seed(path) for path in sorted((folder.parent / "seeds").glob("*.yml"))]
    return {model.name: model for model in [*seeds, *models]}


def _seed(path: Path) -> Model:
    seed, sql = read_seed(path)
    header = Header(
        kind="seed", owner=seed.owner, description=seed.description, grain=seed.grain, checks=seed.checks
    )
    return Model(f"seeds.{path.stem}", header, sql, str(path.with_suffix(".csv")))


@lru_cache(maxsize=4)
def cached_models(folder: Path) -> dict[str, Model]:
    """`load_models`, read once per process."""
    return load_models(folder)


def in_order(models: Mapping[str, Model], known: Iterable[str]) -> list[Model]:
    """Models so that each comes after what it reads, and if possible after what it is checked against.

    Args:
        models: by name.
        known: tables that exist without a model: those with a contract.

    Raises:
        ConfigError: a model reads a table that is neither, or models read each other in a circle.
    """
    tables = set(known) | set(models)
    for model in models.values():
        for name in model.header.rebuild_on:
            if name not in model.parents:
                raise ConfigError(f"{model.origin}: rebuild_on names {name}, which the SELECT does not read")
        for parent in model.parents:
            if parent not in tables:
                close = difflib.get_close_matches(parent, tables, n=1)
                hint = f"; did you mean {close[0]}?" if close else ""
                raise ConfigError(
                    f"{model.origin}: reads {parent}, which no model and no contract declares{hint}"
                )
    graph = {name: [p for p in model.parents if p in models] for name, model in models.items()}
    try:
        order = list(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        raise ConfigError(f"Models read each other in a circle: {' -> '.join(error.args[1])}") from None
    if _after_checked(models, graph, {name: at for at, name in enumerate(order)}):
        order = list(graphlib.TopologicalSorter(graph).static_order())
    return [models[name] for name in order]


def _after_checked(
    models: Mapping[str, Model], graph: dict[str, list[str]], place: Mapping[str, int]
) -> bool:
    """Add what models are checked against to the graph, unless that reads them; whether there was any."""
    added = False
    for name, model in models.items():
        for other in model.checked_against:
            if place.get(other, -1) > place[name] and name not in _reachable(graph, other):
                graph[name].append(other)
                added = True
    return added


def _reachable(graph: Mapping[str, list[str]], start: str) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += graph[name]
    return found


def stored_inputs(model: Model, models: Mapping[str, Model]) -> tuple[str, ...]:
    """The stored tables a model depends on, seen through views."""
    found: set[str] = set()
    for parent in model.parents:
        view = models.get(parent)
        if view is not None and view.header.kind == "view":
            found.update(stored_inputs(view, models))
        else:
            found.add(parent)
    return tuple(sorted(found))


def fingerprint(model: Model, models: Mapping[str, Model], tenant: Tenant) -> str:
    """Changes when what decides a model's rows changes, its inputs' rows apart.

    That is its SELECT and those of the views it reads through, with the tenant's values in them, how it is
    built, what is checked, and the contracted types of the columns it reads. Comments do not count.
    """
    header = model.header
    how = [
        header.kind, header.time_column, header.window, header.lookbacks, header.grain, header.checks,
        header.updated_column, header.rebuild_on,
    ]  # fmt: skip
    parts = [model.bound(tenant), *map(repr, how)]
    for parent in model.parents:
        view = models.get(parent)
        if view is not None and view.header.kind == "view":
            parts.append(fingerprint(view, models, tenant))
        elif parent in contracts():
            parts.append(repr(_types_used(model, contracts()[parent].column_types())))
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _types_used(model: Model, types: Mapping[str, str]) -> dict[str, str]:
    """The types of those columns the SELECT may name."""
    stars = [star for star in model.query.find_all(exp.Star) if not isinstance(star.parent, exp.Count)]
    if stars:
        return dict(types)
    named = {column.name for column in model.query.find_all(exp.Column)}
    return {name: kind for name, kind in types.items() if name in named}
