"""Stripe, against a small loopback account with the vendor's paging and its traps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from omni.errors import AuthError, ConfigError, SchemaError, SourceError, TransientError
from omni.sources.extract import extract, reread, tables, window_end
from omni.sources.stripe import EVENTS_KEPT, VENDOR
from omni.sources.stripe_client import VERSION
from omni.sources.stripe_streams import STREAMS
from omni.sources.vendor import Window

pytestmark = pytest.mark.slow
DAY = datetime(2026, 5, 1, tzinfo=UTC)
AT = int(DAY.timestamp())
LATER = DAY + timedelta(days=9)


def charge(number, created=AT, **values):
    return {
        "id": f"ch_{number}", "object": "charge", "created": created, "amount": 100 + number,
        "amount_captured": 0, "amount_refunded": 0, "currency": "eur", "status": "succeeded", "paid": True,
        "captured": True, "refunded": False, "disputed": False, "failure_code": None, "customer": None,
        "payment_method_details": {"type": "card"}, "payment_intent": None, "balance_transaction": None,
        "billing_details": {"email": f"p{number}@example.com"}, "metadata": {},
    } | values  # fmt: skip


def customer(number, created=AT, **values):
    return {
        "id": f"cus_{number}", "object": "customer", "created": created, "email": None, "name": "Ann",
        "phone": None, "address": None, "currency": "eur", "balance": 0, "delinquent": False, "metadata": {},
    } | values  # fmt: skip


def line(number):
    return {
        "id": f"il_{number}", "object": "line_item", "amount": number, "currency": "eur", "quantity": 1,
        "period": {"start": AT, "end": AT + 60}, "pricing": None, "parent": None,
    }  # fmt: skip


def invoice(number, lines, created=AT, **values):
    return {
        "id": f"in_{number}", "object": "invoice", "created": created, "number": None, "customer": "cus_1",
        "parent": None, "customer_email": None, "status": "draft", "billing_reason": None, "currency": "eur",
        "subtotal": 1, "total": 1, "amount_due": 1, "amount_paid": 0, "amount_remaining": 1,
        "period_start": AT, "period_end": AT, "due_date": None,
        "status_transitions": {"finalized_at": None, "paid_at": AT + 5},
        "lines": {"object": "list", "data": lines[:10], "has_more": len(lines) > 10, "url": "/ignored"},
        "payments": {"object": "list", "data": [], "has_more": False, "url": "/ignored"},
    } | values  # fmt: skip


class Shelf:
    """Lists newest first, single objects, events, an invoice's lines; `override` may answer instead."""

    def __init__(self, answering):
        self.answering = answering
        self.objects = {kind: [] for kind in (*STREAMS, "events")}
        self.lines = {}
        self.deleted = set()
        self.override = None
        self.headers = {"Stripe-Version": VERSION, "Request-Id": "req_1"}

    def add(self, kind, *rows):
        self.objects[kind] += rows

    def tell(self, kind, created, about):
        number = len(self.objects["events"])
        told = {"id": f"evt_{number}", "type": kind, "created": created, "data": {"object": about}}
        self.objects["events"].append(told)
        return told

    def answer(self, body, status=200, **headers):
        return self.answering(body, status, self.headers | headers)

    def refuse(self, status, code, param=None, message="No such thing: 'x'"):
        error = {"type": "invalid_request_error", "code": code, "message": message, "param": param}
        return self.answer({"error": error}, status)

    def __call__(self, asked):
        if self.override and (answer := self.override(asked)):
            return answer
        _, version, kind, *rest = asked.path.split("/")
        assert version == "v1"
        if rest and len(rest) == 2:
            return self.page(self.lines[rest[0]], asked.query)
        if owner := asked.query.get("subscription"):
            return self.page(self.lines[owner], asked.query)
        if rest:
            if rest[0] in self.deleted:
                return self.answer({"id": rest[0], "object": kind, "deleted": True})
            found = next((row for row in self.objects[kind] if row["id"] == rest[0]), None)
            return self.answer(found) if found else self.refuse(404, "resource_missing", "id")
        rows = sorted(self.objects[kind], key=lambda row: -row["created"])
        low, high = int(asked.query.get("created[gte]", 0)), int(asked.query.get("created[lt]", 10**12))
        rows = [row for row in rows if low <= row["created"] < high]
        if types := {value for name, value in asked.query.items() if name.startswith("types[")}:
            rows = [row for row in rows if row["type"] in types]
        return self.page(rows, asked.query)

    def page(self, rows, query):
        start, limit = 0, int(query.get("limit", 10))
        assert limit <= 100
        if after := query.get("starting_after"):
            start = next((n + 1 for n, row in enumerate(rows) if row["id"] == after), 0)
            if not start:
                return self.refuse(400, "resource_missing", "starting_after")
        more = start + limit < len(rows)
        return self.answer({"object": "list", "data": rows[start : start + limit], "has_more": more})


