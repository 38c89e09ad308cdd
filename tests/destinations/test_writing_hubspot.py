"""Scores to HubSpot's contacts: only what changed, nothing twice, nothing lost, wrong rows set aside."""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import httpx
import pytest

from omni.destinations import hubspot
from omni.destinations.ledger import forget, known_rows, letters
from omni.destinations.plan import plan
from omni.destinations.write import planned
from omni.errors import AuthError, ConfigError, SchemaError, TransientError

pytestmark = pytest.mark.slow

BASE = "/crm/objects/2026-09/contacts"
SCORE = "omni_lead_score"


def ids(hub, number):
    found, after = [], "0"
    while len(found) < number:
        page = hub.api.get(BASE, params={"limit": 100, "after": after}).json()
        found += [row["id"] for row in page["results"]]
        after = page["paging"]["next"]["after"]
    return found[:number]


def scores(hub, keys):
    """The property at HubSpot, by id, where it has a value."""
    found = {}
    for start in range(0, len(keys), 100):
        inputs = [{"id": key} for key in keys[start : start + 100]]
        body = {"inputs": inputs, "properties": [SCORE]}
        for row in hub.api.post(f"{BASE}/batch/read", json=body).json()["results"]:
            if (value := row["properties"][SCORE]) is not None:
                found[row["id"]] = value
    return found


def test_first_all_then_nothing_then_what_changed(hub, published, declared, run):
    keys = ids(hub, 250)
    rows = {key: n / 1000 for n, key in enumerate(keys)}
    published(rows)
    assert run(declared(), hub).summary() == {
        "written": 250, "rejected": 0, "new": 250, "changed": 0, "leaving": 0, "unchanged": 0, "held": 0,
    }  # fmt: skip
    assert scores(hub, keys) == {key: f"{value:.3f}" for key, value in rows.items()}
    assert hub.asked()["hubspot batch_update contacts"] == 3
    again = run(declared(), hub)
    assert (again.written, again.planned["unchanged"]) == (0, 250)
    assert hub.asked()["hubspot batch_update contacts"] == 3
    published(rows | {keys[7]: 0.5, keys[8]: rows[keys[8]] + 0.0001})
    changed = run(declared(), hub)
    assert (changed.written, changed.planned["changed"], changed.planned["unchanged"]) == (1, 1, 249)
    assert scores(hub, keys)[keys[7]] == "0.500"


def test_a_wrong_row_is_set_aside_and_the_others_are_written(
    either_database, hub, published, declared, run, tenant, caplog
):
    keys = ids(hub, 3)
    published({keys[0]: "0.1", keys[1]: "secret words", keys[2]: "0.3", "99": "0.4"}, "VARCHAR")
    one = declared(columns={SCORE: "score"})
    done = run(one, hub)
    assert (done.written, done.rejected) == (2, 2)
    assert scores(hub, keys) == {keys[0]: "0.1", keys[2]: "0.3"}
    found = {letter.key: letter.reason for letter in letters(tenant.tenant, one)}
    assert found == {keys[1]: f"INVALID_INTEGER ({SCORE})", "99": "OBJECT_NOT_FOUND"}
    assert "secret" not in caplog.text
    held = run(one, hub)
    assert (held.written, held.rejected, held.planned["held"]) == (0, 0, 2)
    assert run(one, hub, replay=True).rejected == 2
    published({keys[0]: "0.1", keys[1]: "0.2", keys[2]: "0.3", "99": "0.4"}, "VARCHAR")
    mended = run(one, hub)
    assert (mended.written, mended.planned["held"]) == (1, 1)
    assert [letter.key for letter in letters(tenant.tenant, one)] == ["99"]


def test_a_batch_refused_as_a_whole_is_halved_until_the_wrong_row_is_known(
    hub, published, declared, run, serve_without_traces
):
    """As an account does whose object type does not tell inputs apart."""
    keys = ids(hub, 100)
    published({key: "x" if n == 41 else "0.5" for n, key in enumerate(keys)}, "VARCHAR")
    done = run(declared(columns={SCORE: "score"}), serve_without_traces(hub))
    assert (done.written, done.rejected) == (99, 1)
    assert keys[41] not in scores(hub, keys)
    assert len(scores(hub, keys)) == 99
    assert 13 <= hub.asked()["hubspot batch_update contacts"] <= 15


def test_a_crash_between_sending_and_noting_does_no_harm(
    either_database, hub, published, declared, run, tenant
):
    keys = ids(hub, 150)
    published(dict.fromkeys(keys, 0.25))
    one = declared()
    found = plan(tenant, one, {})
    with hubspot.opened(hub.connection) as client:
        hubspot.send(client, one, found.items[:100])  # … and the process dies before the ledger is written
    assert known_rows(tenant.tenant, one) == {}
    assert [item.token for item in plan(tenant, one, {}).items] == [item.token for item in found.items]
    assert run(one, hub).written == 150
    assert scores(hub, keys) == dict.fromkeys(keys, "0.250")
    assert run(one, hub).written == 0


