"""`omni connect`, `omni connections` and `omni disconnect`: accounts at vendors, by OAuth 2."""

from __future__ import annotations

import getpass
import json
import os
import sys
import webbrowser
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from omni import tenancy
from omni.errors import ConfigError, OmniError

if TYPE_CHECKING:
    from omni.control.tokens import OAuthToken
    from omni.sources.oauth import Client, Tokens
    from omni.sources.oauth_providers import Provider

GRANTS = {"code": "authorization_code", "client-credentials": "client_credentials", "jwt": "jwt_bearer"}


@dataclass(frozen=True)
class Wanted:
    """What to connect, and how; see the options of `omni connect`."""

    vendor: str
    company: str
    client_id: str | None = None
    client_secret_env: str | None = None
    at: str | None = None
    grant: str | None = None
    user: str | None = None
    key_file: Path | None = None
    scopes: str | None = None
    port: int = 0
    wait: int = 300


def connect_account(wanted: Wanted, *, browser: bool) -> None:
    """Obtain tokens and store them.

    Args:
        wanted: the account, the app and the way.
        browser: whether to open the consent page; its address is printed in any case.

    Raises:
        ConfigError: something needed is missing or wrong.
        AuthError: consent was refused or did not come, or the vendor does not accept the app.
        TransientError: the vendor cannot be reached.
    """
    from omni.sources.oauth import obtain
    from omni.sources.oauth_providers import provider_of
    from omni.sources.oauth_store import find, keep

    tenancy.get(wanted.company)
    provider_of(wanted.vendor, wanted.at or "https://example.com")
    known = find(wanted.company, wanted.vendor)
    site = wanted.at or (known.site if known else None)
    provider = provider_of(wanted.vendor, site)
    client = _client(provider, wanted, known.client if known else None)
    if client.grant == "authorization_code":
        tokens = _by_consent(provider, client, wanted, browser=browser)
    else:
        tokens = obtain(provider, client)
    keep(wanted.company, wanted.vendor, site, client, tokens)
    _tell(
        provider, wanted, tokens, renewable=client.grant != "authorization_code" or tokens.refresh is not None
    )


def _by_consent(provider: Provider, client: Client, wanted: Wanted, *, browser: bool) -> Tokens:
    """Send a person to the consent page and exchange the code that comes back."""
    from omni.sources.oauth import Consent, code_from, consent_url, exchange
    from omni.sources.oauth_browser import catching

    consent = Consent("")
    with catching(consent.state, wanted.port) as catcher:
        consent = replace(consent, redirect_uri=catcher.redirect_uri)
        page = consent_url(provider, client, consent, wanted.scopes)
        typer.echo(f"The app must allow the redirect to {catcher.redirect_uri}")
        typer.echo(f"Consent at this page:\n{page}")
        sys.stdout.flush()
        if browser:
            webbrowser.open(page)
        try:
            code = code_from(provider, client, consent, catcher.wait(float(wanted.wait)))
            tokens = exchange(provider, client, consent, code)
        except OmniError as error:
            catcher.show("Not connected", str(error))
            raise
        catcher.show("Connected", f"{provider.title} is connected. You can close this page.")
    return tokens


def _client(provider: Provider, wanted: Wanted, known: Client | None) -> Client:
    """The app: as told, else as it was when the account was connected before."""
    from omni.sources.oauth import Client

    client_id = wanted.client_id or (known.client_id if known else None)
    if client_id is None:
        raise ConfigError(f"Give the client id of your {provider.title} app: --client-id …")
    same = known if known is not None and known.client_id == client_id else None
    grant = GRANTS[wanted.grant] if wanted.grant else same.grant if same else "authorization_code"
    key = _key(wanted, same)
    if grant == "jwt_bearer" and (key is None or not (wanted.user or (same and same.user))):
        raise ConfigError("--grant jwt needs --key-file and --user.")
    return Client(
        client_id=client_id,
        grant=grant,  # type: ignore[arg-type]
        secret=None if grant == "jwt_bearer" else _secret(provider, wanted, same),
        private_key=key if grant == "jwt_bearer" else None,
        user=(wanted.user or (same.user if same else None)) if grant == "jwt_bearer" else None,
    )


def _key(wanted: Wanted, same: Client | None) -> SecretStr | None:
    if wanted.key_file is None:
        return same.private_key if same else None
    try:
        return SecretStr(wanted.key_file.read_text(encoding="ascii"))
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or "not text"
        raise ConfigError(f"Cannot read the key {wanted.key_file}: {said}.") from None