@pytest.fixture
def shelf(answering):
    return Shelf(answering)


@pytest.fixture
def run(serve, connect, shelf, home, tenant, tmp_path):
    server = serve(shelf)

    def start(stream="charges", since=None, until=LATER, name="staged", **options):
        return extract(
            tenant, "stripe", stream, connect("stripe", server.url, **options),
            since=since, until=until, run_id="run-1", folder=tmp_path / name,
        )  # fmt: skip

    start.server = server
    return start


@pytest.fixture
def pages(run, connect):
    """The vendor's pages themselves: `pages("charges", since, until, resume)`."""

    def read(stream="charges", since=None, until=LATER, resume=None, **options):
        with VENDOR.open(connect("stripe", run.server.url, **options)) as http:
            yield from VENDOR.read(http, tables("stripe", stream), Window(since, until), resume)

    return read


def rows(staged, table):
    files = staged.tables[table]
    return pl.concat([pl.read_parquet(staged.folder / file) for file in files]) if files else pl.DataFrame()


def ids(found):
    return [record["id"] for page in found for record in page.records]


def asked(run, path):
    return [request for request in run.server.asked if request.path == path]


def test_a_full_load_types_everything_and_keeps_minor_units(shelf, run):
    shelf.add("charges", *(charge(n, AT + n, metadata={"order_id": f"o{n}"}) for n in range(250)))
    staged = run()
    found = rows(staged, "raw.stripe__charges").sort("amount")
    assert found["id"].to_list() == [f"ch_{n}" for n in range(250)]
    assert found["amount"].dtype == pl.Int64
    assert found["amount"].sum() == sum(range(100, 350))
    assert found["order_ref"][3] == "o3"
    assert found["created_at"][7] == DAY + timedelta(seconds=7)
    assert not found["billing_email"].str.contains("@").any()
    assert staged.source_rows == 250
    assert not asked(run, "/v1/events")


def test_every_call_carries_version_key_and_account(shelf, run, connect):
    list(run("charges").tables)
    request = run.server.asked[0]
    assert request.headers["stripe-version"] == VERSION
    assert request.headers["authorization"] == "Bearer token-for-tests"
    assert "stripe-account" not in request.headers
    run("charges", name="connected", options={"account": "acct_12"})
    assert run.server.asked[-1].headers["stripe-account"] == "acct_12"
    with pytest.raises(ConfigError, match="acct_"):
        run("charges", name="wrong", options={"account": "acct 12\r\nX: y"})


def test_twelve_thousand_objects_of_one_second(shelf, pages):
    shelf.add("charges", *(charge(n) for n in range(12_000)))
    found = ids(pages(until=DAY + timedelta(seconds=1)))
    assert sorted(found) == sorted(f"ch_{n}" for n in range(12_000))
    assert ids(pages(until=DAY)) == []


def test_what_is_created_while_paging_is_left_to_the_next_window(shelf, run):
    shelf.add("charges", *(charge(n, AT + n) for n in range(300)))
    end = DAY + timedelta(seconds=300)
    shelf.tell("charge.succeeded", AT, charge(0))

    def meanwhile(request):
        number = 1_000 + len(run.server.asked)
        shelf.add("charges", charge(number, AT + number))

    shelf.override = meanwhile
    first = rows(run(until=end, name="a"), "raw.stripe__charges")["id"].to_list()
    shelf.override = None
    second = rows(run(since=end, name="b"), "raw.stripe__charges")["id"].to_list()
    assert sorted(first) == sorted(f"ch_{n}" for n in range(300))
    assert sorted(first + second) == sorted(row["id"] for row in shelf.objects["charges"])


