"""The sole reader of the environment.

Every setting has a default that works on one machine with nothing installed but Python packages. A
wrong value stops the program at once with the variable's name and an example that is right.
"""

from __future__ import annotations

from datetime import date
from functools import lru_cache
from pathlib import Path

from pydantic import AnyHttpUrl, BaseModel, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from omni.errors import ConfigError

PROJECT = Path(__file__).resolve().parent.parent


class HubSpotSettings(BaseModel):
    """How to reach a HubSpot account when no saved block of the tenant's name exists."""

    base_url: AnyHttpUrl | None = Field(None, description="API base", examples=["https://api.hubapi.com"])
    token: SecretStr | None = Field(None, description="private app access token", examples=["pat-eu1-…"])
    requests_per_10s: int = Field(190, ge=1, description="account's burst limit", examples=[190])
    searches_per_second: int = Field(5, ge=1, description="search endpoint's limit", examples=[5])


class ShopifySettings(BaseModel):
    """How to reach a Shopify shop when no saved block of the tenant's name exists."""

    base_url: AnyHttpUrl | None = Field(
        None, description="shop base", examples=["https://acme.myshopify.com"]
    )
    token: SecretStr | None = Field(None, description="Admin API access token", examples=["shpat_…"])


class Settings(BaseSettings):
    """All settings. Nested ones join with two underscores: `OMNI_HUBSPOT__TOKEN`."""

    model_config = SettingsConfigDict(
        env_prefix="OMNI_", env_nested_delimiter="__", extra="ignore", validate_default=True
    )

    home: Path = Field(
        PROJECT / "data" / "var",
        description="folder of all state: warehouses, registry, orchestrator, published files",
        examples=["/var/lib/omni"],
    )
    data: Path = Field(
        PROJECT / "data",
        description="folder of contracts, models, metrics, dashboards and tenants",
        examples=["/opt/omni/data"],
    )
    real_data: Path = Field(
        PROJECT.parent / "shared" / "data",
        description="folder of real data sets to run and measure on; may be absent",
        examples=["/data/real"],
    )
    secret_key: SecretStr | None = Field(
        None,
        min_length=32,
        description="master secret for keyed hashes; generated into the state folder when unset",
        examples=["<at least 32 random characters>"],
    )
    tracking_uri: str | None = Field(
        None,
        description="MLflow tracking server; default is SQLite in the state folder",
        examples=["http://mlflow.example:5000"],
    )
    lock_timeout: float = Field(
        600.0, ge=0, description="seconds to wait for a warehouse held by another process", examples=[600]
    )
    http_timeout: float = Field(
        30.0, gt=0, le=600, description="seconds one request to a vendor may take", examples=[30]
    )
    memory_limit: str | None = Field(
        None,
        pattern=r"^\d+(\.\d+)?\s?(KB|MB|GB|TB|KiB|MiB|GiB|TiB)$",
        description="DuckDB's memory limit per process; default is DuckDB's own",
        examples=["4GB"],
    )
    server_port: int = Field(
        4200, ge=1, le=65535, description="first port to try for the local Prefect server", examples=[4200]
    )
    sandbox_faults: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="share of sandbox answers that fail, to see a run cope",
        examples=[0.05],
    )
    sandbox_until: date | None = Field(
        None, description="last day of the sandbox company's data to show", examples=["2026-06-30"]
    )
    hubspot: HubSpotSettings = HubSpotSettings()
    shopify: ShopifySettings = ShopifySettings()

    def tenant_home(self, tenant: str) -> Path:
        """Folder of everything that belongs to one tenant."""
        return self.home / "tenants" / tenant


def _example(error_location: tuple[int | str, ...]) -> str:
    model: type[BaseModel] = Settings
    example = ""
    for part in error_location:
        field = model.model_fields.get(str(part))
        if field is None:
            break
        if field.examples:
            example = str(field.examples[0])
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            model = field.annotation
    return example


def load_settings() -> Settings:
    """Read the environment.

    Raises:
        ConfigError: naming each wrong variable, what is wrong with it, and a right example.
    """
    try:
        return Settings()
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            variable = "OMNI_" + "__".join(str(part) for part in problem["loc"]).upper()
            example = _example(problem["loc"])
            lines.append(
                f"{variable}: {problem['msg']}" + (f"; for example {variable}={example}" if example else "")
            )
        raise ConfigError("Wrong setting.\n" + "\n".join(lines)) from None


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The process's settings, read once. Tests call `settings.cache_clear()` after changing variables."""
    return load_settings()
