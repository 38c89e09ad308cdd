"""Events from files and by command: NDJSON, JSON, Parquet and CSV, what is wrong with them, the commands."""

from __future__ import annotations

import json

import polars as pl
import pytest
from typer.testing import CliRunner

from omni.cli import app
from omni.errors import SourceError
from omni.usage.files import spool_file
from omni.usage.spool import Spool, read_segment

ROWS = [
    {"id": "1", "source": "shop", "type": "purchase", "time": "2020-01-05T10:00:00Z", "actor": "u1",
     "order_id": "o1", "items": 3},
    {"id": "2", "source": "shop", "type": "purchase", "time": "2020-01-06T10:00:00Z", "actor": None,
     "order_id": "o2", "items": None},
]  # fmt: skip
KEPT = [("1", "purchase", '{"items":3,"order_id":"o1"}'), ("2", "purchase", '{"order_id":"o2"}')]


def write(path, rows=ROWS):
    frame = pl.DataFrame(rows)
    match path.suffix:
        case ".parquet":
            frame.with_columns(pl.col("time").str.to_datetime(time_zone="UTC")).write_parquet(path)
        case ".csv":
            frame.write_csv(path)
        case _:
            own = ("id", "source", "type", "time", "actor")
            events = [
                {**{k: row[k] for k in own}, "data": {k: v for k, v in row.items() if k not in own}}
                for row in rows
            ]
            lines = "\n".join(map(json.dumps, events))
            path.write_text(json.dumps(events) if path.suffix == ".json" else lines)
    return path


@pytest.mark.parametrize("name", ["e.ndjson", "e.jsonl", "e.json", "e.parquet", "e.csv"])
def test_every_kind_of_file_gives_the_same_events(home, tenant, tmp_path, load, ask, name):
    path = write(tmp_path / name)
    for _ in range(2):
        spool = Spool.of(tenant)
        taken = spool_file(tenant, path, spool)
        spool.seal()
        assert (taken.accepted, taken.refused, taken.dropped) == (2, 0, 0)
        load()
    assert ask("SELECT event_id, event, properties FROM raw.usage__events ORDER BY 1") == KEPT
    assert ask("SELECT count(actor_id) FROM raw.usage__events") == [(1,)]


def test_a_json_column_holds_properties_too(home, tenant, tmp_path):
    rows = [{**ROWS[0], "data": '{"amount_minor": 5, "odd": 1}'}, {**ROWS[1], "data": "no JSON"}]
    path = write(tmp_path / "e.parquet", rows)
    spool = Spool.of(tenant)
    taken = spool_file(tenant, path, spool)
    assert (taken.accepted, taken.refused, taken.dropped) == (1, 1, 1)
    assert "Expected `object" in next(iter(taken.reasons))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("e.xlsx", b"", "events come as .ndjson"),
        ("e.csv", b"id,type\n1,login\n", "has no column source"),
        ("e.csv", b"", "[Ee]mpty"),
        ("e.parquet", b"no parquet", "Kept so far: 0 events"),
        ("e.json", b"[{", "no JSON array"),
        ("e.json", b"[" * 9_999, "no JSON array"),
        ("missing.csv", None, "is no file"),
    ],
)
def test_a_wrong_file_is_told_with_its_name(home, tenant, tmp_path, name, content, said):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=f"(?s){name}.*{said}"):
        spool_file(tenant, path, Spool.of(tenant))


@pytest.fixture
def omni(home):
    """Run a command; gives its exit status and output."""

    def run(*args):
        result = CliRunner().invoke(app, ["events", *args])
        return result.exit_code, result.output

    return run


def test_a_file_is_loaded_by_command_and_repeats_are_told(omni, tmp_path):
    path = str(write(tmp_path / "e.csv"))
    status, output = omni("load", path)
    assert status == 0
    assert output.splitlines() == [
        f"{path}: 2 events, 0 refused, 0 properties dropped",
        "2 events loaded on 2 days, 0 were there already",
    ]
    status, output = omni("load", path, "--json")
    assert status == 0
    assert json.loads(output)["repeated"] == 2


def test_a_column_without_a_value_leaves_the_object_alone(home, tenant, tmp_path):
    rows = [{**ROWS[0], "data": '{"items": 5}', "items": None, "order_id": "o1"}]
    path = tmp_path / "e.parquet"
    pl.DataFrame(rows, schema_overrides={"items": pl.Int64}).write_parquet(path)
    spool = Spool.of(tenant)
    spool_file(tenant, path, spool)
    [row] = read_segment(spool.seal()).rows.to_pylist()
    assert row["properties"] == '{"items":5,"order_id":"o1"}'


def test_damaged_files_are_told_until_they_are_removed(omni, home):
    omni("send", "login")
    folder = home / "tenants" / "demo" / "spool" / "events"
    (folder / "00000000000000000000-1-1.seg").write_bytes(b"garbage")
    status, output = omni("load")
    assert status == 1
    assert "1 segments are damaged" in output
    assert "remove the files" in omni("status")[1]
    assert json.loads(omni("status", "--json")[1])["damaged"] == 1


def test_refused_events_make_the_command_fail_with_reasons(omni, tmp_path):
    path = tmp_path / "e.ndjson"
    path.write_text('{"id": "1", "source": "a", "type": "unheard"}\n')
    status, output = omni("load", str(path))
    assert status == 1
    assert "1 × event not declared in data/events" in output


def test_events_are_sent_into_the_spool_and_wait(omni):
    assert omni("send", "purchase", "-p", "order_id=o1", "-p", "items=2")[0] == 0
    assert omni("send", "--sample", "20")[0] == 0
    assert "2 segments" in omni("status")[1]
    assert json.loads(omni("load", "--json")[1])["inserted"] == 21
    assert "0 segments" in omni("status")[1]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("send",), "Name an event"),
        (("send", "page_vew"), "did you mean page_view"),
        (("send", "purchase", "-p", "items"), "write NAME=VALUE"),
        (("send", "purchase", "-p", "items=many"), "not a number"),
        (("send", "login", "--url", "http://127.0.0.1:9"), "OMNI_EVENTS_KEY holds no write key"),
        (("load", "nowhere.csv"), "is no file"),
        (("serve", "-c", "demo"), "no write key yet"),
        (("live", "--once", "-m", "revenue"), "no metric that comes from"),
        (("status", "-c", "nobody"), "Unknown tenant"),
    ],
)
def test_what_cannot_be_done_is_said(omni, args, said):
    status, output = omni(*args)
    assert status == 2
    assert said in " ".join(output.split())


def test_a_key_is_shown_with_what_to_set(omni):
    key, setting = omni("key", "--read")[1].splitlines()
    assert key.startswith("omr_")
    assert setting.startswith('OMNI_EVENTS__READ_KEYS=\'{"demo": "')
    assert key not in setting


def test_the_declared_events_are_listed(omni):
    assert json.loads(omni("list", "--json")[1])["purchase"]["properties"]["order_id"]["required"]
    assert "add_to_cart" in omni("list")[1]
