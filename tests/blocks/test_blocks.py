"""Blocks: Prefect's standard checks, and what each opens."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect.blocks.core import Block
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.testing.standard_test_suites import BlockStandardTestSuite
from pydantic import SecretStr, ValidationError

from blocks.hubspot import HubSpot
from blocks.lookup import ELSEWHERE, account_block, block_types, saved
from blocks.registry import ModelRegistry
from blocks.shopify import Shopify
from blocks.warehouse import Warehouse
from omni.errors import ConfigError
from omni.sources.vendors import NAMES

BLOCKS = block_types()
TOKEN = "not-a-real-token"


@pytest.mark.parametrize("block", BLOCKS)
class TestStandard(BlockStandardTestSuite):
    """Every block passes Prefect's own suite."""

    @pytest.fixture
    def block(self, request: pytest.FixtureRequest) -> type[Block]:
        chosen: type[Block] = request.param
        return chosen

    def test_has_a_valid_image(self, block: type[Block]) -> None:
        """Prefect's own check fetches a logo from the web; ours have none, so that the UI loads nothing."""
        assert block._logo_url is None


@pytest.mark.parametrize("block", BLOCKS)
def test_names_are_ours(block: type[Block]) -> None:
    assert block.get_block_type_slug().startswith("omni-")
    assert block.get_block_type_name().startswith("Omni ")


@pytest.mark.parametrize(
    "block",
    [HubSpot(token=SecretStr(TOKEN)), Shopify(base_url="https://acme.example", token=SecretStr(TOKEN))],
    ids=["HubSpot", "Shopify"],
)
def test_tokens_do_not_show(block: HubSpot | Shopify) -> None:
    shown = repr(block) + str(block) + str(block.model_dump()) + repr(block.connection())
    assert TOKEN not in shown
    assert block.connection().token.get_secret_value() == TOKEN


def test_a_connection_has_the_blocks_limits() -> None:
    block = HubSpot(
        base_url="https://api.example.com/",
        token=SecretStr(TOKEN),
        requests_per_10s=7,
        searches_per_second=2,
        timeout=3,
    )
    opened = block.connection()
    assert (opened.vendor, opened.base_url, opened.timeout) == ("hubspot", "https://api.example.com", 3)
    assert (opened.requests_per_10s, opened.searches_per_second) == (7, 2)


@pytest.mark.parametrize(
    ("block", "fields"),
    [
        (HubSpot, {}),
        (HubSpot, {"token": TOKEN, "base_url": "api.example.com"}),
        (HubSpot, {"token": TOKEN, "requests_per_10s": 0}),
        (Shopify, {"token": TOKEN}),
        (Warehouse, {"tenant": "../other"}),
        (ModelRegistry, {"tracking_uri": "mlruns", "artifacts": "models"}),
    ],
    ids=["no token", "no scheme", "no requests", "no shop", "a path for a tenant", "a folder for a server"],
)
def test_wrong_fields_are_refused(block: type[Block], fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        block(**fields)


def test_the_warehouse_opens_for_writing(home: Path) -> None:
    with Warehouse(tenant="demo").open() as opened, opened.cursor() as connection:
        assert opened.path.is_relative_to(home)
        assert connection.execute("SELECT count(*) FROM ops.runs").fetchall() == [(0,)]


def test_a_warehouse_of_nobody_is_refused(home: Path) -> None:
    assert not home.exists()
    with pytest.raises(ConfigError, match="nobody"), Warehouse(tenant="nobody").open():
        pytest.fail("there is no such tenant")


def test_the_registry_is_the_saved_one(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'registry.db'}"
    opened = ModelRegistry(tracking_uri=uri, artifacts=tmp_path / "models").registry()
    assert (opened.tracking_uri, opened.artifacts) == (uri, tmp_path / "models")


@pytest.mark.parametrize(
    "fields",
    [
        {"tracking_uri": "postgresql://mlflow:s3cret-word@db/mlflow"},
        {"tracking_uri": "postgresql+psycopg://mlflow:s3cret-word/x@db/mlflow"},
        {"tracking_uri": "postgresql://mlflow@db/mlflow?sslmode=require&password=s3cret-word"},
        {"tracking_uri": "https://mlflow:s3cret-word@mlflow.example"},
        {"tracking_uri": "postgresql://db/mlflow", "password": "s3cret-word"},
        {"tracking_uri": "sqlite:////state/mlflow.db", "password": "s3cret-word"},
    ],
)
def test_a_registrys_address_takes_no_password(fields: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="password") as error:
        ModelRegistry(artifacts="/models", **fields)
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize(
    ("address", "opened"),
    [
        ("postgresql://mlflow@db/mlflow", "postgresql://mlflow:p%40ss%3A%2Fword@db/mlflow"),
        ("https://mlflow@mlflow.example:5000", "https://mlflow:p%40ss%3A%2Fword@mlflow.example:5000"),
    ],
)
def test_a_registrys_password_is_kept_apart_and_put_in_when_it_is_opened(address: str, opened: str) -> None:
    block = ModelRegistry(tracking_uri=address, password=SecretStr("p@ss:/word"), artifacts=Path("/models"))
    assert "ss:/word" not in repr(block) + str(block.model_dump())
    assert block.registry().tracking_uri == opened
    plain = ModelRegistry(tracking_uri=address, artifacts=Path("/models"))
    assert plain.registry().tracking_uri == address


def test_options_that_are_given_reach_the_connection() -> None:
    plain = Shopify(base_url="https://acme.example", token=SecretStr(TOKEN))
    assert plain.connection().options == {}
    chosen = plain.model_copy(update={"bulk_above": 0, "bulk_poll": 0.5, "bulk_patience": 60.0})
    assert chosen.connection().options == {"bulk_above": "0", "bulk_poll": "0.5", "bulk_patience": "60.0"}


@pytest.mark.parametrize("vendor", [name for name in NAMES if name != "webhooks"])
def test_a_vendors_block_is_found_by_its_name(vendor: str) -> None:
    block = account_block(vendor)
    assert block in BLOCKS
    slug = ELSEWHERE.get(vendor, vendor).replace("_", "-")
    assert block.get_block_type_slug() == f"omni-{slug}"


@pytest.mark.parametrize("name", ["webhooks", "lookup", "nobody", "../hubspot"])
def test_what_has_no_account_has_no_block(name: str) -> None:
    assert account_block(name) is None


def test_without_a_server_nothing_is_saved() -> None:
    with temporary_settings({PREFECT_API_URL: None}):
        assert saved(HubSpot, "acme") is None
