"""How Alembic reaches the control database: over the connection that `omni.control.migrate` hands it.

From the command line (`alembic revision --autogenerate -m "what" --rev-id 0002`) it is the installation's own.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context

from omni.control.database import engine
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
    with engine().begin() as own:
        migrate(own)
