"""The secrets that deliveries are signed with, by tenant and sender."""

from __future__ import annotations

import re

from pydantic import SecretStr

from omni.settings import settings


def secrets_of(tenant: str, vendor: str) -> tuple[str, ...]:
    """The secrets that stand for a tenant's sender; none where it is not set up.

    `OMNI_WEBHOOKS__SECRETS` names them by tenant and sender; where it does not, the vendor's own setting
    holds (`OMNI_HUBSPOT__WEBHOOK_SECRET`). While one is being changed, two stand: the new
    and the old, with a space between them.
    """
    chosen = settings()
    found = chosen.webhooks.secrets.get(f"{tenant}/{vendor}") or getattr(
        getattr(chosen, vendor, None), "webhook_secret", None
    )
    if not isinstance(found, SecretStr):
        return ()
    return tuple(part for part in re.split(r"[\s,]+", found.get_secret_value()) if part)
