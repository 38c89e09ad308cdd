"""Business customers' subscriptions and their monthly invoices.

Of a company's CRM every fifth firm with a name subscribes a week after it came; which plan, how long, and
whether it pays follows from its number, so that a later day shows the same past.
"""

from __future__ import annotations

from datetime import UTC, datetime

from omni.sandbox.company import DAY_SECONDS, Company, CrmRecord
from omni.sandbox.stripe_data import Ledger, add_charge, new_customer
from omni.sandbox.stripe_events import Object, identity

PLANS = (("Team", 4_900), ("Business", 14_900), ("Fleet", 39_900))
SEAT = ("Seat", 900)
HOUR = 3_600
INLINE = 10
"""Rows of a nested list that come with its owner."""


def fill_billing(ledger: Ledger, company: Company) -> None:
    """Products, prices, and the subscribers with all that is theirs."""
    firms = company.crm["companies"].records if "companies" in company.crm else ()
    chosen = [firm for firm in firms if firm.properties.get("name") and int(firm.id) % 5 == 0]
    if not chosen:
        return
    currency = company.shop.currency.lower()
    begin = min(firm.created_ms for firm in chosen) // 1000
    for name, amount in (*PLANS, SEAT):
        _price(ledger, name, amount, currency, begin)
    for firm in chosen:
        start = firm.created_ms // 1000 + 7 * DAY_SECONDS
        if start < ledger.now:
            _subscribe(ledger, firm, start, currency)


def _price(ledger: Ledger, name: str, amount: int, currency: str, at: int) -> None:
    product: Object = {
        "id": identity("prod", name),
        "object": "product",
        "active": True,
        "created": at,
        "default_price": identity("price", name),
        "description": None,
        "livemode": False,
        "metadata": {},
        "name": name,
        "type": "service",
        "updated": at,
    }
    price: Object = {
        "id": identity("price", name),
        "object": "price",
        "active": True,
        "billing_scheme": "per_unit",
        "created": at,
        "currency": currency,
        "livemode": False,
        "lookup_key": None,
        "metadata": {},
        "nickname": None,
        "product": product["id"],
        "recurring": {"interval": "month", "interval_count": 1, "usage_type": "licensed"},
        "type": "recurring",
        "unit_amount": amount,
        "unit_amount_decimal": str(amount),
    }
    ledger.products.append(product)
    ledger.prices.append(price)
    ledger.tell("product.created", at, product)
    ledger.tell("price.created", at, price)


def month(start: int, count: int) -> int:
    """A moment some months later; days after the 28th fall on it."""
    begin = datetime.fromtimestamp(start, UTC)
    years, index = divmod(begin.month - 1 + count, 12)
    moved = begin.replace(year=begin.year + years, month=index + 1, day=min(begin.day, 28))
    return int(moved.timestamp())


def inline(rows: list[Object], url: str) -> Object:
    """A nested list as it comes with its owner."""
    return {"object": "list", "data": rows[:INLINE], "has_more": len(rows) > INLINE, "url": url}


def _subscribe(ledger: Ledger, firm: CrmRecord, start: int, currency: str) -> None:
    number = int(firm.id)
    domain = firm.properties.get("domain")
    customer = new_customer(identity("cus", f"firm/{firm.id}"), start)
    customer |= {
        "currency": currency,
        "email": f"billing@{domain}" if domain else None,
        "metadata": {"company_id": firm.id},
        "name": firm.properties["name"],
    }
    ledger.customers[f"firm/{firm.id}"] = customer
    ledger.tell("customer.created", start, customer)
    months = 3 + number % 9 if number % 4 == 1 else None
    ends = month(start, months) if months else None
    cancelled = ends is not None and ends < ledger.now
    subscription = _subscription(ledger, firm, customer, start, currency)
    ledger.tell("customer.subscription.created", start, subscription, status="active")
    count = 0
    while (at := month(start, count)) < ledger.now and (ends is None or at < ends):
        period = (at, month(start, count + 1))
        items = [item | dict(zip(PERIOD, period, strict=True)) for item in ledger.lines[subscription["id"]]]
        ledger.lines[subscription["id"]] = items
        subscription["items"] = inline(items, subscription["items"]["url"])
        subscription["latest_invoice"] = _invoice(ledger, subscription, customer, count, period)
        if count:
            ledger.tell("customer.subscription.updated", at, subscription, status="active")
        count += 1
    if cancelled:
        subscription |= {"status": "canceled", "canceled_at": ends, "ended_at": ends}
        ledger.tell("customer.subscription.deleted", ends or 0, subscription)


PERIOD = ("current_period_start", "current_period_end")


