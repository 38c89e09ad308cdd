"""Calls over real HTTP: what is retried, how long, and what is said when it fails."""

from __future__ import annotations

import itertools
import logging
import random
import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from omni.errors import AuthError, ConfigError, SourceError, TransientError
from omni.sources.http import Http, need, retry_after
from omni.sources.hubspot import DIALECT
from omni.sources.limits import Limit, Limiter


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def script(serve, connect, answering):
    """Serve scripted answers, the last one for ever; returns client, clock and server."""
    opened = []

    def start(*answers, **changes):
        left = list(answers)
        server = serve(lambda _: left.pop(0) if len(left) > 1 else left[0])
        clock = Clock()
        options = {"backoff": 1.0} | changes
        http = Http(
            connect("hubspot", server.url, **options),
            DIALECT,
            rng=random.Random(1),
            clock=clock,
            sleep=clock.sleep,
        )
        opened.append(http)
        return http, clock, server

    yield start
    for http in opened:
        with http:
            pass


def test_the_token_goes_in_the_header_only(script, answering):
    http, _, server = script(answering({"ok": 1}), token="secret-1")
    assert http.get("/x", {"a": "1"}) == {"ok": 1}
    asked = server.asked[0]
    assert asked.headers["authorization"] == "Bearer secret-1"
    assert "secret-1" not in asked.target


@pytest.mark.parametrize("status", [408, 429, 430, 500, 502, 503, 504])
def test_passing_failures_are_retried_with_growing_waits(script, answering, status):
    http, clock, server = script(*[answering({}, status)] * 3, answering({"ok": 1}))
    assert http.get("/x", {}) == {"ok": 1}
    assert len(server.asked) == 4
    assert http.counters.retries == 3
    assert 0.5 <= clock.slept[0] <= 1 <= clock.slept[1] <= 2 <= clock.slept[2] <= 4
    assert http.counters.waited == pytest.approx(sum(clock.slept))


def test_retry_after_is_honoured_and_capped(script, answering):
    http, clock, _ = script(
        answering({}, 429, {"Retry-After": "7"}), answering({}, 503, {"Retry-After": "999"}), answering({})
    )
    http.get("/x", {})
    assert clock.slept == [7, 60]


def test_retry_after_zero_does_not_hammer(script, answering):
    http, clock, server = script(answering({}, 429, {"Retry-After": "0"}))
    with pytest.raises(TransientError):
        http.get("/x", {})
    assert len(server.asked) < 15
    assert sum(clock.slept) > 30


def test_retry_after_reads_dates():
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert 55 < retry_after({"retry-after": in_a_minute}) <= 60
    for nonsense in ("soon", "-1", "nan", "inf"):
        assert retry_after({"retry-after": nonsense}) is None
    assert retry_after({}) is None


def test_retries_end_with_the_reason(script, answering):
    http, _, server = script(answering({"message": "broken", "correlationId": "c-1"}, 500))
    with pytest.raises(TransientError, match=r"HubSpot GET /x: HTTP 500: broken \[id c-1\]; gave up after 6"):
        http.get("/x", {})
    assert len(server.asked) == 6


def test_patience_ends_long_throttling(script, answering):
    http, clock, _ = script(answering({}, 429, {"Retry-After": "50"}), patience=120)
    with pytest.raises(TransientError) as caught:
        http.get("/x", {})
    assert caught.value.retry_after == 50
    assert sum(clock.slept) <= 120


def test_a_used_up_day_is_not_waited_for_long(script, answering):
    http, clock, server = script(answering({"policyName": "DAILY", "message": "daily limit"}, 429))
    with pytest.raises(TransientError, match="calls of today are used up: daily limit"):
        http.get("/x", {})
    assert len(server.asked) == 6
    assert sum(clock.slept) < 60


def test_a_cut_body_is_read_again(script, answering):
    http, _, server = script(answering({"n": [1] * 50}, cut=True), answering({"n": 1}))
    assert http.get("/x", {}) == {"n": 1}
    assert len(server.asked) == 2


def test_a_silent_server_times_out(connect):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connection = connect(
            "hubspot", f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.1, attempts=2
        )
        with Http(connection, DIALECT) as http, pytest.raises(TransientError, match="ReadTimeout"):
            http.get("/x", {})


