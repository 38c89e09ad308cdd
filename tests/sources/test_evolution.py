"""What happens when a source's schema moves: new fields, values of another type, personal columns."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
import pytest

from omni import yamlfile
from omni.control import database as control
from omni.errors import SchemaError
from omni.sandbox.process import running
from omni.security.encryption import SubjectKeys
from omni.security.hashing import Hasher
from omni.settings import settings
from omni.sources.connection import Connection
from omni.sources.extract import extract
from omni.sources.parse import NOTE
from omni.sources.records import Shield, column_name, typed
from omni.warehouse.contracts import Contract
from omni.warehouse.database import open_warehouse
from omni.warehouse.load import load

TABLE = "raw.shop__people"
CONTRACT = """
table: raw.shop__people
description: people
owner: o@example.com
grain: one row per person
key: [id]
lawful_basis: contract
evolution: {new_fields: %s, misfits: %s}
columns:
  id: {type: string, nullable: false}
  age: {type: integer}
  email: {type: string, personal: {category: contact.email, subject: person, protect: %s}}
"""


def contract(new_fields="discard", misfits="quarantine", protect="hash"):
    return yamlfile.parse(CONTRACT % (new_fields, misfits, protect), Contract, "test")


def read(records, declared, cipher=None):
    return typed(records, [declared], Shield(Hasher(b"k" * 32), cipher), notice_new_fields=True)


PEOPLE = [
    {"id": "1", "age": 30, "email": None},
    {"id": "2", "age": 31, "email": None, "Favourite Colour": "red", "tags": ["a", {"b": 1}]},
]


def test_new_fields_are_ignored_unless_asked_for():
    result = read(PEOPLE, contract())
    assert result.frames[TABLE].columns == ["id", "age", "email"]
    assert (result.learned, result.rejected) == ({}, [])


def test_new_fields_become_columns():
    result = read(PEOPLE, contract(new_fields="evolve"))
    frame = result.frames[TABLE]
    assert frame["favourite_colour"].to_list() == [None, "red"]
    assert frame["tags"].to_list() == [None, '["a", {"b": 1}]']
    assert {name: c.path for name, c in result.learned[TABLE].items()} == {
        "favourite_colour": "Favourite Colour",
        "tags": "tags",
    }


def test_new_fields_stop_a_frozen_load():
    with pytest.raises(SchemaError, match="Favourite Colour, tags"):
        read(PEOPLE, contract(new_fields="freeze"))


def test_rows_with_new_fields_are_quarantined():
    result = read(PEOPLE, contract(new_fields="quarantine"))
    assert result.frames[TABLE]["id"].to_list() == ["1"]
    assert [(row["key"], row["reason"]) for row in result.rejected] == [
        ("2", "a field the contract does not declare")
    ]


ODD = [{"id": "1", "age": 30}, {"id": "2", "age": "unknown"}, {"id": "3", "age": {"years": 5}}]


def test_a_value_of_another_type_sends_its_row_to_the_dead_letters():
    result = read(ODD, contract())
    assert result.frames[TABLE]["id"].to_list() == ["1"]
    assert {row["key"]: row["column"] for row in result.rejected} == {"2": "age", "3": "age"}


def test_a_value_of_another_type_is_discarded_and_counted():
    result = read(ODD, contract(misfits="discard"))
    assert result.frames[TABLE]["age"].to_list() == [30, None, None]
    assert result.discarded == {f"{TABLE}.age": 2}


def test_a_value_of_another_type_is_kept_as_text():
    result = read(ODD, contract(misfits="evolve"))
    assert result.frames[TABLE]["age"].to_list() == [30, None, None]
    assert result.frames[TABLE]["age__text"].to_list() == [None, "unknown", '{"years": 5}']


def test_a_text_is_kept_as_the_source_wrote_it_without_its_modules_note():
    result = read([{"id": "1", "age": f"1,5{NOTE}with decimal ."}], contract(misfits="evolve"))
    assert result.frames[TABLE]["age__text"].to_list() == ["1,5"]


def test_a_value_of_another_type_stops_a_frozen_load():
    with pytest.raises(SchemaError, match="age: 2 values do not fit"):
        read(ODD, contract(misfits="freeze"))


def test_a_key_is_never_discarded():
    result = read([{"id": {"a": 1}, "age": 1}], contract(misfits="discard"))
    assert [row["column"] for row in result.rejected] == ["id"]


@pytest.mark.parametrize(
    ("path", "taken", "name"),
    [
        ("Last Name", (), "last_name"),
        ("billingCountry", (), "billing_country"),
        ("Région 2", (), "région_2"),
        ("2nd", (), "f_2nd"),
        ("--", (), "field"),
        ("A", {"a"}, "a_2"),
    ],
)
def test_column_names(path, taken, name):
    assert column_name(path, taken) == name


@pytest.fixture
def keys(home):
    yield SubjectKeys("acme")
    control.close()


def test_encrypted_values_are_stable_and_die_with_their_key(keys):
    people = [
        {"id": "1", "age": 1, "email": "ann@example.com"},
        {"id": "2", "age": 2, "email": "ann@example.com"},
    ]
    declared = contract(protect="encrypt")
    first, again = (read(people, declared, keys).frames[TABLE] for _ in range(2))
    assert first.equals(again)
    assert first["email"].n_unique() == 2
    assert not first["email"].str.contains("ann").any()
    assert keys.decrypt("person", ["1", "2"], first["email"].to_list()) == ["ann@example.com"] * 2
    keys.destroy("person", ["1"])
    assert keys.decrypt("person", ["1", "2"], first["email"].to_list()) == [None, "ann@example.com"]
    assert read(people, declared, keys).frames[TABLE]["email"].to_list()[0] is None


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["evolve", "freeze", "discard"])
def test_an_accounts_own_property_follows_the_contract(home, tenant, tmp_path, monkeypatch, policy):
    folder = tmp_path / "data"
    folder.mkdir()
    for entry in settings().data.iterdir():
        if entry.name != "contracts":
            (folder / entry.name).symlink_to(entry)
    source = settings().data / "contracts" / "raw"
    (folder / "contracts").mkdir()
    for path in source.glob("hubspot__contacts.yml"):
        text = path.read_text().replace("columns:", f"evolution: {{new_fields: {policy}}}\ncolumns:", 1)
        (folder / "contracts" / path.name).write_text(text)
    monkeypatch.setenv("OMNI_DATA", str(folder))
    settings.cache_clear()
    with running("demo", hubspot_per_10s=100_000) as sandbox:
        from pydantic import SecretStr

        def start():
            return extract(
                tenant, "hubspot", "contacts",
                Connection("hubspot", sandbox.url, SecretStr(sandbox.token), requests_per_10s=100_000),
                since=None, until=datetime(2100, 1, 1, tzinfo=UTC), run_id="r", folder=tmp_path / "staged",
            )  # fmt: skip

        if policy == "freeze":
            with pytest.raises(SchemaError, match="omni_lead_score"):
                start()
            return
        staged = start()
    frame = pl.read_parquet(staged.folder / staged.tables["raw.hubspot__contacts"][0])
    assert ("omni_lead_score" in frame.columns) == (policy == "evolve")
    if policy == "evolve":
        assert frame.schema["omni_lead_score"] == pl.Float64
        with open_warehouse(tenant) as warehouse, warehouse.cursor() as con:
            load(warehouse, staged)
            described = {row[0]: row[1] for row in con.execute("DESCRIBE raw.hubspot__contacts").fetchall()}
            assert described["omni_lead_score"] == "DOUBLE"
