"""Keys of senders and watchers. The settings hold digests only; keys are random, so a digest tells nothing.

A write key stands in web pages and apps and may only send. A read key may only watch.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Literal

from omni.settings import settings

Purpose = Literal["write", "read"]


def new_key(purpose: Purpose) -> tuple[str, str]:
    """A new key, and the digest of it to put into the settings."""
    key = f"om{purpose[0]}_{secrets.token_urlsafe(32)}"
    return key, digest(key)


def digest(key: str) -> str:
    """What the settings hold of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def allowed(tenant: str, purpose: Purpose, key: str) -> bool:
    """Whether a key is one of the tenant's; several may stand, with spaces between their digests."""
    chosen = settings().events
    standing = (chosen.write_keys if purpose == "write" else chosen.read_keys).get(tenant, "").split()
    given = digest(key)
    return any(hmac.compare_digest(one.lower().encode(), given.encode()) for one in standing)