def test_the_object_one_stands_at_may_be_deleted(shelf, pages):
    shelf.add("customers", *(customer(n, AT + n // 150) for n in range(600)))
    reading = pages("customers")
    found = set()
    for page in (next(reading) for _ in range(3)):
        found |= {record["id"] for record in page.records}
        shelf.objects["customers"] = [
            c for c in shelf.objects["customers"] if c["id"] != page.records[-1]["id"]
        ]
    found |= set(ids(reading))
    assert found == {f"cus_{n}" for n in range(600)}


def test_a_short_last_page_does_not_end_the_list(shelf, pages):
    """Stripe gives no count, so a list is believed to end only where nothing follows its last record."""
    shelf.add("charges", *(charge(n, AT + n) for n in range(120)))

    def halve(request):
        if request.query.get("starting_after") == "ch_20":
            shelf.override = None
            return shelf.answer({"data": [charge(19, AT + 19)], "has_more": False})
        return None

    shelf.override = halve
    assert len(ids(pages())) == 120


def test_later_loads_read_new_objects_and_those_events_tell_of(shelf, run):
    since, until = DAY + timedelta(days=1), DAY + timedelta(days=2)
    old, new = AT + 10, AT + 86_400 + 10
    shelf.add("charges", charge(1, old, refunded=True), charge(2, old), charge(3, new), charge(4, old))
    stale = charge(1, old)
    shelf.tell("charge.succeeded", new, charge(3, new))
    first = shelf.tell("charge.refunded", new + 5, stale)
    shelf.tell("charge.updated", new + 6, stale)
    shelf.add("events", first)
    shelf.tell("charge.dispute.created", new + 1, {"id": "dp_1", "object": "dispute", "charge": "ch_4"})
    shelf.tell("charge.updated", AT + 2 * 86_400, charge(2, old))
    staged = run(since=since, until=until)
    found = rows(staged, "raw.stripe__charges")
    assert sorted(found["id"]) == ["ch_1", "ch_3", "ch_4"]
    assert found.filter(id="ch_1")["refunded"].to_list() == [True]
    assert len(asked(run, "/v1/charges/ch_1")) == 1
    assert not asked(run, "/v1/charges/ch_3")
    assert (staged.since, staged.until) == (since, until)


@pytest.mark.parametrize("backwards", [False, True])
def test_deletions_are_told_by_events_in_any_order(shelf, run, backwards):
    since = DAY + timedelta(days=1)
    new = AT + 86_400 + 10
    shelf.add("customers", customer(1), customer(5, new))
    shelf.deleted = {"cus_2", "cus_3"}
    events = [
        ("customer.updated", new, customer(2)),
        ("customer.deleted", new + 1, customer(2, email="old@example.com")),
        ("customer.created", new, customer(3, new)),
        ("customer.deleted", new + 1, customer(3, new)),
        ("customer.updated", new + 2, customer(1)),
        ("customer.updated", new + 3, customer(4)),
    ]
    for kind, created, about in events[::-1] if backwards else events:
        shelf.tell(kind, new if backwards else created, about)
    found = rows(run("customers", since=since), "raw.stripe__customers").sort("id")
    assert found["id"].to_list() == ["cus_1", "cus_2", "cus_3", "cus_4", "cus_5"]
    assert found["deleted"].to_list() == [False, True, True, True, False]
    assert found["email"].to_list() == [None] * 5
    assert found["created_at"].to_list()[1:4] == [DAY, datetime.fromtimestamp(new, UTC), DAY]


def test_a_deleted_draft_invoice_is_gone_and_a_cancelled_subscription_is_not(shelf, run):
    since, new = DAY + timedelta(days=1), AT + 86_400 + 10
    shelf.tell("invoice.updated", new, invoice(1, []))
    shelf.tell("invoice.deleted", new + 1, invoice(1, []))
    found = rows(run("invoices", since=since), "raw.stripe__invoices")
    assert (found["id"].to_list(), found["deleted"].to_list()) == (["in_1"], [True])
    subscription = {
        "id": "sub_1", "object": "subscription", "created": AT, "customer": "cus_1", "status": "canceled",
        "currency": "eur", "collection_method": "send_invoice", "latest_invoice": None,
        "cancel_at_period_end": False, "start_date": AT, "trial_end": None, "cancel_at": None,
        "canceled_at": new, "ended_at": new, "items": {"data": [], "has_more": True},
    }  # fmt: skip
    shelf.lines["sub_1"] = [
        {"id": f"si_{n}", "created": AT, "quantity": n, "price": {"id": "p", "unit_amount": 5}}
        | {"current_period_start": AT, "current_period_end": new}
        for n in range(1, 19)
    ]
    shelf.add("subscriptions", subscription)
    shelf.tell("customer.subscription.deleted", new, subscription)
    staged = run("subscriptions", since=since, name="b")
    assert rows(staged, "raw.stripe__subscriptions")["status"].to_list() == ["canceled"]
    items = rows(staged, "raw.stripe__subscription_items")
    assert items["quantity"].to_list() == list(range(1, 19))
    assert set(items["subscription_id"]) == {"sub_1"}
    assert all(a.query["status"] == "all" for a in asked(run, "/v1/subscriptions"))


def test_long_nested_lists_are_read_to_the_end(shelf, run):
    several = [line(n) for n in range(1, 231)]
    shelf.add("invoices", invoice(1, several), invoice(2, [line(900)], AT + 1))
    shelf.lines["in_1"] = several
    staged = run("invoices")
    found = rows(staged, "raw.stripe__invoice_lines")
    assert found.filter(invoice_id="in_1")["amount"].to_list() == list(range(1, 231))
    assert found.filter(invoice_id="in_2")["amount"].to_list() == [900]
    assert found["period_end"][0] == DAY + timedelta(minutes=1)
    assert rows(staged, "raw.stripe__invoices")["paid_at"][0] == DAY + timedelta(seconds=5)
    assert all(a.query["expand[0]"] == "data.payments" for a in asked(run, "/v1/invoices"))


def test_a_cursor_older_than_the_events_reads_everything_again(shelf, run, caplog):
    shelf.add("charges", *(charge(n, AT + n) for n in range(5)))
    until = DAY + EVENTS_KEPT
    shelf.tell("charge.updated", int(until.timestamp()) - 1, charge(1, AT + 1))
    found = rows(run(since=DAY, until=until, name="a"), "raw.stripe__charges")
    assert found.height == 5
    assert not caplog.records
    found = rows(run(since=DAY - timedelta(seconds=1), until=until, name="b"), "raw.stripe__charges")
    assert found.height == 5
    assert "longer ago than Stripe keeps events" in caplog.text
    assert "created[gte]" not in asked(run, "/v1/charges")[-1].query
    assert not [a for a in asked(run, "/v1/events")[-1:] if "types[0]" in a.query]


def test_an_old_window_is_no_window_of_events(shelf, run):
    """The newest event tells what time it is at Stripe: a window long past has lost its events."""
    shelf.add("charges", charge(1), charge(2, AT + 86_400 * 5))
    shelf.tell("charge.updated", AT + 86_400 * 60, charge(2))
    found = rows(run(since=DAY + timedelta(days=1), until=DAY + timedelta(days=2)), "raw.stripe__charges")
    assert found["id"].to_list() == ["ch_1"]


def test_balance_transactions_never_change_and_need_no_events(shelf, run):
    row = {
        "id": "txn_1", "object": "balance_transaction", "created": AT + 5, "type": "charge",
        "reporting_category": "charge", "source": "ch_1", "amount": 1000, "fee": 40, "net": 960,
        "currency": "eur", "available_on": AT + 999,
    }  # fmt: skip
    shelf.add("balance_transactions", row, row | {"id": "txn_0", "created": AT - 5})
    found = rows(run("balance_transactions", since=DAY), "raw.stripe__balance_transactions")
    assert (found["id"].to_list(), found["net"].to_list()) == (["txn_1"], [960])
    assert not asked(run, "/v1/events")


@hypothesis_settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seconds=st.lists(st.integers(0, 400), max_size=260), cut=st.integers(0, 400))
def test_windows_meet_without_gap_or_overlap(shelf, pages, seconds, cut):
    shelf.objects["refunds"] = [
        {"id": f"re_{n}", "object": "refund", "created": AT + at, "amount": 1, "currency": "eur"}
        | dict.fromkeys(("charge", "payment_intent", "balance_transaction", "status", "reason"))
        for n, at in enumerate(seconds)
    ]
    shelf.objects["events"] = []
    shelf.tell("payout.paid", AT, {})
    middle = DAY + timedelta(seconds=cut)
    found = ids(pages("refunds", None, middle)) + ids(pages("refunds", middle, DAY + timedelta(seconds=401)))
    assert sorted(found) == sorted(row["id"] for row in shelf.objects["refunds"])


def test_reading_goes_on_behind_every_page(shelf, pages):
    old, new = AT, AT + 86_400 + 10
    since = DAY + timedelta(days=1)
    shelf.add("charges", *(charge(n, old + n % 3) for n in range(350)))
    shelf.add("charges", *(charge(1_000 + n, new + n // 200) for n in range(230)))
    for n in range(350):
        shelf.tell("charge.updated", new + n // 7, charge(n, old + n % 3))
    for window in ((None, LATER), (since, LATER)):
        whole = list(pages("charges", *window))
        expected = {record["id"]: record for page in whole for record in page.records}
        assert len(expected) == 580
        for place, page in enumerate(whole):
            before = {r["id"]: r for earlier in whole[: place + 1] for r in earlier.records}
            rest = {
                r["id"]: r for later in pages("charges", *window, resume=page.resume) for r in later.records
            }
            assert before | rest == expected
            assert ids(whole[place + 1 :]) == list(rest)


def test_a_reading_is_not_gone_on_with_when_its_events_are_gone(shelf, pages):
    since, until = DAY + timedelta(days=1), DAY + timedelta(days=2)
    shelf.add("charges", *(charge(n, AT + 86_400 + n) for n in range(150)))
    shelf.tell("charge.updated", AT + 86_400 * 2, charge(1))
    place = next(pages(since=since, until=until)).resume
    assert len(ids(pages(since=since, until=until, resume=place))) == 50
    shelf.tell("charge.updated", AT + 86_400 * 32, charge(1))
    with pytest.raises(SourceError, match="events are gone"):
        next(pages(since=since, until=until, resume=place))


@pytest.mark.parametrize("kind", ["customer", "charge"])
def test_records_are_read_again_by_id(shelf, run, connect, home, tenant, tmp_path, kind):
    make, stream = (customer, "customers") if kind == "customer" else (charge, "charges")
    shelf.add(stream, *(make(n) for n in range(5)))
    shelf.deleted = {"cus_9"}
    prefix = "cus" if kind == "customer" else "ch"
    staged = reread(
        tenant, "stripe", stream, connect("stripe", run.server.url),
        [f"{prefix}_{n}" for n in (3, 1, 9, 77)], run_id="r", folder=tmp_path / "again",
    )  # fmt: skip
    found = rows(staged, f"raw.stripe__{stream}")
    assert found["id"].to_list() == [f"{prefix}_{n}" for n in ((3, 1, 9) if kind == "customer" else (3, 1))]
    if kind == "customer":
        assert found["deleted"].to_list() == [False, False, True]


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "0"}, {"Retry-After": "soon"}])
def test_a_throttle_and_failures_pass(shelf, run, headers):
    shelf.add("charges", *(charge(n, AT + n) for n in range(720)))
    troubles = [
        shelf.answering({"error": {"code": "rate_limit", "message": "slow down"}}, 429, headers),
        shelf.answering({"error": {"type": "api_error", "message": "oops"}}, 500),
        shelf.answering(b"<html>bad gateway</html>", 502),
        shelf.answering({"error": {"code": "lock_timeout"}}, 409),
        shelf.answering({"object": "list", "data": [], "has_more": False}, 200, shelf.headers, cut=True),
        shelf.answering({"error": {}}, 400, {"Stripe-Should-Retry": "true"}),
    ]

    def once(request):
        return troubles.pop() if troubles and len(run.server.asked) % 2 else None

    shelf.override = once
    assert rows(run(), "raw.stripe__charges").height == 720
    assert not troubles


def test_failures_without_end_are_given_up(shelf, run):
    shelf.override = lambda _: shelf.answering({"error": {"message": "oops"}}, 503)
    with pytest.raises(TransientError, match="gave up after 3 tries"):
        run(attempts=3)


def test_a_refused_key_stops_the_load_and_keeps_what_was_read(shelf, run, pages):
    shelf.add("charges", *(charge(n, AT + n) for n in range(300)))
    message = "Invalid API Key provided: sk_live_****abcd"

    def refuse(request):
        if "starting_after" in request.query:
            return shelf.answering({"error": {"message": message, "type": "invalid_request_error"}}, 401)
        return None

    shelf.override = refuse
    reading = pages()
    first = next(reading)
    assert len(first.records) == 100
    with pytest.raises(AuthError, match="OMNI_STRIPE__TOKEN") as caught:
        next(reading)
    assert "abcd" not in str(caught.value)
    shelf.override = None
    rest = ids(pages(resume=first.resume))
    assert len(rest) == 200


def test_a_missing_permission_is_named(shelf, run):
    message = "The provided key 'rk_live_****abcd' does not have the required permissions ('rak_charge_read')"
    shelf.override = lambda _: shelf.answering({"error": {"message": message}}, 403)
    with pytest.raises(AuthError, match="rak_charge_read is missing") as caught:
        run()
    assert "abcd" not in str(caught.value)


@pytest.mark.parametrize("answered", ["2027-04-01.fern", None])
def test_another_version_is_noticed(shelf, run, answered):
    shelf.headers = {"Stripe-Version": answered} if answered else {}
    with pytest.raises(SourceError, match=f"version {answered or 'unknown'} instead of {VERSION}"):
        run()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"object": "list", "data": [], "has_more": True}, "empty page promises"),
        ({"object": "list", "has_more": True}, "lacks data"),
        ({"object": "list", "data": []}, "lacks has_more"),
        ({"object": "list", "data": [{"object": "charge"}], "has_more": True}, "lacks id"),
        ({"object": "list", "data": [charge(1)], "has_more": True}, "does not advance"),
        ({"object": "list", "data": [charge(1, AT + 10**8)], "has_more": True}, "ignored the bounds"),
        ([], "lacks data"),
    ],
)
def test_wrong_pages_are_refused(shelf, run, body, said):
    shelf.override = lambda _: shelf.answer(body)
    with pytest.raises(SourceError, match=said):
        run()


