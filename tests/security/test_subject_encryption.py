"""Keys of persons: equal values stay equal, only the person's key opens them, and destroyed means gone."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from omni.control import database
from omni.control.keys import SubjectKey, TenantKey
from omni.errors import ConfigError, TransientError
from omni.security.encryption import PREFIX, SubjectKeys
from omni.settings import settings


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("OMNI_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("OMNI_SECRET_KEY", "k" * 40)
    monkeypatch.delenv("OMNI_OLD_SECRET_KEYS", raising=False)
    settings.cache_clear()
    yield
    settings.cache_clear()


pytestmark = pytest.mark.usefixtures("either_database")


def rows(table):
    with database.engine().connect() as connection:
        return connection.execute(sa.select(table)).all()


ROWS = st.lists(st.tuples(st.none() | st.text(max_size=8), st.none() | st.text(max_size=40)), max_size=12)


@hypothesis(max_examples=40, deadline=None)
@given(ROWS)
def test_values_come_back_and_equal_ones_stay_equal(pairs):
    ids, values = [i for i, _ in pairs], [v for _, v in pairs]
    keys = SubjectKeys("acme")
    sealed = keys.encrypt("contact", ids, values)
    kept = [v if i is not None else None for i, v in pairs]
    assert keys.decrypt("contact", ids, sealed) == kept
    assert SubjectKeys("acme").encrypt("contact", ids, values) == sealed
    assert keys.withheld == sum(v is not None and i is None for i, v in pairs)
    for (i, v), text in zip(pairs, sealed, strict=True):
        assert (text is None) == (v is None or i is None)
        assert text is None or (text.startswith(PREFIX) and text.isascii())


def test_equal_values_of_two_persons_kinds_or_tenants_do_not_compare():
    keys = SubjectKeys("acme")
    ann, bob = keys.encrypt("contact", ["1", "2"], ["x@example.com"] * 2)
    (user,) = keys.encrypt("user", ["1"], ["x@example.com"])
    (other,) = SubjectKeys("other").encrypt("contact", ["1"], ["x@example.com"])
    assert len({ann, bob, user, other}) == 4


def test_the_database_names_nobody(control_content):
    SubjectKeys("acme").encrypt("contact", ["person-4711"], ["ann@example.com"])
    everything = control_content()
    assert b"person-4711" not in everything
    assert b"ann@example" not in everything


def test_an_erased_person_stays_erased_and_others_stay():
    keys = SubjectKeys("acme")
    sealed = keys.encrypt("contact", ["1", "2"], ["ann", "bob"])
    assert keys.destroy("contact", ["1", "1", "never seen"]) == 2
    assert keys.destroy("contact", ["1"]) == 0
    assert keys.decrypt("contact", ["1", "2"], sealed) == [None, "bob"]
    for again in (keys, SubjectKeys("acme")):
        assert again.encrypt("contact", ["1", "2", "never seen"], ["ann", "bob", "eve"]) == [
            None,
            sealed[1],
            None,
        ]
        assert again.withheld == 2


def test_a_destroyed_key_is_gone_from_the_files_too(control_content):
    keys = SubjectKeys("acme")
    ids = [str(number) for number in range(500)]
    keys.encrypt("contact", ids, ["x"] * 500)
    wrapped = [row.wrapped for row in rows(SubjectKey)]
    keys.destroy("contact", ids[:250])
    left = {row.wrapped for row in rows(SubjectKey)} - {None}
    everything = control_content()
    assert len(left) == 250
    assert [w for w in wrapped if w in everything and w not in left] == []
    assert all(w in everything for w in left)


@pytest.mark.parametrize("either_database", ["sqlite"], indirect=True)  # PostgreSQL has no log of this kind
def test_a_reader_that_keeps_destroyed_keys_in_the_log_is_told(control_content, either_database):
    keys = SubjectKeys("acme")
    keys.encrypt("contact", ["1"], ["ann"])
    (wrapped,) = [row.wrapped for row in rows(SubjectKey)]
    sa.event.listen(database.engine(), "connect", lambda c, _: c.execute("PRAGMA busy_timeout=50"))
    database.engine().dispose()
    with closing(sqlite3.connect(settings().home / "control.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM subject_keys").fetchone()
        for _ in range(2):
            with pytest.raises(TransientError, match=r"still holds their bytes.*Run this again"):
                keys.destroy("contact", ["1"])
        assert wrapped in control_content()
        assert keys.encrypt("contact", ["1"], ["ann"]) == [None]
    assert keys.destroy("contact", ["1"]) == 0
    assert wrapped not in control_content()


def test_a_value_of_somebody_else_or_in_the_clear_is_refused():
    keys = SubjectKeys("acme")
    ann, bob = keys.encrypt("contact", ["1", "2"], ["ann", "bob"])
    for wrong in (bob, "ann@example.com", "", ann[:-4], ann + "AAAA", PREFIX + "é"):
        with pytest.raises(ConfigError, match="does not decrypt") as error:
            keys.decrypt("contact", ["1"], [wrong])
        assert "ann" not in str(error.value)


def test_a_key_moved_to_another_person_does_not_open():
    keys = SubjectKeys("acme")
    keys.encrypt("contact", ["1", "2"], ["ann", "bob"])
    first, second = rows(SubjectKey)
    with database.session() as opened:
        opened.execute(
            sa.update(SubjectKey)
            .where(SubjectKey.subject_id_hash == first.subject_id_hash)
            .values(wrapped=second.wrapped)
        )
    with pytest.raises(ConfigError, match="Restore the control database"):
        SubjectKeys("acme").encrypt("contact", ["1", "2"], ["ann", "bob"])


def test_a_new_master_key_changes_no_ciphertext(monkeypatch):
    sealed = SubjectKeys("acme").encrypt("contact", ["1"], ["ann"])
    SubjectKeys("acme").destroy("contact", ["2"])
    before = rows(TenantKey)[0].sealed
    monkeypatch.setenv("OMNI_SECRET_KEY", "l" * 40)
    monkeypatch.setenv("OMNI_OLD_SECRET_KEYS", '["' + "k" * 40 + '"]')
    settings.cache_clear()
    assert SubjectKeys("acme").encrypt("contact", ["1", "2"], ["ann", "eve"]) == [*sealed, None]
    assert rows(TenantKey)[0].sealed != before
    monkeypatch.delenv("OMNI_OLD_SECRET_KEYS")
    settings.cache_clear()
    assert SubjectKeys("acme").decrypt("contact", ["1"], sealed) == ["ann"]


def test_with_a_wrong_master_key_nothing_is_encrypted(monkeypatch):
    SubjectKeys("acme").encrypt("contact", ["1"], ["ann"])
    monkeypatch.setenv("OMNI_SECRET_KEY", "l" * 40)
    settings.cache_clear()
    with pytest.raises(ConfigError, match="OMNI_OLD_SECRET_KEYS"):
        SubjectKeys("acme")


CREATE = """
import hashlib, sys
from omni.security.encryption import SubjectKeys
ids = [str(number) for number in range(3000)]
sys.stdin.readline()
print(hashlib.sha256("".join(SubjectKeys("acme").encrypt("contact", ids, ids)).encode()).hexdigest())
"""


@pytest.mark.slow
def test_processes_that_start_together_agree_on_every_key():
    pipe = subprocess.PIPE
    running = [
        subprocess.Popen([sys.executable, "-c", CREATE], stdin=pipe, stdout=pipe, text=True) for _ in range(3)
    ]
    for process in running:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = {process.communicate(timeout=120)[0] for process in running}
    assert len(said) == 1
    assert len(said.pop().strip()) == 64
    assert len(rows(SubjectKey)) == 3000


@pytest.mark.slow
def test_a_batch_is_quick():
    keys, spent = SubjectKeys("acme"), []
    for batch in range(3):
        ids = [f"{batch}-{number}" for number in range(5000)]
        started = time.process_time()
        keys.encrypt("contact", ids, ids)
        spent.append(time.process_time() - started)
    assert min(spent) < 0.3
