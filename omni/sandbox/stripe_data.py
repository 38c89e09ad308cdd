"""A company's payments as Stripe would hold them, derived from its shop's transactions.

A shop order's transaction becomes a charge whose metadata name the order; refunds and balance transactions
follow. Where the shop takes several kinds of payment, only those that run on Stripe come (`GATEWAYS`).
Amounts are whole minor units, times seconds since the epoch. What happens after the company's last day has
not happened.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from omni.sandbox.company import DAY_SECONDS, Company, Node, end_of_day
from omni.sandbox.stripe_events import KEPT, Object, event, identity

GATEWAYS = {
    "shopify_payments": "card",
    "klarna": "klarna",
    "credit_card": "card",
    "debit_card": "card",
    "boleto": "boleto",
    "voucher": "customer_balance",
    "not_defined": "customer_balance",
}
"""Gateways of the shop that run on Stripe, and the payment method they are there."""
FEES = {"eur": (150, 25)}
"""What Stripe keeps of a charge: hundredths of a percent and minor units. Elsewhere nothing is known."""
PAYOUT_DAYS = 3


@dataclass
class Ledger:
    """All objects as they are at `now`, and the events of the last 30 days.

    `lines` holds the whole lists of lines (invoices) and items (subscriptions) by their owner's id, and
    `payments` those of payments.
    """

    now: int
    customers: dict[str, Object] = field(default_factory=dict)
    charges: list[Object] = field(default_factory=list)
    refunds: list[Object] = field(default_factory=list)
    balance_transactions: list[Object] = field(default_factory=list)
    invoices: list[Object] = field(default_factory=list)
    subscriptions: list[Object] = field(default_factory=list)
    products: list[Object] = field(default_factory=list)
    prices: list[Object] = field(default_factory=list)
    events: list[Object] = field(default_factory=list)
    lines: dict[str, list[Object]] = field(default_factory=dict)
    payments: dict[str, list[Object]] = field(default_factory=dict)

    def tell(self, kind: str, at: int, about: Object, **then: Any) -> None:
        """Record an event unless Stripe has dropped it already; `then` is what was different at the time."""
        if at >= self.now - KEPT:
            self.events.append(event(kind, at, about | then))


def seconds(moment: str) -> int:
    """From the shop's form of a time."""
    return int(datetime.fromisoformat(moment).timestamp())


def minor_units(money: Node) -> int:
    """From a `MoneyBag`."""
    return int(money["shopMoney"]["amount"].replace(".", ""))


def now_of(company: Company) -> int:
    """First second that has not happened: the end of the last day on which an order changed."""
    last = max((order["updatedAt"] for order in company.shop.orders), default="1970-01-01T00:00:00Z")
    return end_of_day(date.fromisoformat(last[:10]))


def fill_from_shop(ledger: Ledger, company: Company) -> None:
    """Charges, refunds, balance transactions and customers of the shop's orders."""
    currency = company.shop.currency.lower()
    for order in company.shop.orders:
        paid: Object | None = None
        for transaction in order["transactions"]:
            method = GATEWAYS.get(transaction["gateway"])
            if method is None or transaction["status"] == "PENDING":
                continue
            if transaction["kind"] in ("SALE", "AUTHORIZATION"):
                charge = _shop_charge(ledger, order, transaction, method, currency)
                paid = charge if charge["paid"] else paid
            elif paid is not None and transaction["kind"] == "REFUND":
                _refund(ledger, paid, transaction)
            elif paid is not None:
                _release(ledger, paid, seconds(transaction["createdAt"]))
    for customer in ledger.customers.values():
        ledger.tell("customer.created", customer["created"], customer)


def _shop_charge(ledger: Ledger, order: Node, transaction: Node, method: str, currency: str) -> Object:
    at = seconds(transaction["createdAt"])
    number = transaction["id"].rpartition("/")[2].removeprefix(order["legacyResourceId"])
    buyer = order["customer"]
    customer = None if buyer is None else _customer(ledger, buyer, at, currency)
    return add_charge(
        ledger,
        transaction["id"],
        at,
        minor_units(transaction["amountSet"]),
        currency,
        customer,
        method=method,
        failed=transaction["status"] == "FAILURE",
        captured=transaction["kind"] == "SALE",
        metadata={
            "order_id": order["name"].lstrip("#"),
            "payment_sequential": str(int(number)),
            "payment_type": transaction["gateway"],
        },
    )


