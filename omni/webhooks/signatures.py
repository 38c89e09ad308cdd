"""Signatures of webhooks, made and verified on the raw bytes and in constant time.

A scheme is a pair of plain functions over `Message`. HubSpot signs method, address, body and time (v3), or
before that `secret + …` hashed without a key (v2, v1, which no clock guards); Shopify the body alone; Stripe
and Standard Webhooks (https://www.standardwebhooks.com) time and body, with several signatures while a secret
is being changed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from omni.errors import AuthError, ConfigError

TOLERANCE = 300
"""Seconds a signed time may differ from ours: what HubSpot, Stripe and Standard Webhooks all say."""

STANDARD_PREFIX = "whsec_"


class Refused(AuthError):
    """A delivery that its signature does not vouch for.

    Args:
        reason: one of `missing`, `malformed`, `stale`, `wrong`; what is counted of it.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"The delivery's signature is {reason}; nothing of it was kept.")
        self.reason = reason


@dataclass(frozen=True)
class Message:
    """A request as it came.

    Attributes:
        headers: by lower-case name.
        body: untouched bytes.
        method: of HTTP, in capitals.
        uri: the whole address as the sender knows it.
    """

    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    method: str = "POST"
    uri: str = ""

    def header(self, name: str) -> str:
        """A header that must be there.

        Raises:
            Refused: it is not.
        """
        if not (value := self.headers.get(name)):
            raise Refused("missing")
        return value


def _same(expected: str, given: str) -> bool:
    return hmac.compare_digest(expected.encode(), given.strip().encode())


def _base64_hmac(key: bytes, signed: bytes) -> str:
    return base64.b64encode(hmac.digest(key, signed, "sha256")).decode()


def _seconds(text: str, per_second: int = 1) -> float:
    try:
        value = float(int(text)) / per_second
    except (ValueError, OverflowError):
        raise Refused("malformed") from None
    return value


def _fresh(signed_at: float, now: float) -> None:
    if not math.isfinite(signed_at) or abs(now - signed_at) > TOLERANCE:
        raise Refused("stale")


def hubspot_signature(secret: str, message: Message, version: str, timestamp: str = "") -> str:
    """HubSpot's signature of a request.

    Args:
        secret: the app's client secret.
        message: what to sign.
        version: v1, v2 or v3.
        timestamp: milliseconds since 1970 as sent; v3 only.
    """
    key, place = secret.encode(), (message.method + message.uri).encode()
    if version == "v3":
        return _base64_hmac(key, place + message.body + timestamp.encode())
    return hashlib.sha256(key + (place if version == "v2" else b"") + message.body).hexdigest()


def verify_hubspot(secret: str, message: Message, now: float) -> None:
    """Check a delivery of HubSpot: by v3 where it is signed so, else by the version it names.

    A request with a v3 signature is never judged by its weaker ones.
    """
    if "x-hubspot-signature-v3" in message.headers:
        given = message.header("x-hubspot-signature-v3")
        timestamp = message.header("x-hubspot-request-timestamp")
        _fresh(_seconds(timestamp, 1000), now)
        expected = hubspot_signature(secret, message, "v3", timestamp)
    else:
        given = message.header("x-hubspot-signature")
        version = message.headers.get("x-hubspot-signature-version", "v1")
        if version not in ("v1", "v2"):
            raise Refused("malformed")
        expected = hubspot_signature(secret, message, version)
    if not _same(expected, given):
        raise Refused("wrong")


def shopify_signature(secret: str, body: bytes) -> str:
    """`X-Shopify-Hmac-Sha256` of a body."""
    return _base64_hmac(secret.encode(), body)


def verify_shopify(secret: str, message: Message, now: float) -> None:  # noqa: ARG001  Shopify signs no time
    """Check a delivery of Shopify."""
    if not _same(shopify_signature(secret, message.body), message.header("x-shopify-hmac-sha256")):
        raise Refused("wrong")


def stripe_signature(secret: str, body: bytes, timestamp: int) -> str:
    """`Stripe-Signature` of a body at a time in seconds."""
    return f"t={timestamp},v1={_stripe_digest(secret, body, str(timestamp))}"


def _stripe_digest(secret: str, body: bytes, timestamp: str) -> str:
    return hmac.digest(secret.encode(), timestamp.encode() + b"." + body, "sha256").hex()


