"""The sole reader of the environment.

Every setting has a default that works on one machine with nothing installed but Python packages. A
wrong value stops the program at once with the variable's name and an example that is right.
"""

from __future__ import annotations

from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import AnyHttpUrl, BaseModel, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from omni.errors import ConfigError

PROJECT = Path(__file__).resolve().parent.parent


class VendorSettings(BaseModel):
    """How to reach a vendor that has no settings of its own, when no saved block of the tenant's exists."""

    base_url: AnyHttpUrl | None = Field(None, description="API base", examples=["https://api.example.com"])
    token: SecretStr | None = Field(None, description="access token", examples=["<token>"])
    requests_per_10s: int = Field(190, ge=1, description="requests we send at most", examples=[190])


class HubSpotSettings(BaseModel):
    """How to reach a HubSpot account when no saved block of the tenant's name exists."""

    base_url: AnyHttpUrl | None = Field(None, description="API base", examples=["https://api.hubapi.com"])
    token: SecretStr | None = Field(None, description="private app access token", examples=["pat-eu1-…"])
    requests_per_10s: int = Field(190, ge=1, description="account's burst limit", examples=[190])
    searches_per_second: int = Field(5, ge=1, description="search endpoint's limit", examples=[5])
    webhook_secret: SecretStr | None = Field(
        None, description="secret that webhooks are signed with", examples=["<client secret of the app>"]
    )


class ShopifySettings(BaseModel):
    """How to reach a Shopify shop when no saved block of the tenant's name exists."""

    base_url: AnyHttpUrl | None = Field(
        None, description="shop base", examples=["https://acme.myshopify.com"]
    )
    token: SecretStr | None = Field(None, description="Admin API access token", examples=["shpat_…"])
    webhook_secret: SecretStr | None = Field(
        None, description="secret that webhooks are signed with", examples=["<client secret of the app>"]
    )


class SalesforceSettings(BaseModel):
    """How to reach a Salesforce org by a session's token; `omni connect` and blocks renew sessions."""

    base_url: AnyHttpUrl | None = Field(
        None, description="the org's My Domain", examples=["https://acme.my.salesforce.com"]
    )
    token: SecretStr | None = Field(None, description="access token of a session", examples=["00D…!…"])
    requests_per_10s: int = Field(190, ge=1, description="requests we send at most", examples=[190])


class StripeSettings(BaseModel):
    """How to reach a Stripe account when no saved block of the tenant's name exists."""

    base_url: AnyHttpUrl | None = Field(None, description="API base", examples=["https://api.stripe.com"])
    token: SecretStr | None = Field(None, description="restricted or secret key", examples=["rk_live_…"])
    account: str | None = Field(
        None,
        pattern=r"^acct_\w{1,64}$",
        description="connected account to read instead of the key's own",
        examples=["acct_1A2b3C"],
    )
    requests_per_10s: int = Field(
        1_000, ge=10, description="account's limit; 250 for keys of a test account", examples=[1000]
    )
    webhook_secret: SecretStr | None = Field(
        None, description="secret that webhooks are signed with", examples=["whsec_…"]
    )


class FilesSettings(BaseModel):
    """Where files are delivered when no saved block of the tenant's name exists."""

    base_url: str | None = Field(
        None,
        description="folder with one of each stream; default is drop/ in the tenant's state folder",
        examples=["/srv/drop/{tenant}"],
    )
    options: dict[str, str] = Field(
        {},
        description="how files are written, for all streams or for <stream>.<option>, as a JSON object",
        examples=['{"delimiter": ";", "orders.marker": ".done"}'],
    )


class RestSettings(BaseModel):
    """How to reach an API declared under data/rest/ when no saved block of the tenant's exists."""

    base_url: AnyHttpUrl | None = Field(
        None, description="API base; default is the declaration's", examples=["https://api.example.com"]
    )
    token: SecretStr | None = Field(
        None, description="token, key, or user:password for basic", examples=["<token>"]
    )
    client_id: str | None = Field(None, description="of OAuth client credentials", examples=["my-client"])
    client_secret: SecretStr | None = Field(
        None, description="of OAuth client credentials", examples=["<secret>"]
    )


class MongoSettings(BaseModel):
    """How to reach a MongoDB database when no saved block of the tenant's name exists."""

    base_url: str | None = Field(
        None,
        pattern=r"^mongodb(\+srv)?://[^@]+/[^@/]+$",
        description="servers and database, without user and password",
        examples=["mongodb://db.example:27017/shop"],
    )
    username: str | None = Field(None, description="user", examples=["omni"])
    token: SecretStr | None = Field(None, description="the user's password", examples=["<password>"])
    change_stream: bool = Field(
        False, description="follow a replica set's changes, so that deletions arrive", examples=["true"]
    )


class FirestoreSettings(BaseModel):
    """How to reach a Firestore database when no saved block of the tenant's name exists."""

    base_url: str | None = Field(
        None,
        pattern=r"^firestore://[^/]+(/[^/]+)?$",
        description="project and database; the default database when only the project is named",
        examples=["firestore://my-project/(default)"],
    )
    token: SecretStr | None = Field(
        None,
        description="a service account's key, as JSON; default is the machine's own credentials",
        examples=["<service account JSON>"],
    )