def test_what_was_taken_before_a_failure_is_noted(either_database, hub, published, declared, run):
    keys = ids(hub, 250)
    published(dict.fromkeys(keys, 0.25))
    run(declared(), hub)
    published(dict.fromkeys(keys, 0.5))
    hub.fault("401", "batch/update", 1)
    with pytest.raises(AuthError):
        run(declared(), hub)
    assert set(scores(hub, keys).values()) == {"0.250"}
    published(dict.fromkeys(keys, 0.75))
    hub.api.post("/_sandbox/fault", json={"kind": "slow:0.001", "path": "batch/update", "times": 2})
    hub.fault("401", "batch/update", 1)
    with pytest.raises(AuthError):
        run(declared(), hub)
    assert sorted(set(scores(hub, keys).values())) == ["0.250", "0.750"]
    hub.calm()
    assert run(declared(), hub).written == 50


def test_a_row_whose_answer_was_lost_is_sent_again_even_if_it_is_as_before(
    either_database, hub, published, declared, run, tenant
):
    keys = ids(hub, 3)
    one = declared(on_leave={"clear": {SCORE: None}}, limits={"max_leaving": 1})
    published(dict.fromkeys(keys[:2], 0.25))
    run(one, hub)
    published({keys[0]: 0.5, keys[1]: 0.25, keys[2]: 0.5})
    hub.fault("cut_body", "batch/update", None)
    with pytest.raises(TransientError):
        run(one, hub)
    hub.calm()
    assert scores(hub, keys) == {keys[0]: "0.500", keys[1]: "0.250", keys[2]: "0.500"}
    published(dict.fromkeys(keys[:2], 0.25))
    assert run(one, hub).summary() == {
        "written": 2, "rejected": 0, "new": 0, "changed": 1, "leaving": 1, "unchanged": 1, "held": 0,
    }  # fmt: skip
    assert scores(hub, keys) == dict.fromkeys(keys[:2], "0.250")
    assert run(one, hub).written == 0


def test_a_refused_row_counts_as_what_was_written_before(hub, published, declared, run, tenant):
    keys = ids(hub, 2)
    one = declared(columns={SCORE: "score"})
    published(dict.fromkeys(keys, "0.1"), "VARCHAR")
    run(one, hub)
    published({keys[0]: "0.1", keys[1]: "words"}, "VARCHAR")
    assert run(one, hub).rejected == 1
    assert [letter.key for letter in letters(tenant.tenant, one)] == [keys[1]]
    published(dict.fromkeys(keys, "0.1"), "VARCHAR")
    assert run(one, hub).summary()["unchanged"] == 2
    assert letters(tenant.tenant, one) == []


def test_dead_letters_of_rows_that_are_gone_are_not_listed_any_more(
    either_database, hub, published, declared, run, tenant
):
    (key,) = ids(hub, 1)
    clearing = declared(columns={SCORE: "score"}, on_leave={"clear": {SCORE: None}})
    for one in (declared(name="plain", columns={SCORE: "score"}), clearing):
        published({key: "0.1", "99": "0.4"}, "VARCHAR")
        run(one, hub)
        assert [letter.key for letter in letters(tenant.tenant, one)] == ["99"]
        published({key: "0.1"}, "VARCHAR")
        planned(tenant, one)
        assert len(letters(tenant.tenant, one)) == 1
        assert run(one, hub).written == 0
        assert letters(tenant.tenant, one) == []


def test_rows_an_answer_does_not_name_are_not_written(hub, published, declared, run, proxied, tenant):
    keys = ids(hub, 3)
    published(dict.fromkeys(keys, 0.5))
    short = proxied(hub, answered=lambda body: {**body, "results": body["results"][:1]})
    done = run(declared(), short)
    assert (done.written, done.rejected) == (1, 2)
    assert {letter.reason for letter in letters(tenant.tenant, declared())} == {
        "HubSpot did not say what became of it"
    }
    assert run(declared(), hub).written == 2
    assert letters(tenant.tenant, declared()) == []


@pytest.mark.parametrize("kind", ["429", "429_retry_after", "500", "503", "cut_body", "malformed_json"])
def test_passing_faults_pass_and_each_row_is_there_once(hub, published, declared, run, kind):
    keys = ids(hub, 120)
    published({key: n / 1000 for n, key in enumerate(keys)})
    hub.fault(kind, "batch/update|properties", 2)
    done = run(declared(), hub)
    assert (done.written, done.rejected) == (120, 0)
    assert scores(hub, keys) == {key: f"{n / 1000:.3f}" for n, key in enumerate(keys)}


def test_a_destination_that_stays_down_loses_nothing(hub, published, declared, run):
    keys = ids(hub, 5)
    published(dict.fromkeys(keys, 0.5))
    hub.fault("503", "batch/update", None)
    with pytest.raises(TransientError):
        run(declared(), hub)
    hub.calm()
    assert run(declared(), hub).written == 5


