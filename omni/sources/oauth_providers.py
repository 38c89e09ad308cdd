"""Where each vendor's OAuth 2 server is, and its ways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from omni.errors import ConfigError


@dataclass(frozen=True)
class Provider:
    """One vendor's authorization server.

    Attributes:
        vendor: as among the sources.
        title: its name for people.
        consent_at: address of the consent page; only a path where every account has a host of its own.
        tokens_at: address that gives tokens.
        api: where its tokens are used, unless an answer says where; None: at the account's own host.
        scopes: what is asked for, as the vendor writes lists.
        basic: client id and secret go into a Basic header, else into the form.
        pkce: it knows proof keys (RFC 7636).
        secretless: an app may do without a client secret.
        extra: further parameters of the consent page.
        code_extra: further fields when a code is exchanged.
        lifetime: seconds a token lasts where the answer does not say; None: until it is refused.
        rotates: each renewal gives a new refresh token and ends the old one.
        signed: the redirect is signed with the client secret, Shopify's way.
        revoke_at: address that ends a refresh token, if there is one.
        audience: whom a signed assertion addresses.
        requests_per_10s: a connected account's limit; HubSpot allows an app less than a private one.
        hint: an example of an account's own host.
    """

    vendor: str
    title: str
    consent_at: str
    tokens_at: str
    api: str | None
    scopes: str
    basic: bool = False
    pkce: bool = True
    secretless: bool = False
    extra: Mapping[str, str] = field(default_factory=dict)
    code_extra: Mapping[str, str] = field(default_factory=dict)
    lifetime: int | None = None
    rotates: bool = False
    signed: bool = False
    revoke_at: str | None = None
    audience: str | None = None
    requests_per_10s: int = 190
    hint: str = "https://account.example.com"


PROVIDERS = {
    provider.vendor: provider
    for provider in (
        Provider(
            vendor="hubspot",
            title="HubSpot",
            consent_at="https://app.hubspot.com/oauth/authorize",
            tokens_at="https://api.hubapi.com/oauth/2026-09/token",
            api="https://api.hubapi.com",
            scopes="oauth crm.objects.contacts.read crm.objects.companies.read crm.objects.deals.read "
            "crm.objects.owners.read crm.schemas.contacts.read crm.schemas.companies.read "
            "crm.schemas.deals.read tickets",
            lifetime=1800,
            revoke_at="https://api.hubapi.com/oauth/2026-09/token/revoke",
            requests_per_10s=110,
        ),
        Provider(
            vendor="salesforce",
            title="Salesforce",
            consent_at="https://login.salesforce.com/services/oauth2/authorize",
            tokens_at="https://login.salesforce.com/services/oauth2/token",
            api=None,
            scopes="api refresh_token",
            secretless=True,
            lifetime=7200,
            revoke_at="https://login.salesforce.com/services/oauth2/revoke",
            audience="https://login.salesforce.com",
            hint="https://acme.my.salesforce.com",
        ),
        Provider(
            vendor="shopify",
            title="Shopify",
            consent_at="/admin/oauth/authorize",
            tokens_at="/admin/oauth/access_token",
            api=None,
            scopes="read_orders,read_customers,read_products,read_inventory",
            pkce=False,
            # Without it an offline token never ends, which Shopify refuses to public apps from 2027 on.
            code_extra={"expiring": "1"},
            rotates=True,
            signed=True,
            hint="https://acme.myshopify.com",
        ),
        Provider(
            vendor="stripe",
            title="Stripe",
            consent_at="https://connect.stripe.com/oauth/authorize",
            tokens_at="https://connect.stripe.com/oauth/token",
            api="https://api.stripe.com",
            scopes="read_write",
            pkce=False,
        ),
    )
}


def provider_of(vendor: str, site: str | None = None) -> Provider:
    """A vendor's authorization server.

    Args:
        vendor: its name.
        site: the account's own host, for example of a shop or a Salesforce domain; also a sandbox's.

    Raises:
        ConfigError: the vendor knows no OAuth here, or the host is missing or cannot be used.
    """
    if vendor not in PROVIDERS:
        raise ConfigError(f"{vendor!r} cannot be connected by OAuth. Known: {', '.join(PROVIDERS)}.")
    known = PROVIDERS[vendor]
    if site is None:
        if known.consent_at.startswith("/"):
            raise ConfigError(f"{known.title} accounts have hosts of their own: give --at {known.hint}")
        return known
    origin = checked_site(site, known.hint)
    host = urlsplit(origin).hostname or ""
    test = host.startswith("test.") or ".sandbox." in host
    return replace(
        known,
        consent_at=origin + urlsplit(known.consent_at).path,
        tokens_at=origin + urlsplit(known.tokens_at).path,
        revoke_at=origin + urlsplit(known.revoke_at).path if known.revoke_at else None,
        api=origin,
        audience=known.audience and known.audience.replace("//login.", "//test." if test else "//login."),
    )


def checked_site(site: str, example: str) -> str:
    """Scheme and host of an address.

    Raises:
        ConfigError: it is none, or secrets would travel to it unencrypted.
    """
    parts = urlsplit(site)
    local = parts.hostname in ("127.0.0.1", "localhost", "::1")
    if not parts.hostname or parts.scheme not in ("http", "https") or parts.username or parts.password:
        raise ConfigError(f"An address with scheme and host is needed, for example {example}")
    if parts.scheme != "https" and not local:
        raise ConfigError(f"{parts.hostname} must be reached by https, for example {example}")
    return f"{parts.scheme}://{parts.netloc}"
