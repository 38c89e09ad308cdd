"""The demo company's shop as Shopify's graph would show it on a given day."""

from __future__ import annotations

from typing import Any

from omni.sandbox import demo_words as words
from omni.sandbox.company import Node, money_maker, shop_time
from omni.sandbox.demo_calendar import rng
from omni.sandbox.demo_catalogue import Catalogue
from omni.sandbox.demo_leads import Leads
from omni.sandbox.demo_orders import CHANNELS, GATEWAYS, Orders
from omni.sandbox.demo_trade import Trade

Lists = dict[str, list[int]]

_money = money_maker("EUR")


def render_customers(trade: Trade, leads: Leads, limit: int) -> list[Node]:
    """Customer nodes by index; those who have not come by `limit` are left out.

    A customer who is also a contact has the contact's name and address, so that the two meet in the e-mail.
    """
    generator = rng("customers")
    size = len(trade.lead)
    first = generator.integers(0, len(words.FIRST_NAMES), size).tolist()
    last = generator.integers(0, len(words.LAST_NAMES), size).tolist()
    domain = generator.integers(0, len(words.MAIL_DOMAINS), size).tolist()
    place = generator.choice(len(words.CITIES), size=size, p=words.CITY_WEIGHTS).tolist()
    consent, dirt = generator.random(size).tolist(), generator.random(size).tolist()
    nodes = []
    for n, (lead, joined) in enumerate(zip(trade.lead.tolist(), trade.joined.tolist(), strict=True)):
        if joined >= limit:
            continue
        if lead >= 0:
            name, family, email = leads.first[lead], leads.last[lead], leads.email[lead]
            city = words.CITIES[int(leads.city[lead])]
        else:
            name, family = words.FIRST_NAMES[first[n]], words.LAST_NAMES[last[n]]
            email = f"{name}.{family}.{n}@shop.{words.MAIL_DOMAINS[domain[n]]}".lower()
            city = words.CITIES[place[n]]
        address = None if dirt[n] > 0.99 else _address(city, dirt[n])
        nodes.append(
            {
                "__typename": "Customer",
                "id": f"gid://shopify/Customer/{80001 + n}",
                "legacyResourceId": str(80001 + n),
                "firstName": name,
                "lastName": None if 0.02 < dirt[n] < 0.03 else family,
                "defaultEmailAddress": {
                    "emailAddress": _dirty_mail(email, dirt[n]),
                    "marketingState": "SUBSCRIBED" if consent[n] < 0.55 else "NOT_SUBSCRIBED",
                },
                "defaultAddress": address,
                "note": None,
                "createdAt": shop_time(joined - 240),
                "updatedAt": shop_time(joined - 240),
            }
        )
    return nodes


def _address(city: tuple[str, str, str, str], dirt: float) -> Node:
    name, country, province, postcode = city
    shown = name.upper() if dirt < 0.01 else f"{name} " if dirt < 0.02 else name
    return {"city": shown, "provinceCode": province, "countryCodeV2": country, "zip": postcode}


def _dirty_mail(email: str, dirt: float) -> str:
    """Some people shout their address; some leave a space behind it."""
    return email.upper() if 0.5 < dirt < 0.52 else f"{email} " if 0.6 < dirt < 0.605 else email


def render_orders(
    orders: Orders, catalogue: Catalogue, customers: list[Node], products: list[Node], limit: int
) -> list[Node]:
    """Order nodes as of `limit`, and with them their customers' last change.

    Args:
        orders: all orders there will ever be.
        catalogue: prices and titles.
        customers: their nodes, by index.
        products: nodes of the launched products.
        limit: first second that has not happened.
    """
    by_product = {int(p["legacyResourceId"]) - 7001: p for p in products}
    columns: Lists = {name: value.tolist() for name, value in vars(orders).items()}
    prices = catalogue.price.tolist()
    nodes = []
    for n, at in enumerate(columns["at"]):
        if at >= limit:
            continue
        guest = n % 331 == 17
        buyer = None if guest else customers[columns["customer"][n]]
        node = _order(columns, n, buyer, limit)
        start, end = columns["first_line"][n], columns["first_line"][n + 1]
        node["lineItems"] = [_line(columns, k, by_product, prices) for k in range(start, end)]
        node["refunds"] = _refunds(columns, node["lineItems"], n, limit)
        node["transactions"] = _transactions(columns, n, limit, node["refunds"])
        _settle(node, columns, n, limit)
        if buyer is not None:
            buyer["updatedAt"] = max(buyer["updatedAt"], node["createdAt"])
        nodes.append(node)
    return nodes


def _order(columns: Lists, n: int, buyer: Node | None, limit: int) -> Node:
    events = [columns[c][n] for c in ("at", "paid_at", "shipped_at", "cancelled_at", "refunded_at")]
    number = 1001 + n
    return {
        "__typename": "Order",
        "id": f"gid://shopify/Order/{500_001 + n}",
        "legacyResourceId": str(500_001 + n),
        "name": f"#{number}",
        "customer": buyer,
        "email": buyer["defaultEmailAddress"]["emailAddress"] if buyer else None,
        "sourceName": CHANNELS[columns["channel"][n]],
        "currencyCode": "EUR",
        "subtotalPriceSet": _money(columns["subtotal"][n]),
        "totalShippingPriceSet": _money(columns["shipping"][n]),
        "totalPriceSet": _money(columns["subtotal"][n] + columns["shipping"][n]),
        "createdAt": shop_time(events[0]),
        "processedAt": shop_time(events[0]),
        "updatedAt": shop_time(max(e for e in events if e < limit)),
    }


