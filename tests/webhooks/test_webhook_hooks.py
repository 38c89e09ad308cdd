"""REST hooks as Zapier uses them: who may subscribe, to what, and where it may lead."""

from __future__ import annotations

import ipaddress
import json
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from omni.control.database import now
from omni.errors import ConfigError
from omni.security.vault import Vault
from omni.settings import settings
from omni.webhooks import deliveries, hooks, targets
from omni.webhooks.hook_routes import routes
from omni.webhooks.receiver import build_app

TARGET = "https://hooks.zapier.com/hooks/standard/1/abc"


@pytest.fixture
def api(either_database, control):
    """The hooks' endpoints, with a key for the demo tenant."""
    with TestClient(build_app(lambda *_: (), more=routes()), raise_server_exceptions=True) as client:
        client.headers = {"Authorization": f"Bearer {hooks.create_key('demo', 'tests')}"}
        yield client


def test_a_zap_is_turned_on_and_off(api):
    wish = {"event": "segment.entered", "target_url": TARGET}
    made = api.post("/hooks/demo/subscriptions", json=wish)
    assert made.status_code == 201
    assert made.json()["signing_secret"].startswith("whsec_")
    again = api.post("/hooks/demo/subscriptions", json=wish)
    assert again.json() == made.json()
    assert hooks.publish("demo", "segment.entered", [{"customer": "C-1"}]) == 1
    path = f"/hooks/demo/subscriptions/{made.json()['id']}"
    assert [api.delete(path).status_code for _ in range(2)] == [204, 404]
    assert hooks.publish("demo", "segment.entered", [{"customer": "C-2"}]) == 0
    assert deliveries.waiting("demo") == 0
    assert api.post("/hooks/demo/subscriptions", json=wish).json()["id"] != made.json()["id"]


def test_zapiers_own_field_name_is_taken(api):
    assert api.post("/hooks/demo/subscriptions", json={"event": "run.finished", "hookUrl": TARGET}).is_success


@pytest.mark.parametrize("event", hooks.SAMPLES)
def test_samples_look_like_deliveries(api, event):
    [sample] = api.get(f"/hooks/demo/samples/{event}").json()
    assert list(sample) == ["id", "type", "timestamp", "data"]
    assert (sample["type"], sample["data"]) == (event, hooks.SAMPLES[event])


def test_what_there_is_can_be_asked(api):
    assert api.get("/hooks/demo").json() == {"tenant": "demo", "events": list(hooks.SAMPLES)}
    assert api.get("/hooks/demo/samples/nothing").status_code == 404


@pytest.mark.parametrize(
    "key", ["", "Bearer", "Bearer x", "Bearer omk_00_x", "Basic {key}", "Bearer {key}x", "Bearer x{key}"]
)
def test_without_the_right_key_nothing_is_told(api, key):
    right = api.headers["Authorization"].partition(" ")[2]
    api.headers["Authorization"] = key.format(key=right)
    for method, path in (
        ("GET", "/hooks/demo"),
        ("GET", "/hooks/demo/samples/run.finished"),
        ("POST", "/hooks/demo/subscriptions"),
        ("DELETE", "/hooks/demo/subscriptions/sub_1"),
    ):
        assert api.request(method, path).status_code == 401


def test_a_key_opens_one_tenant_until_revoked(api):
    assert api.get("/hooks/olist").status_code == 401
    assert api.get("/hooks/nobody").status_code == 401
    number = api.headers["Authorization"].split("_")[1]
    assert [hooks.revoke_key("olist", number), hooks.revoke_key("demo", number)] == [False, True]
    assert api.get("/hooks/demo").status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"[" * 10_000,
        b'{"event": "run.finished"}',
        b'{"event": 1, "target_url": 2}',
        json.dumps({"event": "no.such", "target_url": TARGET}).encode(),
        json.dumps({"event": "run.finished", "target_url": "http://a.example/"}).encode(),
    ],
)
def test_a_wrong_wish_is_explained(api, body):
    answer = api.post("/hooks/demo/subscriptions", content=body)
    assert answer.status_code == 400
    assert len(answer.json()["message"]) > 10


def test_a_long_wish_is_not_read(api):
    assert api.post("/hooks/demo/subscriptions", content=b"x" * 70_000).status_code == 413


def test_a_long_wish_in_parts_is_not_read_whatever_its_length_says(api):
    parts = (b"x" * 10_000 for _ in range(7))
    answer = api.post("/hooks/demo/subscriptions", content=parts, headers={"Content-Length": "10"})
    assert answer.status_code == 413


@pytest.mark.slow
def test_nothing_is_read_of_a_wish_without_a_key(control, serving):
    with serving(build_app(lambda *_: (), more=routes())) as url:
        port = int(url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=5) as line:
            head = "POST /hooks/demo/subscriptions HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n"
            line.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
            assert line.recv(100).startswith(b"HTTP/1.1 401")


