"""Declared APIs: every paging style and auth gives each record once, and what is wrong is named."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from omni import yamlfile
from omni.errors import AuthError, ConfigError, SchemaError, SourceError, TransientError
from omni.sources import rest
from omni.sources.rest_declaration import Api
from omni.sources.rest_paging import link_next
from omni.sources.vendor import Window
from omni.warehouse.contracts import Column, Contract, Source

EVER = Window(None, datetime(2100, 1, 1, tzinfo=UTC))
TABLES = [
    Contract(
        table="raw.things__items",
        description="d",
        owner="o",
        grain="g",
        key=["id"],
        columns={"id": Column(type="string"), "name": Column(type="string")},
        source=Source(vendor="things", object="items"),
    )
]
PAGING = {
    "page": {"style": "page", "param": "page"},
    "page_from_0": {"style": "page", "param": "page", "first": 0, "more": "more"},
    "offset": {"style": "offset", "param": "offset"},
    "cursor": {"style": "cursor", "param": "after", "next": "paging.next"},
    "next_url": {"style": "next_url", "next": "paging.url"},
    "next_path": {"style": "next_url", "next": "paging.path"},
    "link_header": {"style": "link_header"},
}


def declared(paging=None, **stream):
    parts = {"path": "/v1/items", "records": "data", "paging": paging or {}}
    api = {"name": "things", "title": "Things", "base_url": "https://x.example"}
    top = {key: stream.pop(key) for key in ("auth", "headers", "limits") if key in stream}
    return Api.model_validate(api | top | {"streams": {"items": parts | stream}})


class Items:
    """A server of `n` items that knows all styles; pages hold at most `cap`."""

    def __init__(self, answering, n, cap):
        self.answering, self.n, self.cap = answering, n, cap

    def __call__(self, asked):
        query = asked.query
        size = min(int(query.get("limit", self.cap)), self.cap)
        first = 0 if query.get("kind") == "page_from_0" else 1
        page = int(query.get("page", first)) - first
        start = int(query.get("offset", query.get("after", page * size)))
        data = [{"id": i, "name": f"n{i}"} for i in range(start, min(start + size, self.n))]
        end = start + size
        body = {"data": data, "total": self.n, "more": end < self.n}
        headers = {"X-Total": str(self.n)}
        if end < self.n:
            path = f"/v1/items?after={end}&limit={size}"
            body["paging"] = {"next": str(end), "url": f"http://{asked.headers['host']}{path}", "path": path}
            headers["Link"] = f'</first>; rel=first, <{path}>; title="a"; rel="last next"'
        return self.answering(body, 200, headers)


@pytest.fixture
def reading(connect):
    def start(api, url, window=EVER, resume=None, tables=TABLES, **changes):
        source = rest.vendor(api)
        with source.open(connect("things", url, **changes)) as client:
            source.check(client, tables)
            expected = source.count(client, tables, window)
            return expected, list(source.read(client, tables, window, resume))

    return start


def ids(pages):
    return [record["id"] for page in pages for record in page.records]


@pytest.mark.slow
@pytest.mark.parametrize("style", PAGING)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(n=st.integers(0, 40), size=st.integers(1, 15), cap=st.integers(1, 15))
def test_any_number_of_rows_in_pages_of_any_size_comes_once_and_goes_on_anywhere(
    serve, answering, reading, style, n, size, cap
):
    if style == "page_from_0":
        size = min(size, cap)
    paging = PAGING[style] | {"size": size, "size_param": "limit"}
    server = serve(Items(answering, n, cap))
    api = declared(paging, total="total", params={"kind": style})
    expected, pages = reading(api, server.url)
    assert expected == n
    assert ids(pages) == [str(i) for i in range(n)]
    assert pages[-1].resume is None
    for index, page in list(enumerate(pages[:-1]))[:: max(1, len(pages) // 3)]:
        _, rest_of = reading(api, server.url, resume=json.loads(json.dumps(page.resume)))
        assert ids(rest_of) == ids(pages[index + 1 :])


def test_without_total_pages_end_with_an_empty_one_and_nothing_is_lost_when_the_server_caps(
    serve, answering, reading
):
    server = serve(Items(answering, 10, 3))
    for style in ("page", "offset"):
        expected, pages = reading(declared(PAGING[style] | {"size": 100, "size_param": "limit"}), server.url)
        assert expected is None
        assert ids(pages) == [str(i) for i in range(10)]
    counted, _ = reading(declared(PAGING["page"], total_header="X-Total"), server.url)
    assert counted == 10


@pytest.mark.parametrize(
    ("auth", "token", "header", "value"),
    [
        ({"kind": "bearer"}, "abc", "authorization", "Bearer abc"),
        ({"kind": "api_key", "name": "X-Key", "prefix": "Token "}, "abc", "x-key", "Token abc"),
        ({"kind": "basic"}, "me:pw", "authorization", "Basic " + base64.b64encode(b"me:pw").decode()),
        ({"kind": "none"}, "", "x-fixed", "1"),
    ],
)
def test_auth_goes_where_it_is_declared(serve, answering, reading, auth, token, header, value):
    server = serve(lambda _: answering({"data": [{"id": 1, "name": "a"}]}))
    reading(declared(auth=auth, headers={"X-Fixed": "1"}), server.url, token=token)
    assert server.asked[0].headers[header] == value
    assert server.asked[0].headers["x-fixed"] == "1"
    assert ("authorization" in server.asked[0].headers) == (header == "authorization")


def test_a_key_in_the_query_goes_with_every_page_and_stays_out_of_places_and_messages(
    serve, answering, reading, caplog
):
    caplog.set_level("INFO")

    def answer(asked):
        if asked.query.get("api_key") != "hush":
            return answering({"message": "no key"}, 401)
        if "p" in asked.query:
            return answering({"data": "nothing"})
        url = f"http://{asked.headers['host']}/v1/items?p=2&api_key=hush"
        return answering({"data": [{"id": 1, "name": "a"}], "next": url})

    server = serve(answer)
    api = declared(
        {"style": "next_url", "next": "next"}, auth={"kind": "api_key", "name": "api_key", "place": "query"}
    )
    source = rest.vendor(api)
    from omni.sources.connection import Connection

    connection = Connection("things", server.url, SecretStr("hush"), backoff=0.001)
    with source.open(connection) as client:
        pages = source.read(client, TABLES, EVER, None)
        assert "hush" not in json.dumps(next(pages).resume)
        with pytest.raises(SourceError, match=r"Things items \(/v1/items\): data should be a list") as error:
            next(pages)
    assert "hush" not in str(error.value) + repr(connection) + caplog.text
    assert [asked.query["api_key"] for asked in server.asked] == ["hush", "hush"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"items": []}, "data should be a list, but is missing"),
        ({"data": {"1": {}}}, "data should be a list, but is of type dict"),
        ({"data": ["x"]}, "a record should be an object, but is str"),
        ({"data": [{"name": "x"}]}, "a record lacks its key at id"),
        ({"data": [{"id": None, "name": "x"}]}, "a record lacks its key at id"),
    ],
)
def test_an_answer_of_another_shape_names_stream_and_path(serve, answering, reading, body, said):
    server = serve(lambda _: answering(body))
    with pytest.raises(SourceError, match=said) as error:
        reading(declared(), server.url)
    assert "Things items (/v1/items)" in str(error.value)


@pytest.mark.parametrize(
    ("paging", "said"),
    [
        ({"style": "cursor", "param": "after", "next": "next"}, "goes in a circle"),
        ({"style": "next_url", "next": "url"}, "goes in a circle"),
        ({"style": "page", "param": "pgae"}, "pgae may be the wrong parameter"),
        ({"style": "offset", "param": "skipp"}, "skipp may be the wrong parameter"),
        ({"style": "cursor", "param": "after", "next": "data"}, "data should be a text, but is list"),
        ({"style": "page", "param": "page", "more": "total"}, "total should be true or false"),
        ({"style": "next_url", "next": "elsewhere"}, "points to another host, other.example"),
    ],
)
def test_paging_that_leads_nowhere_ends_with_its_reason(serve, answering, reading, paging, said):
    body = {"data": [{"id": 1, "name": "a"}], "next": "x", "url": "/v1/items?again=1", "total": 5}
    server = serve(lambda _: answering(body | {"elsewhere": "https://other.example/x"}))
    with pytest.raises(SourceError, match=said):
        reading(declared(paging), server.url)
    assert len(server.asked) < 5


def test_a_column_that_no_record_has_is_named_unless_there_is_nothing(serve, answering, reading):
    server = serve(lambda _: answering({"data": [{"id": 1}]}))
    with pytest.raises(SchemaError, match=r"no record has 'name', which raw\.things__items takes"):
        reading(declared(), server.url)
    empty = serve(lambda _: answering({"data": []}))
    assert reading(declared(), empty.url)[1][0].records == []


def test_a_total_that_is_promised_must_come(serve, answering, reading):
    server = serve(lambda _: answering({"data": []}))
    with pytest.raises(SourceError, match=r"lacks the total at meta\.total"):
        reading(declared(total="meta.total"), server.url)


@pytest.mark.parametrize(
    ("since", "asked"),
    [
        ({"format": "iso"}, {"from": "2026-01-02T03:04:05Z"}),
        (
            {"format": "iso_ms", "until_param": "to"},
            {"from": "2026-01-02T03:04:05.678Z", "to": "2026-02-01T00:00:00.000Z"},
        ),
        ({"format": "epoch", "exclusive": True}, {"from": "1767323044"}),
        ({"format": "epoch_ms", "exclusive": True}, {"from": "1767323045677"}),
        ({"format": "date", "until_param": "to"}, {"from": "2026-01-02", "to": "2026-02-02"}),
    ],
)
def test_the_window_is_asked_for_in_the_apis_format(serve, answering, reading, since, asked):
    server = serve(lambda _: answering({"data": []}))
    window = Window(datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC), datetime(2026, 2, 1, tzinfo=UTC))
    reading(declared(since={"param": "from"} | since), server.url, window)
    assert server.asked[0].query == asked


@pytest.mark.parametrize("style", ["page", "page_from_0", "offset"])
@pytest.mark.parametrize("leave", [1, 3])
def test_records_that_leave_the_list_meanwhile_hide_no_others(serve, answering, reading, style, leave):
    """As one that is edited leaves a window; the API then lists all behind it one place earlier."""
    items = Items(answering, 10, 3)
    numbers = list(range(10))

    def answer(asked):
        items.n = len(numbers)
        found = items(asked)
        if "offset" in asked.query or "page" in asked.query:
            pages.append(asked.query)
            if len(pages) % 2 == 0 and len(numbers) > 10 - leave:
                del numbers[0]
        for row in found.body["data"]:
            row["id"] = numbers[row["id"]]
        return found

    pages = []
    server = serve(answer)
    size = {"size": 3, "size_param": "limit"}
    api = declared(PAGING[style] | size, total="total", params={"kind": style})
    _, read = reading(api, server.url)
    assert set(ids(read)) >= {str(n) for n in range(1, 10)}
    assert read[-1].resume is None
    again = next(page.resume for page in read if "again" in page.resume)
    _, rest_of = reading(api, server.url, resume=json.loads(json.dumps(again)))
    assert set(map(str, numbers)) <= set(ids(rest_of))


def test_a_list_that_never_stands_still_is_given_up(serve, answering, reading):
    items = Items(answering, 1000, 3)

    def answer(asked):
        items.n -= 1
        return items(asked)

    server = serve(answer)
    with pytest.raises(TransientError, match=r"records left the list each of the 11 times it was read"):
        reading(declared(PAGING["offset"], total="total"), server.url)
    assert len(server.asked) < 30


def test_a_full_read_has_no_end_but_its_count_has(serve, answering, reading):
    server = serve(lambda _: answering({"data": [{"id": 1, "name": "a"}], "total": 1}))
    since = {"param": "from", "until_param": "to", "format": "date"}
    reading(declared(since=since, total="total"), server.url, Window(None, datetime(2026, 2, 1, tzinfo=UTC)))
    assert [asked.query for asked in server.asked] == [{"to": "2026-02-02"}, {}]


def test_keys_of_several_parts_and_reading_again_by_id(serve, answering, connect):
    rows = {
        "a|1": {"id": 9, "shop": "a", "no": 1, "name": "x"},
        "a/b|2": {"id": 8, "shop": "a/b", "no": 2, "name": "y"},
    }

    def answer(asked):
        if asked.path == "/v1/items":
            return answering(list(rows.values()))
        key = asked.target.rpartition("/")[2]
        found = {"a%7C1": "a|1", "a%2Fb%7C2": "a/b|2"}.get(key)
        return answering({"item": rows[found]}) if found else answering({"message": "none"}, 404)

    server = serve(answer)
    api = declared(records=None, key=["shop", "no"], item="/v1/items/{id}", item_record="item")
    source = rest.vendor(api)
    with source.open(connect("things", server.url)) as client:
        listed = [record for page in source.read(client, TABLES, EVER, None) for record in page.records]
        again = [r for page in source.reread(client, TABLES, ["a|1", "gone", "a/b|2"]) for r in page.records]
    assert [(r["id"], r["_row"]["id"]) for r in listed] == [("a|1", 9), ("a/b|2", 8)]
    assert again == listed
    assert rest.vendor(declared()).reread is None


def test_a_refused_token_says_which_variable(serve, answering, reading):
    server = serve(lambda _: answering({"error": "bad token"}, 401))
    with pytest.raises(AuthError, match="OMNI_REST__THINGS__TOKEN"):
        reading(declared(), server.url)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("auth: {kind: api_key}", "auth api_key needs name, for example X-Api-Key"),
        ("auth: {kind: oauth2}", "auth oauth2 needs token_url"),
        ("headers: {Authorization: Bearer x}", "Authorization is a secret"),
        ("base_url: https://me:pw@x.example", "base_url"),
        ("streams: {a: {path: items}}", r"streams\.a\.path"),
        ("streams: {a: {path: /items, paging: {style: cursor}}}", "paging cursor needs param"),
        ("streams: {a: {path: /items, paging: {style: next_url}}}", "paging next_url needs next"),
        ("streams: {a: {path: /items, paging: {size: 5}}}", "size and size_param go together"),
        ("streams: {a: {path: /items, item: /items}}", r"streams\.a\.item"),
        ("streams: {a: {path: /items, pages: 5}}", r"streams\.a\.pages: Extra inputs"),
    ],
)
def test_a_wrong_declaration_names_file_and_field(text, said):
    base = {
        "name": "name: x",
        "title": "title: X",
        "base_url": "base_url: https://x.example",
        "streams": "streams: {a: {path: /a}}",
    }
    base[text.partition(":")[0]] = text
    with pytest.raises(ConfigError, match=said) as error:
        yamlfile.parse("\n".join(base.values()), Api, "data/rest/x.yml")
    assert "data/rest/x.yml" in str(error.value)


def test_a_declaration_may_not_take_a_vendors_name(tmp_path, monkeypatch, home):
    from omni.settings import settings as chosen

    (tmp_path / "rest").mkdir()
    (tmp_path / "rest" / "stripe.yml").write_text(
        "name: stripe\ntitle: S\nbase_url: https://x.example\nstreams: {a: {path: /a}}\n"
    )
    monkeypatch.setenv("OMNI_DATA", str(tmp_path))
    chosen.cache_clear()
    with pytest.raises(ConfigError, match="'stripe' is a vendor of our own"):
        rest.declarations()


@given(st.text(max_size=60))
def test_any_link_header_can_be_read(text):
    assert link_next(text) is None or text.lower().count("next")
    assert (
        link_next(f'<https://a/b?c=1,2;3>; rel="prev", <https://a/d>; foo="x, y"; rel=next, {text}')
        == "https://a/d"
    )