def _line(columns: Lists, k: int, products: dict[int, Node], prices: list[int]) -> Node:
    index = columns["product"][k]
    product = products[index]
    return {
        "__typename": "LineItem",
        "id": f"gid://shopify/LineItem/{900_001 + k}",
        "product": product,
        "title": product["title"].strip(),
        "sku": f"SKU-{index + 1:04d}",
        "vendor": product["vendor"],
        "quantity": columns["quantity"][k],
        "originalUnitPriceSet": _money(prices[index]),
        "totalDiscountSet": _money(columns["line_discount"][k]),
    }


def _happened(columns: Lists, name: str, n: int, limit: int) -> int:
    """The event's time, or 0 where it has not happened."""
    at = columns[name][n]
    return at if 0 < at < limit else 0


def _refunds(columns: Lists, lines: list[Node], n: int, limit: int) -> list[Node]:
    at = _happened(columns, "refunded_at", n, limit)
    if not at:
        return []
    line = columns["refund_line"][n]
    back = lines if line < 0 else [lines[line]]
    returned = [_returned(item) for item in back]
    amount = sum(_minor(item["subtotalSet"]) for item in returned)
    note = columns["refund_note"][n]
    reason = "Recall: buckle may break" if note < 0 else words.REFUND_NOTES[note]
    return [
        {
            "__typename": "Refund",
            "id": f"gid://shopify/Refund/{300_001 + n}",
            "note": None if n % 23 == 0 else reason,
            "refundLineItems": returned,
            "totalRefundedSet": _money(amount),
            "createdAt": shop_time(at),
        }
    ]


def _minor(bag: Node) -> int:
    return int(bag["shopMoney"]["amount"].replace(".", ""))


def _returned(line: Node) -> Node:
    number = int(line["id"].rsplit("/", 1)[1])
    price, discount = _minor(line["originalUnitPriceSet"]), _minor(line["totalDiscountSet"])
    return {
        "__typename": "RefundLineItem",
        "id": f"gid://shopify/RefundLineItem/{number}",
        "lineItem": line,
        "quantity": line["quantity"],
        "restockType": "NO_RESTOCK" if number % 5 == 0 else "RETURN",
        "subtotalSet": _money(price * line["quantity"] - discount),
    }


def _transactions(columns: Lists, n: int, limit: int, refunds: list[Node]) -> list[Node]:
    gateway, at = GATEWAYS[columns["gateway"][n]], columns["at"][n]
    total = _money(columns["subtotal"][n] + columns["shipping"][n])
    paid, cancelled = (_happened(columns, c, n, limit) for c in ("paid_at", "cancelled_at"))
    steps: list[tuple[str, str, Any, int]] = []
    if columns["failed_first"][n] and gateway != "manual":
        steps.append(("SALE", "FAILURE", total, at))
    if columns["cancelled_at"][n]:
        steps.append(("AUTHORIZATION", "SUCCESS", total, at + 20))
        if cancelled:
            steps.append(("VOID", "SUCCESS", total, cancelled))
    else:
        steps.append(("SALE", "SUCCESS" if paid else "PENDING", total, paid or at))
    steps += [
        ("REFUND", "SUCCESS", refund["totalRefundedSet"], columns["refunded_at"][n]) for refund in refunds
    ]
    return [
        {
            "__typename": "OrderTransaction",
            "id": f"gid://shopify/OrderTransaction/{(500_001 + n) * 10 + step}",
            "kind": kind,
            "status": status,
            "gateway": gateway,
            "amountSet": amount,
            "createdAt": shop_time(min(when, limit - 1)),
        }
        for step, (kind, status, amount, when) in enumerate(steps)
    ]


def _settle(node: Node, columns: Lists, n: int, limit: int) -> None:
    """Fill in the states that follow from what has happened."""
    paid, shipped, cancelled = (
        _happened(columns, c, n, limit) for c in ("paid_at", "shipped_at", "cancelled_at")
    )
    back = node["refunds"][0]["totalRefundedSet"] if node["refunds"] else _money(0)
    full = bool(node["refunds"]) and columns["refund_line"][n] < 0
    if cancelled:
        financial = "VOIDED"
    elif columns["cancelled_at"][n]:
        financial = "AUTHORIZED"
    elif node["refunds"]:
        financial = "REFUNDED" if full else "PARTIALLY_REFUNDED"
    else:
        financial = "PAID" if paid else "PENDING"
    node["displayFinancialStatus"] = financial
    node["displayFulfillmentStatus"] = "FULFILLED" if shipped else "UNFULFILLED"
    node["totalRefundedSet"] = back
    node["cancelledAt"] = shop_time(cancelled) if cancelled else None
    node["cancelReason"] = "CUSTOMER" if cancelled else None
