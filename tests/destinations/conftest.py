"""A tenant with published rows to write back, and accounts of the sandbox to write to."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest
from pydantic import SecretStr

from omni.control import database
from omni.destinations.declaration import WriteBack
from omni.destinations.write import Written, write_back
from omni.sandbox.company import Company, load_company
from omni.sandbox.embedded import serving
from omni.sandbox.serving import Options
from omni.sources.connection import Connection
from omni.tenancy import Tenant
from omni.warehouse.database import open_warehouse
from omni.warehouse.publish import publish

TOKEN = "sandbox-test"


@pytest.fixture(scope="session")
def demo() -> Company:
    return load_company("demo")


@pytest.fixture
def control(home) -> Iterator[None]:
    """A control database of the test's own."""
    yield
    database.close()


@pytest.fixture
def published(control, tenant: Tenant) -> Callable[..., None]:
    """Publish `{key: value, …}` as the table `ml.scores`; values of any SQL type, one column or several."""

    def put(rows: dict[str, object], kind: str = "DOUBLE") -> None:
        with open_warehouse(tenant) as warehouse:
            with warehouse.transaction() as con:
                con.execute(f"CREATE OR REPLACE TABLE ml.scores (lead VARCHAR, score {kind}, grade VARCHAR)")
                for key, value in rows.items():
                    score, grade = value if isinstance(value, tuple) else (value, None)
                    con.execute("INSERT INTO ml.scores VALUES ($1, $2, $3)", [key or None, score, grade])
                con.execute(
                    "INSERT INTO ops.models (model, fingerprint, run_id, built_at) "
                    "VALUES ('ml.scores', uuid()::VARCHAR, 'r', now()) "
                    "ON CONFLICT DO UPDATE SET fingerprint = excluded.fingerprint"
                )
            publish(warehouse)

    return put


def declared(**changes: object) -> WriteBack:
    """Scores to HubSpot's contacts, with some things changed."""
    base = {
        "name": "scores",
        "title": "Scores",
        "owner": "crm@demo.example",
        "table": "ml.scores",
        "to": {"vendor": "hubspot", "object": "contacts"},
        "key": {"column": "lead", "property": "hs_object_id"},
        "columns": {"omni_lead_score": {"column": "score", "decimals": 3}},
    }
    return WriteBack.model_validate(base | changes)


@pytest.fixture(name="declared")
def declared_fixture() -> Callable[..., WriteBack]:
    return declared


class Account:
    """A sandbox account: the connection of our side, and a plain client of its API."""

    def __init__(self, url: str, vendor: str) -> None:
        self.connection = Connection(
            vendor, url, SecretStr(TOKEN), requests_per_10s=100_000, searches_per_second=100_000, backoff=0.01
        )
        self.api = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"})

    def fault(self, kind: str, path: str, times: int | None = 1) -> None:
        body = {"kind": kind, "path": path, "times": times}
        self.api.post("/_sandbox/fault", json=body).raise_for_status()

    def calm(self) -> None:
        self.api.delete("/_sandbox/fault").raise_for_status()

    def asked(self) -> dict[str, int]:
        found: dict[str, int] = self.api.get("/_sandbox/stats").json()["requests"]
        return found


@pytest.fixture
def account() -> type[Account]:
    """Make an account: `account(url, vendor)`."""
    return Account


@pytest.fixture
def hub(demo: Company) -> Iterator[Account]:
    with serving(demo, Options(TOKEN, hubspot_per_10s=100_000, searches_per_second=100_000)) as sandbox:
        account = Account(sandbox.url, "hubspot")
        yield account
        account.api.close()


@pytest.fixture
def run(control, tenant: Tenant) -> Callable[..., Written]:
    """Write back: `run(declaration, account)`."""

    def start(one: WriteBack, account: Account, **options: bool) -> Written:
        return write_back(tenant, one, account.connection, run_id="run-1", **options)

    return start
