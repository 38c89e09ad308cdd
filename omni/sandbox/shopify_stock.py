"""Variants, inventory items and their levels of a shop whose products come in one variant each.

What is committed to unfulfilled orders follows from the orders; what else lies on the shelf is made up from
the product's number, so that it is the same every time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from omni.sandbox.company import Node

LOCATIONS: tuple[Node, ...] = (
    {"__typename": "Location", "id": "gid://shopify/Location/61", "name": "Central warehouse"},
    {"__typename": "Location", "id": "gid://shopify/Location/62", "name": "Shop floor"},
)
VARIANT, ITEM = 40_000_000, 50_000_000
"""What a variant's and an item's number has over its product's."""


def stock(products: Iterable[Node], orders: Iterable[Node]) -> tuple[list[Node], list[Node]]:
    """The variants and the inventory items of products, in order of id."""
    committed: Counter[str] = Counter()
    sold_at: dict[str, str] = {}
    for order in orders:
        waiting = order["displayFulfillmentStatus"] != "FULFILLED" and order["cancelledAt"] is None
        for line in order["lineItems"]:
            product = line["product"]["id"] if line["product"] else ""
            committed[product] += line["quantity"] if waiting else 0
            sold_at[product] = max(sold_at.get(product, ""), order["updatedAt"])
    variants, items = [], []
    for product in products:
        changed = max(product["updatedAt"], sold_at.get(product["id"], ""))
        item = _item(product, committed[product["id"]], changed)
        items.append(item)
        variants.append(_variant(product, item))
    return variants, items


def _variant(product: Node, item: Node) -> Node:
    number = int(product["legacyResourceId"])
    price = product["priceRangeV2"]["minVariantPrice"]["amount"] if product["priceRangeV2"] else "0.00"
    return {
        "__typename": "ProductVariant",
        "id": f"gid://shopify/ProductVariant/{VARIANT + number}",
        "legacyResourceId": str(VARIANT + number),
        "title": "Default Title",
        "displayName": f"{product['title'].strip()} - Default Title",
        "sku": item["sku"],
        "barcode": None if number % 9 == 0 else f"{2_000_000_000_000 + number}",
        "price": price,
        "compareAtPrice": None,
        "position": 1,
        "inventoryQuantity": sum(_amount(level, "available") for level in item["inventoryLevels"]),
        "product": product,
        "inventoryItem": item,
        "createdAt": product["createdAt"],
        "updatedAt": product["updatedAt"],
    }


def _item(product: Node, committed: int, changed: str) -> Node:
    number = int(product["legacyResourceId"])
    price = product["priceRangeV2"] and product["priceRangeV2"]["minVariantPrice"]
    shelf = number % 3 == 0
    levels = [_level(number, 0, number * 37 % 200, committed, product["createdAt"], changed)]
    if shelf:
        levels.append(_level(number, 1, number * 11 % 20, 0, product["createdAt"], product["updatedAt"]))
    return {
        "__typename": "InventoryItem",
        "id": f"gid://shopify/InventoryItem/{ITEM + number}",
        "legacyResourceId": str(ITEM + number),
        "sku": product["handle"] if len(product["handle"]) == 32 else f"SKU-{number - 7000:04d}",
        "tracked": True,
        "requiresShipping": True,
        "unitCost": price and {**price, "amount": f"{float(price['amount']) * 0.6:.2f}"},
        "inventoryLevels": levels,
        "createdAt": product["createdAt"],
        "updatedAt": product["updatedAt"],
    }


def _level(number: int, place: int, available: int, committed: int, since: str, changed: str) -> Node:
    quantities = {"available": available, "committed": committed, "on_hand": available + committed}
    location = LOCATIONS[place]
    key = f"{number * 10 + place}?inventory_item_id={ITEM + number}"
    return {
        "__typename": "InventoryLevel",
        "id": f"gid://shopify/InventoryLevel/{key}",
        "location": location,
        "quantities": [{"name": name, "quantity": amount} for name, amount in quantities.items()],
        "createdAt": since,
        "updatedAt": changed,
    }


def _amount(level: dict[str, Any], name: str) -> int:
    return sum(q["quantity"] for q in level["quantities"] if q["name"] == name)