def _secret(provider: Provider, wanted: Wanted, same: Client | None) -> SecretStr | None:
    """The client secret: from the variable named, as stored, or asked for without showing it."""
    if wanted.client_secret_env is not None:
        if not (value := os.environ.get(wanted.client_secret_env, "").strip()):
            raise ConfigError(
                f"The variable {wanted.client_secret_env} that --client-secret-env names is empty."
            )
        return SecretStr(value)
    if same is not None and same.secret is not None:
        return same.secret
    if provider.secretless and wanted.grant in (None, "code"):
        return None
    if not sys.stdin.isatty():
        raise ConfigError(
            f"The client secret of your {provider.title} app is needed: put it into a variable and name that "
            "with --client-secret-env."
        )
    if not (typed := getpass.getpass(f"Client secret of your {provider.title} app: ").strip()):
        raise ConfigError("No client secret was given.")
    return SecretStr(typed)


def _tell(provider: Provider, wanted: Wanted, tokens: Tokens, *, renewable: bool) -> None:
    ends = f"lasts until {tokens.expires_at:%Y-%m-%d %H:%M} UTC" if tokens.expires_at else "does not expire"
    renewed = " and is renewed by itself" if tokens.expires_at and renewable else ""
    typer.echo(
        f"Connected {provider.title} at {tokens.base_url} for {wanted.company}: the token {ends}{renewed}."
    )
    if tokens.expires_at and not renewed:
        typer.echo("The vendor gave no refresh token: connect again before it ends.")
    typer.echo("Its tokens are stored encrypted in the control database.")
    if wanted.vendor not in tenancy.get(wanted.company).sources:
        file = f"data/tenants/{wanted.company}.yml"
        typer.echo(f"Next: name what to read from {wanted.vendor} under `sources` in {file}.")
    else:
        typer.echo(f"Next: omni nightly --company {wanted.company}")


def list_accounts(company: str | None, *, as_json: bool) -> None:
    """Print the connected accounts, without secrets."""
    from omni.sources.oauth_store import connected

    if company is not None:
        tenancy.get(company)
    rows = connected(company)
    if as_json:
        typer.echo(json.dumps([_shown(row) for row in rows], indent=2))
        return
    if not rows:
        typer.echo("No account is connected. Connect one: omni connect <vendor> --company <name>")
        return
    table = Table("Company", "Vendor", "At", "Client id", "Grant", "Token until (UTC)", "State")
    for row in rows:
        until = f"{row.expires_at:%Y-%m-%d %H:%M}" if row.expires_at else "no end"
        table.add_row(row.tenant, row.vendor, row.base_url, row.client_id, row.grant, until, _state(row))
    Console().print(table)


def _state(row: OAuthToken) -> str:
    moment = datetime.now(UTC)
    if row.refused_at is not None:
        return f"refused: omni connect {row.vendor} --company {row.tenant}"
    if row.renewable_until is not None and row.renewable_until < moment:
        return f"too old: omni connect {row.vendor} --company {row.tenant}"
    return f"good, renewed {row.renewals} times"


def _shown(row: OAuthToken) -> dict[str, str | int | None]:
    def moment(value: datetime | None) -> str | None:
        return value.isoformat(timespec="seconds") if value else None

    return {
        "company": row.tenant,
        "vendor": row.vendor,
        "base_url": row.base_url,
        "client_id": row.client_id,
        "grant": row.grant,
        "scope": row.scope,
        "connected_at": moment(row.connected_at),
        "issued_at": moment(row.issued_at),
        "expires_at": moment(row.expires_at),
        "renewable_until": moment(row.renewable_until),
        "renewals": row.renewals,
        "refused_at": moment(row.refused_at),
    }


def disconnect_account(vendor: str, company: str) -> None:
    """End an account's tokens at the vendor, as far as it offers that, and remove them here.

    Not while they are renewed: what the vendor gave then would stay good, and nobody could end it.

    Raises:
        ConfigError: no such account is connected.
        TransientError: they have been in renewal for long.
    """
    from omni.sources.oauth import revoke
    from omni.sources.oauth_providers import provider_of
    from omni.sources.oauth_store import find, forget, only_one, stored_login

    tenancy.get(company)
    unknown = ConfigError(f"No account at {vendor!r} is connected for {company!r}. See: omni connections")
    if stored_login(company, vendor) is None:
        raise unknown
    told = "The vendor offers no way to end its tokens: remove the app in the account as well."
    with only_one(company, vendor):
        try:
            account = find(company, vendor)
            if account and revoke(provider_of(vendor, account.site), account.client, account.tokens):
                told = "Its tokens are no longer good at the vendor."
        except OmniError as error:
            # Removing them here must not depend on the vendor, nor on a lost master key.
            told = f"The tokens could not be ended at the vendor ({error}) "
            told += "Remove the app in the account as well."
        if not forget(company, vendor):
            raise unknown
    typer.echo(f"Disconnected {vendor} of {company}. {told}")
