"""`omni connect` from consent to reading, without a browser; `connections` and `disconnect`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager

import httpx
import pytest
from typer.testing import CliRunner

from omni.cli import app
from omni.control import database
from omni.sandbox.oauth import CLIENT_ID, STRIPE_CLIENT_ID
from omni.sandbox.process import running
from omni.settings import settings
from omni.sources import hubspot
from omni.sources.http import Http
from omni.sources.oauth_store import find, stored_connection

pytestmark = pytest.mark.slow


def omni(*arguments):
    result = CliRunner().invoke(app, list(arguments))
    return result, re.sub(r"\s+", " ", result.output)


@pytest.fixture(scope="module")
def sandbox():
    with running("demo", hubspot_per_10s=5_000) as started:
        yield started


@pytest.fixture(autouse=True)
def _state(home, sandbox, monkeypatch):
    monkeypatch.setenv("VENDOR_SECRET", sandbox.token)
    yield
    database.close()


def act(sandbox, **body):
    httpx.post(f"{sandbox.url}/_sandbox/oauth", json=body, trust_env=False).raise_for_status()


@contextmanager
def connecting(sandbox, vendor, *more):
    """A running `omni connect` that printed its consent page: the process and the address."""
    command = [sys.executable, "-c", "from omni.cli import app; app()", "connect", vendor, "--no-browser"]
    command += ["--at", sandbox.url, "--wait", "60", *more]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True)
    lines = []
    try:
        while not (lines and lines[-1].startswith("http")):
            lines.append(process.stdout.readline())
            assert lines[-1], "".join(lines)
        yield process, lines[-1].strip()
    finally:
        process.kill()
        process.wait(timeout=30)


def client_of(vendor):
    name = STRIPE_CLIENT_ID if vendor == "stripe" else CLIENT_ID
    return ["--client-id", name, "--client-secret-env", "VENDOR_SECRET"]


def visit(page):
    """What a browser does: follow the consent page to the loopback address."""
    return httpx.get(page, follow_redirects=True, trust_env=False, timeout=60)


def test_an_account_is_connected_read_listed_and_disconnected(sandbox):
    with connecting(sandbox, "hubspot", *client_of("hubspot")) as (process, page):
        shown = visit(page)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "HubSpot is connected" in shown.text
    assert shown.headers["cache-control"] == "no-store"
    assert "is renewed by itself" in said
    assert "Next: omni nightly --company demo" in said
    with Http(stored_connection("demo", "hubspot"), hubspot.DIALECT) as http:
        assert http.get(f"/crm/objects/{hubspot.VERSION}/contacts", {"limit": "1"})["results"]

    tokens = find("demo", "hubspot").tokens
    secrets = [tokens.access.get_secret_value(), tokens.refresh.get_secret_value(), sandbox.token]
    _, table = omni("connections")
    listed, _ = omni("connections", "--json", "--company", "demo")
    (entry,) = json.loads(listed.output)
    assert (entry["vendor"], entry["client_id"], entry["refused_at"]) == ("hubspot", CLIENT_ID, None)
    stored = b"".join(path.read_bytes() for path in settings().home.glob("control.db*")).decode("latin-1")
    for text in (said, page, shown.text, table, listed.output, stored):
        assert not [secret for secret in secrets if secret in text]

    done, said = omni("disconnect", "hubspot")
    assert done.exit_code == 0
    assert "no longer good at the vendor" in said
    assert find("demo", "hubspot") is None
    assert "No account is connected" in omni("connections")[1]


@pytest.mark.parametrize("vendor", ["shopify", "stripe", "salesforce"])
def test_the_other_vendors_are_connected_alike(sandbox, vendor):
    with connecting(sandbox, vendor, *client_of(vendor)) as (process, page):
        visit(page)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert find("demo", vendor).tokens.base_url == sandbox.url


def test_connecting_again_asks_for_nothing_that_is_known(sandbox):
    client = [*client_of("shopify"), "--grant", "client-credentials", "--at", sandbox.url]
    first, said = omni("connect", "shopify", *client)
    assert first.exit_code == 0, said
    before = find("demo", "shopify")
    again, said = omni("connect", "shopify")
    assert again.exit_code == 0, said
    after = find("demo", "shopify")
    assert after.client == before.client
    assert after.tokens.access != before.tokens.access


def test_a_refusal_is_told_here_and_in_the_browser(sandbox):
    act(sandbox, deny=1)
    with connecting(sandbox, "hubspot", *client_of("hubspot")) as (process, page):
        shown = visit(page)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "Not connected" in shown.text
    assert "consent was refused" in shown.text
    assert "consent was refused" in said
    assert "Traceback" not in said
    assert find("demo", "hubspot") is None


def test_a_redirect_of_somebody_else_is_turned_away_and_ours_still_counts(sandbox):
    with connecting(sandbox, "hubspot", *client_of("hubspot")) as (process, page):
        back = httpx.URL(page).params["redirect_uri"]
        for answer in ({"state": "wrong", "code": "theirs"}, {"code": "theirs"}, {}):
            turned = httpx.get(back, params=answer, trust_env=False)
            assert (turned.status_code, "Not this attempt" in turned.text) == (400, True)
        assert httpx.get(httpx.URL(back).join("/favicon.ico"), trust_env=False).status_code == 404
        visit(page)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said


def test_the_wait_for_consent_is_bounded(sandbox):
    with connecting(sandbox, "hubspot", *client_of("hubspot"), "--wait", "1") as (process, _page):
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "Nobody consented within 1 s" in re.sub(r"\s+", " ", said)


def test_a_wrong_secret_stores_nothing(sandbox, monkeypatch):
    monkeypatch.setenv("VENDOR_SECRET", "not-the-secret-of-the-app")
    with connecting(sandbox, "hubspot", *client_of("hubspot")) as (process, page):
        shown = visit(page)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "Check client id and secret" in shown.text
    assert "not-the-secret" not in said + shown.text
    assert find("demo", "hubspot") is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["connect", "zapier"], "cannot be connected by OAuth. Known: hubspot"),
        (["connect", "hubspot", "-c", "nobody"], "Unknown tenant 'nobody'"),
        (["connect", "hubspot"], "Give the client id of your HubSpot app"),
        (["connect", "shopify", "--client-id", "x"], "give --at https://acme.myshopify.com"),
        (["connect", "hubspot", "--client-id", "x"], "--client-secret-env"),
        (["connect", "hubspot", "--client-id", "x", "--client-secret-env", "NO_SUCH"], "NO_SUCH"),
        (["connect", "salesforce", "--client-id", "x", "--grant", "jwt"], "needs --key-file and --user"),
        (
            ["connect", "salesforce", "--client-id", "x", "--grant", "jwt", "--key-file", "/nowhere.pem"],
            "Cannot read the key /nowhere.pem",
        ),
        (["disconnect", "hubspot"], "No account at 'hubspot' is connected for 'demo'"),
        (["disconnect", "../x"], "No account at '../x' is connected for 'demo'"),
        (["connections", "-c", "nobody"], "Unknown tenant"),
    ],
)
def test_mistakes_are_answered_clearly(arguments, message):
    result, said = omni(*arguments)
    assert result.exit_code == 2, said
    assert message in said
    assert "Traceback" not in said


def test_a_port_in_use_is_named(sandbox):
    port = str(httpx.URL(sandbox.url).port)
    result, said = omni("connect", "hubspot", *client_of("hubspot"), "--port", port, "--no-browser")
    assert result.exit_code == 2
    assert f"Port {port} cannot be used" in said


def test_an_account_can_be_removed_without_its_vendor_or_key(sandbox, monkeypatch):
    client = [*client_of("shopify"), "--grant", "client-credentials", "--at", sandbox.url]
    assert omni("connect", "shopify", *client)[0].exit_code == 0
    monkeypatch.setenv("OMNI_SECRET_KEY", "a master key that replaced the lost one, long enough")
    settings.cache_clear()
    refused, said = omni("connect", "shopify", *client)
    assert refused.exit_code == 2
    assert "OMNI_OLD_SECRET_KEYS" in said
    result, said = omni("disconnect", "shopify")
    assert result.exit_code == 0
    assert "Remove the app in the account as well" in said
    assert os.environ["VENDOR_SECRET"] not in said
