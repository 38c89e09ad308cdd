"""Connected accounts: sealed, renewed in time and by one process only, stored before they are used."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from omni.cli.connect import disconnect_account
from omni.control import database
from omni.errors import AuthError, ConfigError, StorageError, TransientError
from omni.settings import settings
from omni.sources.oauth import Client, Tokens
from omni.sources.oauth_store import (
    StoredLogin,
    connected,
    find,
    forget,
    keep,
    stored_connection,
    stored_login,
)

CLIENT = Client("app-1", secret=SecretStr("client-secret-0123456789"))


pytestmark = pytest.mark.usefixtures("home", "either_database")


class Rotating:
    """An authorization server that ends a refresh token once it is used, and the data behind it."""

    def __init__(self, answering):
        self.answering = answering
        self.refresh = "refresh-0-secret"
        self.given = 0
        self.at_data = lambda: None

    def __call__(self, asked):
        if asked.path == "/data":
            self.at_data()
            return self.answering({})
        if asked.body["refresh_token"] != self.refresh:
            return self.answering({"error": "invalid_grant", "error_description": "used before"}, 400)
        self.given += 1
        self.refresh = f"refresh-{self.given}-secret"
        access = f"access-{self.given}-secret"
        return self.answering({"access_token": access, "refresh_token": self.refresh, "expires_in": 3600})


@pytest.fixture
def rotating(answering):
    return Rotating(answering)


def store(site, age=timedelta(0), life=3600, vendor="shopify", tenant="acme"):
    """An account whose token was given some time ago."""
    issued = datetime.now(UTC) - age
    tokens = Tokens(
        SecretStr("access-0-secret"),
        site,
        SecretStr("refresh-0-secret"),
        issued_at=issued,
        expires_at=issued + timedelta(seconds=life) if life else None,
    )
    keep(tenant, vendor, site, CLIENT, tokens)
    return StoredLogin(tenant, vendor)


def test_what_is_stored_comes_back_and_is_not_to_be_read_in_the_database(control_content):
    key = Client("app-1", "jwt_bearer", private_key=SecretStr("pem-as-secret"), user="ann@example.com")
    store("https://acme.myshopify.com")
    keep("acme", "salesforce", None, key, Tokens(SecretStr("sf-secret"), "https://a.example"))
    account = find("acme", "shopify")
    assert account.client == CLIENT
    assert account.tokens.access.get_secret_value() == "access-0-secret"
    assert account.tokens.refresh.get_secret_value() == "refresh-0-secret"
    assert find("acme", "salesforce").client == key
    content = control_content()
    assert b"app-1" in content
    shown = f"{account!r}{connected()!r}{stored_connection('acme', 'shopify')!r}".encode()
    for secret in (b"access-0", b"refresh-0", b"client-secret", b"pem-as", b"sf-secret", b"ann@example"):
        assert secret not in content
        assert secret not in shown.replace(b"ann@example.com", b"")


def test_tenants_and_vendors_have_accounts_of_their_own():
    store("https://acme.myshopify.com")
    assert stored_login("acme", "shopify") == StoredLogin("acme", "shopify")
    assert stored_login("acme", "hubspot") is None
    assert stored_login("other", "shopify") is None
    assert stored_connection("other", "shopify") is None
    assert [row.vendor for row in connected("acme")] == ["shopify"]
    assert connected("other") == []


def test_a_hubspot_app_is_given_its_lower_limit():
    store("https://api.hubapi.com", vendor="hubspot")
    assert stored_connection("acme", "hubspot").requests_per_10s == 110


def test_sealed_tokens_of_another_tenant_do_not_open():
    store("https://acme.myshopify.com")
    with database.session() as opened:
        opened.execute(sa.text("UPDATE oauth_tokens SET tenant = 'other'"))
    with pytest.raises(ConfigError, match="belongs elsewhere"):
        find("other", "shopify")


def test_a_young_token_is_used_as_it_is(serve, rotating):
    server = serve(rotating)
    access = store(server.url).access()
    assert access.token.get_secret_value() == "access-0-secret"
    assert access.base_url == server.url
    assert server.asked == []


def test_an_old_token_is_renewed_and_what_came_is_stored(serve, rotating):
    server = serve(rotating)
    login = store(server.url, age=timedelta(minutes=50))
    assert login.access().token.get_secret_value() == "access-1-secret"
    kept = find("acme", "shopify")
    assert kept.tokens.refresh.get_secret_value() == "refresh-1-secret"
    assert kept.renewals == 1
    assert login.access().token.get_secret_value() == "access-1-secret"
    assert len(server.asked) == 1


def test_a_refused_token_is_renewed_unless_it_was_already(serve, rotating):
    server = serve(rotating)
    login = store(server.url)
    for _ in range(3):
        renewed = login.renew(SecretStr("access-0-secret"))
        assert renewed.token.get_secret_value() == "access-1-secret"
    assert len(server.asked) == 1
    assert login.renew(renewed.token).token.get_secret_value() == "access-2-secret"


def test_threads_whose_token_was_refused_renew_once(serve, rotating):
    server = serve(rotating)
    login = store(server.url)
    with ThreadPoolExecutor(8) as pool:
        got = set(pool.map(lambda _: login.renew(SecretStr("access-0-secret")), range(16)))
    assert len(got) == 1
    assert len(server.asked) == 1


RENEW = """
import sys
from pydantic import SecretStr
from omni.sources.oauth_store import StoredLogin
print("ready", flush=True)
sys.stdin.readline()
print(StoredLogin("acme", "shopify").renew(SecretStr("access-0-secret")).token.get_secret_value())
"""


@pytest.mark.slow
def test_processes_whose_token_was_refused_at_once_renew_once(serve, rotating):
    server = serve(rotating)
    store(server.url)
    pipe = subprocess.PIPE
    running = [
        subprocess.Popen([sys.executable, "-c", RENEW], stdin=pipe, stdout=pipe, text=True) for _ in range(3)
    ]
    for process in running:
        assert process.stdout.readline() == "ready\n"
    for process in running:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60)[0] for process in running]
    assert said == ["access-1-secret\n"] * 3
    assert len(server.asked) == 1


USE = """
import httpx
from pydantic import SecretStr
from omni.sources.oauth_store import StoredLogin
access = StoredLogin("acme", "shopify").renew(SecretStr("access-0-secret"))
httpx.get(access.base_url + "/data", trust_env=False)
"""


@pytest.mark.slow
def test_a_process_that_dies_at_the_first_use_has_stored_the_new_refresh_token(serve, rotating):
    server = serve(rotating)
    login = store(server.url)
    child = subprocess.Popen([sys.executable, "-c", USE])
    rotating.at_data = lambda: os.kill(child.pid, signal.SIGKILL)
    assert child.wait(timeout=60) == -signal.SIGKILL
    assert find("acme", "shopify").tokens.refresh.get_secret_value() == "refresh-1-secret"
    assert login.renew(SecretStr("access-1-secret")).token.get_secret_value() == "access-2-secret"


FULL = {
    "sqlite": "CREATE TRIGGER full BEFORE UPDATE ON oauth_tokens BEGIN SELECT RAISE(ABORT, 'full'); END",
    "postgres": "ALTER TABLE oauth_tokens ADD CHECK (renewals = 0)",
}


def test_nothing_is_given_that_could_not_be_stored(serve, rotating, either_database):
    server = serve(rotating)
    login = store(server.url)
    with database.session() as opened:
        opened.execute(sa.text(FULL[either_database]))
    with pytest.raises(StorageError, match="could not be stored") as error:
        login.renew(SecretStr("access-0-secret"))
    assert "secret" not in str(error.value)


def test_refused_for_good_says_what_to_do_and_asks_no_more(serve, rotating):
    rotating.refresh = "another"
    server = serve(rotating)
    login = store(server.url)
    for _ in range(2):
        with pytest.raises(AuthError, match="omni connect shopify --company acme` again") as error:
            login.renew(SecretStr("access-0-secret"))
        assert "secret" not in str(error.value)
    with pytest.raises(AuthError, match="omni connect"):
        login.access()
    assert len(server.asked) == 1
    store(server.url)
    assert login.access().token.get_secret_value() == "access-0-secret"


@pytest.mark.parametrize(("age", "good"), [(50, True), (70, False)])
def test_a_token_that_cannot_be_renewed_now_is_used_until_it_ends(serve, answering, age, good):
    server = serve(lambda _: answering({}, 503, {"Retry-After": "0"}))
    login = store(server.url, age=timedelta(minutes=age))
    if good:
        assert login.access().token.get_secret_value() == "access-0-secret"
    else:
        with pytest.raises(TransientError, match="HTTP 503"):
            login.access()
    with pytest.raises(TransientError):
        login.renew(SecretStr("access-0-secret"))
    assert find("acme", "shopify").refused_at is None


def test_an_account_that_is_disconnected_meanwhile_does_not_come_back(serve, answering):
    def answer(_):
        forget("acme", "shopify")
        return answering({"access_token": "access-1-secret"})

    login = store(serve(answer).url)
    for use in (lambda: login.renew(SecretStr("access-0-secret")), login.access):
        with pytest.raises(AuthError, match="not connected any more"):
            use()
        assert find("acme", "shopify") is None
    assert not forget("acme", "shopify")


def test_disconnecting_waits_for_a_renewal_and_ends_what_it_gave(serve, answering):
    ended = []

    def answer(asked):
        if asked.path.endswith("/revoke"):
            ended.append(asked.body["token"])
            return answering({})
        running.append(pool.submit(disconnect_account, "hubspot", "demo"))
        wait(running, timeout=0.3)  # it must not get anywhere meanwhile
        return answering({"access_token": "access-1-secret", "refresh_token": "refresh-1-secret"})

    running = []
    with ThreadPoolExecutor(1) as pool:
        login = store(serve(answer).url, vendor="hubspot", tenant="demo")
        assert login.renew(SecretStr("access-0-secret")).token.get_secret_value() == "access-1-secret"
        running[0].result(timeout=60)
    assert ended == ["refresh-1-secret"]
    assert find("demo", "hubspot") is None


@pytest.mark.parametrize("refused", [False, True])
def test_an_account_that_is_connected_anew_meanwhile_stays_as_it_is(serve, answering, refused):
    app = replace(CLIENT, client_id="app-2")

    def answer(_):
        keep("acme", "shopify", server.url, app, Tokens(SecretStr("access-anew-secret"), server.url))
        return answering({"error": "invalid_grant"}, 400) if refused else answering({"access_token": "late"})

    server = serve(answer)
    login = store(server.url)
    assert login.renew(SecretStr("access-0-secret")).token.get_secret_value() == "access-anew-secret"
    account = find("acme", "shopify")
    assert (account.client, account.renewals, account.refused_at) == (app, 0, None)
    assert login.access().token.get_secret_value() == "access-anew-secret"


def test_a_changed_master_key_is_named(monkeypatch):
    store("https://acme.myshopify.com")
    monkeypatch.setenv("OMNI_SECRET_KEY", "another key that is long enough to be one")
    settings.cache_clear()
    with pytest.raises(ConfigError, match="OMNI_OLD_SECRET_KEYS"):
        stored_connection("acme", "shopify")


def test_connecting_again_takes_the_place_of_what_was():
    store("https://acme.myshopify.com")
    keep(
        "acme",
        "shopify",
        None,
        replace(CLIENT, client_id="app-2"),
        Tokens(SecretStr("a"), "https://b.example"),
    )
    account = find("acme", "shopify")
    assert (account.client.client_id, account.tokens.refresh, account.renewals) == ("app-2", None, 0)
