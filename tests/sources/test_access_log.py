"""Access logs: lines to typed rows, addresses only as keyed hashes, keys that survive a log that grows."""

from __future__ import annotations

import os
import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from pydantic import SecretStr

from omni import tenancy
from omni.errors import ConfigError
from omni.settings import settings
from omni.sources import access_log, files_read
from omni.sources.connection import Connection
from omni.sources.extract import extract
from omni.sources.files_format import Format
from omni.warehouse.build import build_models
from omni.warehouse.database import open_warehouse
from omni.warehouse.load import load
from omni.warehouse.models import cached_models
from omni.warehouse.selection import select_models

TABLE, STREAM = "raw.files__access_log", "access_log"
START = datetime(2026, 1, 1, tzinfo=UTC)
LINE = (
    '{client} - {user} [17/May/2015:10:05:{second:02} +0200] "{request}" 200 {size} '
    '"http://Search.example/?q=secret" "Mozilla/5.0 (X11; Linux) {agent}"\n'
)


def line(
    client="192.0.2.7",
    request="GET /blog/a.html?token=secret HTTP/1.1",
    *,
    user="-",
    second=3,
    size="12",
    agent="",
):
    return LINE.format(client=client, request=request, user=user, second=second, size=size, agent=agent)


def parsed(text: str):
    return access_log.parse(text.encode())


def test_a_line_gives_what_is_needed_and_nothing_else():
    row = parsed(line(user="jane doe"))
    assert row.pop("line") != parsed(line())["line"]
    assert row == {
        "client": "192.0.2.7", "occurred_at": "2015-05-17T10:05:03+0200", "method": "GET",
        "path": "/blog/a.html", "protocol": "HTTP/1.1", "status": 200, "bytes": 12,
        "referrer_host": "search.example", "is_bot": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("request_line", "method", "path"),
    [
        ("GET / HTTP/1.0", "GET", "/"),
        ("GET http://me.example/a/b?c HTTP/1.1", "GET", "/a/b"),
        ("GET /a#b HTTP/1.1", "GET", "/a"),
        ("GET /a;session=1 HTTP/1.1", "GET", "/a"),
        ("GET ?a HTTP/1.1", "GET", "/"),
        ("GET /redirect/http://evil.example/page HTTP/1.1", "GET", "/redirect/http://evil.example/page"),
        ("GET http://me.example?a HTTP/1.1", "GET", "/"),
        ("GET /a%3Ftoken=secret/b HTTP/1.1", "GET", "/a"),
        ("GET /a%253ftoken=secret HTTP/1.1", "GET", "/a"),
        (r"GET /a\xef\xbc\x9ftoken=secret HTTP/1.1", "GET", "/a"),
        ("GET /a%00b%3Fc HTTP/1.1", "GET", "/a%00b"),
        ("GET %3Fa HTTP/1.1", "GET", "/"),
        ("GET /u/jane.doe@mail.example/edit HTTP/1.1", "GET", "/u/(e-mail)/edit"),
        ("GET /u/jane%40mail.example HTTP/1.1", "GET", "/u/(e-mail)"),
        ("GET /u/jane%2540mail.example/x HTTP/1.1", "GET", "/u/(e-mail)/x"),
        ("GET /u/jane%EF%BC%A0mail%EF%BC%8Eexample HTTP/1.1", "GET", "/u/(e-mail)"),
        (r"GET /u/jane\xef\xbc\xa0mail.example%3Fx HTTP/1.1", "GET", "/u/(e-mail)"),
        ("GET /@jane/logo@2x.png HTTP/1.1", "GET", "/@jane/logo@2x.png"),
        ("GET /npm/@scope/lib@1.2.3/a%20b HTTP/1.1", "GET", "/npm/@scope/lib@1.2.3/a%20b"),
        ("OPTIONS * HTTP/1.1", "OPTIONS", "*"),
        ("GET /old", "GET", "/old"),
        ("-", None, None),
        (r"\x16\x03\x01", None, None),
        (r"GET /say\"hi\" HTTP/1.1", "GET", r"/say\"hi\""),
    ],
)
def test_requests(request_line, method, path):
    row = parsed(line(request=request_line))
    assert (row["method"], row["path"]) == (method, path)


@pytest.mark.parametrize("referrer", ["http://jane@mail.example@/", "http://jane%40mail.example/"])
def test_a_referrer_names_no_person(referrer):
    named = line().replace("http://Search.example/?q=secret", referrer)
    assert "jane" not in (parsed(named)["referrer_host"] or "")


