"""Records to frames: nesting, protection, rejects."""

from __future__ import annotations

import time
from decimal import Decimal

import pytest

from omni import yamlfile
from omni.errors import ConfigError
from omni.security.hashing import Hasher
from omni.sources.records import Shield, typed
from omni.warehouse.contracts import Contract

HASHER = Hasher(b"k" * 32)
SHIELD = Shield(HASHER)

PARENT = """
table: raw.shop__orders
description: d
owner: o@example.com
grain: one row per order
key: [id]
lawful_basis: contract
source: {vendor: shop, object: orders}
columns:
  id: {type: string, nullable: false}
  email: {type: string, personal: {category: contact.email, subject: c, protect: hash}}
  first_name: {type: string, from: firstName, personal: {category: name.first, subject: c, protect: drop}}
  note: {type: string, personal: {category: content.text, subject: c, protect: clear, reason: wanted}}
  total: {type: decimal, from: total.money.amount}
  paid: {type: boolean}
"""
CHILD = """
table: raw.shop__lines
description: d
owner: o@example.com
grain: one row per line
key: [order_id, id]
parent: raw.shop__orders
parent_key: order_id
source: {vendor: shop, object: orders, rows: lines.items}
columns:
  id: {type: string, nullable: false}
  order_id: {type: string, nullable: false, from: ^.id}
  quantity: {type: integer}
"""


def contract(text):
    return yamlfile.parse(text, Contract, "test.yml")


TABLES = [contract(PARENT), contract(CHILD)]


def order(number, **changes):
    return {
        "id": f"o{number}",
        "email": f"Ann{number}@Example.com ",
        "firstName": "Ann",
        "note": "hello",
        "total": {"money": {"amount": "12.50"}},
        "paid": True,
        "lines": {"items": [{"id": f"l{number}", "quantity": number}]},
    } | changes


def test_columns_come_in_the_contracts_order_and_types():
    result = typed([order(1), order(2)], TABLES, SHIELD)
    orders, lines = result.frames["raw.shop__orders"], result.frames["raw.shop__lines"]
    assert orders.columns == list(TABLES[0].columns)
    assert orders["total"].to_list() == [Decimal("12.50")] * 2
    assert lines.rows() == [("l1", "o1", 1), ("l2", "o2", 2)]
    assert result.rejected == []


def test_personal_columns_are_protected():
    row = typed([order(1)], TABLES, SHIELD).frames["raw.shop__orders"].row(0, named=True)
    assert row["email"] == HASHER.digest("ann1@example.com")
    assert row["first_name"] is None
    assert row["note"] == "hello"


def test_a_bad_value_rejects_the_row_and_its_children():
    bad = order(2, total={"money": {"amount": "12.505"}})
    result = typed([order(1), bad, order(3)], TABLES, SHIELD)
    assert result.frames["raw.shop__orders"]["id"].to_list() == ["o1", "o3"]
    assert result.frames["raw.shop__lines"]["id"].to_list() == ["l1", "l3"]
    assert result.rejected == [
        {
            "table": "raw.shop__orders",
            "key": "o2",
            "column": "total",
            "reason": "more than two decimals (shape '99.999')",
        },
        {
            "table": "raw.shop__lines",
            "key": "o2|l2",
            "column": "order_id",
            "reason": "its parent was rejected",
            "parent": "o2",
        },
    ]
    assert result.rejected_of("raw.shop__orders") == 1


def test_a_bad_child_leaves_its_parent():
    result = typed([order(1, lines={"items": [{"id": "a", "quantity": "x"}, {"id": "b"}]})], TABLES, SHIELD)
    assert result.frames["raw.shop__orders"].height == 1
    assert result.frames["raw.shop__lines"]["id"].to_list() == ["b"]
    assert [row["key"] for row in result.rejected] == ["o1|a"]


@pytest.mark.parametrize(
    ("changes", "column", "reason"),
    [
        ({"id": None}, "id", "no value, but the contract requires one"),
        ({"total": "12.50"}, "total", "an object was expected around this value"),
        ({"total": {"money": [1]}}, "total", "an object was expected around this value"),
        (
            {"email": {"secret": "ann@example.com"}},
            "email",
            "a single value was expected, not an object or list",
        ),
        ({"lines": {"items": {"id": "a"}}}, "lines.items", "a list was expected"),
        ({"lines": "none"}, "lines.items", "a list was expected"),
    ],
)
def test_wrong_shapes_are_rejected(changes, column, reason):
    result = typed([order(1, **changes)], TABLES, SHIELD)
    assert result.frames["raw.shop__orders"].height == 0
    first = result.rejected[0]
    assert (first["column"], first["reason"]) == (column, reason)
    assert "example.com" not in str(result.rejected)


@pytest.mark.parametrize("total", [None, {}, {"money": None}, {"money": {"amount": ""}}])
def test_no_value_is_null(total):
    result = typed([order(1, total=total)], TABLES, SHIELD)
    assert result.frames["raw.shop__orders"]["total"].to_list() == [None]
    assert result.rejected == []


def test_a_line_that_is_no_object_is_rejected():
    result = typed([order(1, lines={"items": [7]})], TABLES, SHIELD)
    assert result.frames["raw.shop__lines"].height == 0
    assert result.rejected[0]["table"] == "raw.shop__lines"


def test_no_records_give_typed_empty_frames():
    frames = typed([], TABLES, SHIELD).frames
    assert {name: frame.height for name, frame in frames.items()} == {
        "raw.shop__orders": 0,
        "raw.shop__lines": 0,
    }
    assert (
        frames["raw.shop__lines"].schema == typed([order(1)], TABLES, SHIELD).frames["raw.shop__lines"].schema
    )


def test_only_text_can_be_hashed():
    number = PARENT.replace("email: {type: string", "email: {type: integer")
    with pytest.raises(ConfigError, match="needs type string"):
        contract(number)


def test_typing_is_fast():
    records = [order(number) for number in range(20_000)]
    started = time.process_time()
    result = typed(records, TABLES, SHIELD)
    assert result.frames["raw.shop__lines"].height == 20_000
    # 0.15 s where this was written: the bound only catches work per cell turning quadratic or to Python.
    assert time.process_time() - started < 2
