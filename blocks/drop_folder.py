"""A folder in which files are delivered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect.blocks.core import Block
from pydantic import Field, SecretStr

if TYPE_CHECKING:
    from omni.sources.connection import Connection


class DropFolder(Block):
    """Where a tenant's files are delivered, a folder for each stream. Save it under the tenant's name.

    Example:
        Load a saved folder and open it:
        ```python
        from blocks.drop_folder import DropFolder

        folder = DropFolder.load("BLOCK_NAME")
        connection = folder.connection()
        ```
    """

    _block_type_name = "Omni Drop Folder"
    _block_type_slug = "omni-drop-folder"
    _documentation_url = "https://docs.pola.rs/user-guide/io/csv/"  # type: ignore[assignment]

    base_url: str = Field(
        ..., description="The folder, for example /srv/drop/acme or file:///srv/drop/acme.", min_length=1
    )
    options: dict[str, str] = Field(
        {},
        description=(
            "How the files are written, for all streams (delimiter) or one (orders.delimiter): delimiter, "
            "encoding, decimal, nulls, timezone, date_format, timestamp_format, sheet, pattern, marker, "
            "arrival."
        ),
    )

    def connection(self) -> Connection:
        """What the files source needs to read this folder."""
        from omni.sources.connection import Connection

        return Connection("files", self.base_url, SecretStr(""), options=self.options)