def test_no_bytes_are_zero_and_addresses_may_be_names_or_ipv6():
    assert parsed(line(size="-"))["bytes"] == 0
    assert parsed(line(client="2001:db8::1"))["client"] == "2001:db8::1"
    assert parsed(line(client="host.example"))["client"] == "host.example"


@pytest.mark.parametrize(
    ("agent", "bot"),
    [
        ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", True),
        ("curl/7.88", True), ("-", True), ("", True), ("Tiny Tiny RSS/1.11", True),
        ("AhrefsBot/7.0", True), ("bot", True), ("Feedly/1.0", True), ("nmap scanner", True),
        ("python-requests/2.31", True), ("libwww-perl/6.0", True), ("PycURL/7.4", True), ("SiteScan/2", True),
        ("Mozilla/5.0 (Linux; Android 10; CUBOT NOTE 20) Mobile Safari/537.36", False),
        ("FeedbackApp/3.1 (iPhone)", False), ("Mozilla/5.0 (Scandinavia)", False),
        ("Mozilla/5.0 (Windows NT 6.1; WOW64) AppleWebKit/537.36 Chrome/32.0 Safari/537.36", False),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 6_0 like Mac OS X) Version/6.0 Mobile Safari/8536.25", False),
    ],
)  # fmt: skip
def test_bots_are_those_that_say_so(agent, bot):
    assert access_log.is_bot(agent) is bot


@pytest.mark.parametrize("cut", range(0, len(line().rstrip()), 7))
def test_a_line_cut_short_is_refused_without_its_words(cut):
    said = parsed(line().rstrip()[:cut])
    assert isinstance(said, str)
    assert "192" not in said
    assert "secret" not in said


def lines_of(path: Path, **options: str):
    return [(b.lines, b.broken) for b in files_read.batches(path, Format(**options))]


def test_a_line_still_being_written_waits_for_the_next_delivery(tmp_path):
    path = tmp_path / "a.log"
    path.write_text(line() + "\n" + "nonsense\n" + line()[:40])
    assert lines_of(path) == [([1], [(3, "not a line of the combined log format")])]
    assert files_read.count(path, Format()) == 2


def test_a_log_of_another_name_needs_the_option(tmp_path):
    path = tmp_path / "apache_logs"
    path.write_text(line())
    assert files_read.kind_of(path, Format()) is None
    assert lines_of(path, format="combined") == [([1], [])]
    with pytest.raises(ConfigError, match="auto or combined"):
        Format(format="common")


@pytest.fixture
def delivered(tmp_path, home):
    """Puts a file into the drop folder and loads what arrived; gives the table's rows and the rejected."""
    folder = tmp_path / "drop" / STREAM
    folder.mkdir(parents=True)
    tenant = tenancy.get("weblog")
    connection = Connection(
        "files",
        (tmp_path / "drop").as_uri(),
        SecretStr(""),
        options={"arrival": "modified", "timezone": "UTC"},
    )

    def deliver(name: str, text: str, hour: int):
        (folder / name).write_text(text)
        moment = START + timedelta(hours=hour)
        os.utime(folder / name, (moment.timestamp(), moment.timestamp()))
        with open_warehouse(tenant) as warehouse:
            staged = extract(
                tenant, "files", STREAM, connection, since=moment, until=moment + timedelta(minutes=1),
                run_id=f"r{hour}", folder=tmp_path / "staged" / str(hour),
            )  # fmt: skip
            load(warehouse, staged)
            with warehouse.cursor() as con:
                found = con.execute(f"SELECT line_hash, line_nth, client_id, path FROM {TABLE}").fetchall()
                letters = con.execute("SELECT record_key, reason FROM ops.dead_letters").fetchall()
        return found, letters

    return deliver


@pytest.mark.slow
def test_a_log_that_grew_adds_its_new_lines_only(delivered):
    twice = line() + line() + line(second=4)
    first, _ = delivered("today.log", twice, 1)
    assert sorted(nth for _, nth, *_ in first) == [1, 1, 2]
    grown, letters = delivered("today.log", twice + "broken\n" + line() + line(client="192.0.2.8"), 2)
    assert len(grown) == 5
    assert set(first) < set(grown)
    assert sorted(nth for _, nth, *_ in grown) == [1, 1, 1, 2, 3]
    assert letters == [("today.log:4", "today.log:4: not a line of the combined log format")]
    rotated, _ = delivered("yesterday.log", twice, 3)
    assert set(rotated) == set(grown)


