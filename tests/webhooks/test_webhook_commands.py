"""The commands: what they print and do, and the served door in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager

import httpx
import pytest
from typer.testing import CliRunner

from omni.cli.app import app
from omni.control.database import now
from omni.settings import PROJECT, settings
from omni.webhooks import hooks, inbox
from omni.webhooks.events import Event
from omni.webhooks.inbox import Incoming
from omni.webhooks.receiver import CONNECTIONS


def omni(*arguments):
    result = CliRunner(env={"COLUMNS": "160"}).invoke(app, ["webhooks", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def failed(control):
    """Two events of which one was given up."""
    found = (
        Event("e1", "contact.creation", b'{"a": "zoe@example.com"}'),
        Event("e2", "deal.creation", b"{}"),
    )
    inbox.store([Incoming("demo", "hubspot", "", {}, found, now())], {("demo", "hubspot", "wrong"): 3})
    for _ in range(inbox.ATTEMPTS):
        inbox.fail([1], "contacts: gone")


def test_list_shows_states_reasons_and_refusals_but_no_contents(failed):
    text = omni("list").output
    for part in ("dead", "new", "contact.creation", "contacts: gone", "wrong"):
        assert part in text
    assert "zoe" not in text
    assert "deal.creation" not in omni("list", "--state", "dead").output.partition("refused")[0]


def test_a_senders_words_do_not_command_the_terminal(control):
    said = "x\x1b]0;owned\x07\x1b[2J\u202ey [/red]"
    inbox.store([Incoming("demo", "generic", "", {}, (Event("e1", said, b"{}"),), now())], {})
    text = omni("list").output
    assert "x]0;owned[2Jy [/red]" in text
    assert not {"\x1b", "\x07", "\u202e"} & set(text)


def test_replay_says_how_many_and_what_comes_next(failed):
    assert omni("replay", "--failed").output.startswith("1 events wait again: omni run drain_webhooks")
    assert omni("replay", "--id", "2").output.startswith("1 ")
    assert omni("replay", "--since", "2020-01-01", "--sender", "stripe").output.startswith("0 ")
    assert omni("replay", "--since", "2020-01-01").output.startswith("2 ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["replay"], "--id, --failed or --since"),
        (["replay", "--outgoing"], "--id or --failed"),
        (["replay", "--outgoing", "--since", "2020-01-01"], "--outgoing goes with"),
        (["replay", "--outgoing", "--id", "7"], "Not waiting to be sent: 7"),
        (["list", "--company", "nobody"], "Unknown tenant"),
        (["subscribe", "run.finished", "http://a.example/"], "https"),
        (["subscribe", "run.finished", "https://10.0.0.1/"], "private"),
        (["subscribe", "nothing", "https://a.example/"], "Unknown event"),
        (["unsubscribe", "sub_1"], "no subscription"),
        (["key", "0123", "--revoke"], "no key"),
        (["address", "fax"], "Senders here"),
        (["address", "stripe", "--token"], "Senders here"),
        (["address", "zapier"], "no secret yet"),
    ],
)
def test_mistakes_say_what_to_do(control, arguments, message):
    result = omni(*arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_subscribing_and_keys(control):
    made = omni("subscribe", "run.finished", "https://a.example/x").output.split()
    assert made[-1].startswith("whsec_")
    assert omni("unsubscribe", made[0]).exit_code == 0
    key = omni("key", "zapier").output.strip()
    assert hooks.authorized("demo", key)
    assert omni("key", key.split("_")[1], "--revoke").output.strip() == "Revoked."
    assert not hooks.authorized("demo", key)
    assert omni("deliver").output.strip() == "Nothing is owed."


def test_an_address_to_give_away(control, monkeypatch, secrets):
    monkeypatch.setenv("OMNI_WEBHOOKS__SECRETS", json.dumps({"demo/zapier": secrets["zapier"]}))
    monkeypatch.setenv("OMNI_PUBLIC_URL", "https://hooks.acme.example")
    settings.cache_clear()
    plain = omni("address", "zapier", "--source", "forms").output.strip()
    assert plain == "https://hooks.acme.example/webhooks/demo/zapier/forms"
    assert omni("address", "zapier", "--source", "forms", "--token").output.startswith(plain + "/")


@contextmanager
def served(**variables):
    """`omni webhooks serve` as a process of its own, killed at the end; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    child = subprocess.Popen(
        [sys.executable, "-c", "from omni.cli import app; app()", "webhooks", "serve", "--port", str(port)],
        env=os.environ | variables,
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        text=True,
    )
    base = f"http://127.0.0.1:{port}"
    try:
        assert child.stdout.readline().startswith(f"{base}/webhooks/")
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                httpx.get(f"{base}/health")
                break
            except httpx.ConnectError:
                continue
        yield base
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()


@pytest.mark.slow
def test_what_the_server_answered_survives_its_being_killed(control, home, sign, secrets):
    with served(OMNI_WEBHOOKS__SECRETS=json.dumps({"demo/stripe": secrets["stripe"]})) as base:
        for number in range(20):
            body = json.dumps({"id": f"evt_{number}", "type": "charge.succeeded"}).encode()
            path = "/webhooks/demo/stripe"
            answer = httpx.post(base + path, content=body, headers=sign("stripe", body, path))
            assert answer.status_code == 200
    assert inbox.listing("demo").counts == [("stripe", "new", 20)]


@pytest.mark.slow
def test_connections_over_the_most_are_answered_503(control, home):
    with served() as base, ExitStack() as open_ones:
        port = int(base.rpartition(":")[2])
        for _ in range(CONNECTIONS):
            open_ones.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        assert httpx.get(f"{base}/health").status_code == 503


@pytest.mark.slow
def test_the_flows_run_from_the_command_line(control, home):
    found = (
        Event("e1", "form", b'{"type": "form", "n": 1}'),
        Event("e2", "form", b'{"type": "form", "n": 2}'),
    )
    inbox.store([Incoming("demo", "generic", "", {}, found, now())], {})
    hooks.subscribe("demo", "run.finished", "https://a.example/x")
    for flow in ("drain_webhooks", "deliver_webhooks"):
        done = subprocess.run(
            [sys.executable, "-c", "from omni.cli import app; app()", "run", flow, "--ephemeral", "--json"],
            env=os.environ.copy(),
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["status"] == "done"
    assert inbox.listing("demo").counts == [("generic", "done", 2)]
