"""Encryption of personal values under a key of the person's own, so that deleting the key erases them.

A person's values may lie in many places that are hard to rewrite: versions of a table, snapshots, exports,
backups. Each person (a data subject, named by kind and id) therefore has a random key. It is wrapped by the
tenant's key, which the vault seals under the master key, and lives in the control database only. When it is
destroyed, every copy of the values is unreadable wherever it is, and nothing else is touched.

Equal values of one person give equal ciphertext (AES-256-SIV, RFC 5297): a row that did not change stays the
same to the byte, and a person's values join with each other. Equal values of two people do not compare;
for that there is the keyed hash. Ciphertext tells the length of the value.

Whose key was destroyed stays erased: encrypting for them again gives None, and `withheld` counts it. A load
that meets an erased person at the vendor once more thus stores the row without the personal values.
"""

from __future__ import annotations

import hmac
import os
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import sqlalchemy as sa

from omni.control.database import engine, insert_new, now, session
from omni.control.keys import SubjectKey, TenantKey
from omni.errors import ConfigError, TransientError
from omni.security.hashing import hkdf
from omni.security.vault import Vault

PREFIX = "e1."
"""Begins every ciphertext; names its version."""
PURPOSE = "personal data"
KEY_BYTES, NONCE_BYTES, HASH_BYTES = 64, 12, 16
BATCH = 5_000
REMEMBERED = 50_000
KEYS = ("tenant", "subject", "subject_id_hash")
SALT = b"omni-pipelines subject keys 1"

T = TypeVar("T")


class SubjectKeys:
    """Encrypts and decrypts one tenant's personal values. May be shared between threads.

    Each call is a transaction of its own in the control database: none may be open around it.

    Args:
        tenant: whose.

    Attributes:
        withheld: values not encrypted so far, because their person was erased or they had no id.

    Raises:
        ConfigError: the tenant's key does not open under the master key.
        StorageError: control database or state folder cannot be used.
    """

    def __init__(self, tenant: str) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self.tenant = tenant
        self.withheld = 0
        key = _tenant_key(tenant)
        self._wrapping = AESGCM(hkdf(key, salt=SALT, info=b"wrapping"))
        self._naming = hkdf(key, salt=SALT, info=b"naming")
        self._remembered: dict[tuple[str, str], bytes] = {}

    def __repr__(self) -> str:
        return f"SubjectKeys({self.tenant!r})"

    def encrypt(
        self, subject: str, ids: Sequence[str | None], values: Sequence[str | None]
    ) -> list[str | None]:
        """Encrypt a column; keys that do not exist yet are made, the same one whoever asks first.

        Args:
            subject: what kind of person, for example "contact"; one key serves all columns of one person.
            ids: the person of each value, compared exactly.
            values: the values.

        Returns:
            Text beginning with `e1.` for each value; None where there is no value, no id, or the person
            was erased.

        Raises:
            ConfigError: a key does not open; the message names no person.
        """
        from cryptography.hazmat.primitives.ciphers.aead import AESSIV

        rows = list(zip(ids, values, strict=True))
        keys = self._ensure(subject, {id_ for id_, value in rows if id_ is not None and value is not None})
        result: list[str | None] = []
        for id_, value in rows:
            key = keys.get(id_) if id_ is not None else None
            if value is None or key is None:
                self.withheld += value is not None
                result.append(None)
                continue
            plain = value.encode("utf-8", "surrogatepass")
            result.append(PREFIX + urlsafe_b64encode(AESSIV(key).encrypt(plain, None)).decode())
        return result

    def decrypt(
        self, subject: str, ids: Sequence[str | None], values: Sequence[str | None]
    ) -> list[str | None]:
        """The values `encrypt` was given; None where their person's key was destroyed or never existed.

        Raises:
            ConfigError: a value is no ciphertext of ours, of another person, or damaged.
        """
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESSIV

        rows = list(zip(ids, values, strict=True))
        wanted = {id_ for id_, value in rows if id_ is not None and value is not None}
        keys, _ = self._read(subject, wanted)
        result: list[str | None] = []
        for number, (id_, value) in enumerate(rows):
            key = keys.get(id_) if id_ is not None else None
            if value is None or key is None:
                result.append(None)
                continue
            try:
                # Without the prefix nothing is left to decrypt, which is refused as well.
                text = value[len(PREFIX) :] if value.startswith(PREFIX) else ""
                plain = AESSIV(key).decrypt(b64decode(text, b"-_", validate=True), None)
            except (ValueError, InvalidTag):
                raise ConfigError(
                    f"Value {number} of {len(rows)} of subject {subject!r} does not decrypt: it is not "
                    f"encrypted, belongs to another {subject}, or is damaged."
                ) from None
            result.append(plain.decode("utf-8", "surrogatepass"))
        return result

    def destroy(self, subject: str, ids: Iterable[str]) -> int:
        """Erase people: their keys are gone, and none will be made for them again. Cannot be undone.

        Doing it again changes nothing. Backups of the control database hold the keys until they expire.

        Returns:
            How many were not erased before.

        Raises:
            TransientError: they are erased, but another process that reads the control database keeps the
                old keys in its log; call again once it is done.
        """
        wanted, done = set(ids), 0
        for batch in _batches(wanted):
            names = [self._name(subject, id_) for id_ in batch]
            with session() as opened:
                if opened.get_bind().dialect.name == "sqlite":
                    # Else the old bytes would stay in the file's free space.
                    opened.execute(sa.text("PRAGMA secure_delete=ON"))
                made = insert_new(opened, SubjectKey, KEYS, [self._row(subject, n, None) for n in names])
                gone = (
                    sa.update(SubjectKey)
                    .where(*self._among(subject, names), SubjectKey.destroyed_at.is_(None))
                    .values(wrapped=None, destroyed_at=now())
                )
                done += made + opened.execute(gone).rowcount  # type: ignore[attr-defined]
            for id_ in batch:
                self._remembered.pop((subject, id_), None)
        _settle()
        return done

    def _ensure(self, subject: str, ids: set[str]) -> dict[str, bytes]:
        """The keys of people, made where they are missing; without those who were erased.

        A key is used as remembered even if another process has destroyed it since: what is encrypted with it
        cannot be read either.
        """
        keys = {id_: key for id_ in ids if (key := self._remembered.get((subject, id_)))}
        found, erased = self._read(subject, ids - keys.keys())
        keys |= found
        missing = ids - keys.keys() - erased
        for batch in _batches(missing):
            keys |= self._make(subject, batch)
        if len(self._remembered) + len(keys) > REMEMBERED:
            self._remembered.clear()
        self._remembered |= {(subject, id_): key for id_, key in keys.items()}
        return keys

    def _make(self, subject: str, ids: list[str]) -> dict[str, bytes]:
        """New keys; those another process was quicker to make, or has destroyed, are as it left them."""
        made: dict[str, bytes] = {}
        rows = []
        for id_ in ids:
            name = self._name(subject, id_)
            made[id_] = key = os.urandom(KEY_BYTES)
            rows.append(self._row(subject, name, self._wrap(subject, name, key)))
        with session() as opened:
            ours = insert_new(opened, SubjectKey, KEYS, rows) == len(rows)
        return made if ours else self._read(subject, ids)[0]

    def _read(self, subject: str, ids: Iterable[str]) -> tuple[dict[str, bytes], set[str]]:
        """The keys there are, and who was erased."""
        keys: dict[str, bytes] = {}
        erased: set[str] = set()
        for batch in _batches(ids):
            named = {self._name(subject, id_): id_ for id_ in batch}
            query = sa.select(SubjectKey.subject_id_hash, SubjectKey.wrapped)
            with engine().connect() as connection:
                rows = connection.execute(query.where(*self._among(subject, list(named)))).all()
            for name, wrapped in rows:
                if wrapped is None:
                    erased.add(named[name])
                else:
                    keys[named[name]] = self._unwrap(subject, name, wrapped)
        return keys, erased

    def _among(self, subject: str, names: list[bytes]) -> tuple[sa.ColumnElement[bool], ...]:
        return (
            SubjectKey.tenant == self.tenant,
            SubjectKey.subject == subject,
            SubjectKey.subject_id_hash.in_(names),
        )

    def _row(self, subject: str, name: bytes, wrapped: bytes | None) -> dict[str, Any]:
        moment = now()
        return {
            "tenant": self.tenant,
            "subject": subject,
            "subject_id_hash": name,
            "wrapped": wrapped,
            "created_at": moment,
            "destroyed_at": moment if wrapped is None else None,
        }

    def _name(self, subject: str, id_: str) -> bytes:
        """What the table calls a person. Of its own key, so that it joins with no hash in the warehouse."""
        text = f"{len(subject)}:{subject}{id_}".encode("utf-8", "surrogatepass")
        return hmac.digest(self._naming, text, "sha256")[:HASH_BYTES]

    def _wrap(self, subject: str, name: bytes, key: bytes) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._wrapping.encrypt(nonce, key, subject.encode() + name)

    def _unwrap(self, subject: str, name: bytes, wrapped: bytes) -> bytes:
        from cryptography.exceptions import InvalidTag

        try:
            return self._wrapping.decrypt(
                wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], subject.encode() + name
            )
        except InvalidTag:
            raise ConfigError(
                f"A key of subject {subject!r} of tenant {self.tenant!r} does not open: it was made under "
                "another tenant key or is damaged. Restore the control database from a backup."
            ) from None