@pytest.mark.slow
def test_no_address_is_stored_in_clear_anywhere(delivered, tmp_path):
    text = line() + line(client="2001:db8::1", user="jane") + '192.0.2.7 - - [17/May/2015 "GET /broken\n'
    found, letters = delivered("a.log", text, 1)
    assert (len(found), len(letters)) == (2, 1)
    assert all(re.fullmatch("[0-9a-f]{64}", client) for _, _, client, _ in found)
    (tmp_path / "drop" / STREAM / "a.log").unlink()
    plain = access_log.parse(line().encode())["line"].encode()
    parquet = list((tmp_path / "staged").rglob("*.parquet"))
    assert parquet
    with duckdb.connect() as con:  # what is compressed must be read to be searched
        texts = [repr(con.execute(f"FROM '{path}'").fetchall()).encode() for path in parquet]
    texts += [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    for secret in (b"192.0.2.7", b"2001:db8::1", b"jane", b"secret", plain):
        assert not any(secret in content for content in texts)


@pytest.mark.slow
@pytest.mark.real_data
def test_counts_of_the_real_log_equal_an_independent_computation(delivered):
    """By pandas and another expression, from the file to the marts."""
    import pandas as pd

    path = settings().real_data / "web_access_logs" / "apache_logs"
    if not path.exists():
        pytest.skip(f"real data absent: {path}")
    pattern = r'^(\S+) \S+ \S+ \[([^\]]+)\] "(\S+) (\S+)[^"]*" (\d+) (\S+) "([^"]*)" "(.*)"$'
    whole = pd.Series(path.read_text().splitlines())
    log = whole.str.extract(pattern).dropna(subset=[0])
    log.columns = ["client", "time", "method", "target", "status", "bytes", "referrer", "agent"]
    log["time"] = pd.to_datetime(log["time"], format="%d/%b/%Y:%H:%M:%S %z")
    log["path"] = log["target"].str.extract(r"^(.*?)(?:[?#;]|%3[Ff]|$)")[0]
    robots = log["agent"].map(lambda agent: access_log.BOTS.search(agent) is not None)
    human = ~(robots | log["agent"].isin(["", "-"]))
    shown = (
        human
        & (log["method"] == "GET")
        & (log["status"].str.startswith("2") | (log["status"] == "304"))
        & ~log["path"].str.lower().str.endswith((
            ".avif", ".bmp", ".css", ".eot", ".gif", ".ico", ".jpeg", ".jpg", ".js", ".json", ".map", ".mp3",
            ".mp4", ".otf", ".png", ".svg", ".ttf", ".webm", ".webp", ".woff", ".woff2", ".atom", ".rdf",
            ".rss", ".txt", ".xml",
        ))
    )  # fmt: skip
    views = log[shown].sort_values(["client", "time"], kind="stable")
    gap = views.groupby("client")["time"].diff()
    starts = gap.isna() | (gap > pd.Timedelta(minutes=30))
    session = starts.cumsum()

    rows, letters = delivered("apache_logs.log", path.read_text(), 1)
    assert (len(rows), len(letters)) == (len(log), 1) == (9_999, 1)
    models = cached_models(settings().data / "models")
    with open_warehouse(tenancy.get("weblog")) as warehouse:
        wanted = select_models(models, ["+marts.usage_*"])
        outcomes = build_models(warehouse, models, select=wanted, run_id="r")
        assert {outcome.status for outcome in outcomes} == {"done"}
        with warehouse.cursor() as con:
            get = lambda sql: con.execute(sql).fetchall()  # noqa: E731
            assert get(f"SELECT count(DISTINCT client_id), sum(bytes) FROM {TABLE}") == [
                (1_753, pd.to_numeric(log["bytes"].replace("-", "0")).sum())
            ]
            assert log["client"].nunique() == 1_753
            codes = dict(get(f"SELECT status, count(*) FROM {TABLE} GROUP BY status"))
            assert codes == log["status"].astype(int).value_counts().to_dict()
            pages = dict(get("SELECT page, count(*) FROM core.usage_events GROUP BY page"))
            assert pages == views["path"].value_counts().to_dict()
            days = dict(get("SELECT event_date, actors FROM marts.usage_daily WHERE event = '(all)'"))
            assert days == views.groupby(views["time"].dt.date)["client"].nunique().to_dict()
            sizes = views.groupby(session).size()
            found = get(
                "SELECT count(*), count(*) FILTER (WHERE is_bounced), max(events) FROM core.usage_sessions"
            )
            assert found == [(starts.sum(), (sizes == 1).sum(), sizes.max())]
            began = dict(get("SELECT session_date, count(*) FROM core.usage_sessions GROUP BY session_date"))
            assert began == views[starts].groupby(views["time"].dt.date).size().to_dict()
            assert get("SELECT max(monthly_actors) FROM marts.usage_stickiness") == [
                (views["client"].nunique(),)
            ]
            assert max(days) == date(2015, 5, 20)
