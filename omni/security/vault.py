"""Sealing small secrets so that what holds them - a database, its backups - does not give them away.

AES-256-GCM under a key of the tenant that derives from the master key. A sealed value is bound to its
tenant, purpose and name: put elsewhere it does not open. It names the master key it was sealed under, so
that after a change of `OMNI_SECRET_KEY` those listed in `OMNI_OLD_SECRET_KEYS`, and the one kept in the
state folder, still open it; what is sealed anew uses the present one.
"""

from __future__ import annotations

import json
import os
from typing import Any

from omni.errors import ConfigError
from omni.security.hashing import hkdf, master_key, master_keys

SALT = b"omni-pipelines vault 1"
VERSION = 1
ID_BYTES, NONCE_BYTES, TAG_BYTES = 4, 12, 16


class Vault:
    """Seals and opens one tenant's secrets. Keys do not appear in its representation.

    Args:
        tenant: whose.

    Raises:
        ConfigError: the stored master key is damaged.
        StorageError: the state folder cannot be read or written.
    """

    def __init__(self, tenant: str) -> None:
        self._tenant = tenant
        self._master = master_key()

    def __repr__(self) -> str:
        return f"Vault({self._tenant!r})"

    def seal(self, secret: bytes, *, purpose: str, name: str) -> bytes:
        """Encrypt a secret, bound to the tenant, purpose and name.

        Args:
            secret: any bytes.
            purpose: what kind of thing it is, for example "oauth".
            name: which of them, for example "hubspot".
        """
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        head, nonce = bytes([VERSION]) + _id(self._master), os.urandom(NONCE_BYTES)
        bound = self._bound(head, purpose, name)
        return head + nonce + AESGCM(self._key(self._master)).encrypt(nonce, secret, bound)

    def open(self, sealed: bytes, *, purpose: str, name: str) -> bytes:
        """The secret again.

        Raises:
            ConfigError: it was sealed under a master key that is not known here, for another tenant,
                purpose or name, or it is damaged.
        """
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        what = f"The sealed {purpose} {name!r} of tenant {self._tenant!r}"
        head, rest = sealed[: 1 + ID_BYTES], sealed[1 + ID_BYTES :]
        if len(rest) < NONCE_BYTES + TAG_BYTES or head[0] != VERSION:
            raise ConfigError(f"{what} is damaged or of a newer version. Restore it from a backup.")
        master = next((key for key in self._masters() if _id(key) == head[1:]), None)
        if master is None:
            raise ConfigError(
                f"{what} was sealed under another master key ({head[1:].hex()}; the present one is "
                f"{_id(self._master).hex()}). Set OMNI_SECRET_KEY to that key again, or list it in "
                "OMNI_OLD_SECRET_KEYS."
            )
        bound = self._bound(head, purpose, name)
        try:
            return AESGCM(self._key(master)).decrypt(rest[:NONCE_BYTES], rest[NONCE_BYTES:], bound)
        except InvalidTag:
            raise ConfigError(
                f"{what} does not open: it is damaged or belongs elsewhere. Restore it from a backup."
            ) from None

    def current(self, sealed: bytes) -> bool:
        """Whether it is sealed under the present master key; if not, seal it again when convenient."""
        return sealed[: 1 + ID_BYTES] == bytes([VERSION]) + _id(self._master)

    def _key(self, master: bytes) -> bytes:
        return hkdf(master, salt=SALT, info=b"tenant " + self._tenant.encode())

    def _masters(self) -> list[bytes]:
        """The present master key, then earlier ones."""
        return [self._master, *master_keys()]

    def _bound(self, head: bytes, purpose: str, name: str) -> bytes:
        return head + json.dumps([self._tenant, purpose, name]).encode()


def _id(master: bytes) -> bytes:
    """A short public name of a master key, from which nothing about it follows."""
    return hkdf(master, salt=SALT, info=b"name", length=ID_BYTES)


def pack(values: dict[str, Any]) -> bytes:
    """JSON values as bytes to seal."""
    return json.dumps(values, sort_keys=True).encode()


def unpack(secret: bytes) -> dict[str, Any]:
    """What `pack` packed."""
    values: dict[str, Any] = json.loads(secret)
    return values
