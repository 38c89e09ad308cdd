"""Stripe's objects behind its API: lists in pages, single objects, expansion, and customers that change."""

from __future__ import annotations

import re
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from omni.sandbox.company import Company
from omni.sandbox.reply import Refusal, Reply
from omni.sandbox.stripe_billing import fill_billing, inline
from omni.sandbox.stripe_data import Ledger, fill_from_shop, new_customer, now_of, oldest_first
from omni.sandbox.stripe_events import Object, event, identity

KINDS = (
    "balance_transactions", "charges", "customers", "events", "invoices", "prices", "products", "refunds",
    "subscriptions",
)  # fmt: skip
PREFIXES = {
    "ch": "charges", "cus": "customers", "evt": "events", "in": "invoices", "price": "prices",
    "prod": "products", "re": "refunds", "sub": "subscriptions", "txn": "balance_transactions",
}  # fmt: skip
FILTERS = {
    "balance_transactions": {"currency", "source", "type"},
    "charges": {"customer", "payment_intent"},
    "customers": {"email"},
    "invoices": {"collection_method", "customer", "status"},
    "prices": {"active", "currency", "product", "type"},
    "products": {"active"},
    "refunds": {"charge", "payment_intent"},
    "subscriptions": {"collection_method", "customer"},
}
WRITABLE = {"balance", "description", "email", "name", "phone", "tax_exempt"}
BOUND = re.compile(r"created\[(gte|gt|lte|lt)\]")
LISTED = re.compile(r"(types|expand)(\[\d*\])?")
Query = Mapping[str, str]


def problem(
    status: int, message: str, kind: str = "invalid_request_error", *, headers: Any = None, **more: str
) -> Refusal:
    """An error in Stripe's shape; `more` are its code and param."""
    error = {"type": kind, "message": message, **more}
    if code := more.get("code"):
        error["doc_url"] = f"https://stripe.com/docs/error-codes/{code.replace('_', '-')}"
    return Refusal(Reply({"error": error}, status, headers or {}))


def unknown(kind: str, key: str, param: str, status: int = 404) -> Refusal:
    """Stripe's answer to an id it does not know."""
    single = kind.removesuffix("s").replace("_", " ")
    return problem(status, f"No such {single}: '{key}'", code="resource_missing", param=param)


class Table:
    """Objects of one kind, oldest first; deleted ones leave an empty place."""

    def __init__(self, objects: Iterator[Object]) -> None:
        self.rows: list[Object | None] = list(objects)
        self.created: list[int] = [row["created"] for row in self.rows if row is not None]
        self.place = {row["id"]: n for n, row in enumerate(self.rows) if row is not None}
        self.deleted: set[str] = set()

    def add(self, row: Object) -> None:
        """Append; nothing may be older than what is there."""
        self.place[row["id"]] = len(self.rows)
        self.rows.append(row)
        self.created.append(row["created"])

    def remove(self, key: str) -> None:
        """Delete, and remember that there was one."""
        self.rows[self.place.pop(key)] = None
        self.deleted.add(key)


