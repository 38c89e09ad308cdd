"""Olist's orders, buyers and catalogue as nodes of Shopify's graph.

An order's name is its id in the files, a product's handle and SKU too. A person is a `customer_unique_id`
(`customer_id` is new with every order). The states of an order translate as in `_states`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl

from omni.sandbox.company import Node, money_maker, shop_time

FIRST_CUSTOMER, FIRST_PRODUCT, FIRST_ORDER, FIRST_LINE = 1_000_001, 2_000_001, 3_000_001, 4_000_001

Read = Callable[..., pl.DataFrame]
Row = dict[str, Any]

_money = money_maker("BRL")


def _cents(column: str) -> pl.Expr:
    """Floating-point reais of the files to whole centavos."""
    return (pl.col(column) * 100).round().cast(pl.Int64).alias(column)


def _products(items: pl.DataFrame, read: Read, begin: int, limit: int) -> dict[str, Node]:
    """Products by id; category in English where translated, vendor and price from the first sale."""
    translation = dict(read("product_category_name_translation").iter_rows())
    sales = items.group_by("product_id").agg(
        begin=pl.col("sold_at").min(),
        seller=pl.col("seller_id").first(),
        price=pl.col("price").first(),
    )
    products = read("products").select("product_id", "product_category_name")
    products = products.join(sales, on="product_id", how="left")
    products = products.with_columns(pl.col("begin").fill_null(begin)).sort("begin", "product_id")
    found = {}
    for n, (key, category, at, seller, price) in enumerate(products.iter_rows()):
        if at >= limit:
            continue
        name = translation.get(category, category) or ""
        moment = shop_time(at)
        found[key] = {
            "__typename": "Product",
            "id": f"gid://shopify/Product/{FIRST_PRODUCT + n}",
            "legacyResourceId": str(FIRST_PRODUCT + n),
            "title": f"{name.replace('_', ' ') or 'product'} {key[:8]}",
            "handle": key,
            "productType": name,
            "vendor": seller or "",
            "status": "ACTIVE",
            "priceRangeV2": None if price is None else _range(price),
            "createdAt": moment,
            "updatedAt": moment,
        }
    return found


def _range(price: int) -> Node:
    amount = _money(price)["shopMoney"]
    return {"minVariantPrice": amount, "maxVariantPrice": amount}


def _customers(orders: pl.DataFrame, limit: int) -> dict[str, Node]:
    """Persons by id, in order of first purchase; the address is that of the last order so far."""
    persons = orders.group_by("customer_unique_id", maintain_order=True).agg(
        first=pl.col("order_purchase_timestamp").min()
    )
    persons = persons.sort("first", "customer_unique_id").with_row_index("n")
    past = orders.filter(pl.col("order_purchase_timestamp") < limit)
    latest = past.group_by("customer_unique_id", maintain_order=True).agg(
        last=pl.col("order_purchase_timestamp").max(),
        city=pl.col("customer_city").last(),
        state=pl.col("customer_state").last(),
        zip=pl.col("customer_zip_code_prefix").last(),
    )
    rows = persons.join(latest, on="customer_unique_id").sort("n").iter_rows(named=True)
    return {row["customer_unique_id"]: _customer(row) for row in rows}


def _customer(row: Row) -> Node:
    number = FIRST_CUSTOMER + row["n"]
    return {
        "__typename": "Customer",
        "id": f"gid://shopify/Customer/{number}",
        "legacyResourceId": str(number),
        "firstName": None,
        "lastName": None,
        "defaultEmailAddress": None,
        "defaultAddress": {
            "city": row["city"],
            "provinceCode": row["state"],
            "countryCodeV2": "BR",
            "zip": row["zip"],
        },
        "note": row["customer_unique_id"],
        "createdAt": shop_time(row["first"]),
        "updatedAt": shop_time(row["last"]),
    }


def _states(row: Row, limit: int) -> tuple[str, str, int | None, int]:
    """Financial state, fulfilment state, time of cancellation or None, time of the last change.

    Cancelled orders are VOIDED (the files record no refund), orders whose goods proved unavailable wait
    ON_HOLD. Before an order's last event it shows what had happened by then: payment, parcel handed over.
    """
    at, approved = row["order_purchase_timestamp"], row["order_approved_at"]
    carrier, delivered = row["order_delivered_carrier_date"], row["order_delivered_customer_date"]
    events = [at, *(t for t in (approved, carrier, delivered) if t is not None)]
    changed = max(t for t in events if t < limit)
    paid, sent = (t is not None and t < limit for t in (approved, carrier))
    if max(events) >= limit:
        return ("PAID" if paid else "PENDING"), ("FULFILLED" if sent else "UNFULFILLED"), None, changed
    status = row["order_status"]
    if status == "canceled":
        return "VOIDED", ("FULFILLED" if sent else "UNFULFILLED"), changed, changed
    if status in ("shipped", "delivered"):
        return "PAID", "FULFILLED", None, changed
    fulfilment = {"processing": "IN_PROGRESS", "unavailable": "ON_HOLD"}.get(status, "UNFULFILLED")
    return ("PAID" if paid else "PENDING"), fulfilment, None, changed


def _line(n: int, key: str, seller: str, price: int, products: dict[str, Node]) -> Node:
    product = products[key]
    return {
        "__typename": "LineItem",
        "id": f"gid://shopify/LineItem/{FIRST_LINE + n}",
        "product": product,
        "title": product["title"],
        "sku": key,
        "vendor": seller,
        "quantity": 1,
        "originalUnitPriceSet": _money(price),
        "totalDiscountSet": _money(0),
    }


def _order(number: int, row: Row, customer: Node, limit: int) -> Node:
    financial, fulfilment, cancelled, changed = _states(row, limit)
    placed = shop_time(row["order_purchase_timestamp"])
    return {
        "__typename": "Order",
        "id": f"gid://shopify/Order/{number}",
        "legacyResourceId": str(number),
        "name": row["order_id"],
        "customer": customer,
        "email": None,
        "sourceName": "web",
        "displayFinancialStatus": financial,
        "displayFulfillmentStatus": fulfilment,
        "currencyCode": "BRL",
        "subtotalPriceSet": _money(row["value"]),
        "totalShippingPriceSet": _money(row["freight"]),
        "totalPriceSet": _money(row["value"] + row["freight"]),
        "totalRefundedSet": _money(0),
        "createdAt": placed,
        "processedAt": placed,
        "updatedAt": shop_time(changed),
        "cancelledAt": shop_time(cancelled) if cancelled else None,
        "cancelReason": "OTHER" if cancelled else None,
        "lineItems": [],
        "transactions": [],
        "refunds": [],
    }


def _transaction(number: int, sequence: int, gateway: str, amount: int, at: int) -> Node:
    return {
        "__typename": "OrderTransaction",
        "id": f"gid://shopify/OrderTransaction/{number * 100 + sequence}",
        "kind": "SALE",
        "status": "SUCCESS",
        "gateway": gateway,
        "amountSet": _money(amount),
        "createdAt": shop_time(at),
    }


def render_shop(
    orders: pl.DataFrame, items: pl.DataFrame, read: Read, begin: int, limit: int
) -> tuple[list[Node], list[Node], list[Node]]:
    """Customers, products and orders as of `limit`.

    Args:
        orders: all orders, oldest first, times in seconds since the epoch.
        items: all their items in the same order, with `sold_at`.
        read: reads a file by name.
        begin: when products begin that were never sold.
        limit: first second that has not happened.
    """
    items = items.with_columns(_cents("price"), _cents("freight_value"))
    totals = items.group_by("order_id").agg(
        value=pl.col("price").sum(), freight=pl.col("freight_value").sum()
    )
    orders = orders.join(totals, on="order_id", how="left", maintain_order="left")
    orders = orders.with_columns(pl.col("value", "freight").fill_null(0))
    orders = orders.join(read("customers"), on="customer_id", how="left", maintain_order="left")
    products = _products(items, read, begin, limit)
    customers = _customers(orders, limit)
    nodes: dict[str, Node] = {}
    paid: dict[str, tuple[int, int]] = {}
    for n, row in enumerate(orders.iter_rows(named=True)):
        at = row["order_purchase_timestamp"]
        if at >= limit:
            continue
        nodes[row["order_id"]] = _order(FIRST_ORDER + n, row, customers[row["customer_unique_id"]], limit)
        approved = row["order_approved_at"] or at
        paid[row["order_id"]] = (FIRST_ORDER + n, approved if approved < limit else at)
    columns = items.select("order_id", "product_id", "seller_id", "price").iter_rows()
    for n, (order, product, seller, price) in enumerate(columns):
        if order in nodes:
            nodes[order]["lineItems"].append(_line(n, product, seller, price, products))
    payments = read("order_payments").with_columns(_cents("payment_value"))
    payments = payments.sort("order_id", "payment_sequential")
    payments = payments.select("order_id", "payment_sequential", "payment_type", "payment_value")
    for order, sequence, gateway, amount in payments.iter_rows():
        if order in nodes:
            number, at = paid[order]
            nodes[order]["transactions"].append(_transaction(number, sequence, gateway, amount, at))
    return list(customers.values()), list(products.values()), list(nodes.values())
