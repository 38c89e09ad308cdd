"""The control database's migrations: equal to the models, quick when done, one at a time, never backwards."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory

from omni.control import database
from omni.control.migrate import differences, revisions, upgrade
from omni.control.models import Base
from omni.errors import ConfigError, StorageError
from omni.settings import settings


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def empty(request, home, monkeypatch):
    """An empty database that the settings name; yields a plain engine on it."""
    if request.param == "sqlite":
        made = sa.create_engine(f"sqlite:///{home.parent / 'control.db'}")
        yield from named(monkeypatch, made)
    else:
        server = request.getfixturevalue("postgres")
        with server.database() as name:
            yield from named(monkeypatch, sa.create_engine(server.url(name)))


def named(monkeypatch, made):
    monkeypatch.setenv("OMNI_CONTROL_URL", made.url.render_as_string(hide_password=False))
    settings.cache_clear()
    yield made
    made.dispose()
    database.close()
    settings.cache_clear()


def revision(engine):
    with engine.connect() as connection:
        return connection.scalars(sa.text("SELECT version_num FROM alembic_version")).all()


def test_migrated_tables_are_those_of_the_models(empty):
    with database.engine().connect() as connection:
        assert differences(connection) == []
        assert set(sa.inspect(connection).get_table_names()) == {*Base.metadata.tables, "alembic_version"}
    assert revision(empty) == revisions()[-1:]


def test_files_are_numbered_as_their_revisions_follow_each_other():
    scripts = ScriptDirectory(str(database.MIGRATIONS))
    assert [script.revision for script in scripts.walk_revisions()][::-1] == revisions()


def test_a_difference_would_be_noticed(empty):
    with database.engine().begin() as connection:
        connection.execute(sa.text("ALTER TABLE hook_keys DROP COLUMN digest"))
        connection.execute(sa.text("DROP INDEX webhook_inbox_age"))
        assert {change[0] for change in differences(connection)} == {"add_column", "add_index"}


def test_tables_made_before_there_were_migrations_are_taken_over_with_what_they_hold(empty):
    older = [table for table in Base.metadata.sorted_tables if table.name != "written_rows"]
    Base.metadata.create_all(empty, tables=older)
    with empty.begin() as connection:
        connection.execute(sa.text("INSERT INTO webhook_refusals VALUES ('a', 'b', 'c', '2026-01-01', 7)"))
    with database.engine().connect() as connection:
        assert connection.scalar(sa.text("SELECT refused FROM webhook_refusals")) == 7
        assert differences(connection) == []
    assert revision(empty) == revisions()[-1:]


def test_older_tables_that_differ_are_refused_and_left_as_they_are(empty):
    Base.metadata.create_all(empty)
    with empty.begin() as connection:
        connection.execute(sa.text("ALTER TABLE hook_keys DROP COLUMN digest"))
    with pytest.raises(ConfigError, match="digest"):
        database.engine()
    assert not sa.inspect(empty).has_table("alembic_version")


def test_a_database_of_a_newer_version_is_refused_and_left_as_it_is(empty):
    database.engine()
    database.close()
    with empty.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9000'"))
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"revision 9000; this version .* knows \d{4} at most"):
            database.engine()
    assert revision(empty) == ["9000"]


def test_a_migration_that_fails_leaves_no_trace(empty):
    with empty.begin() as connection:
        connection.execute(sa.text("CREATE VIEW written_rows AS SELECT 1 AS one"))
    with pytest.raises(StorageError, match="Cannot open the control database"):
        database.engine()
    assert sa.inspect(empty).get_table_names() == []


OPEN = """
import sys
from omni.control import database
print("ready", flush=True)
sys.stdin.readline()
with database.engine().connect() as connection:
    print(connection.exec_driver_sql("SELECT count(*) FROM written_rows").scalar())
"""


@pytest.mark.slow
def test_processes_that_open_a_new_database_at_once_migrate_it_once(empty):
    pipe = subprocess.PIPE
    running = [
        subprocess.Popen([sys.executable, "-c", OPEN], stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        for _ in range(4)
    ]
    for process in running:
        assert process.stdout.readline() == "ready\n"
    for process in running:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60) for process in running]
    assert said == [("0\n", "")] * 4
    assert revision(empty) == revisions()[-1:]


LOADED = """
import sys, time
from omni.control import database, migrate
started = time.perf_counter()
database.engine()
print(int(1e6 * (time.perf_counter() - started)), "alembic" in sys.modules)
"""


@pytest.mark.slow
def test_a_current_database_is_opened_without_alembic(empty):
    database.engine()
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, timeout=60)
    assert done.stdout.split()[1:] == ["False"], done.stderr


def test_a_current_database_costs_milliseconds(empty):
    engine, spent = database.engine(), []
    for _ in range(5):
        started = time.process_time()
        upgrade(engine)
        spent.append(time.process_time() - started)
    assert min(spent) < 0.01


def test_reading_whether_it_is_current_waits_for_no_writer(empty):
    database.engine()
    with database.engine().begin() as writer:
        writer.execute(sa.text("INSERT INTO webhook_refusals VALUES ('a', 'b', 'c', '2026-01-01', 7)"))
        upgrade(database.engine())


def test_a_missing_driver_is_named(home, monkeypatch):
    monkeypatch.setenv("OMNI_CONTROL_URL", "postgresql+pg8000://omni:secret-word@db.example/omni")
    settings.cache_clear()
    with pytest.raises(ConfigError, match=r"pg8000 is not installed.*omni-pipelines\[postgres\]") as error:
        database.engine()
    assert "secret-word" not in str(error.value)


def test_a_server_that_is_away_is_named_without_its_password(home, monkeypatch):
    monkeypatch.setenv("OMNI_CONTROL_URL", "postgresql://omni:secret-word@127.0.0.1:9/omni")
    settings.cache_clear()
    with pytest.raises(StorageError, match=r"postgresql\+psycopg://omni:\*\*\*@127\.0\.0\.1:9/omni") as error:
        database.engine()
    assert "secret-word" not in f"{error.value} {settings()!r}"
