"""Keys of tenants and of the people their data are about, each sealed or wrapped by a higher one."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from omni.control.database import Base, now


class TenantKey(Base):
    """A tenant's random key for one purpose, sealed by its vault. Without it all below it is lost."""

    __tablename__ = "tenant_keys"

    tenant: Mapped[str] = mapped_column(primary_key=True)
    purpose: Mapped[str] = mapped_column(primary_key=True)
    sealed: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(default=now)


class SubjectKey(Base):
    """The key of one person's data, wrapped by the tenant's; without `wrapped` it was destroyed for good.

    The person is named by a keyed hash of the id, so that the table tells nobody who was erased.
    """

    __tablename__ = "subject_keys"
    __table_args__ = {"sqlite_with_rowid": False}

    tenant: Mapped[str] = mapped_column(primary_key=True)
    subject: Mapped[str] = mapped_column(primary_key=True)
    subject_id_hash: Mapped[bytes] = mapped_column(primary_key=True)
    wrapped: Mapped[bytes | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    destroyed_at: Mapped[datetime | None]
