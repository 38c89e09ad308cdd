"""A Salesforce org."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from prefect.blocks.core import Block
from pydantic import Field, SecretStr, model_validator

if TYPE_CHECKING:
    from omni.sources.connection import Connection
    from omni.sources.oauth import AppLogin


class Salesforce(Block):
    """How to reach a tenant's Salesforce org. Save it under the tenant's name.

    Give a connected app's `client_id` with `client_secret` (client credentials), or with `private_key` and
    `username` (JWT bearer); both renew sessions that end. A `token` alone works until its session ends.

    Example:
        Load a saved org and open it:
        ```python
        from blocks.salesforce import Salesforce

        org = Salesforce.load("BLOCK_NAME")
        connection = org.connection()
        ```
    """

    _block_type_name = "Omni Salesforce"
    _block_type_slug = "omni-salesforce"
    _documentation_url = "https://developer.salesforce.com/docs/platform/api-rest/guide"  # type: ignore[assignment]

    base_url: str = Field(
        ..., pattern=r"^https?://", description="The org's My Domain, such as https://acme.my.salesforce.com."
    )
    token: SecretStr | None = Field(None, description="Access token of a session.")
    client_id: str | None = Field(None, description="Consumer key of a connected app.")
    client_secret: SecretStr | None = Field(None, description="Its consumer secret.")
    private_key: SecretStr | None = Field(None, description="RSA key in PEM whose certificate the app has.")
    username: str | None = Field(None, description="User to act for with the private key.")
    login_url: str = Field(
        "https://login.salesforce.com",
        pattern=r"^https?://",
        description="Where users sign in; https://test.salesforce.com for sandboxes.",
    )
    bulk_from: int = Field(10_000, ge=1, description="Rows from which on a window is read by a Bulk job.")
    requests_per_10s: int = Field(190, ge=1, description="Requests we send at most in ten seconds.")
    timeout: float = Field(30.0, gt=0, le=600, description="Seconds one request may take.")

    @model_validator(mode="after")
    def _can_sign_in(self) -> Self:
        by_app = self.client_id and (self.client_secret or (self.private_key and self.username))
        if not (by_app or self.token):
            raise ValueError(
                "needs client_id with client_secret, or with private_key and username, or a token"
            )
        return self

    def connection(self) -> Connection:
        """What the Salesforce source needs to read this org."""
        from omni.sources.connection import Connection

        return Connection(
            vendor="salesforce",
            base_url=self.base_url.rstrip("/"),
            token=self.token or SecretStr(""),
            requests_per_10s=self.requests_per_10s,
            timeout=self.timeout,
            login=self._login(),
            options={"bulk_from": str(self.bulk_from)},
        )

    def _login(self) -> AppLogin | None:
        if self.client_id is None:
            return None
        from dataclasses import replace

        from omni.sources.oauth import AppLogin, Client
        from omni.sources.oauth_providers import PROVIDERS

        by_key = self.private_key is not None and self.username is not None
        # Client credentials are given only by the org's own host.
        host = self.login_url if by_key else self.base_url
        provider = replace(
            PROVIDERS["salesforce"],
            tokens_at=f"{host.rstrip('/')}/services/oauth2/token",
            audience=self.login_url.rstrip("/"),
        )
        grant = "jwt_bearer" if by_key else "client_credentials"
        client = Client(self.client_id, grant, self.client_secret, self.private_key, self.username)  # type: ignore[arg-type]
        return AppLogin(provider, client)
