"""A lake: one warehouse that several processes write at once, on one machine or on many.

DuckLake keeps the tables as Parquet files in a folder (or object storage) and their catalogue in PostgreSQL.
Each process is a DuckDB of its own; the catalogue decides who comes first, and a loser tries again. Needs the
extra `lake`, whose extension files are the ones DuckDB signs.

A tenant has a catalogue schema and a data folder of its own. `omni.warehouse.lake_build` fills it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from omni.errors import ConfigError, StorageError, WarehouseLocked
from omni.files import private_folder
from omni.settings import settings
from omni.tenancy import Tenant
from omni.warehouse.database import configuration

if TYPE_CHECKING:
    import sqlalchemy as sa

EXTENSIONS = ("ducklake", "postgres_scanner")
CONNECT_SECONDS = 10
SCHEMAS = ("raw", "seeds", "staging", "core", "marts", "metrics", "ops")

_LEDGER = """
CREATE TABLE IF NOT EXISTS ops.built (table_name VARCHAR, fingerprint VARCHAR, content_hash VARCHAR,
    "rows" BIGINT, run_id VARCHAR, built_at TIMESTAMPTZ);
"""


@dataclass(frozen=True)
class Place:
    """Where a tenant's lake is; what a worker process needs to open it.

    Attributes:
        catalog: PostgreSQL's address, with its password.
        data: folder or object store address of the Parquet files.
        schema: the catalogue's schema in PostgreSQL.
    """

    catalog: str
    data: str
    schema: str

    def __repr__(self) -> str:
        return f"Place({self.schema})"


def place_of(tenant: Tenant) -> Place:
    """Where a tenant's lake is, by the settings.

    Raises:
        ConfigError: no catalogue is set.
    """
    catalog = settings().lake_catalog
    if catalog is None:
        raise ConfigError(
            "No lake is set up: OMNI_LAKE_CATALOG names the PostgreSQL database that keeps its catalogue, "
            "for example OMNI_LAKE_CATALOG=postgresql://omni@db.example/lake"
        )
    data = settings().lake_data or str(settings().home / "lake")
    return Place(catalog.get_secret_value(), f"{data.rstrip('/')}/{tenant.tenant}/", f"lake_{tenant.tenant}")


def extension(name: str) -> Path:
    """The file of one of DuckDB's extensions, from its package.

    Raises:
        ConfigError: it is not installed, or made for another version of DuckDB.
    """
    spec = importlib.util.find_spec(f"duckdb_extension_{name}")
    if spec is None or spec.origin is None:
        raise ConfigError(
            f"DuckDB's extension {name} is not installed: pip install 'omni-pipelines[lake]' (with uv: "
            "uv sync --extra lake)"
        )
    folder = Path(spec.origin).parent / "extensions"
    file = folder / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"
    if not file.exists():
        made_for = ", ".join(sorted(path.name for path in folder.glob("v*"))) or "no version"
        raise ConfigError(
            f"DuckDB's extension {name} is for {made_for}, but DuckDB is {duckdb.__version__}: install the "
            "two in the same version (the extra `lake` does)"
        )
    return file


@contextmanager
def open_lake(place: Place, *, threads: int | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection whose tables are the lake's: `core.orders` is the lake's orders.

    Args:
        place: whose lake.
        threads: how many DuckDB may use; its own choice by default.

    Raises:
        ConfigError: the extensions are missing.
        StorageError: the catalogue does not answer.
    """
    with duckdb.connect(config=configuration()) as con:
        attach(con, place, "lake")
        con.execute("USE lake")
        con.execute("SET TimeZone = 'UTC'")
        if threads:
            con.execute(f"SET threads = {threads}")
        yield con


def attach(con: duckdb.DuckDBPyConnection, place: Place, name: str) -> None:
    """Attach the lake to a connection under a name.

    The password goes into a secret of the connection, which DuckDB neither stores nor shows.

    Raises:
        ConfigError: the extensions are missing.
        StorageError: the catalogue does not answer.
    """
    for needed in EXTENSIONS:
        con.execute(f"LOAD {_text(str(extension(needed)))}")
    if "://" not in place.data:
        private_folder(Path(place.data))
    con.execute(f"CREATE OR REPLACE SECRET lake_catalog ({_login(place.catalog)})")
    try:
        address = _text("ducklake:postgres:" + _options(place.catalog))
        con.execute(
            f"ATTACH {address} AS {name} (DATA_PATH {_text(place.data)}, "
            f"METADATA_SCHEMA {_text(place.schema)}, META_SECRET lake_catalog)"
        )
    except duckdb.Error as error:
        raise StorageError(
            f"The lake's catalogue {place.schema} cannot be opened: {type(error).__name__}. Check "
            "OMNI_LAKE_CATALOG, and that OMNI_LAKE_DATA is where the lake was made."
        ) from None


def prepare(con: duckdb.DuckDBPyConnection) -> None:
    """Make the schemas and the ledger of what was built; before anybody else writes."""
    for schema in SCHEMAS:
        con.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
    con.execute(_LEDGER)


@contextmanager
def alone(place: Place) -> Iterator[None]:
    """Be the only one who builds this lake; released at the end, and when the process dies.

    Raises:
        WarehouseLocked: another process builds it.
        StorageError: the catalogue does not answer.
    """
    import psycopg

    url = _url(place.catalog).set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        held = psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_SECONDS)
    except psycopg.OperationalError as error:
        raise StorageError(
            f"The lake's catalogue {place.schema} cannot be opened: {type(error).__name__}. Check "
            "OMNI_LAKE_CATALOG."
        ) from None
    with held:
        row = held.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", [place.schema]).fetchone()
        if row is None or not row[0]:
            raise WarehouseLocked(
                f"The lake {place.schema} is being built by another process. Let it finish, then run again."
            )
        yield


def _url(address: str) -> sa.URL:
    """PostgreSQL's address.

    Raises:
        ConfigError: it is not one.
    """
    import sqlalchemy as sa

    try:
        return sa.make_url(address)
    except sa.exc.ArgumentError:
        raise ConfigError("OMNI_LAKE_CATALOG: not an address, as postgresql://user@host/database") from None


def _login(address: str) -> str:
    """The parts of PostgreSQL's address as a secret's options."""
    url = _url(address)
    host = url.host or url.query.get("host")
    given = {
        "HOST": str(host) if host else None,
        "PORT": str(url.port) if url.port else None,
        "DATABASE": url.database,
        "USER": url.username,
        "PASSWORD": url.password,
    }
    return ", ".join(
        ["TYPE postgres", *(f"{name} {_text(value)}" for name, value in given.items() if value is not None)]
    )


def _options(address: str) -> str:
    """The address's other options, such as sslmode, as the driver takes them."""
    options = {"connect_timeout": str(CONNECT_SECONDS), **_url(address).query}
    return " ".join(f"{name}={value}" for name, value in sorted(options.items()) if name != "host")


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
