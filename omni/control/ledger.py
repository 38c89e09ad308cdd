"""What was written back to vendors, row by row."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from omni.control.database import Base

LONGEST_KEY = 200
"""Characters a row's key may have."""


class WrittenRow(Base):
    """The last known content of one row at one destination, by keyed digests that tell nobody the values.

    `content` is null where nothing of ours is there: never written, or cleared. It begins with `?` from
    before a sending until its answer: the vendor may hold the earlier content or what follows. `rejected` is
    the content that was refused last, for `reason`: a dead letter until the row changes or is replayed.
    `writes` counts what was written, so that a row which returns to an earlier content is no repetition.
    """

    __tablename__ = "written_rows"
    __table_args__ = (sa.Index("written_rows_rejected", "tenant", "write_back", "rejected_at"),)

    tenant: Mapped[str] = mapped_column(sa.String(63), primary_key=True)
    write_back: Mapped[str] = mapped_column(sa.String(100), primary_key=True)
    destination: Mapped[str] = mapped_column(sa.String(200), primary_key=True)
    key: Mapped[str] = mapped_column(sa.String(LONGEST_KEY), primary_key=True)
    content: Mapped[str | None] = mapped_column(sa.String(64))
    columns: Mapped[dict[str, Any]]
    writes: Mapped[int]
    written_at: Mapped[datetime | None]
    run_id: Mapped[str] = mapped_column(sa.String(64))
    rejected: Mapped[str | None] = mapped_column(sa.String(64))
    reason: Mapped[str | None] = mapped_column(sa.String(300))
    rejected_at: Mapped[datetime | None]
