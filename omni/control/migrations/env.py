"""How Alembic reaches the control database: over the connection that `omni.control.migrate` hands it.

From the command line (`alembic revision --autogenerate --rev-id 0002 -m "what"`) it is the one in use here.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context

from omni.control.database import unmigrated, url
from omni.control.models import Base


def migrate(connection: sa.Connection) -> None:
    """Run what was asked for, in the transaction the connection is in."""
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    migrate(given)
else:
    with unmigrated(sa.make_url(url())).begin() as own:
        migrate(own)
