"""Signatures against the vendors' own helpers, both ways, and against anything that changed on the way."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from datetime import UTC, datetime

import pytest
import standardwebhooks
import stripe
from hubspot.utils.signature import Signature
from hypothesis import given
from hypothesis import strategies as st

from omni.errors import ConfigError
from omni.sandbox import stripe_events
from omni.sandbox.hubspot_events import signed
from omni.webhooks.signatures import (
    SCHEMES,
    Message,
    Refused,
    hubspot_signature,
    path_token,
    shopify_signature,
    standard_headers,
    stripe_signature,
    verify,
    verify_token,
)

URI = "https://hooks.acme.example/webhooks/acme/hubspot"
STANDARD = "whsec_" + base64.b64encode(bytes(range(32))).decode()
BODY = '{"name":"Zoë","n":[1,2]}'.encode()
NOW = 1_790_000_000.0


def headers_of(vendor, secret, body, at, method="POST", uri=URI):
    """Headers by our own signer, with lower-case names as a server gives them."""
    if vendor == "hubspot":
        stamp = str(int(at * 1000))
        signature = hubspot_signature(secret, Message({}, body, method, uri), "v3", stamp)
        return {"x-hubspot-signature-v3": signature, "x-hubspot-request-timestamp": stamp}
    if vendor == "shopify":
        return {"x-shopify-hmac-sha256": shopify_signature(secret, body)}
    if vendor == "stripe":
        return {"stripe-signature": stripe_signature(secret, body, int(at))}
    return standard_headers(secret, "msg_1", int(at), body)


def secret_of(vendor):
    return STANDARD if vendor in ("zapier", "generic") else "a client secret"


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
def test_hubspots_own_helper_agrees_both_ways(version):
    stamp = str(int(time.time() * 1000))
    message = Message({}, BODY, "POST", URI)
    ours = hubspot_signature("secret", message, version, stamp)
    assert Signature.is_valid(ours, "secret", BODY.decode(), URI, "POST", version, stamp)
    theirs = Signature.get_signature("secret", BODY.decode(), version, URI, "POST", stamp)
    headers = (
        {"x-hubspot-signature-v3": theirs, "x-hubspot-request-timestamp": stamp}
        if version == "v3"
        else {"x-hubspot-signature": theirs, "x-hubspot-signature-version": version}
    )
    verify("hubspot", ("secret",), Message(headers, BODY, "POST", URI), time.time())


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
def test_hubspots_helper_and_ours_accept_the_sandbox(version):
    made = {k.lower(): v for k, v in signed("secret", "POST", URI, BODY, version=version).items()}
    verify("hubspot", ("secret",), Message(made, BODY, "POST", URI), time.time())
    name = "x-hubspot-signature-v3" if version == "v3" else "x-hubspot-signature"
    stamp = made.get("x-hubspot-request-timestamp")
    assert Signature.is_valid(made[name], "secret", BODY.decode(), URI, "POST", version, stamp)


def test_stripes_own_helper_agrees_both_ways():
    body = json.dumps({"id": "evt_1", "object": "event", "type": "charge.succeeded", "data": {"object": {}}})
    ours = stripe_signature("whsec_x", body.encode(), int(time.time()))
    assert stripe.Webhook.construct_event(body, ours, "whsec_x").id == "evt_1"
    theirs = stripe.WebhookSignature.generate_signature_header(body, "whsec_x")
    verify("stripe", ("whsec_x",), Message({"stripe-signature": theirs}, body.encode()), time.time())


def test_stripes_helper_and_ours_accept_the_sandbox():
    told = stripe_events.event("charge.succeeded", int(time.time()), {"id": "ch_1", "object": "charge"})
    body = json.dumps(told).encode()
    header = stripe_events.signature_header("whsec_x", body, int(time.time()))
    assert stripe.Webhook.construct_event(body, header, "whsec_x").type == "charge.succeeded"
    verify("stripe", ("whsec_x",), Message({"stripe-signature": header}, body), time.time())


def test_the_standards_own_library_agrees_both_ways():
    body, library, at = '{"a": "ü"}', standardwebhooks.Webhook(STANDARD), int(time.time())
    assert library.verify(body, standard_headers(STANDARD, "msg_7", at, body.encode())) == {"a": "ü"}
    headers = {
        "webhook-id": "msg_7",
        "webhook-timestamp": str(at),
        "webhook-signature": library.sign("msg_7", datetime.fromtimestamp(at, UTC), body),
    }
    verify("zapier", (STANDARD,), Message(headers, body.encode()), time.time())


def test_shopify_follows_its_documented_formula():
    expected = base64.b64encode(hmac.new(b"secret", BODY, hashlib.sha256).digest()).decode()
    assert shopify_signature("secret", BODY) == expected
    verify("shopify", ("secret",), Message({"x-shopify-hmac-sha256": expected}, BODY), NOW)


@pytest.mark.parametrize("vendor", sorted(SCHEMES))
@given(data=st.data(), body=st.binary(min_size=1, max_size=200))
def test_any_change_is_refused(vendor, data, body):
    secret = secret_of(vendor)
    headers = headers_of(vendor, secret, body, NOW)
    verify(vendor, (secret,), Message(headers, body, "POST", URI), NOW)
    place, bit = data.draw(st.integers(0, len(body) - 1)), data.draw(st.integers(0, 7))
    changed = bytearray(body)
    changed[place] ^= 1 << bit
    with pytest.raises(Refused):
        verify(vendor, (secret,), Message(headers, bytes(changed), "POST", URI), NOW)
    other = "whsec_" + base64.b64encode(data.draw(st.binary(min_size=16, max_size=40))).decode()
    if other != secret:
        with pytest.raises(Refused):
            verify(vendor, (other,), Message(headers, body, "POST", URI), NOW)
    if vendor == "hubspot":
        for message in (Message(headers, body, "PUT", URI), Message(headers, body, "POST", URI + "x")):
            with pytest.raises(Refused):
                verify(vendor, (secret,), message, NOW)


@pytest.mark.parametrize("vendor", ["hubspot", "stripe", "zapier"])
@given(seconds=st.integers(301, 10**9), ahead=st.booleans())
def test_what_is_signed_too_long_ago_or_ahead_is_stale(vendor, seconds, ahead):
    secret = secret_of(vendor)
    headers = headers_of(vendor, secret, BODY, NOW + (seconds if ahead else -seconds))
    with pytest.raises(Refused, match="stale"):
        verify(vendor, (secret,), Message(headers, BODY, "POST", URI), NOW)


@pytest.mark.parametrize("vendor", ["hubspot", "stripe", "zapier"])
def test_the_signed_time_cannot_be_moved(vendor):
    secret = secret_of(vendor)
    old = headers_of(vendor, secret, BODY, NOW - 1000)
    fresh = headers_of(vendor, secret, BODY, NOW)
    if vendor == "stripe":
        moved = {"stripe-signature": f"t={int(NOW)},{old['stripe-signature'].partition(',')[2]}"}
    else:
        clock = "x-hubspot-request-timestamp" if vendor == "hubspot" else "webhook-timestamp"
        moved = old | {clock: fresh[clock]}
    with pytest.raises(Refused, match="wrong"):
        verify(vendor, (secret,), Message(moved, BODY, "POST", URI), NOW)


@pytest.mark.parametrize("vendor", sorted(SCHEMES))
@given(garbage=st.text(max_size=60))
def test_garbage_in_a_signature_is_refused_and_nothing_else_happens(vendor, garbage):
    secret = secret_of(vendor)
    headers = headers_of(vendor, secret, BODY, NOW)
    for name in headers:
        with pytest.raises(Refused):
            verify(vendor, (secret,), Message(headers | {name: garbage}, BODY, "POST", URI), NOW)
        without = {key: value for key, value in headers.items() if key != name}
        with pytest.raises(Refused):
            verify(vendor, (secret,), Message(without, BODY, "POST", URI), NOW)


def test_a_wrong_v3_signature_is_not_saved_by_a_right_v1():
    headers = headers_of("hubspot", "secret", BODY, NOW - 1000)
    v1 = hubspot_signature("secret", Message({}, BODY), "v1")
    weaker = {"x-hubspot-signature": v1, "x-hubspot-signature-version": "v1"}
    verify("hubspot", ("secret",), Message(weaker, BODY, "POST", URI), NOW)
    with pytest.raises(Refused, match="stale"):
        verify("hubspot", ("secret",), Message(headers | weaker, BODY, "POST", URI), NOW)


def test_while_a_secret_changes_both_stand():
    at = int(NOW)
    new, old = (stripe_signature(s, BODY, at).partition(",")[2] for s in ("new", "old"))
    both = Message({"stripe-signature": f"t={at},{new},{old},v0=abc"}, BODY)
    for secret in ("new", "old"):
        verify("stripe", (secret,), both, NOW)
    for secret in ("new", "old"):
        message = Message({"x-shopify-hmac-sha256": shopify_signature(secret, BODY)}, BODY)
        verify("shopify", ("new", "old"), message, NOW)
    other = "whsec_" + base64.b64encode(bytes(24)).decode()
    signatures = [standard_headers(s, "m", at, BODY)["webhook-signature"] for s in (other, STANDARD)]
    headers = standard_headers(other, "m", at, BODY) | {"webhook-signature": " ".join(signatures)}
    verify("generic", (STANDARD,), Message(headers, BODY), NOW)


def test_without_a_secret_nothing_is_accepted():
    with pytest.raises(Refused):
        verify("shopify", (), Message({"x-shopify-hmac-sha256": shopify_signature("", BODY)}, BODY), NOW)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_not base64!", "whsec_c2hvcnQ="])
def test_a_standard_secret_that_is_none_is_a_mistake_of_ours(secret):
    with pytest.raises(ConfigError, match="whsec_"):
        standard_headers(secret, "m", 1, BODY)


def test_a_path_token_is_of_one_tenant_and_sender_and_hides_the_secret():
    token = path_token(STANDARD, "acme", "zapier")
    verify_token(STANDARD, "acme", "zapier", token)
    for tenant, vendor in (("other", "zapier"), ("acme", "generic")):
        with pytest.raises(Refused):
            verify_token(STANDARD, tenant, vendor, token)
    assert STANDARD not in token