def _subscription(ledger: Ledger, firm: CrmRecord, customer: Object, start: int, currency: str) -> Object:
    number = int(firm.id)
    key = identity("sub", firm.id)
    plans = [(PLANS[number // 5 % 3], 1)] + ([(SEAT, number % 7 + 2)] if number % 2 else [])
    prices = {price["id"]: price for price in ledger.prices}
    ledger.lines[key] = [
        {
            "id": identity("si", f"{firm.id}/{name}"),
            "object": "subscription_item",
            "created": start,
            "metadata": {},
            "price": prices[identity("price", name)],
            "quantity": quantity,
            "subscription": key,
            "current_period_start": start,
            "current_period_end": month(start, 1),
        }
        for (name, _), quantity in plans
    ]
    subscription: Object = {
        "id": key,
        "object": "subscription",
        "billing_cycle_anchor": start,
        "cancel_at": None,
        "cancel_at_period_end": False,
        "canceled_at": None,
        "collection_method": "charge_automatically",
        "created": start,
        "currency": currency,
        "customer": customer["id"],
        "description": None,
        "ended_at": None,
        "items": inline(ledger.lines[key], f"/v1/subscription_items?subscription={key}"),
        "latest_invoice": None,
        "livemode": False,
        "metadata": {"company_id": firm.id},
        "start_date": start,
        "status": "active",
        "trial_end": None,
        "trial_start": None,
    }
    ledger.subscriptions.append(subscription)
    return subscription


def _lines(ledger: Ledger, subscription: Object, invoice: str, period: tuple[int, int]) -> list[Object]:
    """What an invoice is for; some firms pay for each day's overage besides."""
    owed = [
        (item["price"]["id"], item["quantity"], item["price"]["unit_amount"] * item["quantity"])
        for item in ledger.lines[subscription["id"]]
    ]
    if int(subscription["metadata"]["company_id"]) % 7 == 0:
        owed += [(identity("price", "Seat"), 1, 15 + day) for day in range(12)]
    return [
        {
            "id": identity("il", f"{invoice}/{place}"),
            "object": "line_item",
            "amount": amount,
            "currency": subscription["currency"],
            "description": None,
            "invoice": invoice,
            "livemode": False,
            "metadata": {},
            "parent": {
                "type": "subscription_item_details",
                "subscription_item_details": {"subscription": subscription["id"]},
            },
            "period": {"start": period[0], "end": period[1]},
            "pricing": {"type": "price_details", "price_details": {"price": price}},
            "quantity": quantity,
            "subtotal": amount,
        }
        for place, (price, quantity, amount) in enumerate(owed)
    ]


def _invoice(
    ledger: Ledger, subscription: Object, customer: Object, count: int, period: tuple[int, int]
) -> str:
    """A month's invoice: a draft for an hour, then paid at once, or in the end never."""
    number = int(subscription["metadata"]["company_id"])
    key = identity("in", f"{number}/{count}")
    lines = ledger.lines[key] = _lines(ledger, subscription, key, period)
    total = sum(line["amount"] for line in lines)
    invoice: Object = {
        "id": key,
        "object": "invoice",
        "amount_due": total,
        "billing_reason": "subscription_cycle" if count else "subscription_create",
        "collection_method": "charge_automatically",
        "created": period[0],
        "currency": subscription["currency"],
        "customer": customer["id"],
        "customer_email": customer["email"],
        "customer_name": customer["name"],
        "description": None,
        "due_date": None,
        "lines": inline(lines, f"/v1/invoices/{key}/lines"),
        "livemode": False,
        "metadata": {},
        "parent": {
            "type": "subscription_details",
            "subscription_details": {"subscription": subscription["id"]},
        },
        "period_end": period[1],
        "period_start": period[0],
        "subtotal": total,
        "total": total,
    }
    ledger.invoices.append(invoice)
    ledger.payments[key] = []
    _settle(ledger, invoice, customer, count, unpaid=(number + count) % 41 == 0)
    return key


def _settle(ledger: Ledger, invoice: Object, customer: Object, count: int, *, unpaid: bool) -> None:
    """What became of an invoice until now."""
    final, given_up = invoice["created"] + HOUR, invoice["created"] + 21 * DAY_SECONDS
    status = _status(ledger.now, final, given_up, unpaid=unpaid)
    past, paid = status != "draft", status == "paid"
    invoice |= {
        "amount_paid": invoice["total"] if paid else 0,
        "amount_remaining": 0 if paid else invoice["total"],
        "attempt_count": int(past),
        "attempted": past,
        "number": f"{customer['invoice_prefix']}-{count + 1:04d}" if past else None,
        "status": status,
        "status_transitions": {
            "finalized_at": final if past else None,
            "marked_uncollectible_at": given_up if status == "uncollectible" else None,
            "paid_at": final if paid else None,
            "voided_at": None,
        },
    }
    _tell_invoice(ledger, invoice, final, given_up)
    if past:
        charge = add_charge(
            ledger, f"{invoice['id']}/charge", final, invoice["total"], invoice["currency"], customer,
            failed=unpaid, description=f"Invoice {invoice['number']}",
        )  # fmt: skip
        ledger.payments[invoice["id"]].append(_payment(invoice, charge))


def _status(now: int, final: int, given_up: int, *, unpaid: bool) -> str:
    if final >= now:
        return "draft"
    if not unpaid:
        return "paid"
    return "uncollectible" if given_up < now else "open"


def _payment(invoice: Object, charge: Object) -> Object:
    """What links an invoice to the charge that paid it, or should have."""
    return {
        "id": identity("inpay", invoice["id"]),
        "object": "invoice_payment",
        "amount_paid": invoice["amount_paid"] or None,
        "amount_requested": invoice["total"],
        "created": charge["created"],
        "currency": invoice["currency"],
        "invoice": invoice["id"],
        "is_default": True,
        "livemode": False,
        "payment": {"type": "payment_intent", "payment_intent": charge["payment_intent"]},
        "status": "paid" if charge["paid"] else "open",
        "status_transitions": {"canceled_at": None, "paid_at": charge["created"] if charge["paid"] else None},
    }


def _tell_invoice(ledger: Ledger, invoice: Object, final: int, given_up: int) -> None:
    total = invoice["total"]
    unpaid = {"amount_paid": 0, "amount_remaining": total}
    ledger.tell("invoice.created", invoice["created"], invoice, status="draft", number=None, **unpaid)
    if invoice["status"] == "draft":
        return
    ledger.tell("invoice.finalized", final, invoice, status="open", **unpaid)
    if invoice["status"] == "paid":
        ledger.tell("invoice.paid", final, invoice)
        return
    ledger.tell("invoice.payment_failed", final, invoice, status="open")
    if invoice["status"] == "uncollectible":
        ledger.tell("invoice.marked_uncollectible", given_up, invoice)
