"""The older REST Admin API over the same shop: what ShopifyAPI needs to read everything.

Lists come in pages by `page_info` in a `Link` header, or by `since_id`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from omni.sandbox.company import Node
from omni.sandbox.reply import Refusal, Reply
from omni.sandbox.shopify_find import Rows, number_of
from omni.sandbox.shopify_stock import VARIANT

PAGE, MOST = 50, 250

Query = Mapping[str, str]


def refusal(status: int, errors: Any) -> Refusal:
    """An error as the REST API sends it."""
    return Refusal(Reply({"errors": errors}, status))


def _amount(bag: Node | None) -> str | None:
    return bag["shopMoney"]["amount"] if bag else None


def _number(node: Node | None) -> int | None:
    return number_of(node) if node else None


def _lower(text: str | None) -> str | None:
    return text.lower() if text else None


def line_item(node: Node) -> dict[str, Any]:
    """An order's line."""
    return {
        "id": number_of(node),
        "admin_graphql_api_id": node["id"],
        "product_id": _number(node["product"]),
        "title": node["title"],
        "name": node["title"],
        "sku": node["sku"],
        "vendor": node["vendor"],
        "quantity": node["quantity"],
        "price": _amount(node["originalUnitPriceSet"]),
        "total_discount": _amount(node["totalDiscountSet"]),
    }


def transaction(node: Node, order: Node) -> dict[str, Any]:
    """A payment."""
    return {
        "id": number_of(node),
        "admin_graphql_api_id": node["id"],
        "order_id": number_of(order),
        "kind": node["kind"].lower(),
        "status": node["status"].lower(),
        "gateway": node["gateway"],
        "amount": _amount(node["amountSet"]),
        "currency": order["currencyCode"],
        "created_at": node["createdAt"],
    }


def refund(node: Node, order: Node) -> dict[str, Any]:
    """A refund with its lines and payments."""
    paid = [t for t in order["transactions"] if t["kind"] == "REFUND" and t["createdAt"] == node["createdAt"]]
    return {
        "id": number_of(node),
        "admin_graphql_api_id": node["id"],
        "order_id": number_of(order),
        "note": node["note"],
        "created_at": node["createdAt"],
        "refund_line_items": [
            {
                "id": number_of(item),
                "line_item_id": number_of(item["lineItem"]),
                "quantity": item["quantity"],
                "subtotal": float(item["subtotalSet"]["shopMoney"]["amount"]),
                "restock_type": item["restockType"].lower(),
            }
            for item in node["refundLineItems"]
        ],
        "transactions": [transaction(t, order) for t in paid],
    }


def order(node: Node) -> dict[str, Any]:
    """An order with its lines and refunds."""
    shown = _lower(node["displayFulfillmentStatus"])
    return {
        "id": number_of(node),
        "admin_graphql_api_id": node["id"],
        "name": node["name"],
        "email": node["email"] or "",
        "source_name": node["sourceName"],
        "currency": node["currencyCode"],
        "financial_status": _lower(node["displayFinancialStatus"]),
        "fulfillment_status": shown if shown == "fulfilled" else None,
        "subtotal_price": _amount(node["subtotalPriceSet"]),
        "total_price": _amount(node["totalPriceSet"]),
        "total_shipping_price_set": _bag(node["totalShippingPriceSet"]),
        "cancel_reason": _lower(node["cancelReason"]),
        "cancelled_at": node["cancelledAt"],
        "created_at": node["createdAt"],
        "processed_at": node["processedAt"],
        "updated_at": node["updatedAt"],
        "customer": customer(node["customer"]) if node["customer"] else None,
        "line_items": [line_item(item) for item in node["lineItems"]],
        "refunds": [refund(item, node) for item in node["refunds"]],
    }


def _bag(node: Node) -> dict[str, Any]:
    names = {"shopMoney": "shop_money", "presentmentMoney": "presentment_money"}
    return {names[k]: {"amount": v["amount"], "currency_code": v["currencyCode"]} for k, v in node.items()}


