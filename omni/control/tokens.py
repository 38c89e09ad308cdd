"""Accounts that were connected by OAuth."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from omni.control.database import Base, now


class OAuthToken(Base):
    """One tenant's account at one vendor: what may be seen of it, and the sealed rest.

    `sealed` holds the tokens and whatever else is secret. `refused_at` says since when the vendor refuses
    to renew, which only connecting again can mend.
    """

    __tablename__ = "oauth_tokens"

    tenant: Mapped[str] = mapped_column(primary_key=True)
    vendor: Mapped[str] = mapped_column(primary_key=True)
    grant: Mapped[str]
    client_id: Mapped[str]
    site: Mapped[str | None]
    base_url: Mapped[str]
    scope: Mapped[str]
    sealed: Mapped[bytes]
    issued_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    renewable_until: Mapped[datetime | None]
    connected_at: Mapped[datetime] = mapped_column(default=now)
    renewals: Mapped[int] = mapped_column(default=0)
    refused_at: Mapped[datetime | None]
