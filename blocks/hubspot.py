"""A HubSpot account."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect.blocks.core import Block
from pydantic import Field, SecretStr

if TYPE_CHECKING:
    from omni.sources.connection import Connection


class HubSpot(Block):
    """How to reach a tenant's HubSpot account. Save it under the tenant's name.

    Example:
        Load a saved account and open it:
        ```python
        from blocks.hubspot import HubSpot

        account = HubSpot.load("BLOCK_NAME")
        connection = account.connection()
        ```
    """

    _block_type_name = "Omni HubSpot"
    _block_type_slug = "omni-hubspot"
    _documentation_url = "https://developers.hubspot.com/docs/api/private-apps"  # type: ignore[assignment]

    base_url: str = Field(
        "https://api.hubapi.com", pattern=r"^https?://", description="Base URL of the CRM API."
    )
    token: SecretStr = Field(
        ...,
        description=(
            "Access token of a private app with the CRM read scopes; write-backs also need the write scopes "
            "of the objects they change, such as crm.objects.contacts.write."
        ),
    )
    requests_per_10s: int = Field(190, ge=1, description="Requests the account allows in ten seconds.")
    searches_per_second: int = Field(5, ge=1, description="Requests a second the search endpoint allows.")
    timeout: float = Field(30.0, gt=0, le=600, description="Seconds one request may take.")

    def connection(self) -> Connection:
        """What the HubSpot source needs to read this account."""
        from omni.sources.connection import Connection

        return Connection(
            vendor="hubspot",
            base_url=self.base_url.rstrip("/"),
            token=self.token,
            requests_per_10s=self.requests_per_10s,
            searches_per_second=self.searches_per_second,
            timeout=self.timeout,
        )
