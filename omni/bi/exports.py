"""Exports: published rows as a file that people open: CSV, Parquet or Excel.

    # data/exports/daily_sales.yml
    name: daily_sales
    title: Daily sales
    owner: shop@demo.example
    tenants: [demo]
    table: marts.daily_sales
    columns: [order_date, channel, country, orders, revenue]
    where: order_date >= DATE '2026-01-01'
    order_by: [order_date, channel, country]
    format: xlsx
    deliver: {to: [analysts@demo.example]}

Columns that hold personal data leave the house only with a reason (`personal`), hashed ones never; nor does
a table that nothing declares. `omni.bi.export_files` writes the files.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Literal, Self

import sqlglot
from pydantic import Field, field_validator, model_validator
from sqlglot import exp

from omni import yamlfile
from omni.errors import ConfigError
from omni.mail import is_address, one_line
from omni.settings import settings
from omni.yamlfile import Declaration

Format = Literal["csv", "parquet", "xlsx"]
Columns = Mapping[str, Collection[str]]
TABLE = r"^[a-z]\w*\.[a-z]\w*$"


class Delivery(Declaration):
    """To whom the file goes, through the outbox."""

    to: list[str] = Field(min_length=1, description="addresses")
    subject: str | None = Field(None, description="the export's title by default")
    note: str = Field("", description="text above the facts about the file")

    @model_validator(mode="after")
    def _addresses(self) -> Self:
        for address in self.to:
            if not is_address(address):
                raise ValueError(f"to: {address!a} is not an e-mail address (in ASCII, without a name)")
        return self

    @field_validator("subject")
    @classmethod
    def _one_line(cls, subject: str | None) -> str | None:
        return subject and one_line(subject)


class Export(Declaration):
    """One export of a published table."""

    name: str = Field(pattern=r"^[a-z]\w*$", max_length=100)
    title: str
    owner: str
    tenants: list[str] = Field([], description="whom it is for; all tenants when empty")
    table: str = Field(pattern=TABLE, description="schema.name among the published tables")
    columns: list[str] = Field(min_length=1, description="what is exported; nothing else is")
    where: str | None = Field(None, description="SQL condition on the table's columns")
    order_by: list[str] = Field([], description="columns, ascending")
    format: Format = "csv"
    personal: dict[str, str] = Field(
        {}, description="readable personal columns to export, each with the reason"
    )
    deliver: Delivery | None = None

    @field_validator("title")
    @classmethod
    def _one_line(cls, title: str) -> str:
        return one_line(title)

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if repeated := sorted({name for name in self.columns if self.columns.count(name) > 1}):
            raise ValueError(f"columns: {', '.join(repeated)} stands there twice")
        if unused := sorted(set(self.personal) - set(self.columns)):
            raise ValueError(f"personal: {', '.join(unused)} is no column of this export")
        _ = self.condition
        return self

    @property
    def condition(self) -> exp.Expr | None:
        """The parsed condition."""
        if self.where is None:
            return None
        try:
            found = sqlglot.parse_one(self.where, read="duckdb", into=exp.Condition)
        except sqlglot.errors.SqlglotError as error:
            raise ValueError(f"where: not a SQL condition: {str(error).splitlines()[0]}") from None
        if found.find(exp.Query, exp.AggFunc, exp.Window, exp.Placeholder, exp.Parameter):
            raise ValueError("where: only conditions on the table's own columns")
        return found

    @property
    def named(self) -> set[str]:
        """Every column it names."""
        inside = self.condition.find_all(exp.Column) if self.condition else ()
        return {*self.columns, *self.order_by, *(column.name for column in inside)}

    def is_for(self, tenant: str) -> bool:
        """Whether it is one of a tenant's."""
        return not self.tenants or tenant in self.tenants

    def sql(self) -> str:
        """The SELECT of its rows, in a fixed order."""
        where = f" WHERE {self.condition.sql('duckdb', comments=False)}" if self.condition else ""
        order = [*self.order_by, *(c for c in self.columns if c not in self.order_by)]
        listed = ", ".join(_quoted(name) for name in self.columns)
        ordered = ", ".join(f"{_quoted(name)} NULLS LAST" for name in order)
        return f"SELECT {listed} FROM {self.table}{where} ORDER BY {ordered}"