def add_charge(
    ledger: Ledger,
    key: str,
    at: int,
    amount: int,
    currency: str,
    customer: Object | None,
    *,
    method: str = "card",
    failed: bool = False,
    captured: bool = True,
    metadata: dict[str, str] | None = None,
    description: str | None = None,
) -> Object:
    """A charge with its balance transaction and its event."""
    done = captured and not failed
    charge: Object = {
        "id": identity("ch", key),
        "object": "charge",
        "amount": amount,
        "amount_captured": amount if done else 0,
        "amount_refunded": 0,
        "balance_transaction": identity("txn", key) if done else None,
        "billing_details": {
            "address": None if customer is None else customer["address"],
            "email": None if customer is None else customer["email"],
            "name": None if customer is None else customer["name"],
            "phone": None,
        },
        "captured": done,
        "created": at,
        "currency": currency,
        "customer": None if customer is None else customer["id"],
        "description": description,
        "disputed": False,
        "failure_code": "card_declined" if failed else None,
        "failure_message": "Your card was declined." if failed else None,
        "livemode": False,
        "metadata": metadata or {},
        "outcome": {"network_status": "declined_by_network" if failed else "approved_by_network"},
        "paid": not failed,
        "payment_intent": identity("pi", key),
        "payment_method": identity("pm", key),
        "payment_method_details": {"type": method, method: {}},
        "receipt_email": None,
        "refunded": False,
        "statement_descriptor": None,
        "status": "failed" if failed else "succeeded",
    }
    ledger.charges.append(charge)
    ledger.tell("charge.failed" if failed else "charge.succeeded", at, charge)
    if done:
        _balance(ledger, key, "charge", at, amount, currency, charge["id"])
    return charge


def _refund(ledger: Ledger, charge: Object, transaction: Node) -> None:
    at, amount, key = (
        seconds(transaction["createdAt"]),
        minor_units(transaction["amountSet"]),
        transaction["id"],
    )
    charge["amount_refunded"] += amount
    charge["refunded"] = charge["amount_refunded"] >= charge["amount"]
    refund: Object = {
        "id": identity("re", key),
        "object": "refund",
        "amount": amount,
        "balance_transaction": identity("txn", key),
        "charge": charge["id"],
        "created": at,
        "currency": charge["currency"],
        "metadata": {},
        "payment_intent": charge["payment_intent"],
        "reason": "requested_by_customer",
        "receipt_number": None,
        "status": "succeeded",
    }
    ledger.refunds.append(refund)
    ledger.tell("refund.created", at, refund)
    ledger.tell("charge.refunded", at, charge)
    _balance(ledger, key, "refund", at, -amount, charge["currency"], refund["id"])


def _release(ledger: Ledger, charge: Object, at: int) -> None:
    """An authorisation that is given back moves no money."""
    charge["amount_refunded"], charge["refunded"] = charge["amount"], True
    ledger.tell("charge.refunded", at, charge)


def _balance(ledger: Ledger, key: str, kind: str, at: int, amount: int, currency: str, source: str) -> None:
    share, fixed = FEES.get(currency, (0, 0))
    fee = (amount * share + 5_000) // 10_000 + fixed if kind == "charge" else 0
    available = (at // DAY_SECONDS + PAYOUT_DAYS) * DAY_SECONDS
    ledger.balance_transactions.append(
        {
            "id": identity("txn", key),
            "object": "balance_transaction",
            "amount": amount,
            "available_on": available,
            "balance_type": "payments",
            "created": at,
            "currency": currency,
            "description": None,
            "exchange_rate": None,
            "fee": fee,
            "fee_details": [_fee(fee, currency)] if fee else [],
            "net": amount - fee,
            "reporting_category": kind,
            "source": source,
            "status": "available" if available <= ledger.now else "pending",
            "type": kind,
        }
    )


def _fee(amount: int, currency: str) -> Object:
    said = "Stripe processing fees"
    return {
        "amount": amount,
        "application": None,
        "currency": currency,
        "description": said,
        "type": "stripe_fee",
    }


def _customer(ledger: Ledger, buyer: Node, at: int, currency: str) -> Object:
    """The buyer, who came with the first charge."""
    key = buyer["id"]
    if (known := ledger.customers.get(key)) is not None:
        known["created"] = min(known["created"], at)
        return known
    mail, place = buyer["defaultEmailAddress"], buyer["defaultAddress"]
    name = " ".join(filter(None, (buyer["firstName"], buyer["lastName"])))
    found = new_customer(identity("cus", key), at)
    found |= {
        "address": None if place is None else {"country": place["countryCodeV2"]},
        "currency": currency,
        "email": mail["emailAddress"].strip() if mail and mail["emailAddress"] else None,
        "metadata": {"customer_id": buyer["legacyResourceId"]},
        "name": name or None,
    }
    return ledger.customers.setdefault(key, found)


def new_customer(key: str, at: int) -> Object:
    """A customer of whom nothing is known yet."""
    return {
        "id": key,
        "object": "customer",
        "address": None,
        "balance": 0,
        "created": at,
        "currency": None,
        "default_source": None,
        "delinquent": False,
        "description": None,
        "discount": None,
        "email": None,
        "invoice_prefix": key[-8:].upper(),
        "livemode": False,
        "metadata": {},
        "name": None,
        "phone": None,
        "preferred_locales": [],
        "shipping": None,
        "tax_exempt": "none",
    }


def oldest_first(objects: list[Object]) -> Iterator[Object]:
    """In the order in which they came; within a second, by id."""
    return iter(sorted(objects, key=lambda found: (found["created"], found["id"])))
