"""A MongoDB database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect.blocks.core import Block
from pydantic import Field, SecretStr

if TYPE_CHECKING:
    from omni.sources.connection import Connection


class MongoDB(Block):
    """How to reach a tenant's MongoDB database. Save it under the tenant's name.

    Example:
        Load a saved database and open it:
        ```python
        from blocks.mongodb import MongoDB

        database = MongoDB.load("BLOCK_NAME")
        connection = database.connection()
        ```
    """

    _block_type_name = "Omni MongoDB"
    _block_type_slug = "omni-mongodb"
    _documentation_url = "https://www.mongodb.com/docs/manual/reference/connection-string/"  # type: ignore[assignment]

    base_url: str = Field(
        ...,
        pattern=r"^mongodb(\+srv)?://[^@]+/[^@/]+$",
        description="Servers and database without user and password, e.g. mongodb://db.example:27017/shop.",
    )
    username: str | None = Field(None, description="User, if the server asks for one.")
    token: SecretStr = Field(SecretStr(""), description="The user's password.")
    change_stream: bool = Field(
        False, description="Follow a replica set's changes, so that deletions arrive with each run."
    )
    timeout: float = Field(30.0, gt=0, le=600, description="Seconds the server may take to answer.")

    def connection(self) -> Connection:
        """What the MongoDB source and destination need to reach this database."""
        from omni.sources.connection import Connection

        options = {"username": self.username} if self.username else {}
        if self.change_stream:
            options["change_stream"] = "true"
        return Connection("mongodb", self.base_url, self.token, timeout=self.timeout, options=options)
