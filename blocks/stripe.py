"""A Stripe account."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect.blocks.core import Block
from pydantic import Field, SecretStr

if TYPE_CHECKING:
    from omni.sources.connection import Connection


class Stripe(Block):
    """How to reach a tenant's Stripe account. Save it under the tenant's name.

    Example:
        Load a saved account and open it:
        ```python
        from blocks.stripe import Stripe

        account = Stripe.load("BLOCK_NAME")
        connection = account.connection()
        ```
    """

    _block_type_name = "Omni Stripe"
    _block_type_slug = "omni-stripe"
    _documentation_url = "https://docs.stripe.com/keys"  # type: ignore[assignment]

    base_url: str = Field("https://api.stripe.com", pattern=r"^https?://", description="Base URL of the API.")
    token: SecretStr = Field(..., description="Restricted or secret key that may read what is loaded.")
    account: str | None = Field(
        None, pattern=r"^acct_\w{1,64}$", description="Connected account to read instead of the key's own."
    )
    requests_per_10s: int = Field(
        1_000, ge=10, description="Requests in ten seconds; 250 for keys of a test account."
    )
    timeout: float = Field(30.0, gt=0, le=600, description="Seconds one request may take.")

    def connection(self) -> Connection:
        """What the Stripe source needs to read this account."""
        from omni.sources.connection import Connection

        return Connection(
            vendor="stripe",
            base_url=self.base_url.rstrip("/"),
            token=self.token,
            requests_per_10s=self.requests_per_10s,
            timeout=self.timeout,
            options={"account": self.account} if self.account else {},
        )