def _tenant_key(tenant: str) -> bytes:
    """The tenant's key, made once; sealed anew when the master key changed."""
    vault = Vault(tenant)
    with session() as opened:
        row = opened.get(TenantKey, (tenant, PURPOSE))
        if row is None:
            sealed = vault.seal(os.urandom(32), purpose="tenant key", name=PURPOSE)
            values = {"tenant": tenant, "purpose": PURPOSE, "sealed": sealed, "created_at": now()}
            insert_new(opened, TenantKey, ("tenant", "purpose"), [values])
            row = opened.get_one(TenantKey, (tenant, PURPOSE))
        key = vault.open(row.sealed, purpose="tenant key", name=PURPOSE)
        if not vault.current(row.sealed):
            row.sealed = vault.seal(key, purpose="tenant key", name=PURPOSE)
    return key


def _settle() -> None:
    """Take what was overwritten out of SQLite's log as well, which keeps it until it is started over.

    Raises:
        TransientError: another process reads, which keeps SQLite from it.
    """
    if engine().dialect.name != "sqlite":
        return
    raw = engine().raw_connection()
    try:
        cursor = raw.cursor()
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        busy = (cursor.fetchone() or (1,))[0]
    finally:
        raw.close()
    if busy:
        raise TransientError(
            "The keys were destroyed, but the control database's log still holds their bytes: somebody has "
            "been reading it, such as a backup or a SQLite shell. Run this again when that has ended."
        )


def _batches(ids: Iterable[T]) -> Iterator[list[T]]:
    """Lists of at most `BATCH`, so that statements stay within the databases' bounds."""
    remaining = iter(ids)
    while batch := list(islice(remaining, BATCH)):
        yield batch
