"""How drop folders, declared APIs and databases are reached from the settings alone."""

from __future__ import annotations

from datetime import date

import pytest

from omni import tenancy
from omni.errors import ConfigError
from omni.settings import settings
from omni.sources.files import VENDOR
from omni.tenancy import Tenant
from tasks.connections import connected, connection, now


@pytest.fixture
def setting(home, monkeypatch):
    def put(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        settings.cache_clear()

    return put


def alone(**sources):
    return Tenant(
        tenant="retail", title="R", timezone="Europe/London", currency="GBP", sources={k: [] for k in sources}
    )


def test_without_a_setting_files_are_delivered_to_the_tenants_own_folder_in_its_zone(home):
    with connected(tenancy.get("retail")):
        found = connection("retail", "files")
    assert found.base_url == (home / "tenants" / "retail" / "drop").as_uri()
    with VENDOR.open(found) as folder:
        assert folder.path.stat().st_mode & 0o077 == 0
        assert folder.form("online_retail_lines").timezone == "Europe/London"


def test_a_folder_for_every_tenant_is_set_once(setting, tmp_path):
    setting(
        OMNI_FILES__BASE_URL=f"{tmp_path}/{{tenant}}/in",
        OMNI_FILES__OPTIONS='{"delimiter": ";", "orders.timezone": "Asia/Tokyo"}',
    )
    (tmp_path / "retail" / "in").mkdir(parents=True)
    with connected(alone(files=1)), VENDOR.open(connection("retail", "files")) as folder:
        assert folder.path == tmp_path / "retail" / "in"
        assert (folder.form("orders").delimiter, folder.form("orders").timezone) == (";", "Asia/Tokyo")
        assert folder.form("others").timezone == "Europe/London"
    setting(OMNI_FILES__BASE_URL="/srv/{company}")
    with pytest.raises(ConfigError, match=r"\{tenant\}"), connected(alone(files=1)):
        pass


def test_a_declared_api_and_databases_are_set_by_variables(setting):
    setting(
        OMNI_REST__FEEDBACK__TOKEN="t-1",
        OMNI_REST__FEEDBACK__BASE_URL="https://eu.feedback.example/",
        OMNI_MONGODB__BASE_URL="mongodb://db.example/shop",
        OMNI_MONGODB__USERNAME="omni",
        OMNI_MONGODB__TOKEN="p-1",
        OMNI_FIRESTORE__BASE_URL="firestore://my-project",
    )
    with connected(alone(feedback=1, mongodb=1, firestore=1)):
        found = {name: connection("retail", name) for name in ("feedback", "mongodb", "firestore")}
    assert {name: one.base_url for name, one in found.items()} == {
        "feedback": "https://eu.feedback.example",
        "mongodb": "mongodb://db.example/shop",
        "firestore": "firestore://my-project",
    }
    assert found["mongodb"].options == {"username": "omni"}
    assert [one.token.get_secret_value() for one in found.values()] == ["t-1", "p-1", ""]


def test_databases_of_a_sandbox_company_are_its_own_and_never_the_sandbox(setting):
    simulated = tenancy.get("demo").model_copy(update={"sources": {"mongodb": ["orders"]}})
    setting(OMNI_SANDBOX_UNTIL="2025-09-30")
    with (
        pytest.raises(ConfigError, match=r"'demo'.*sandbox does not stand in.*OMNI_MONGODB__BASE_URL"),
        connected(simulated),
    ):
        pass
    with pytest.raises(ConfigError, match=r"OMNI_FIRESTORE__BASE_URL"):
        connection("demo", "firestore")
    setting(OMNI_MONGODB__BASE_URL="mongodb://db.example/shop", OMNI_MONGODB__CHANGE_STREAM="true")
    with connected(simulated):
        found = connection("demo", "mongodb")
    assert (found.base_url, found.options) == ("mongodb://db.example/shop", {"change_stream": "true"})
    assert now(simulated, "mongodb").year >= 2026
    assert now(simulated, "hubspot").date() == date(2025, 10, 1)


def test_what_is_missing_is_named(setting):
    setting()
    with pytest.raises(ConfigError, match="OMNI_REST__FEEDBACK__TOKEN"), connected(alone(feedback=1)):
        pass
    with pytest.raises(ConfigError, match="OMNI_MONGODB__BASE_URL"), connected(alone(mongodb=1)):
        pass
    setting(OMNI_MONGODB__BASE_URL="mongodb://me:secret-word@db.example/shop")
    with pytest.raises(ConfigError, match=r"OMNI_MONGODB__BASE_URL.*mongodb://db\.example") as error:
        settings()
    assert "secret-word" not in str(error.value)


@pytest.mark.parametrize("vendor", ["webhooks", "warehouse", "lookup", "fax"])
def test_what_is_no_vendor_with_an_account_is_refused_with_the_known_ones(setting, vendor):
    setting()
    with (
        pytest.raises(ConfigError, match=rf"{vendor!r}; known: .*files, firestore, hubspot.*feedback"),
        connected(alone(**{vendor: 1})),
    ):
        pass


def test_a_wrong_value_of_a_vendor_without_settings_of_its_own_names_the_variable(setting):
    setting(OMNI_VENDORS__HELPDESK__REQUESTS_PER_10S="many")
    with pytest.raises(ConfigError, match="OMNI_VENDORS__HELPDESK__REQUESTS_PER_10S"):
        settings()
