"""Keyed hashes of personal values, so that equal values stay joinable and nothing else can be read.

The hash is HMAC-SHA256 under a key of the tenant, never a plain digest. Addresses and telephone numbers
are few enough to try them all: whoever holds a table of plain (or merely salted) SHA-256 values finds
most of them by hashing a list of known addresses, a dictionary attack that takes minutes. With a key that
is not in the warehouse this needs the key as well. It follows that the key is as sensitive as the
addresses: keep it out of exports, snapshots and of the backups that hold the tables. Hashed values are
still personal data in the sense of the law (pseudonymised, not anonymous), because the holder of the key
can recognise a known person.

Losing or changing the key breaks every join with values hashed before.
"""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from omni.errors import ConfigError, StorageError
from omni.settings import settings

KEY_BYTES = 32
SALT = b"omni-pipelines keyed hash 1"


def hkdf(master: bytes, *, salt: bytes, info: bytes, length: int = KEY_BYTES) -> bytes:
    """Derive a key from a master key: HKDF with SHA-256 (RFC 5869).

    Args:
        master: the input key material.
        salt: a fixed, public value of the application.
        info: what the derived key is for; another `info` gives an unrelated key.
        length: bytes wanted, at most 8,160.
    """
    if not 0 < length <= 255 * 32:
        raise ValueError("HKDF-SHA256 gives between 1 and 8160 bytes")
    pseudorandom = hmac.digest(salt or bytes(32), master, "sha256")
    block, output, counter = b"", b"", 1
    while len(output) < length:
        block = hmac.digest(pseudorandom, block + info + bytes([counter]), "sha256")
        output += block
        counter += 1
    return output[:length]


def master_key() -> bytes:
    """The installation's master key; derive from it with `hkdf`, never use it as it is.

    It is `OMNI_SECRET_KEY` where that is set, otherwise random and made once in the state folder.

    Raises:
        ConfigError: the stored master key is damaged.
        StorageError: the state folder cannot be read or written.
    """
    secret = settings().secret_key
    return secret.get_secret_value().encode() if secret else stored_key(key_file())


def master_keys() -> list[bytes]:
    """The present master key, then earlier ones: `OMNI_OLD_SECRET_KEYS`, and the one of the state folder."""
    old = [key.get_secret_value().encode() for key in settings().old_secret_keys]
    stored = [stored_key(key_file())] if key_file().exists() else []
    return [master_key(), *old, *stored]


def key_file() -> Path:
    """Where the master key is kept that is made here; in use while `OMNI_SECRET_KEY` is not set."""
    return settings().home / "keys" / "master.key"


@dataclass(frozen=True)
class Hasher:
    """Hashes values with one tenant's key. The key does not appear in its representation."""

    key: bytes = field(repr=False)

    @classmethod
    def for_tenant(cls, tenant: str) -> Self:
        """The hasher of a tenant; tenants' hashes of one value differ.

        Raises:
            As `master_key`.
        """
        return cls(hkdf(master_key(), salt=SALT, info=b"tenant " + tenant.encode()))

    @classmethod
    def all_of(cls, tenant: str) -> list[Self]:
        """The tenant's hasher, then those of earlier master keys, to find what was hashed before a change."""
        keys = dict.fromkeys(master_keys())
        return [cls(hkdf(key, salt=SALT, info=b"tenant " + tenant.encode())) for key in keys]

    def digest(self, value: str | None) -> str | None:
        """64 hexadecimal digits for the trimmed, lower-cased value; None where there is no value."""
        if value is None:
            return None
        normal = value.strip().lower()
        return hmac.digest(self.key, normal.encode(), "sha256").hex() if normal else None

    def digest_id(self, value: str | None) -> str | None:
        """As `digest` for a number or name of a user, in which capitals count: `aB3x` is not `Ab3X`.

        What holds an @ is taken for an address, and joins with the hashes of addresses.
        """
        if value is None or "@" in value:
            return self.digest(value)
        normal = value.strip()
        return hmac.digest(self.key, normal.encode(), "sha256").hex() if normal else None

    def digests(self, values: Iterable[str | None]) -> list[str | None]:
        """`digest` of each value."""
        return [self.digest(value) for value in values]


def stored_key(path: Path) -> bytes:
    """Read a master key, or make it. Of several processes that try at once, the first one's stands."""
    try:
        if not path.exists():
            _create_key(path)
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(
            f"Cannot read or create the key {path}: {getattr(error, 'strerror', None) or 'not text'}. "
            "Make its folder writable, or set OMNI_SECRET_KEY."
        ) from None
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigError(
            f"The key {path} is damaged: expected {2 * KEY_BYTES} hexadecimal digits. Restore it from a "
            "backup; with a new key, values hashed so far no longer join with new ones."
        )
    return key


def _create_key(path: Path) -> None:
    # The state folder first: what is made on the way to another folder is open to all.
    for folder in (path.parent.parent, path.parent):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(8)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(KEY_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        # A hard link appears whole or not at all and, unlike a rename, never replaces another's key.
        path.hardlink_to(temporary)
    except FileExistsError:
        return
    finally:
        temporary.unlink(missing_ok=True)