def verify_stripe(secret: str, message: Message, now: float) -> None:
    """Check a delivery of Stripe: one of its v1 signatures must be right."""
    pairs = [part.strip().partition("=") for part in message.header("stripe-signature").split(",")]
    times = [value for name, _, value in pairs if name == "t"]
    given = [value for name, _, value in pairs if name == "v1"]
    if len(times) != 1 or not given:
        raise Refused("malformed")
    _fresh(_seconds(times[0]), now)
    expected = _stripe_digest(secret, message.body, times[0])
    if not any(_same(expected, one) for one in given):
        raise Refused("wrong")


def standard_key(secret: str) -> bytes:
    """The key in a Standard Webhooks secret, `whsec_` and Base64.

    Raises:
        ConfigError: it is not one.
    """
    text = secret.removeprefix(STANDARD_PREFIX)
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) < 16:
        raise ConfigError(
            "A Standard Webhooks secret is 'whsec_' and Base64 of at least 16 bytes (24 to 64 are usual); "
            "make one with: omni webhooks secret"
        )
    return key


def standard_signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """`webhook-signature` of a body under its id at a time in seconds."""
    return f"v1,{_standard_digest(secret, message_id, str(timestamp), body)}"


def _standard_digest(secret: str, message_id: str, timestamp: str, body: bytes) -> str:
    return _base64_hmac(standard_key(secret), f"{message_id}.{timestamp}.".encode() + body)


def standard_headers(secret: str, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers that a Standard Webhooks delivery carries."""
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": standard_signature(secret, message_id, timestamp, body),
    }


def verify_standard(secret: str, message: Message, now: float) -> None:
    """Check a Standard Webhooks delivery: one of its v1 signatures must be right."""
    message_id, timestamp = message.header("webhook-id"), message.header("webhook-timestamp")
    offered = [part.partition(",") for part in message.header("webhook-signature").split()]
    given = [signature for version, _, signature in offered if version == "v1"]
    if not given:
        raise Refused("malformed")
    _fresh(_seconds(timestamp), now)
    expected = _standard_digest(secret, message_id, timestamp, message.body)
    if not any(_same(expected, one) for one in given):
        raise Refused("wrong")


def path_token(secret: str, tenant: str, vendor: str) -> str:
    """What stands in the address of a sender that cannot sign; the secret does not follow from it.

    An address lands in other people's logs: whoever has it can write to the inbox until the secret changes.
    """
    return hmac.digest(secret.encode(), f"omni path token {tenant}/{vendor}".encode(), "sha256").hex()[:40]


def verify_token(secret: str, tenant: str, vendor: str, given: str) -> None:
    """Check the token of an address.

    Raises:
        Refused: it is another one.
    """
    if not _same(path_token(secret, tenant, vendor), given):
        raise Refused("wrong")


Verify = Callable[[str, Message, float], None]

SCHEMES: dict[str, Verify] = {
    "hubspot": verify_hubspot,
    "shopify": verify_shopify,
    "stripe": verify_stripe,
    "zapier": verify_standard,
    "generic": verify_standard,
}
"""How each sender signs."""

SIGNED_BY: dict[str, tuple[str, ...]] = {
    "hubspot": ("x-hubspot-signature-v3", "x-hubspot-signature"),
    "shopify": ("x-shopify-hmac-sha256",),
    "stripe": ("stripe-signature",),
    "zapier": ("webhook-signature",),
    "generic": ("webhook-signature",),
}
"""The headers a sender's signature may stand in; without any, a body need not be read."""

TOKENS = frozenset({"zapier", "generic"})
"""Senders that may stand behind a token in the address instead."""


def verify(vendor: str, secrets: tuple[str, ...], message: Message, now: float) -> None:
    """Check a delivery against each of the secrets that stand: one, and while it is changed, two.

    Args:
        vendor: one of `SCHEMES`.
        secrets: at least one.
        message: the request.
        now: seconds since 1970.

    Raises:
        Refused: none of them vouches for it.
    """
    refusal = Refused("missing")
    for secret in secrets:
        try:
            return SCHEMES[vendor](secret, message, now)
        except Refused as error:
            refusal = error
    raise refusal