def test_rows_that_leave_are_cleared_and_may_come_back(hub, published, declared, run):
    keys = ids(hub, 4)
    one = declared(on_leave={"clear": {SCORE: None}})
    published(dict.fromkeys(keys, 0.5))
    run(one, hub)
    published(dict.fromkeys(keys[:3], 0.5))
    left = run(one, hub)
    assert (left.written, left.planned["leaving"], left.planned["unchanged"]) == (1, 1, 3)
    assert scores(hub, keys) == dict.fromkeys(keys[:3], "0.500")
    assert run(one, hub).written == 0
    published(dict.fromkeys(keys, 0.5))
    back = run(one, hub)
    assert (back.written, back.planned["new"]) == (1, 1)
    assert scores(hub, keys) == dict.fromkeys(keys, "0.500")


def test_rows_that_leave_are_left_alone_unless_told(hub, published, declared, run):
    keys = ids(hub, 4)
    published(dict.fromkeys(keys, 0.5))
    run(declared(), hub)
    published({keys[0]: 0.5})
    assert run(declared(), hub).summary()["leaving"] == 0
    assert len(scores(hub, keys)) == 4


def test_too_much_at_once_is_refused_unless_forced(hub, published, declared, run):
    keys = ids(hub, 6)
    one = declared(on_leave={"clear": {SCORE: None}}, limits={"max_rows": 5, "max_leaving": 0.5})
    published(dict.fromkeys(keys, 0.5))
    with pytest.raises(ConfigError, match=r"6 rows to write, 5 are allowed.*--force"):
        run(one, hub)
    assert scores(hub, keys) == {}
    assert run(one, hub, force=True).written == 6
    published(dict.fromkeys(keys[:2], 0.5))
    with pytest.raises(ConfigError, match=r"4 of 6 written rows left ml\.scores"):
        run(one, hub)
    assert len(scores(hub, keys)) == 6
    assert run(one, hub, force=True).written == 4


def test_a_unique_property_updates_and_makes_records(hub, published, declared, run):
    (key,) = ids(hub, 1)
    known = hub.api.get(f"{BASE}/{key}", params={"properties": "external_id"}).json()
    external = known["properties"]["external_id"]
    published({external: 0.5, "X-1": 0.75})
    one = declared(key={"column": "lead", "property": "external_id"})
    assert run(one, hub).written == 2
    assert scores(hub, [key]) == {key: "0.500"}
    made = hub.api.get(f"{BASE}/X-1", params={"idProperty": "external_id", "properties": SCORE}).json()
    assert made["properties"][SCORE] == "0.750"
    assert run(one, hub).written == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"columns": {"no_such": "score"}}, "HubSpot has no property 'no_such'"),
        ({"columns": {"hs_merged_object_ids": "score"}}, "cannot be written"),
        ({"key": {"column": "lead", "property": "firstname"}}, "'firstname' is not unique"),
        ({"to": {"vendor": "hubspot", "object": "cars"}}, "no object type 'cars'"),
    ],
)
def test_what_hubspot_lacks_is_said_before_anything_is_written(hub, published, declared, run, changes, said):
    published({"20001": 0.5})
    with pytest.raises(SchemaError, match=said):
        run(declared(**changes), hub)
    assert not [label for label in hub.asked() if "batch" in label]


def test_the_ledger_keeps_no_value_and_can_forget_a_person(
    either_database, hub, published, declared, run, tenant, control_content
):
    keys = ids(hub, 2)
    published({keys[0]: ("0.5", "platinum"), keys[1]: ("0.6", "bronze")}, "VARCHAR")
    one = declared(columns={SCORE: "score", "job_level": "grade"})
    run(one, hub)
    assert known_rows(tenant.tenant, one).keys() == set(keys)
    stored = control_content()
    assert keys[0].encode() in stored
    assert b"platinum" not in stored
    assert forget(tenant.tenant, [keys[0]]) == 1
    assert known_rows(tenant.tenant, one).keys() == {keys[1]}


def test_another_destination_knows_nothing_of_the_first(hub, published, declared, run, tenant):
    published(dict.fromkeys(ids(hub, 3), 0.5))
    run(declared(), hub)
    elsewhere = declared(key={"column": "lead", "property": "external_id"})
    assert planned(tenant, elsewhere).summary()["new"] == 3


@pytest.fixture
def proxied():
    """Put a proxy before the sandbox that changes bodies of batches: `proxied(account, asked, answered)`."""
    with ExitStack() as stack:

        def start(account, asked=lambda body: body, answered=lambda body: body):
            url = stack.enter_context(_proxy(account, asked, answered))
            return SimpleNamespace(connection=replace(account.connection, base_url=url))

        yield start


@pytest.fixture
def serve_without_traces(proxied):
    """A proxy that drops `objectWriteTraceId`, so that batches fail as a whole."""

    def asked(body):
        return {"inputs": [{k: v for k, v in e.items() if k != "objectWriteTraceId"} for e in body["inputs"]]}

    return lambda account: proxied(account, asked=asked)


@contextmanager
def _proxy(account, asked, answered):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass(self):
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
            if raw:
                raw = json.dumps(asked(json.loads(raw))).encode()
            url = f"{account.connection.base_url}{self.path}"
            answer = httpx.request(self.command, url, content=raw, headers=account.api.headers)
            body = answer.content
            if raw and answer.is_success:
                body = json.dumps(answered(answer.json())).encode()
            self.send_response(answer.status_code)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = _pass

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
