"""The sandbox's companies and clients, built once per session."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from omni.errors import ConfigError
from omni.sandbox.company import Company, load_company
from omni.sandbox.server import Options, build_app

TOKEN = "sandbox-test"


@pytest.fixture(scope="session")
def demo() -> Company:
    return load_company("demo")


@pytest.fixture(scope="session")
def olist() -> Company:
    try:
        return load_company("olist")
    except ConfigError as error:
        pytest.skip(f"real data absent: {error}")


@pytest.fixture
def client_for(demo: Company) -> Callable[..., TestClient]:
    """Make a client of a sandbox with the given options; generous limits unless told otherwise."""

    def make(company: Company = demo, **options: object) -> TestClient:
        chosen = {"hubspot_per_10s": 10_000, "searches_per_second": 10_000, **options}
        client = TestClient(build_app(company, Options(token=TOKEN, **chosen)))  # type: ignore[arg-type]
        client.headers = {"Authorization": f"Bearer {TOKEN}", "X-Shopify-Access-Token": TOKEN}
        return client

    return make


@pytest.fixture
def client(client_for: Callable[..., TestClient]) -> TestClient:
    return client_for()
