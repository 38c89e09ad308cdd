"""Copies as declared: which columns of which published table go to which collection of a database."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from omni import yamlfile
from omni.destinations.declaration import Columns, parsed_condition
from omni.errors import ConfigError
from omni.settings import settings
from omni.yamlfile import Declaration


class Copy(Declaration):
    """One copy, one document per row of `table`, replaced whole when the table has changed."""

    name: str = Field(pattern=r"^[a-z]\w*$", max_length=100)
    title: str
    owner: str
    tenants: list[str] = Field([], description="whom it is for; all tenants when empty")
    table: str = Field(pattern=r"^[a-z]\w*\.[a-z]\w*$", description="schema.name among the published tables")
    where: str | None = Field(None, description="SQL condition on its columns")
    columns: list[str] = Field(min_length=1, description="what is copied; nothing else is")
    key: list[str] = Field(min_length=1, description="the columns among them that identify a row")
    destination: Literal["mongodb", "firestore"]
    collection: str = Field(
        "",
        pattern=r"^([A-Za-z]\w*)?$",
        max_length=100,
        description="its name there; the table's by default, with `__` for the dot",
    )
    personal: dict[str, str] = Field(
        {}, description="readable personal columns to copy, each with the reason"
    )

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if repeated := sorted({name for name in self.columns if self.columns.count(name) > 1}):
            raise ValueError(f"columns: {', '.join(repeated)} stands there twice")
        if missing := sorted(set(self.key) - set(self.columns)):
            raise ValueError(f"key: {', '.join(missing)} must be among the columns")
        if unused := sorted(set(self.personal) - set(self.columns)):
            raise ValueError(f"personal: {', '.join(unused)} is no column of this copy")
        if self.where and ";" in self.where:
            raise ValueError("where is one SQL condition")
        if self.target.startswith(("omni_", "system")) or self.target.endswith("__omni_staging"):
            raise ValueError(f"collection: {self.target} is a name kept for the house or the database")
        return self

    @property
    def target(self) -> str:
        """The collection's name."""
        return self.collection or self.table.replace(".", "__")

    def is_for(self, tenant: str) -> bool:
        """Whether it is one of a tenant's."""
        return not self.tenants or tenant in self.tenants


def load_copies(folder: Path | None = None) -> dict[str, Copy]:
    """All declared copies by name.

    Args:
        folder: where the YAML files are; default `data/copies`.

    Raises:
        ConfigError: a file is wrong, or its name differs from the copy's.
    """
    return yamlfile.load_folder(folder or settings().data / "copies", Copy)


@lru_cache(maxsize=4)
def _cached(folder: Path) -> dict[str, Copy]:
    return load_copies(folder)


def copies_of(tenant: str) -> list[Copy]:
    """A tenant's copies, by name."""
    return [one for one in _cached(settings().data / "copies").values() if one.is_for(tenant)]


def copy_named(name: str, tenant: str) -> Copy:
    """A declared copy of a tenant's.

    Raises:
        ConfigError: there is none of that name, or it is not for this tenant.
    """
    folder = settings().data / "copies"
    known = _cached(folder)
    if name not in known:
        raise ConfigError(
            f"There is no copy {name!r}. Known: {', '.join(known) or 'none'}. One is a file "
            f"{folder}/<name>.yml."
        )
    if not known[name].is_for(tenant):
        raise ConfigError(f"copy {name} is for {', '.join(known[name].tenants)}, not {tenant}")
    return known[name]


def refuse_personal(declared: Copy, hidden: Columns, readable: Columns) -> None:
    """Refuse columns that must not leave the house.

    Args:
        declared: the copy.
        hidden: by table, columns that hold personal data hashed or encrypted.
        readable: those that hold personal data in the clear.

    Raises:
        ConfigError: a column holds personal data and is not allowed by a reason, or is hashed or encrypted.
    """
    table, who = declared.table, f"copy {declared.name}"
    for column in sorted(set(hidden.get(table, ())) & set(declared.columns)):
        raise ConfigError(
            f"{who}: {table}.{column} holds personal data that is kept hashed or encrypted; it stays in the "
            "house. Leave it out."
        )
    for column in sorted((set(readable.get(table, ())) & set(declared.columns)) - set(declared.personal)):
        raise ConfigError(
            f"{who}: {table}.{column} holds personal data; if it may go to {declared.destination}, say why: "
            f"personal: {{{column}: …}}."
        )


def validate(declared: Mapping[str, Copy], columns: Columns, tenants: Collection[str]) -> None:
    """Check copies against the tables and tenants there are, and against each other.

    Raises:
        ConfigError: a table, column or tenant does not exist, readers do not get the table, or two copies
            would take each other's place.
    """
    from omni.warehouse.publish import SCHEMAS

    taken: dict[tuple[str, str], Copy] = {}
    for one in declared.values():
        who = f"copy {one.name}"
        if one.table.partition(".")[0] not in SCHEMAS:
            raise ConfigError(f"{who}: {one.table} is not published; tables in {', '.join(SCHEMAS)} are")
        if one.table not in columns:
            raise ConfigError(f"{who}: no contract and no model declares {one.table}")
        named = [*one.columns, *_named(one)]
        if missing := sorted(set(named) - set(columns[one.table])):
            raise ConfigError(
                f"{who}: {one.table} has no column {', '.join(missing)}; "
                f"it has {', '.join(columns[one.table])}"
            )
        if unknown := sorted(set(one.tenants) - set(tenants)):
            raise ConfigError(f"{who}: unknown tenant {', '.join(unknown)}")
        if (other := taken.setdefault((one.destination, one.target), one)) is not one:
            raise ConfigError(
                f"{who}: copy {other.name} goes to {one.destination}'s collection {one.target} already"
            )


def _named(declared: Copy) -> set[str]:
    """Columns its condition is about."""
    if declared.where is None:
        return set()
    from sqlglot import exp

    found, _ = parsed_condition(declared.where, f"copy {declared.name}")
    if found.find(exp.Query):
        raise ConfigError(f"copy {declared.name}: where is a condition on {declared.table}'s own columns")
    return {column.name for column in found.find_all(exp.Column)}