def test_a_pager_that_turns_in_a_circle_is_noticed(shelf, run):
    def circle(request):
        number = {"ch_1": 2, "ch_2": 3, "ch_3": 1}.get(request.query.get("starting_after"), 1)
        return shelf.answer({"data": [charge(number)], "has_more": True})

    shelf.override = circle
    with pytest.raises(SourceError, match="does not advance"):
        run()


def test_a_field_that_no_record_has_is_noticed(shelf, run):
    shelf.add("charges", *({k: v for k, v in charge(n).items() if k != "paid"} for n in range(3)))
    with pytest.raises(SchemaError, match="no record has paid"):
        run()


def test_values_of_the_wrong_shape_go_to_the_dead_letters(shelf, run):
    shelf.add("charges", charge(1), charge(2, amount="a lot"), charge(3, amount=1.5), charge(4, created=AT))
    staged = run()
    assert sorted(rows(staged, "raw.stripe__charges")["id"]) == ["ch_1", "ch_4"]
    assert (staged.rejected, staged.source_rows) == (2, 4)


def test_refusals_tell_the_reason_and_the_request(shelf, run):
    shelf.override = lambda _: shelf.refuse(400, "parameter_unknown", "created", "Received unknown parameter")
    with pytest.raises(SourceError, match=r"Received unknown parameter \[id req_1\]"):
        run()


def test_an_event_of_nothing_known_is_refused(shelf, run):
    shelf.tell("charge.updated", AT + 5, {"id": "x", "object": "novelty"})
    with pytest.raises(SourceError, match="names no charge"):
        run(since=DAY)


def test_windows_end_a_minute_ago_in_whole_seconds():
    now = DAY + timedelta(hours=1, milliseconds=300)
    assert window_end("stripe", now) == DAY + timedelta(minutes=59)