class WebhookSettings(BaseModel):
    """Webhooks in and out."""

    secrets: dict[str, SecretStr] = Field(
        {},
        description="signing secrets by tenant/sender, as a JSON object; a space between two while changing",
        examples=['{"acme/zapier": "whsec_…"}'],
    )
    loopback: bool = Field(
        False,
        description="let outgoing webhooks reach this machine over http, to try them out",
        examples=["false"],
    )


class EventSettings(BaseModel):
    """Usage events that are collected."""

    write_keys: dict[str, str] = Field(
        {},
        description="digests of the keys that may send events, by tenant, as a JSON object (omni events key)",
        examples=['{"acme": "<64 hexadecimal digits>"}'],
    )
    read_keys: dict[str, str] = Field(
        {},
        description="digests of the keys that may watch live metrics, by tenant (omni events key --read)",
        examples=['{"acme": "<64 hexadecimal digits>"}'],
    )
    oldest_days: int = Field(
        365, ge=1, description="age in days at which a sent event is refused", examples=[365]
    )
    spool_bytes: int = Field(
        2_000_000_000,
        ge=1_000_000,
        description="bytes of a tenant's events that may wait to be loaded; more are answered 503",
        examples=[2_000_000_000],
    )
    origins: list[str] = Field(
        [],
        description="origins of web pages that may send and watch from a browser (CORS)",
        examples=['["https://shop.example"]'],
    )


class SmtpSettings(BaseModel):
    """The mail server; without a host messages are written to the tenant's outbox folder."""

    host: str | None = Field(None, description="mail server", examples=["smtp.example.com"])
    port: int = Field(587, ge=1, le=65535, description="its port", examples=[587])
    tls: Literal["starttls", "tls", "none"] = Field("starttls", description="how the line is secured")
    username: str | None = Field(None, description="login", examples=["omni"])
    password: SecretStr | None = Field(None, description="the login's password", examples=["<password>"])
    sender: str = Field(
        "omni@localhost", description="From address of what is sent", examples=["data@acme.example"]
    )
    timeout: float = Field(30.0, gt=0, le=300, description="seconds to wait for the server", examples=[30])


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
    old_secret_keys: list[SecretStr] = Field(
        [],
        description="earlier values of OMNI_SECRET_KEY, as a JSON list; they open what was sealed under them",
        examples=['["<the earlier OMNI_SECRET_KEY>"]'],
    )
    control_url: str | None = Field(
        None,
        repr=False,
        pattern=r"^(sqlite|postgresql(\+\w+)?)://",
        description="control database; default is SQLite in the state folder",
        examples=["postgresql+psycopg://omni@db.example/omni"],
    )
    warehouse_url: SecretStr | None = Field(
        None,
        description="PostgreSQL database of the warehouses; default is a DuckDB file per tenant",
        examples=["postgresql://omni_app@db.example/warehouse"],
    )
    warehouse_timeout: float = Field(
        1800.0, gt=0, description="seconds one statement in PostgreSQL may take", examples=[1800]
    )
    warehouse_reader: str | None = Field(
        None,
        pattern=r"^[a-z_{}]+$",
        description="role that may read a tenant's published layers in PostgreSQL, if it exists",
        examples=["reader_{tenant}"],
    )
    lake_catalog: SecretStr | None = Field(
        None,
        description="PostgreSQL database that keeps the catalogue of the lake (extra `lake`)",
        examples=["postgresql://omni@db.example/lake"],
    )
    lake_data: str | None = Field(
        None,
        description="where the lake's Parquet files lie; default is lake/ in the state folder",
        examples=["/srv/lake"],
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
    public_url: AnyHttpUrl | None = Field(
        None,
        description="address under which others reach `omni webhooks serve`; HubSpot signs it",
        examples=["https://hooks.acme.example"],
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
    salesforce: SalesforceSettings = SalesforceSettings()
    stripe: StripeSettings = StripeSettings()
    files: FilesSettings = FilesSettings()
    rest: dict[str, RestSettings] = {}
    vendors: dict[str, VendorSettings] = {}
    mongodb: MongoSettings = MongoSettings()
    firestore: FirestoreSettings = FirestoreSettings()
    webhooks: WebhookSettings = WebhookSettings()
    smtp: SmtpSettings = SmtpSettings()
    events: EventSettings = EventSettings()

    def tenant_home(self, tenant: str) -> Path:
        """Folder of everything that belongs to one tenant."""
        return self.home / "tenants" / tenant


def variables_of(vendor: str) -> str:
    """How the names of a vendor's variables begin, for example `OMNI_HUBSPOT__`."""
    group = "" if vendor in Settings.model_fields else "VENDORS__"
    return f"OMNI_{group}{vendor.upper()}__"


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
    except SettingsError as error:
        raise ConfigError(f"Wrong setting: {error}. Lists and groups are written as JSON.") from None


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The process's settings, read once. Tests call `settings.cache_clear()` after changing variables."""
    return load_settings()