def test_nobody_listening(connect):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    connection = connect("hubspot", url, attempts=2)
    with Http(connection, DIALECT) as http, pytest.raises(TransientError, match="ConnectError"):
        http.get("/x", {})


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_says_what_to_do_and_hides_the_token(script, answering, status):
    http, _, server = script(answering({"message": "expired"}, status), token="pat-secret")
    with pytest.raises(AuthError, match=r"expired\. Check the private app's access token") as caught:
        http.get("/x", {})
    assert "OMNI_HUBSPOT__TOKEN" in str(caught.value)
    assert "pat-secret" not in str(caught.value)
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [400, 404, 414, 302])
def test_other_refusals_are_final(script, answering, status):
    http, _, server = script(answering({"message": "no such object", "correlationId": "c-2"}, status))
    with pytest.raises(SourceError, match=rf"HTTP {status}\): no such object \[id c-2\]"):
        http.post("/x", {})
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "body", [b"<html>Log in</html>", b'{"a": [1, 2', b'{"a": NaN}', b"", b"\xff\xfe{}", b"[" * 9999]
)
def test_no_json_is_tried_thrice_and_quotes_nothing(script, answering, body):
    http, _, server = script(answering(body))
    with pytest.raises(SourceError, match="no valid JSON") as caught:
        http.get("/x", {})
    assert len(server.asked) == 3
    assert "Log in" not in str(caught.value)


@pytest.mark.parametrize("token", ["", "a b", "abc\n", "tök"])
def test_a_token_that_cannot_be_one_is_refused_unshown(connect, token):
    with pytest.raises(ConfigError, match="access token is empty or holds") as caught:
        Http(connect("hubspot", "http://127.0.0.1:1", token=token), DIALECT)
    assert token not in str(caught.value) or token == ""


@pytest.mark.parametrize("url", ["api.example.com", "", "ftp://api.example.com"])
def test_an_address_without_scheme_is_refused(connect, url):
    with pytest.raises(ConfigError, match="base URL"):
        Http(connect("hubspot", url), DIALECT)


def test_a_connection_hides_its_token(connect):
    assert "pat-secret" not in repr(connect("hubspot", "http://127.0.0.1:1", token="pat-secret"))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "lacks paging"),
        ({"paging": None}, r"lacks paging\.next"),
        ({"paging": {"next": 5}}, "paging.next should be dict but is int"),
        ([], "lacks paging"),
    ],
)
def test_missing_parts_are_named(body, said):
    with pytest.raises(SourceError, match=said):
        need(body, "paging.next", dict, "HubSpot contacts")


def test_a_limiter_keeps_every_window():
    clock = Clock()
    limiter = Limiter((Limit(5, 10.0), Limit(2, 1.0, "/search")), clock=clock, sleep=clock.sleep)
    sent = []
    for _ in range(12):
        limiter.acquire("/x/search")
        sent.append(clock.now)
    for first, later in zip(sent, sent[2:], strict=False):
        assert later - first >= 1
    for first, later in zip(sent, sent[5:], strict=False):
        assert later - first >= 10
    assert Limiter((Limit(1, 9.0, "/search"),), clock=clock, sleep=clock.sleep).acquire("/x") == 0


def test_clients_of_one_account_share_its_limits(serve, connect, answering):
    server = serve(lambda _: answering({}))
    connection = connect("hubspot", server.url, requests_per_10s=3)
    clock = Clock()
    with Http(connection, DIALECT) as one, Http(connection, DIALECT) as other:
        assert one._limiter is other._limiter
        for http in (one, other, one):
            http.get("/x", {})
    assert one.counters.waited == 0
    assert clock.slept == []


def test_a_download_is_whole_or_not_there(serve, answering, connect, tmp_path):
    server = serve(lambda asked: answering(b"x" * 1_000, cut=len(server.asked) < 3))
    with Http(connect("hubspot", server.url), DIALECT) as http:
        http.download("/file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"x" * 1_000
    assert len(server.asked) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_download_that_takes_too_long_ends(serve, answering, connect, tmp_path):
    server = serve(lambda _: answering(b"x" * 1_000))
    clock = itertools.count(0, 10_000).__next__
    with Http(connect("hubspot", server.url), DIALECT, clock=clock, sleep=lambda _: None) as http:
        http.download_patience = 5_000.0
        with pytest.raises(TransientError, match="download of /file came too slowly"):
            http.download(f"{server.url}/file?signature=secret", tmp_path / "file", authenticated=False)
    assert not list(tmp_path.iterdir())


def test_addresses_are_not_logged(serve, answering, connect, tmp_path, caplog):
    server = serve(lambda _: answering(b"{}"))
    with caplog.at_level(logging.INFO), Http(connect("hubspot", server.url), DIALECT) as http:
        http.download(f"{server.url}/file?signature=secret", tmp_path / "file", authenticated=False)
    assert "secret" not in caplog.text


def test_no_token_goes_with_an_address_that_needs_none(serve, answering, connect, tmp_path):
    server = serve(lambda _: answering(b"{}"))
    with Http(connect("hubspot", server.url), DIALECT) as http:
        http.download(f"{server.url}/file", tmp_path / "file", authenticated=False)
        assert "authorization" not in server.asked[0].headers
        with pytest.raises(SourceError, match="points to another host"):
            http.get("http://localhost:1/x", {})
