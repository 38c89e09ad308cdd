"""The declared example and its kin against the sandbox: all styles and auths, with faults, into tables."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from pydantic import SecretStr

from omni.errors import ConfigError
from omni.sandbox.process import running
from omni.settings import PROJECT
from omni.sources import rest
from omni.sources.extract import extract, tables
from omni.sources.rest_declaration import Api
from omni.sources.vendor import Window
from omni.sources.vendors import vendor_named
from omni.warehouse.database import open_warehouse
from omni.warehouse.load import load

pytestmark = pytest.mark.slow

EVER = Window(None, datetime(2100, 1, 1, tzinfo=UTC))
EXAMPLE = PROJECT / "data" / "rest" / "feedback.yml"


@pytest.fixture(scope="module")
def sandbox():
    with running("demo", faults=0.05, seed=5, hubspot_per_10s=100_000) as running_sandbox:
        yield running_sandbox


def variant(auth="bearer", style="cursor", **stream):
    api = rest.declarations()["feedback"]
    path = f"/rest/{auth}/{style}/ratings"
    paging = {
        "none": {},
        "page": {"style": "page", "param": "page"},
        "offset": {"style": "offset", "param": "offset"},
        "cursor": {"style": "cursor", "next": "meta.next", "param": "cursor"},
        "next_url": {"style": "next_url", "next": "meta.next"},
        "link_header": {"style": "link_header"},
    }[style]
    if style != "none":
        paging |= {"size": 100, "size_param": "limit"}
    auths = {
        "header": {"kind": "api_key", "name": "X-Api-Key"},
        "query": {"kind": "api_key", "name": "api_key", "place": "query"},
        "oauth2": {"kind": "oauth2", "token_url": "http://127.0.0.1/replaced"},
    }
    document = api.model_dump() | {"auth": auths.get(auth, {"kind": auth}), "limits": []}
    document["streams"]["ratings"] |= {"path": path, "item": path + "/{id}", "paging": paging} | stream
    return Api.model_validate(document)


def reached(api, sandbox, **changes):
    token = SecretStr(f"user:{sandbox.token}" if api.auth.kind == "basic" else sandbox.token)
    made = rest.account(
        api, sandbox.url, token=token, client_id="sandbox", client_secret=SecretStr(sandbox.token)
    )
    return replace(made, backoff=0.02, requests_per_10s=100_000, **changes)


def everything(api, sandbox, window=EVER, resume=None):
    source, contracts = rest.vendor(api), tables("feedback", "ratings")
    with source.open(reached(api, sandbox)) as client:
        expected = source.count(client, contracts, window)
        return expected, list(source.read(client, contracts, window, resume))


@pytest.fixture(scope="module")
def whole(sandbox):
    expected, pages = everything(variant("none", "none"), sandbox)
    records = [record for page in pages for record in page.records]
    assert expected == len(records) > 300
    return records


@pytest.mark.parametrize("style", ["page", "offset", "cursor", "next_url", "link_header"])
def test_every_style_gives_the_same_records_and_goes_on_from_its_middle(sandbox, whole, style):
    api = variant("bearer", style)
    expected, pages = everything(api, sandbox)
    assert [record for page in pages for record in page.records] == whole
    assert expected == len(whole)
    _, behind = everything(api, sandbox, resume=pages[1].resume)
    assert behind == pages[2:]


@pytest.mark.parametrize("auth", ["bearer", "header", "query", "basic", "oauth2"])
def test_every_auth_is_admitted(sandbox, whole, auth):
    api = variant(auth, "cursor")
    if auth == "oauth2":
        login = api.auth.model_copy(update={"token_url": f"{sandbox.url}/rest/oauth/token"})
        api = api.model_copy(update={"auth": login})
    assert [record for page in everything(api, sandbox)[1] for record in page.records] == whole


def test_windows_and_reading_again(sandbox, whole):
    api, contracts = variant(), tables("feedback", "ratings")
    moments = sorted(datetime.fromisoformat(record["updated_at"]) for record in whole)
    since, until = moments[100], moments[200]
    expected, pages = everything(api, sandbox, Window(since, until))
    found = [record for page in pages for record in page.records]
    assert found == [r for r in whole if since <= datetime.fromisoformat(r["updated_at"]) < until]
    assert expected == len(found) > 0
    source = rest.vendor(api)
    with source.open(reached(api, sandbox)) as client:
        wanted = [found[0]["id"], "0", found[-1]["id"]]
        again = [record for page in source.reread(client, contracts, wanted) for record in page.records]
    assert again == [found[0], found[-1]]


def test_the_example_is_short_and_loads_into_its_table(sandbox, whole, home, tenant, tmp_path):
    text = EXAMPLE.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 20
    assert vendor_named("feedback").title == "Feedback"
    connection = reached(rest.declarations()["feedback"], sandbox)
    half = sorted(datetime.fromisoformat(record["updated_at"]) for record in whole)[len(whole) // 2]
    with open_warehouse(tenant) as warehouse:
        for step, (since, until) in enumerate([(None, half), (half, EVER.until), (half, EVER.until)]):
            staged = extract(
                tenant, "feedback", "ratings", connection, since=since, until=until, run_id=f"r{step}",
                folder=tmp_path / f"s{step}",
            )  # fmt: skip
            (loaded,) = load(warehouse, staged)
        assert loaded.changed == 0
        rows = warehouse.cursor().execute("SELECT id, order_ref, score FROM raw.feedback__ratings").fetchall()
    assert sorted(rows) == sorted((r["id"], r["order"]["name"], r["score"]) for r in whole)


def test_without_a_token_the_variable_is_named(home, tenant):
    alone = tenant.model_copy(update={"company": None})
    with pytest.raises(ConfigError, match="OMNI_REST__FEEDBACK__TOKEN"):
        rest.configured(alone, "feedback")


def test_a_token_of_the_settings_is_used(home, tenant, monkeypatch):
    from omni.settings import settings

    monkeypatch.setenv("OMNI_REST__FEEDBACK__TOKEN", "secret-of-feedback")
    settings.cache_clear()
    made = rest.configured(tenant.model_copy(update={"company": None}), "feedback")
    assert made.token.get_secret_value() == "secret-of-feedback"
    assert made.base_url == "https://feedback.demo.example"
    assert "secret-of-feedback" not in repr(made)
    assert rest.configured(tenant, "feedback") is None
