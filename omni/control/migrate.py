"""Bringing the control database to the tables this version needs, with Alembic."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from omni.control.database import MIGRATIONS, alone, reading
from omni.errors import ConfigError


def upgrade(engine: sa.Engine) -> None:
    """Run the migrations that are missing, all or none, in one process at a time.

    Every process does this at its start, so Alembic is imported only where there is something to do.

    Raises:
        ConfigError: the database is of a newer version, or has tables of these names that differ.
    """
    known = revisions()
    with reading(engine) as connection:
        stored = _stored(connection)
    if stored == known[-1]:
        return
    with engine.begin() as connection:
        alone(connection, "control database: migrate")
        stored = _stored(connection)
        if stored == known[-1]:
            return
        if stored is not None and stored not in known:
            raise ConfigError(
                f"The control database is at revision {stored}; this version of Omni Pipelines knows "
                f"{known[-1]} at most. Install the version that wrote it, or restore a backup of before."
            )
        _migrate(connection, adopted=stored is None)


def revisions() -> list[str]:
    """The revisions there are, oldest first."""
    return sorted(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def _stored(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    return found


def _migrate(connection: sa.Connection, *, adopted: bool) -> None:
    from alembic import command
    from alembic.config import Config

    old = adopted and bool(set(sa.inspect(connection).get_table_names()) & {"tenant_keys", "oauth_tokens"})
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    command.upgrade(config, "head")
    if old and (wrong := differences(connection)):
        raise ConfigError(
            f"The control database has tables of an unreleased version that differ: {wrong[0]!r}. "
            "Correct them, or move the database away to start anew: tokens and keys of persons would be lost."
        )


def differences(connection: sa.Connection) -> list[Any]:
    """What Alembic would change for the tables to be those of `omni.control.models`."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from omni.control.models import Base

    found: list[Any] = compare_metadata(MigrationContext.configure(connection), Base.metadata)
    return found