def load_exports(folder: Path | None = None) -> dict[str, Export]:
    """All declared exports by name.

    Raises:
        ConfigError: a file is wrong, or its name differs from the export's.
    """
    return yamlfile.load_folder(folder or settings().data / "exports", Export)


@lru_cache(maxsize=4)
def _cached(folder: Path) -> dict[str, Export]:
    return load_exports(folder)


def exports_of(tenant: str) -> list[Export]:
    """A tenant's exports, by name."""
    return [one for one in _cached(settings().data / "exports").values() if one.is_for(tenant)]


def export_named(name: str, tenant: str) -> Export:
    """A declared export of a tenant's.

    Raises:
        ConfigError: there is none of that name, or it is not for this tenant.
    """
    folder = settings().data / "exports"
    known = _cached(folder)
    if name not in known:
        raise ConfigError(
            f"There is no export {name!r}. Known: {', '.join(known) or 'none'}. One is a file "
            f"{folder}/<name>.yml."
        )
    if not known[name].is_for(tenant):
        raise ConfigError(f"export {name} is for {', '.join(known[name].tenants)}, not {tenant}")
    return known[name]


def validate(
    exports: Mapping[str, Export], columns: Columns, tenants: Collection[str], published: Collection[str]
) -> None:
    """Check exports against the tables and tenants there are.

    Args:
        exports: by name.
        columns: by table.
        tenants: their names.
        published: schemas that readers get.

    Raises:
        ConfigError: a table, column or tenant does not exist, or readers do not get the table.
    """
    for one in exports.values():
        who = f"export {one.name}"
        if one.table.partition(".")[0] not in published:
            raise ConfigError(f"{who}: {one.table} is not published; tables in {', '.join(published)} are")
        if one.table not in columns:
            raise ConfigError(f"{who}: no contract and no model declares {one.table}")
        if missing := sorted(one.named - set(columns[one.table])):
            raise ConfigError(
                f"{who}: {one.table} has no column {', '.join(missing)}; "
                f"it has {', '.join(columns[one.table])}"
            )
        if unknown := sorted(set(one.tenants) - set(tenants)):
            raise ConfigError(f"{who}: unknown tenant {', '.join(unknown)}")


def refuse_undeclared(export: Export, declared: Collection[str]) -> None:
    """Refuse a table that no declaration describes: whether it holds personal data is not known.

    Args:
        export: which.
        declared: tables with a contract, model, seed, metric or funnel.

    Raises:
        ConfigError: it is none of them.
    """
    if export.table not in declared or export.table.startswith("ops."):
        raise ConfigError(
            f"export {export.name}: no contract and no model declares {export.table}, so nobody says whether "
            "it holds personal data; it stays in the house. Export a declared table."
        )


def refuse_personal(export: Export, hidden: Columns, readable: Columns) -> None:
    """Refuse columns that must not leave the house.

    Args:
        export: which.
        hidden: by table, columns that hold personal data hashed or encrypted.
        readable: those that hold personal data in the clear.

    Raises:
        ConfigError: a column holds personal data and is not allowed by a reason, or is hashed or encrypted.
    """
    who, asked = f"export {export.name}", set(export.columns)
    if found := sorted(set(hidden.get(export.table, ())) & asked):
        raise ConfigError(
            f"{who}: {export.table}.{found[0]} holds personal data that is kept hashed or encrypted; it "
            "stays in the house. Leave it out."
        )
    if found := sorted((set(readable.get(export.table, ())) & asked) - set(export.personal)):
        raise ConfigError(
            f"{who}: {export.table}.{found[0]} holds personal data; if it may leave, say why: "
            f"personal: {{{found[0]}: …}}."
        )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def file_name(export: Export, day: date, format_: Format | None = None) -> str:
    """How a file of a day is called."""
    return f"{export.name}-{day.isoformat()}.{format_ or export.format}"


def facts(exported: Sequence[tuple[str, object]]) -> str:
    """Lines about a file, as a message says them."""
    width = max((len(name) for name, _ in exported), default=0)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in exported)