def customer(node: Node) -> dict[str, Any]:
    """A customer."""
    mail, address = node["defaultEmailAddress"] or {}, node["defaultAddress"]
    return {
        "id": number_of(node),
        "admin_graphql_api_id": node["id"],
        "email": mail.get("emailAddress"),
        "first_name": node["firstName"],
        "last_name": node["lastName"],
        "note": node["note"],
        "email_marketing_consent": mail and {"state": mail["marketingState"].lower()},
        "default_address": address
        and {
            "city": address["city"],
            "province_code": address["provinceCode"],
            "country_code": address["countryCodeV2"],
            "zip": address["zip"],
        },
        "created_at": node["createdAt"],
        "updated_at": node["updatedAt"],
    }


def product(node: Node, variant_of: Callable[[Node], Node]) -> dict[str, Any]:
    """A product with its variant."""
    return {
        "id": number_of(node),
        "admin_graphql_api_id": node["id"],
        "title": node["title"],
        "handle": node["handle"],
        "product_type": node["productType"],
        "vendor": node["vendor"],
        "status": node["status"].lower(),
        "variants": [variant(variant_of(node))],
        "created_at": node["createdAt"],
        "updated_at": node["updatedAt"],
    }


def variant(node: Node) -> dict[str, Any]:
    """A product's variant."""
    return {
        "id": number_of(node),
        "admin_graphql_api_id": node["id"],
        "product_id": number_of(node["product"]),
        "inventory_item_id": number_of(node["inventoryItem"]),
        "title": node["title"],
        "sku": node["sku"],
        "barcode": node["barcode"],
        "price": node["price"],
        "compare_at_price": node["compareAtPrice"],
        "position": node["position"],
        "inventory_quantity": node["inventoryQuantity"],
        "created_at": node["createdAt"],
        "updated_at": node["updatedAt"],
    }


def inventory_item(node: Node) -> dict[str, Any]:
    """An inventory item."""
    return {
        "id": number_of(node),
        "admin_graphql_api_id": node["id"],
        "sku": node["sku"],
        "tracked": node["tracked"],
        "requires_shipping": node["requiresShipping"],
        "cost": node["unitCost"] and node["unitCost"]["amount"],
        "created_at": node["createdAt"],
        "updated_at": node["updatedAt"],
    }


def inventory_level(level: Node, item: Node) -> dict[str, Any]:
    """What is there of an item at a location."""
    amounts = {q["name"]: q["quantity"] for q in level["quantities"]}
    return {
        "admin_graphql_api_id": level["id"],
        "inventory_item_id": number_of(item),
        "location_id": number_of(level["location"]),
        "available": amounts["available"],
        "updated_at": level["updatedAt"],
    }


