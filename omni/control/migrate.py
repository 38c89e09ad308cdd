"""Bringing the control database to the tables this version needs, with Alembic."""

from __future__ import annotations

import sqlalchemy as sa

from omni.control import models
from omni.control.database import Base

__all__ = ["models", "upgrade"]


def upgrade(engine: sa.Engine) -> None:
    """Make the tables that are missing."""
    Base.metadata.create_all(engine)
