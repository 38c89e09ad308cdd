"""An account of a REST API that is declared under data/rest/."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect.blocks.core import Block
from pydantic import Field, SecretStr

if TYPE_CHECKING:
    from omni.sources.connection import Connection


class RestApi(Block):
    """How to reach a tenant's account of a declared API. Save it as `<tenant>-<declaration>`.

    Example:
        Load a saved account and open it:
        ```python
        from blocks.rest_api import RestApi

        account = RestApi.load("BLOCK_NAME")
        connection = account.connection("feedback")
        ```
    """

    _block_type_name = "Omni REST API"
    _block_type_slug = "omni-rest-api"
    _documentation_url = "https://www.rfc-editor.org/rfc/rfc9110"  # type: ignore[assignment]

    base_url: str | None = Field(
        None, pattern=r"^https?://[^/\s@]+", description="Base URL, where it is not the declaration's."
    )
    token: SecretStr | None = Field(None, description="Token, API key, or user:password for basic auth.")
    client_id: str | None = Field(None, description="Client of OAuth client credentials.")
    client_secret: SecretStr | None = Field(None, description="Its secret.")
    timeout: float = Field(30.0, gt=0, le=600, description="Seconds one request may take.")

    def connection(self, name: str) -> Connection:
        """What the REST source needs to read this account.

        Args:
            name: the declaration's.

        Raises:
            ConfigError: the declaration's way of authentication needs something that is not set.
        """
        from omni.sources import rest

        api = rest.declarations()[name]
        return rest.account(
            api,
            self.base_url or api.base_url,
            token=self.token,
            client_id=self.client_id,
            client_secret=self.client_secret,
            timeout=self.timeout,
        )
