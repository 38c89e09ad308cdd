"""The Salesforce block: ways to sign in, and that what it opens reads an org."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import SecretStr, ValidationError

from blocks.salesforce import Salesforce
from omni.sandbox.company import Company, Shop
from omni.sandbox.embedded import serving
from omni.sandbox.process import Sandbox
from omni.sandbox.salesforce_oauth import CLIENT_ID, USER
from omni.sandbox.salesforce_org import Org
from omni.sandbox.salesforce_schema import account
from omni.sandbox.server import Options
from omni.sources.salesforce import VENDOR

TOKEN = "not-a-real-token"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    company = Company(
        "test", "UTC", {}, {}, Shop("none", "EUR", (), (), ()), None, org=lambda: Org((account(),))
    )
    with serving(company, Options(token=TOKEN)) as running:
        yield running


def names(block: Salesforce) -> set[str]:
    with VENDOR.open(block.connection()) as client:
        return set(client.fields("Account"))


@pytest.mark.slow
def test_each_way_to_sign_in_reads_the_org(sandbox: Sandbox) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private = SecretStr(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain).decode())
    public = key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
    app = {"action": "register", "client_id": "app", "public_key": public.decode()}
    httpx.post(f"{sandbox.url}/_sandbox/salesforce", json=app).raise_for_status()
    for block in (
        Salesforce(base_url=sandbox.url, token=SecretStr(TOKEN)),
        Salesforce(base_url=f"{sandbox.url}/", client_id=CLIENT_ID, client_secret=SecretStr(TOKEN)),
        Salesforce(
            base_url="https://unused.example",
            login_url=sandbox.url,
            client_id="app",
            private_key=private,
            username=USER,
        ),
    ):
        assert {"Id", "Name", "SystemModstamp"} <= names(block)
        assert TOKEN not in repr(block) + repr(block.connection())


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"client_id": "app"},
        {"client_secret": SecretStr(TOKEN)},
        {"client_id": "app", "private_key": SecretStr(TOKEN)},
        {"token": SecretStr(TOKEN), "bulk_from": 0},
    ],
)
def test_a_block_that_cannot_sign_in_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as error:
        Salesforce(base_url="https://acme.example", **given)
    assert TOKEN not in str(error.value)
