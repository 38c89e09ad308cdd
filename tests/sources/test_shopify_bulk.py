"""Bulk operations against the sandbox: the same records as in pages, resumable, and never silently short."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

import httpx
import polars as pl
import pytest
from pydantic import SecretStr

from omni.errors import AuthError, SourceError, TransientError
from omni.sandbox.process import running
from omni.sources.connection import Connection
from omni.sources.extract import extract, tables
from omni.sources.shopify import VENDOR
from omni.sources.shopify_bulk import read_bulk
from omni.sources.shopify_calls import PATH
from omni.sources.vendor import Window
from omni.warehouse.staged import MANIFEST

pytestmark = pytest.mark.slow

ALL = Window(None, datetime(2100, 1, 1, tzinfo=UTC))
STREAMS = ["orders", "customers", "products", "productVariants", "inventoryItems"]
BULK, PAGED = 0, 10**9
START = "bulkOperationRunQuery"


@pytest.fixture(scope="module")
def box():
    with running("demo", seed=5) as sandbox:
        yield sandbox


@pytest.fixture
def fault(box):
    """Let coming requests fail; what is left of that ends with the test."""

    def force(kind, path, times=1):
        body = {"kind": kind, "path": path, "times": times}
        httpx.post(f"{box.url}/_sandbox/fault", json=body).raise_for_status()

    yield force
    httpx.delete(f"{box.url}/_sandbox/fault")


def connection(box, above=BULK, **changes):
    options = {"bulk_above": str(above), "bulk_poll": "0.001"}
    token = SecretStr(box.token)
    settings = {"requests_per_10s": 100_000, "backoff": 0.001, "options": options} | changes
    return Connection("shopify", box.url, token, **settings)


def pages(box, stream, above=BULK, window=ALL, resume=None, **changes):
    with VENDOR.open(connection(box, above, **changes)) as shop:
        yield from VENDOR.read(shop, tables("shopify", stream), window, resume)


def records(found):
    return [record for page in found for record in page.records]


def asked(box):
    return httpx.get(f"{box.url}/_sandbox/stats").json()["requests"]


@pytest.fixture(scope="module")
def orders(box):
    """All orders in pages: what every other way must give."""
    return records(pages(box, "orders", PAGED))


def by_id(rows):
    return {row["id"]: row for row in rows}


@pytest.mark.parametrize("stream", STREAMS)
def test_bulk_and_pages_give_the_same_records(box, stream):
    bulk, paged = (records(pages(box, stream, above)) for above in (BULK, PAGED))
    assert by_id(bulk) == by_id(paged)
    assert len(bulk) == len(paged) == len(by_id(bulk))
    with VENDOR.open(connection(box)) as shop:
        counted = VENDOR.count(shop, tables("shopify", stream), ALL)
    assert counted in (len(bulk), None)


def test_only_large_first_loads_run_in_bulk(box):
    def started(above, window):
        before = asked(box).get(f"shopify {START}", 0)
        records(pages(box, "customers", above, window))
        return asked(box).get(f"shopify {START}", 0) - before

    later = Window(datetime(2026, 10, 1, tzinfo=UTC), ALL.until)
    assert started(1000, ALL) == 1
    assert started(PAGED, ALL) == 0
    assert started(BULK, later) == 0


@pytest.mark.parametrize("above", [BULK, PAGED])
@pytest.mark.parametrize(("stream", "step"), [("customers", 1), ("inventoryItems", 1), ("orders", 16)])
def test_reading_goes_on_behind_any_page(box, stream, step, above):
    whole = list(pages(box, stream, above))
    tokens = [json.loads(json.dumps(page.resume)) for page in whole]
    for at in range(0, len(tokens), step):
        if tokens[at] is not None:
            tail = records(pages(box, stream, above, resume=tokens[at]))
            assert records(whole[: at + 1]) + tail == records(whole)
    assert all(tokens[:-1])


def test_another_process_finds_the_operation_that_runs(box, orders):
    started = pages(box, "orders")
    first = next(started)
    started.close()
    assert first.records == []
    before = asked(box)[f"shopify {START}"]
    assert by_id(records(pages(box, "orders", resume=first.resume))) == by_id(orders)
    assert asked(box)[f"shopify {START}"] == before


def test_a_result_that_is_gone_is_read_anew(box, caplog):
    token = {"bulk": "gid://shopify/BulkOperation/99999", "roots": 500}
    with caplog.at_level(logging.WARNING):
        found = records(pages(box, "customers", resume=token))
    assert "is gone or not whole; reading starts again" in caplog.text
    assert by_id(found) == by_id(records(pages(box, "customers", PAGED)))


def test_an_empty_result_has_no_address(box):
    nothing = Window(datetime(2099, 1, 1, tzinfo=UTC), ALL.until)
    with VENDOR.open(connection(box)) as shop:
        assert records(read_bulk(shop, tables("shopify", "orders"), nothing, None)) == []


def test_lost_lines_are_noticed(box, fault):
    fault("bulk_lost", START)
    with pytest.raises(SourceError, match=r"holds \d+ lines, but Shopify says it wrote \d+"):
        records(pages(box, "orders"))


def test_a_short_result_that_was_to_be_gone_on_with_is_read_anew(box, fault, orders):
    fault("bulk_lost", START)
    started = pages(box, "orders")
    token = next(started).resume
    started.close()
    assert by_id(records(pages(box, "orders", resume=token))) == by_id(orders)


def test_rows_far_from_their_record_are_noticed(box, fault):
    fault("bulk_scattered", START)
    with pytest.raises(SourceError, match="does not stand behind the record it belongs to"):
        records(pages(box, "orders"))


@pytest.mark.parametrize(
    ("kind", "error", "said"),
    [
        ("bulk_failed", AuthError, "denied access"),
        ("bulk_expired", TransientError, "is EXPIRED, so"),
        ("bulk_canceled", TransientError, "is CANCELED, so"),
    ],
)
def test_operations_that_end_without_a_result(box, fault, kind, error, said):
    fault(kind, START)
    with pytest.raises(error, match=said):
        records(pages(box, "orders"))


def test_an_operation_that_times_out_is_read_in_pages(box, fault, caplog):
    fault("bulk_timeout", START)
    before = asked(box).get("shopify bulk result", 0)
    with caplog.at_level(logging.WARNING):
        found = records(pages(box, "customers"))
    assert "failed at Shopify (TIMEOUT); reading pages instead" in caplog.text
    assert len(by_id(found)) == len(found) > 3000
    assert asked(box).get("shopify bulk result", 0) == before, "the part it offers is no result"


@pytest.mark.parametrize("kind", ["cut_body", "503", "429_retry_after"])
def test_passing_faults_lose_nothing(box, fault, kind):
    fault(kind, "_bulk/shopify")
    fault(kind, f"#{START}")
    assert len(by_id(records(pages(box, "customers")))) > 3000


def test_the_result_is_fetched_without_the_token(serve, answering, connect):
    line = b'{"id":"gid://shopify/Product/1"}\n'
    state = {"id": "x", "status": "COMPLETED", "objectCount": "1", "rootObjectCount": "1", "url": ""}
    shop = Answers(answering, {"node": state}, line)
    server = serve(shop)
    state["url"] = f"{server.url}/result"
    [_, page] = _read(connect, server)
    assert [row["id"] for row in page.records] == ["gid://shopify/Product/1"]
    [fetched] = [one for one in server.asked if one.path == "/result"]
    assert "x-shopify-access-token" not in fetched.headers
    assert "token-for-tests" not in str(fetched.headers)


class Answers:
    """A shop that answers a bulk operation with given states, and a result."""

    def __init__(self, answering, state, result, start=None):
        self.answering, self.state, self.result = answering, state, result
        self.start = start or {"bulkOperation": {"id": "gid://shopify/BulkOperation/1"}, "userErrors": []}

    def __call__(self, asked):
        if asked.path != PATH:
            return self.answering(self.result)
        text = asked.body["query"]
        if "Count(" in text:
            return self.answering({"data": {"productsCount": {"count": 9, "precision": "EXACT"}}})
        return self.answering({"data": {START: self.start} if START in text else self.state})


def _read(connect, server, **options):
    options = {"bulk_above": "1", "bulk_poll": "0.0001", **options}
    with VENDOR.open(connect("shopify", server.url, options=options)) as shop:
        return list(VENDOR.read(shop, tables("shopify", "products"), ALL, None))


PRODUCT = b'{"id":"gid://shopify/Product/1"}\n'


@pytest.mark.parametrize(
    ("change", "result", "said"),
    [
        ({"objectCount": "2"}, PRODUCT, "holds 1 lines, but Shopify says it wrote 2"),
        ({"rootObjectCount": "2"}, PRODUCT, "holds 1 records, but Shopify says it wrote 2"),
        ({"objectCount": "2"}, PRODUCT + b'{"id":"gid://shopify/Pro', "line 2 .* no JSON object"),
        ({}, b"[1]\n", "line 1 .* no JSON object"),
        (
            {},
            b'{"id":"gid://shopify/LineItem/1","__parentId":"gid://shopify/Order/1"}',
            "does not stand behind",
        ),
        (
            {"objectCount": "2"},
            PRODUCT + PRODUCT[:-2] + b',"__parentId":"gid://shopify/Product/1"}',
            "unexpected",
        ),
        ({"url": None}, PRODUCT, "counts objects but names no result"),
        ({"objectCount": "many"}, PRODUCT, "objectCount should be a number"),
        ({"status": "STRANGE"}, PRODUCT, "ended as STRANGE"),
        ({"status": "FAILED", "partialDataUrl": "http://127.0.0.1:1/part"}, PRODUCT, "ended as FAILED"),
    ],
)
def test_results_that_cannot_be_trusted(serve, answering, connect, change, result, said):
    state = {"id": "x", "status": "COMPLETED", "objectCount": "1", "rootObjectCount": "1"}
    server = serve(Answers(answering, {"node": state}, result))
    state |= {"url": f"{server.url}/result"} | change
    with pytest.raises(SourceError, match=said):
        _read(connect, server)


def test_an_operation_that_takes_too_long_is_cancelled(serve, answering, connect):
    data = {"node": {"id": "x", "status": "RUNNING"}, "bulkOperationCancel": {"userErrors": []}}
    server = serve(Answers(answering, data, b""))
    with pytest.raises(TransientError, match=r"still runs after 0 s; it was cancelled"):
        _read(connect, server, bulk_patience="0")
    assert "bulkOperationCancel" in server.asked[-1].body["query"]


def test_a_refused_bulk_query_says_why(serve, answering, connect):
    start = {"bulkOperation": None, "userErrors": [{"message": "too deep", "code": "INVALID"}]}
    with pytest.raises(SourceError, match="the bulk query was refused: too deep"):
        _read(connect, serve(Answers(answering, {}, b"", start)))


def test_waiting_for_a_place_is_bounded(serve, answering, connect):
    busy = {"userErrors": [{"message": "already in progress: gid", "code": "OPERATION_IN_PROGRESS"}]}
    server = serve(Answers(answering, {}, b"", busy))
    with pytest.raises(TransientError, match="still take all places after 60 tries"):
        _read(connect, server)


def test_a_place_that_becomes_free_is_taken(box, orders):
    query = "{ products { edges { node { id } } } }"
    text = (
        f"mutation($q: String!) {{ {START}(query: $q) {{ bulkOperation {{ id }} userErrors {{ code }} }} }}"
    )
    with VENDOR.open(connection(box)) as shop:
        for _ in range(6):
            body = shop.http.post(PATH, {"query": text, "variables": {"q": query}})
    assert body["data"][START]["userErrors"] == [{"code": "OPERATION_IN_PROGRESS"}]
    assert by_id(records(pages(box, "orders"))) == by_id(orders)


def test_a_crash_in_the_middle_of_a_result_costs_no_second_operation(box, home, tenant, tmp_path, orders):
    def read(progress=None):
        return extract(
            tenant, "shopify", "orders", connection(box), progress=progress,
            since=None, until=ALL.until, run_id="run-1", folder=tmp_path / "orders",
        )  # fmt: skip

    class Crash(Exception):
        pass

    def crash(seen):
        if seen > 7_000:
            raise Crash

    before = asked(box)[f"shopify {START}"]
    with pytest.raises(Crash):
        read(crash)
    seen = []
    staged = read(seen.append)
    assert asked(box)[f"shopify {START}"] == before + 1
    assert seen[0] > 5_000, "what was written before the crash is not read again"
    assert staged.source_rows == staged.rows["raw.shopify__orders"] == len(orders)
    lines = [pl.read_parquet(staged.folder / f) for f in staged.tables["raw.shopify__order_lines"]]
    assert sorted(pl.concat(lines)["id"]) == sorted(n["id"] for o in orders for n in o["lineItems"])


@pytest.mark.parametrize("above", [BULK, PAGED])
@pytest.mark.parametrize(("stream", "table"), [("productVariants", "variants"), ("customers", "customers")])
def test_a_full_read_keeps_what_changed_after_the_window(box, home, tenant, tmp_path, stream, table, above):
    until = datetime(2026, 1, 1, tzinfo=UTC)
    staged = extract(
        tenant, "shopify", stream, connection(box, above),
        since=None, until=until, run_id="run-1", folder=tmp_path / stream,
    )  # fmt: skip
    frame = pl.concat([pl.read_parquet(staged.folder / f) for f in staged.tables[f"raw.shopify__{table}"]])
    assert set(frame["id"]) == {row["id"] for row in records(pages(box, stream, PAGED))}
    assert frame.height > frame.filter(frame["updated_at"] < until).height == staged.source_rows > 0


def test_an_extract_of_either_kind_has_the_same_files(box, home, tenant, tmp_path):
    staged = [
        extract(
            tenant, "shopify", "inventoryItems", connection(box, above),
            since=None, until=ALL.until, run_id="run-1", folder=tmp_path / str(above),
        )
        for above in (BULK, PAGED)
    ]  # fmt: skip
    assert (
        staged[0].rows
        == staged[1].rows
        == {
            "raw.shopify__inventory_items": 300,
            "raw.shopify__inventory_levels": 400,
        }
    )
    for file in staged[0].folder.glob("*.parquet"):
        assert (staged[1].folder / file.name).read_bytes() == file.read_bytes()
    assert (staged[0].folder / MANIFEST).exists()
