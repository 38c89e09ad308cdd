"""Connected accounts: their tokens, sealed in the control database, and renewed by one process at a time.

A vendor that rotates refresh tokens ends the old one when it gives the new. Two processes that renew at once
would cut each other off, and a token that is used before it is stored is lost with the process. So renewing
happens under a lock, starts by looking whether somebody else has renewed already, and stores what it got
before anybody may use it.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from pydantic import SecretStr

from omni.control.database import alone, engine, now, session
from omni.control.tokens import OAuthToken
from omni.errors import AuthError, StorageError, TransientError
from omni.files import private_folder
from omni.security.vault import Vault, pack, unpack
from omni.settings import settings
from omni.sources.connection import Access, Connection
from omni.sources.oauth import Client, NeedsConsent, Tokens, obtain
from omni.sources.oauth_providers import provider_of

PURPOSE = "oauth"
LOCK_SECONDS = 180.0
"""How long to wait for another process that renews."""


@dataclass(frozen=True)
class Account:
    """A connected account. No representation shows its secrets.

    Attributes:
        site: the account's own host, where one was given.
        connected_at: when somebody consented.
        renewals: how often its tokens were renewed since.
        refused_at: since when the vendor refuses to renew them.
    """

    tenant: str
    vendor: str
    site: str | None
    client: Client
    tokens: Tokens
    connected_at: datetime
    renewals: int = 0
    refused_at: datetime | None = None


@dataclass(frozen=True)
class StoredLogin:
    """A login (see `omni.sources.connection.Login`) of a connected account."""

    tenant: str
    vendor: str

    def access(self) -> Access:
        """A token with a good part of its life before it.

        Raises:
            AuthError: the account must be connected again, or is no longer connected.
            TransientError: the vendor cannot be asked for a new token, and the present one ended.
        """
        account = self._account()
        return account.tokens.given if account.tokens.fresh(now()) else self._renewed(None)

    def renew(self, refused: SecretStr) -> Access:
        """A token in place of one that was refused; raises as `access`."""
        return self._renewed(refused)

    def _renewed(self, refused: SecretStr | None) -> Access:
        with only_one(self.tenant, self.vendor):
            account = self._account()
            tokens = account.tokens
            if tokens.access != refused and tokens.fresh(now()):
                return tokens.given
            usable = tokens.access != refused and tokens.valid(now())
            try:
                got = obtain(provider_of(self.vendor, account.site), account.client, tokens)
            except NeedsConsent as error:
                if usable:
                    return tokens.given
                if not _mark_refused(self.tenant, self.vendor, of=tokens.issued_at):
                    return self._account().tokens.given
                raise AuthError(f"{error} {self._advice()}") from None
            except TransientError:
                if usable:
                    return tokens.given
                raise
            site, client = account.site, account.client
            if not keep(self.tenant, self.vendor, site, client, got, of=tokens.issued_at):
                return self._account().tokens.given
            return got.given

    def _account(self) -> Account:
        account = find(self.tenant, self.vendor)
        if account is None:
            raise AuthError(f"{self.vendor} of {self.tenant!r} is not connected any more. {self._advice()}")
        if account.refused_at is not None:
            raise AuthError(
                f"{self.vendor} of {self.tenant!r} refuses to renew its tokens since "
                f"{account.refused_at:%Y-%m-%d %H:%M} UTC. {self._advice()}"
            )
        return account

    def _advice(self) -> str:
        return f"Run `omni connect {self.vendor} --company {self.tenant}` again."


def stored_login(tenant: str, vendor: str) -> StoredLogin | None:
    """The login of a connected account; None where none is connected."""
    with engine().connect() as connection:
        found = connection.execute(
            sa.select(OAuthToken.vendor).where(OAuthToken.tenant == tenant, OAuthToken.vendor == vendor)
        ).first()
    return None if found is None else StoredLogin(tenant, vendor)


def stored_connection(tenant: str, vendor: str) -> Connection | None:
    """How to reach a connected account; None where none is connected."""
    account = find(tenant, vendor)
    if account is None:
        return None
    return Connection(
        vendor,
        account.tokens.base_url,
        SecretStr(""),
        timeout=settings().http_timeout,
        login=StoredLogin(tenant, vendor),
        requests_per_10s=provider_of(vendor, account.site).requests_per_10s,
    )


def find(tenant: str, vendor: str) -> Account | None:
    """A connected account with its secrets.

    Raises:
        ConfigError: it was sealed under a master key that is not known here.
    """
    with session() as opened:
        row = opened.get(OAuthToken, (tenant, vendor))
    if row is None:
        return None
    secret = unpack(Vault(tenant).open(row.sealed, purpose=PURPOSE, name=vendor))
    hidden = {name: SecretStr(value) for name in secret if (value := secret[name]) is not None}
    return Account(
        tenant=tenant,
        vendor=vendor,
        site=row.site,
        client=Client(
            client_id=row.client_id,
            grant=row.grant,  # type: ignore[arg-type]
            secret=hidden.get("secret"),
            private_key=hidden.get("private_key"),
            user=secret.get("user"),
        ),
        tokens=Tokens(
            access=hidden["access"],
            base_url=row.base_url,
            refresh=hidden.get("refresh"),
            scope=row.scope,
            issued_at=row.issued_at,
            expires_at=row.expires_at,
            renewable_until=row.renewable_until,
        ),
        connected_at=row.connected_at,
        renewals=row.renewals,
        refused_at=row.refused_at,
    )


def keep(
    tenant: str,
    vendor: str,
    site: str | None,
    client: Client,
    tokens: Tokens,
    *,
    of: datetime | None = None,
) -> bool:
    """Store an account's tokens, at once and for good, in place of those it had.

    Args:
        tenant: whose.
        vendor: where.
        site: the account's own host, if one was given.
        client: the app they were given to.
        tokens: what to store.
        of: for a renewal, when the tokens it began with were issued. They must still be those stored: an
            account that was disconnected meanwhile does not come back, one connected anew stays so.

    Returns:
        Whether they were stored.

    Raises:
        StorageError: they could not be stored; where the vendor rotates, the account must be connected anew.
    """
    secret = {
        "access": _shown(tokens.access),
        "refresh": _shown(tokens.refresh),
        "secret": _shown(client.secret),
        "private_key": _shown(client.private_key),
        "user": client.user,
    }
    values = {
        "grant": client.grant,
        "client_id": client.client_id,
        "site": site,
        "base_url": tokens.base_url,
        "scope": tokens.scope,
        "sealed": Vault(tenant).seal(pack(secret), purpose=PURPOSE, name=vendor),
        "issued_at": tokens.issued_at,
        "expires_at": tokens.expires_at,
        "renewable_until": tokens.renewable_until,
        "refused_at": None,
    }
    try:
        with session() as opened:
            row = opened.get(OAuthToken, (tenant, vendor))
            if of is not None and (row is None or row.issued_at != of):
                return False
            if row is None:
                opened.add(OAuthToken(tenant=tenant, vendor=vendor, **values))
                return True
            for name, value in values.items():
                setattr(row, name, value)
            row.renewals = row.renewals + 1 if of is not None else 0
            if of is None:
                row.connected_at = now()
    except sa.exc.SQLAlchemyError as error:
        # Without the cause: its text quotes the values.
        raise StorageError(
            f"The tokens of {vendor} for {tenant!r} could not be stored ({type(error).__name__}). Free space "
            f"or make the control database writable, then run `omni connect {vendor} --company {tenant}`."
        ) from None
    return True


def forget(tenant: str, vendor: str) -> bool:
    """Remove an account and its tokens; returns whether there was one."""
    with session() as opened:
        row = opened.get(OAuthToken, (tenant, vendor))
        if row is not None:
            opened.delete(row)
    return row is not None


def connected(tenant: str | None = None) -> list[OAuthToken]:
    """The accounts that are connected, with their secrets sealed, by tenant and vendor."""
    query = sa.select(OAuthToken).order_by(OAuthToken.tenant, OAuthToken.vendor)
    with session() as opened:
        return list(opened.scalars(query.where(OAuthToken.tenant == tenant) if tenant else query))


def _shown(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None


def _mark_refused(tenant: str, vendor: str, *, of: datetime) -> bool:
    """Note that tokens issued then are not renewed any more; False if they are not those stored now."""
    with session() as opened:
        row = opened.get(OAuthToken, (tenant, vendor))
        if row is None or row.issued_at != of:
            return False
        row.refused_at = now()
    return True


@contextmanager
def only_one(tenant: str, vendor: str) -> Iterator[None]:
    """Let one process and thread at a time renew an account, or end its tokens.

    Not a lock of the SQLite database, which would stop everything else that is written while a vendor is
    asked. On PostgreSQL, where other hosts may share the database, an advisory lock comes on top.

    Raises:
        TransientError: another one did not finish in time.
    """
    folder = settings().home / "locks"
    private_folder(folder)
    descriptor = os.open(folder / f"oauth-{tenant}-{vendor}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _wait_for(descriptor, tenant, vendor)
        if engine().dialect.name != "postgresql":
            yield
            return
        with engine().begin() as connection:
            _wait_for_hosts(connection, tenant, vendor)
            yield
    finally:
        os.close(descriptor)


def _wait_for_hosts(connection: sa.Connection, tenant: str, vendor: str) -> None:
    connection.execute(sa.text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS:.0f}s'"))
    try:
        alone(connection, f"oauth {tenant} {vendor}")
    except sa.exc.OperationalError:
        raise TransientError(_waited(tenant, vendor)) from None


def _waited(tenant: str, vendor: str) -> str:
    return (
        f"Another process has been renewing the tokens of {vendor} for {tenant!r} for over "
        f"{LOCK_SECONDS:.0f} s. Try again later."
    )


def _wait_for(descriptor: int, tenant: str, vendor: str) -> None:
    until = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise TransientError(_waited(tenant, vendor)) from None
            time.sleep(0.02)
        else:
            return
