"""Fixtures for every area: a state folder of its own for each test, declarations on demand."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from omni.control import database
from omni.control.migrate import upgrade
from omni.control.models import Base
from omni.settings import settings
from omni.tenancy import Tenant

TEST_KEY = "a key for tests, long enough to pass the minimum"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty state folder and a fixed secret, so that hashes compare between runs."""
    monkeypatch.setenv("OMNI_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("OMNI_SECRET_KEY", TEST_KEY)
    settings.cache_clear()
    yield tmp_path / "state"
    settings.cache_clear()


@pytest.fixture
def tenant() -> Tenant:
    """A tenant for tests that need no source."""
    return Tenant(
        tenant="acme", title="Acme", timezone="Europe/Berlin", currency="EUR", company="demo", sources={}
    )


def _support(name: str) -> Any:
    path = Path(__file__).parent / "support" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"support_{name}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def mongod() -> Iterator[Any]:
    """A small MongoDB server (`tests/support/mongod.py`)."""
    with _support("mongod").mongod_running() as server:
        yield server


@pytest.fixture(scope="session")
def firestore_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Firestore emulator (`tests/support/firestore.py`); skips where it is not installed."""
    module = _support("firestore")
    if not module.installed():
        pytest.skip(module.MISSING)
    with module.emulator_running(tmp_path_factory.mktemp("firestore")) as address:
        yield address


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    """A PostgreSQL server (`tests/support/postgres.py`); skips where none can be had."""
    module = _support("postgres")
    running = module.postgres_running()
    try:
        server = running.__enter__()
    except module.Unavailable as error:
        pytest.skip(str(error))
    yield server
    running.__exit__(None, None, None)


@pytest.fixture(scope="session")
def migrated_postgres(postgres: Any) -> Iterator[str]:
    """The name of a migrated database that holds nothing, to be copied."""
    with postgres.database() as name:
        engine = sa.create_engine(postgres.url(name))
        upgrade(engine)
        engine.dispose()
        yield name


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def either_database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Runs a test twice: with the control database on SQLite, and on PostgreSQL. Yields which."""
    if request.param == "sqlite":
        yield "sqlite"
        database.close()
        return
    server = request.getfixturevalue("postgres")
    with server.database(request.getfixturevalue("migrated_postgres")) as name:
        monkeypatch.setenv("OMNI_CONTROL_URL", server.url(name))
        settings.cache_clear()
        yield "postgres"
        database.close()
        settings.cache_clear()


@pytest.fixture(scope="session")
def warehouse_server(postgres: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """`tests/support/warehouse_server.py`: PostgreSQL with the role that warehouses belong to."""
    state = tmp_path_factory.mktemp("state")
    with _support("warehouse_server").running(postgres, state) as server:
        yield server


@pytest.fixture
def postgres_warehouse(
    home: Path, warehouse_server: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Any]]:
    """Warehouses in a PostgreSQL database of the test's own; yields a way to connect to it as a role."""
    with warehouse_server.database() as name:
        monkeypatch.setenv("OMNI_WAREHOUSE_URL", warehouse_server.url(name))
        settings.cache_clear()
        yield lambda role="omni_app": warehouse_server.connect(name, role)


@pytest.fixture(params=["duckdb", pytest.param("postgres", marks=pytest.mark.slow)])
def either_warehouse(request: pytest.FixtureRequest, home: Path) -> str:
    """Runs a test twice: with the warehouse in DuckDB, and in PostgreSQL. Which of them."""
    if request.param == "postgres":
        request.getfixturevalue("postgres_warehouse")
    return str(request.param)


@pytest.fixture
def control_content() -> Callable[[], bytes]:
    """All that the control database holds: the files of SQLite, every value in PostgreSQL's tables."""

    def read() -> bytes:
        if database.engine().dialect.name == "sqlite":
            return b"".join(path.read_bytes() for path in settings().home.glob("control.db*"))
        with database.engine().connect() as connection:
            values = [
                value
                for table in Base.metadata.sorted_tables
                for row in connection.execute(sa.select(table))
                for value in row
            ]
        return b"\n".join(value if isinstance(value, bytes) else str(value).encode() for value in values)

    return read