def test_addresses_and_secrets_are_sealed(api, control_content):
    made = api.post("/hooks/demo/subscriptions", json={"event": "run.finished", "target_url": TARGET}).json()
    key = api.headers["Authorization"].partition(" ")[2]
    hooks.publish("demo", "run.finished", [{"flow": "a-flow-to-look-for"}])
    content = control_content()
    for secret in (TARGET, made["signing_secret"], key, key.split("_", 2)[2], "a-flow-to-look-for"):
        assert secret.encode() not in content
    assert made["id"].encode() in content


@pytest.mark.slow
def test_subscriptions_in_a_loop_are_stopped(api):
    for number in range(hooks.MOST_SUBSCRIPTIONS):
        hooks.subscribe("demo", "run.finished", f"{TARGET}{number}")
    answer = api.post("/hooks/demo/subscriptions", json={"event": "run.finished", "target_url": TARGET})
    assert (answer.status_code, "already" in answer.json()["message"]) == (400, True)


def test_a_wish_is_found_again_after_the_master_key_changed(either_database, control, monkeypatch):
    made = hooks.subscribe("demo", "run.finished", TARGET)
    other = "another key for tests, long enough to pass the minimum"
    monkeypatch.setenv("OMNI_OLD_SECRET_KEYS", json.dumps([settings().secret_key.get_secret_value()]))
    monkeypatch.setenv("OMNI_SECRET_KEY", other)
    settings.cache_clear()
    assert hooks.subscribe("demo", "run.finished", TARGET) == made
    monkeypatch.delenv("OMNI_OLD_SECRET_KEYS")
    settings.cache_clear()
    assert hooks.subscribe("demo", "run.finished", TARGET) == made
    assert hooks.publish("demo", "run.finished", [{"flow": "nightly"}]) == 1
    [due] = deliveries._claim("demo", Vault("demo"), now(), 1)
    assert (due.url, due.trouble) == (TARGET, "")


def test_a_rerun_tells_nobody_twice(either_database, control):
    hooks.subscribe("demo", "score.changed", TARGET)
    hooks.subscribe("demo", "score.changed", TARGET + "2")
    rows = [{"customer": f"C-{n}", "score": n / 10} for n in range(10)]
    assert [hooks.publish("demo", "score.changed", rows) for _ in range(2)] == [20, 0]
    assert hooks.publish("demo", "score.changed", [rows[0] | {"score": 0.99}]) == 2
    assert hooks.publish("olist", "score.changed", rows) == 0
    with pytest.raises(ConfigError, match="Unknown event"):
        hooks.publish("demo", "score.chnged", rows)


PRIVATE = [
    "127.0.0.1", "10.0.0.1", "172.16.3.4", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1",
    "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
    "2002:7f00:1::", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "ff02::1", "fec0::1", "192.0.2.1", "240.0.0.1",
    "192.0.0.8", "192.0.0.9", "192.0.0.192", "168.63.129.16", "::ffff:168.63.129.16", "64:ff9b::a83f:8110",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_not_sent_to(address):
    literal = ipaddress.ip_address(address)
    host = f"[{address}]" if literal.version == 6 else address
    for port in ("", ":8443"):
        with pytest.raises(ConfigError, match="private"):
            targets.check(f"https://{host}{port}/x")


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses_are(address):
    literal = ipaddress.ip_address(address)
    host = f"[{address}]" if literal.version == 6 else address
    assert targets.is_public(literal)
    assert targets.resolve(f"https://{host}/a?b=1").url == f"https://{host}:443/a?b=1".replace(
        address, str(literal)
    )


@given(st.ip_addresses())
def test_no_way_of_writing_a_private_address_is_public(address):
    if isinstance(address, ipaddress.IPv4Address) and not targets.is_public(address):
        for prefix in ("::ffff:0:0", "64:ff9b::"):
            assert not targets.is_public(
                ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) | int(address))
            )


@pytest.mark.parametrize(
    "url",
    [
        "", "hooks", "ftp://a.example/", "http://a.example/", "https:///x", "https://user@a.example/",
        "https://a.example:0/", "https://a.example:99999/", "https://localhost/", "https://db.internal/",
        "https://a.example/\r\nHost: b", "https://ä.example/", "https://[::1",
        "https://a.example/\x7f", "https://a.example/a b",
        "https://a.example/" + "x" * 3000, "https://127.1/", "https://2130706433/", "https://0x7f000001/",
    ],
)  # fmt: skip
def test_what_is_no_address_to_send_to_is_refused(url):
    with pytest.raises(ConfigError):
        targets.resolve(url)


def test_names_that_lead_inside_are_refused_when_resolved():
    assert targets.check("https://ip6-localhost/").hostname == "ip6-localhost"
    with pytest.raises(Exception, match=r"private|not found"):
        targets.resolve("https://ip6-localhost/")


def test_loopback_is_reachable_only_when_allowed():
    assert targets.resolve("http://127.0.0.1:8765/x", loopback=True).url == "http://127.0.0.1:8765/x"
    assert targets.resolve("http://localhost:8765/x", loopback=True).host == "localhost:8765"
    with pytest.raises(ConfigError):
        targets.check("http://10.0.0.1/", loopback=True)
    with pytest.raises(ConfigError):
        targets.check("http://a.example/", loopback=True)
