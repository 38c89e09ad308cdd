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
`:currency` and `:tenant` stand for the tenant's values.
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
from omni.yamlfile import Declaration

PARAMETERS = ("timezone", "currency", "tenant")


class Header(Declaration):
    """What a model's comment declares."""

    kind: Literal["view", "full", "incremental_by_time"]
    owner: str
    description: str
    grain: list[str] = Field(min_length=1)
    time_column: str | None = Field(None, description="a DATE in the tenant's zone")
    lookback: int = Field(0, ge=0, description="days before a changed day that change with it")
    checks: list[Check] = []

    @model_validator(mode="after")
    def _time(self) -> Self:
        if self.kind == "incremental_by_time" and self.time_column is None:
            raise ValueError("incremental_by_time needs a time_column")
        if self.kind == "view" and self.checks:
            raise ValueError("a view has no checks: put them on the table that reads it")
        return self


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

    def bound(self, tenant: Tenant) -> str:
        """The SELECT in DuckDB's dialect with the tenant's values in place of the parameters.

        Raises:
            ConfigError: the SQL uses a parameter that does not exist.
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

        key = tuple(values.values())
        if key not in self._bound:
            self._bound[key] = self.query.copy().transform(bind).sql("duckdb", comments=False)
        return self._bound[key]

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
    name = ".".join([*path.relative_to(folder).parent.parts, path.stem])
    model = Model(name, header, body.strip().rstrip(";"), str(path))
    _ = model.parents
    return model


def load_models(folder: Path) -> dict[str, Model]:
    """All models under a folder, by name."""
    return {model.name: model for model in (parse_model(p, folder) for p in sorted(folder.rglob("*.sql")))}


@lru_cache(maxsize=4)
def cached_models(folder: Path) -> dict[str, Model]:
    """`load_models`, read once per process."""
    return load_models(folder)


def in_order(models: Mapping[str, Model], known: Iterable[str]) -> list[Model]:
    """Models so that each comes after what it reads.

    Args:
        models: by name.
        known: tables that exist without a model: those with a contract.

    Raises:
        ConfigError: a model reads a table that is neither, or models read each other in a circle.
    """
    tables = set(known) | set(models)
    for model in models.values():
        for parent in model.parents:
            if parent not in tables:
                close = difflib.get_close_matches(parent, tables, n=1)
                hint = f"; did you mean {close[0]}?" if close else ""
                raise ConfigError(
                    f"{model.origin}: reads {parent}, which no model and no contract declares{hint}"
                )
    graph = {name: [p for p in model.parents if p in models] for name, model in models.items()}
    try:
        return [models[name] for name in graphlib.TopologicalSorter(graph).static_order()]
    except graphlib.CycleError as error:
        raise ConfigError(f"Models read each other in a circle: {' -> '.join(error.args[1])}") from None


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
    built and what is checked. Comments do not count.
    """
    header = model.header
    how = [header.kind, header.time_column, header.lookback, header.grain, header.checks]
    parts = [model.bound(tenant), *map(repr, how)]
    for parent in model.parents:
        view = models.get(parent)
        if view is not None and view.header.kind == "view":
            parts.append(fingerprint(view, models, tenant))
    return hashlib.sha256(repr(parts).encode()).hexdigest()