class Account:
    """What Stripe holds for a company.

    Args:
        company: whose payments it shows.
        clock: seconds since the epoch, for what is written here.
    """

    def __init__(self, company: Company, clock: Callable[[], float] = time.time) -> None:
        ledger = Ledger(now_of(company))
        fill_from_shop(ledger, company)
        fill_billing(ledger, company)
        found = {kind: getattr(ledger, kind) for kind in KINDS} | {
            "customers": list(ledger.customers.values())
        }
        self.tables = {kind: Table(oldest_first(found[kind])) for kind in KINDS}
        self.lines = ledger.lines
        self.payments = ledger.payments
        self._clock = clock
        self._written = 0

    def listing(self, kind: str, query: Query) -> Reply:
        """A page of objects, newest first."""
        _known(query, FILTERS.get(kind, set()) | ({"status"} if kind == "subscriptions" else set()), kind)
        table, limit = self.tables[kind], _limit(query)
        low, high = _range(table, query)
        fits = _filter(kind, query)
        if before := query.get("ending_before"):
            low = max(low, _place(table, kind, before, "ending_before") + 1)
            rows = (table.rows[n] for n in range(low, high))
        else:
            if after := query.get("starting_after"):
                high = min(high, _place(table, kind, after, "starting_after"))
            rows = (table.rows[n] for n in range(high - 1, low - 1, -1))
        page: list[Object] = []
        for row in rows:
            if row is None or not fits(row):
                continue
            page.append(row)
            if len(page) > limit:
                break
        shown = page[:limit][::-1] if before else page[:limit]
        return self._list(shown, len(page) > limit, f"/v1/{kind}", query)

    def nested(self, held: dict[str, list[Object]], owner: str, query: Query, url: str) -> Reply:
        """A page of a list that belongs to one object, such as an invoice's lines."""
        _known(query, {"subscription", "invoice"}, "lines")
        kind = PREFIXES.get(owner.partition("_")[0], "objects")
        if owner not in held:
            raise unknown(kind, owner, "id")
        rows, limit, start = held[owner], _limit(query), 0
        if after := query.get("starting_after"):
            start = next((n + 1 for n, row in enumerate(rows) if row["id"] == after), 0)
            if not start:
                raise unknown("line_items", after, "starting_after", 400)
        return self._list(rows[start : start + limit], len(rows) > start + limit, url, query)

    def _list(self, rows: list[Object], more: bool, url: str, query: Query) -> Reply:
        paths = []
        for path in _several(query, "expand"):
            if not path.startswith("data."):
                raise _not_expandable(path)
            paths.append(path.removeprefix("data.").split("."))
        data = [self._expanded(row, paths) for row in rows]
        return Reply({"object": "list", "url": url, "has_more": more, "data": data})

    def retrieve(self, kind: str, key: str, query: Query) -> Reply:
        """One object; of a deleted customer only that it is deleted."""
        table = self.tables[kind]
        if key in table.deleted:
            return Reply({"id": key, "object": kind.removesuffix("s"), "deleted": True})
        return Reply(self._expanded(self._find(kind, key), [p.split(".") for p in _several(query, "expand")]))

    def _find(self, kind: str, key: str, param: str = "id") -> Object:
        table = self.tables[kind]
        row = table.rows[table.place[key]] if key in table.place else None
        if row is None:
            raise unknown(kind, key, param)
        return row

    def _expanded(self, row: Object, paths: list[list[str]]) -> Object:
        """A copy in which ids at the paths are replaced by their objects."""
        for path in paths:
            if len(path) > 4:
                raise problem(400, "You cannot expand more than 4 levels of a property", param="expand")
            row = self._with(row, path)
        return row

    def _with(self, row: Object, path: list[str]) -> Object:
        name, *rest = path
        if name == "refunds" and row.get("object") == "charge":
            found = [r for r in self.tables["refunds"].rows if r is not None and r["charge"] == row["id"]]
            value: Any = {"object": "list", "data": found, "has_more": False, "url": "/v1/refunds"}
        elif name == "payments" and row.get("object") == "invoice":
            value = inline(self.payments[row["id"]], f"/v1/invoice_payments?invoice={row['id']}")
        elif name in row:
            value = row[name]
        else:
            raise _not_expandable(name)
        if isinstance(value, str):
            kind = PREFIXES.get(value.partition("_")[0])
            if kind is None:
                raise _not_expandable(name)
            value = self.retrieve(kind, value, {}).payload
        if rest and isinstance(value, dict):
            inner = rest[1:] if rest[0] == "data" else rest
            if rest[0] == "data" and inner:
                value = value | {"data": [self._with(item, inner) for item in value["data"]]}
            elif inner:
                value = self._with(value, inner)
        return row | {name: value}

    def create_customer(self, form: Query) -> Reply:
        """A new customer, and the event that tells of it."""
        self._written += 1
        at = self._now()
        customer = new_customer(identity("cus", f"written/{self._written}"), at)
        customer |= _fields(form, customer)
        self.tables["customers"].add(customer)
        self._tell("customer.created", at, customer)
        return Reply(customer)

    def update_customer(self, key: str, form: Query) -> Reply:
        """Change some fields; the event names what they held before."""
        customer = self._find("customers", key)
        changed = {name: value for name, value in _fields(form, customer).items() if customer[name] != value}
        before = {name: customer[name] for name in changed}
        customer.update(changed)
        if changed:
            self._tell("customer.updated", self._now(), customer, before)
        return Reply(customer)

    def delete_customer(self, key: str) -> Reply:
        """Delete for good; subscriptions are left alone."""
        customer = self._find("customers", key)
        self.tables["customers"].remove(key)
        self._tell("customer.deleted", self._now(), customer)
        return Reply({"id": key, "object": "customer", "deleted": True})

    def _now(self) -> int:
        """The clock's second, never before what is there already."""
        created = self.tables["customers"].created
        return max(int(self._clock()), created[-1] if created else 0)

    def _tell(self, kind: str, at: int, about: Object, before: Object | None = None) -> None:
        table = self.tables["events"]
        told = event(kind, max(at, table.created[-1] if table.created else 0), dict(about), before=before)
        self._written += 1
        table.add(told | {"id": identity("evt", f"written/{self._written}")})


