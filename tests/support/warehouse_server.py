"""PostgreSQL as tests use it for warehouses: a role without privileges, databases made ready in advance."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omni.settings import settings
from omni.tenancy import Tenant
from omni.warehouse.database import open_warehouse

ROLE = "omni_app"
ACME = Tenant(tenant="acme", title="Acme", timezone="Europe/Berlin", currency="EUR", sources={})


class WarehouseServer:
    """Databases that belong to `omni_app`, copied from one in which tenant acme's tables are made."""

    def __init__(self, postgres: Any, template: str) -> None:
        self.postgres = postgres
        self.template = template

    def url(self, name: str, role: str = ROLE) -> str:
        return f"postgresql://{role}@/{name}?host={self.postgres.folder}"

    def connect(self, name: str, role: str = ROLE) -> Any:
        import psycopg

        return psycopg.connect(self.url(name, role), autocommit=True)

    @contextmanager
    def database(self) -> Iterator[str]:
        with self.postgres.database(self.template) as name:
            self.postgres.run(f"ALTER DATABASE {name} OWNER TO {ROLE}")
            yield name


@contextmanager
def running(postgres: Any, state: Path) -> Iterator[WarehouseServer]:
    """Make the role and the template.

    Args:
        postgres: a server (`support/postgres.py`).
        state: an empty state folder.
    """
    postgres.run(f"CREATE ROLE {ROLE} LOGIN NOSUPERUSER NOBYPASSRLS")
    with postgres.database("template0") as template:
        postgres.run(f"ALTER DATABASE {template} OWNER TO {ROLE}")
        server = WarehouseServer(postgres, template)
        asked = {"OMNI_HOME": str(state), "OMNI_WAREHOUSE_URL": server.url(template)}
        before = {name: os.environ.get(name) for name in asked}
        os.environ |= asked
        settings.cache_clear()
        try:
            with open_warehouse(ACME):
                pass
        finally:
            for name, value in before.items():
                os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)
            settings.cache_clear()
        yield server
