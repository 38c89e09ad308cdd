"""A Firestore database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect.blocks.core import Block
from pydantic import Field, SecretStr

if TYPE_CHECKING:
    from omni.sources.connection import Connection


class Firestore(Block):
    """How to reach a tenant's Firestore database. Save it under the tenant's name.

    Example:
        Load a saved database and open it:
        ```python
        from blocks.firestore import Firestore

        database = Firestore.load("BLOCK_NAME")
        connection = database.connection()
        ```
    """

    _block_type_name = "Omni Firestore"
    _block_type_slug = "omni-firestore"
    _documentation_url = "https://firebase.google.com/docs/firestore"  # type: ignore[assignment]

    base_url: str = Field(
        ...,
        pattern=r"^firestore://[^/]+(/[^/]+)?$",
        description="Project and database, e.g. firestore://my-project/(default).",
    )
    token: SecretStr = Field(
        SecretStr(""), description="A service account's key as JSON; empty: the machine's own credentials."
    )
    timeout: float = Field(30.0, gt=0, le=600, description="Seconds the server may take to answer.")

    def connection(self) -> Connection:
        """What the Firestore source and destination need to reach this database."""
        from omni.sources.connection import Connection

        return Connection("firestore", self.base_url, self.token, timeout=self.timeout)