def _not_expandable(path: str) -> Refusal:
    return problem(400, f"This property cannot be expanded ({path}).", param="expand")


def _known(query: Query, allowed: set[str], kind: str) -> None:
    """Refuse parameters Stripe does not know."""
    common = {"limit", "starting_after", "ending_before", "created"}
    for name in query:
        listed = LISTED.fullmatch(name)
        if listed and (listed.group(1) == "expand" or kind == "events"):
            continue
        if name in common | allowed or BOUND.fullmatch(name) or (name == "type" and kind == "events"):
            continue
        raise problem(400, f"Received unknown parameter: {name}", code="parameter_unknown", param=name)


def _whole(query: Query, name: str, default: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"-?\d{1,12}", text):
        raise problem(400, f"Invalid integer: {text}", code="parameter_invalid_integer", param=name)
    return int(text)


def _limit(query: Query) -> int:
    limit = _whole(query, "limit", 10)
    if not 1 <= limit <= 100:
        raise problem(
            400, "This value must be between 1 and 100", code="parameter_invalid_integer", param="limit"
        )
    return limit


def _range(table: Table, query: Query) -> tuple[int, int]:
    """Positions whose time lies within the bounds."""
    low, high = 0, len(table.rows)
    exact = _whole(query, "created", -1)
    if exact >= 0:
        return bisect_left(table.created, exact), bisect_right(table.created, exact)
    for name in query:
        if not (found := BOUND.fullmatch(name)):
            continue
        at = _whole(query, name, 0)
        side = bisect_left if found.group(1) in ("gte", "lt") else bisect_right
        if found.group(1) in ("gte", "gt"):
            low = max(low, side(table.created, at))
        else:
            high = min(high, side(table.created, at))
    return low, high


def _place(table: Table, kind: str, key: str, param: str) -> int:
    if key not in table.place:
        raise unknown(kind, key, param, 400)
    return table.place[key]


def _several(query: Query, name: str) -> list[str]:
    return [value for key, value in query.items() if (m := LISTED.fullmatch(key)) and m.group(1) == name]


def _filter(kind: str, query: Query) -> Callable[[Object], bool]:
    wanted = {name: query[name] for name in FILTERS.get(kind, ()) if name in query}
    if kind == "events":
        types = set(_several(query, "types"))
        if len(types) > 20:
            raise problem(400, "You may only specify up to 20 event types", param="types")
        pattern = re.compile(re.escape(query.get("type", "*")).replace(r"\*", ".*"))
        return lambda row: (not types or row["type"] in types) and bool(pattern.fullmatch(row["type"]))
    if kind == "subscriptions" and (status := query.get("status")) != "all":
        return lambda row: (
            _same(row, wanted) and (row["status"] == status if status else row["status"] != "canceled")
        )
    return lambda row: _same(row, wanted)


def _same(row: Object, wanted: Mapping[str, str]) -> bool:
    return all(
        (str(row[name]).lower() if isinstance(row[name], bool) else row[name]) == value
        for name, value in wanted.items()
    )


def _fields(form: Query, customer: Object) -> Object:
    """A form's fields; metadata are merged, an empty text clears."""
    fields: Object = {}
    metadata = dict(customer["metadata"])
    for name, value in form.items():
        if (inner := re.fullmatch(r"metadata\[(\w+)\]", name)) is not None:
            if value:
                metadata[inner.group(1)] = value
            else:
                metadata.pop(inner.group(1), None)
        elif name in WRITABLE:
            fields[name] = int(value) if name == "balance" else value or None
        else:
            raise problem(400, f"Received unknown parameter: {name}", code="parameter_unknown", param=name)
    return fields | {"metadata": metadata}