class RestApi:
    """The shop's REST side.

    Args:
        rows: the shop's rows.
        shop: what `shop.json` says.
    """

    def __init__(self, rows: Rows, shop: dict[str, Any]) -> None:
        self._rows = rows
        self._shop = shop
        self._lists: dict[str, tuple[str, Callable[[Node], dict[str, Any]]]] = {
            "orders": ("orders", order),
            "customers": ("customers", customer),
            "products": ("products", lambda node: product(node, self._variant_of)),
            "variants": ("productVariants", variant),
            "inventory_items": ("inventoryItems", inventory_item),
            "locations": ("locations", lambda n: {"id": number_of(n), "name": n["name"], "active": True}),
        }

    def answer(self, path: str, query: Query, base: str) -> Reply:
        """Answer a GET of a path below the version, without `.json`.

        Raises:
            Refusal: there is no such thing, or a parameter is wrong.
        """
        match path.split("/"):
            case ["shop"]:
                return Reply({"shop": self._shop})
            case ["inventory_levels"]:
                return Reply({"inventory_levels": self._levels(query)})
            case ["orders", number, ("transactions" | "refunds") as part]:
                found = self._one("orders", number)
                render = transaction if part == "transactions" else refund
                return Reply({part: [render(item, found) for item in found[part]]})
            case ["products", number, "variants"]:
                return Reply({"variants": [variant(self._variant_of(self._one("products", number)))]})
            case [name, "count"] if name in self._lists:
                return Reply({"count": len(self._selected(name, query))})
            case [name, number] if name in self._lists:
                kind, render_one = self._lists[name]
                return Reply({name.removesuffix("s"): render_one(self._one(kind, number))})
            case [name] if name in self._lists:
                return self._page(name, query, base)
        raise refusal(404, "Not Found")

    def _one(self, kind: str, number: str) -> Node:
        found = next((row for row in self._rows.of(kind) if str(number_of(row)) == number), None)
        if found is None:
            raise refusal(404, "Not Found")
        return found

    def _variant_of(self, node: Node) -> Node:
        found = self._rows.by_id(f"gid://shopify/ProductVariant/{VARIANT + number_of(node)}")
        assert found is not None
        return found

    def _selected(self, name: str, query: Query) -> list[Node]:
        """Rows in order of id. Orders are the open ones unless another `status` is asked for."""
        rows = self._rows.of(self._lists[name][0])
        if name == "orders" and query.get("status", "open") == "open":
            rows = [row for row in rows if row["cancelledAt"] is None]
        if ids := query.get("ids"):
            wanted = set(ids.split(","))
            rows = [row for row in rows if str(number_of(row)) in wanted]
        low, high = query.get("updated_at_min", ""), query.get("updated_at_max", "9999")
        rows = [row for row in rows if low <= row.get("updatedAt", low) <= high]
        return sorted(rows, key=number_of)

    def _page(self, name: str, query: Query, base: str) -> Reply:
        limit = _limit(query)
        if info := query.get("page_info"):
            kept = _decode(info)
            if set(query) - {"limit", "page_info", "fields"}:
                raise refusal(400, "Invalid page_info: other filters go into the first request only")
            query = kept["query"]
            after = kept["after"]
        else:
            after = int(query.get("since_id", 0))
        rows = [row for row in self._selected(name, query) if number_of(row) > after]
        page, render = rows[:limit], self._lists[name][1]
        headers = {}
        if len(rows) > limit:
            token = {"after": number_of(page[-1]), "query": {k: v for k, v in query.items() if k in FILTERS}}
            after_this = urlencode({"limit": limit, "page_info": _encode(token)})
            headers["Link"] = f'<{base}/{name}.json?{after_this}>; rel="next"'
        return Reply({name: [render(row) for row in page]}, 200, headers)

    def _levels(self, query: Query) -> list[dict[str, Any]]:
        items, places = query.get("inventory_item_ids"), query.get("location_ids")
        if not items and not places:
            message = "Required parameter missing: inventory_item_ids or location_ids"
            raise refusal(422, message)
        wanted = set((items or "").split(",")) if items else None
        found = [
            inventory_level(level, item)
            for item in self._rows.of("inventoryItems")
            if wanted is None or str(number_of(item)) in wanted
            for level in item["inventoryLevels"]
            if places is None or str(number_of(level["location"])) in places.split(",")
        ]
        return found[: _limit(query)]


FILTERS = ("status", "updated_at_min", "updated_at_max", "ids")


def _limit(query: Query) -> int:
    text = query.get("limit", str(PAGE))
    if not text.isdecimal() or not 1 <= int(text) <= MOST:
        raise refusal(400, {"limit": f"must be between 1 and {MOST}"})
    return int(text)


def _encode(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _decode(text: str) -> dict[str, Any]:
    try:
        found = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        return {"after": int(found["after"]), "query": dict(found["query"])}
    except (ValueError, KeyError, TypeError):
        raise refusal(400, {"page_info": "Invalid value."}) from None
