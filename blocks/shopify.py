"""A Shopify shop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect.blocks.core import Block
from pydantic import Field, SecretStr

if TYPE_CHECKING:
    from omni.sources.connection import Connection


class Shopify(Block):
    """How to reach a tenant's Shopify shop. Save it under the tenant's name.

    Example:
        Load a saved shop and open it:
        ```python
        from blocks.shopify import Shopify

        shop = Shopify.load("BLOCK_NAME")
        connection = shop.connection()
        ```
    """

    _block_type_name = "Omni Shopify"
    _block_type_slug = "omni-shopify"
    _documentation_url = "https://shopify.dev/docs/api/admin-graphql"  # type: ignore[assignment]

    base_url: str = Field(
        ..., pattern=r"^https?://", description="The shop's own address, such as https://acme.myshopify.com."
    )
    token: SecretStr = Field(..., description="Admin API access token with the read scopes.")
    timeout: float = Field(30.0, gt=0, le=600, description="Seconds one request may take.")
    bulk_above: int | None = Field(
        None, ge=0, description="Records above which a first load runs as a bulk operation."
    )
    bulk_poll: float | None = Field(
        None, gt=0, le=60, description="Seconds until a bulk operation is first asked about."
    )
    bulk_patience: float | None = Field(
        None, gt=0, description="Seconds a bulk operation may take before it is cancelled."
    )

    def connection(self) -> Connection:
        """What the Shopify source needs to read this shop."""
        from omni.sources.connection import Connection

        given = {
            "bulk_above": self.bulk_above,
            "bulk_poll": self.bulk_poll,
            "bulk_patience": self.bulk_patience,
        }
        return Connection(
            vendor="shopify",
            base_url=self.base_url.rstrip("/"),
            token=self.token,
            timeout=self.timeout,
            options={name: str(value) for name, value in given.items() if value is not None},
        )
