"""A tenant's warehouse."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from prefect.blocks.core import Block
from pydantic import Field

if TYPE_CHECKING:
    from omni.warehouse.database import Warehouse as OpenWarehouse


class Warehouse(Block):
    """A tenant's warehouse: DuckDB, or PostgreSQL by `OMNI_WAREHOUSE_URL`. Save it under the tenant's name.

    Example:
        Load a saved warehouse and read from it:
        ```python
        from blocks.warehouse import Warehouse

        saved = Warehouse.load("BLOCK_NAME")
        with saved.open() as warehouse, warehouse.cursor() as connection:
            print(connection.execute("SELECT count(*) FROM core.orders").fetchone())
        ```
    """

    _block_type_name = "Omni Warehouse"
    _block_type_slug = "omni-warehouse"
    _documentation_url = "https://duckdb.org/docs/stable/"  # type: ignore[assignment]

    tenant: str = Field(..., pattern=r"^[a-z][a-z0-9-]{0,62}$", description="The tenant it belongs to.")
    timeout: float | None = Field(
        None, ge=0, description="Seconds to wait while another process writes; empty for the setting's."
    )

    def open(self) -> AbstractContextManager[OpenWarehouse]:
        """Open it for writing, waiting for another process to let go of it.

        Raises:
            ConfigError: there is no such tenant.
            WarehouseLocked: another process held it all the time.
        """
        from omni import tenancy
        from omni.warehouse.database import open_warehouse

        return open_warehouse(tenancy.get(self.tenant), timeout=self.timeout)
