"""The GraphQL texts that read a stream of the shop, built from its contracts' paths."""

from __future__ import annotations

from datetime import datetime

from omni.errors import SchemaError
from omni.sources.records import PARENT
from omni.sources.vendor import Window, cursor_column, table_object
from omni.warehouse.contracts import Contract

NESTED = 10
"""Rows of a nested connection asked for with each record; the rest is fetched page by page."""
CONNECTIONS = {"lineItems": "LineItem", "inventoryLevels": "InventoryLevel"}
"""Nested lists that come in pages, and their rows' type. Others, such as an order's refunds, come whole."""
WITHIN = {"refundLineItems": "refunds"}
"""Nested lists that lie within the rows of another nested list; they are fetched by those rows' ids."""
MIDDLE = "within"
"""The path under which such rows hold the id of the row they lie in."""
SORT_KEYS = {
    "orders": ", sortKey: UPDATED_AT",
    "customers": ", sortKey: UPDATED_AT",
    "products": ", sortKey: UPDATED_AT",
    "productVariants": ", sortKey: ID",
}
QUANTITIES = "quantities"
"""A list of names and numbers that contracts see as an object: `quantities.available`."""

BULK_QUERY = """mutation($query: String!) {
  bulkOperationRunQuery(query: $query, groupObjects: true) {
    bulkOperation { id status } userErrors { field message code }
  }
}"""
BULK_STATE = """query($id: ID!) { node(id: $id) { ... on BulkOperation {
  id status errorCode objectCount rootObjectCount url partialDataUrl
} } }"""
BULK_CANCEL = "mutation($id: ID!) { bulkOperationCancel(id: $id) { userErrors { field message } } }"

SCOPES_QUERY = "{ currentAppInstallation { accessScopes { handle } } }"

Tree = dict[str, "Tree"]


def fields(contract: Contract) -> Tree:
    """The GraphQL fields a contract reads, as a tree; values that are never kept are not asked for."""
    tree: Tree = {"id": {}}
    for name, column in contract.columns.items():
        path = column.path or name
        if (
            path.startswith(PARENT)
            or path == MIDDLE
            or (column.personal and column.personal.protect == "drop")
        ):
            continue
        branch = tree
        for part in path.split("."):
            branch = branch.setdefault(part, {})
    return tree


def selection(tree: Tree) -> str:
    """A tree of fields in GraphQL's notation."""
    return " ".join(_field(name, inner) for name, inner in tree.items())


def _field(name: str, inner: Tree) -> str:
    if name == QUANTITIES:
        names = ", ".join(f'"{state}"' for state in inner)
        return f"{name}(names: [{names}]) {{ name quantity }}"
    return name + (f" {{ {selection(inner)} }}" if inner else "")


def query(tables: list[Contract]) -> str:
    """The query for pages of a stream, nested lists included."""
    name = table_object(tables)
    page = _page(_record(tables), f"$first, after: $after, query: $query{SORT_KEYS.get(name, '')}")
    return f"query($first: Int!, $after: String, $query: String) {{ {name}{page} }}"


def nested_query(tables: list[Contract], child: Contract) -> str:
    """The query for further pages of one record's nested list."""
    page = _page(selection(fields(child)), "$first, after: $after")
    record = record_field(tables)
    return (
        f"query($id: ID!, $first: Int!, $after: String) {{ {record}(id: $id) {{ {rows_of(child)}{page} }} }}"
    )


def within_query(child: Contract) -> str:
    """The query for the rows of a list within a list, by the ids of the rows between."""
    middle = WITHIN[rows_of(child)]
    kind = middle[0].upper() + middle[1:].removesuffix("s")
    page = _page(selection(fields(child)), "$first, after: $after")
    return (
        f"query($ids: [ID!]!, $first: Int!, $after: String) {{ nodes(ids: $ids) {{ ... on {kind} "
        f"{{ id {rows_of(child)}{page} }} }} }}"
    )


def reread_query(tables: list[Contract]) -> str:
    """The query for records by id."""
    return (
        f"query($ids: [ID!]!) {{ nodes(ids: $ids) {{ ... on {type_name(tables)} {{ {_record(tables)} }} }} }}"
    )


def bulk_query(tables: list[Contract], terms: str | None) -> str:
    """The query a bulk operation runs: no pages, rows of nested connections as lines of their own."""
    parts = [selection(fields(tables[0]))]
    for child in direct(tables):
        rows, inner = rows_of(child), selection(fields(child))
        if rows in CONNECTIONS:
            inner = f"edges {{ node {{ {inner} }} }}"
        parts.append(f"{rows} {{ {inner} }}")
    chosen = f'(query: "{terms}")' if terms else ""
    return f"{{ {table_object(tables)}{chosen} {{ edges {{ node {{ {' '.join(parts)} }} }} }} }}"


def count_query(field: str) -> str:
    """The query for an exact number of records."""
    return f"query($query: String) {{ {field}(query: $query, limit: null) {{ count precision }} }}"


def _record(tables: list[Contract]) -> str:
    parts = [selection(fields(tables[0]))]
    for child in direct(tables):
        rows, inner = rows_of(child), selection(fields(child))
        parts.append(f"{rows}{_page(inner, str(NESTED))}" if rows in CONNECTIONS else f"{rows} {{ {inner} }}")
    return " ".join(parts)


def _page(inner: str, arguments: str) -> str:
    return f"(first: {arguments}) {{ nodes {{ {inner} }} pageInfo {{ hasNextPage endCursor }} }}"


def rows_of(child: Contract) -> str:
    """The nested list a child table holds.

    Raises:
        SchemaError: its contract names none.
    """
    if child.source is None or not child.source.rows:
        raise SchemaError(f"{child.table}: a child table needs source.rows")
    return child.source.rows


def direct(tables: list[Contract]) -> list[Contract]:
    """The child tables whose rows lie in the record itself."""
    return [child for child in tables[1:] if rows_of(child) not in WITHIN]


def indirect(tables: list[Contract]) -> list[Contract]:
    """The child tables whose rows lie within another list's rows.

    Raises:
        SchemaError: no contract reads the list between.
    """
    found = [child for child in tables[1:] if rows_of(child) in WITHIN]
    for child in found:
        if WITHIN[rows_of(child)] not in {rows_of(other) for other in tables[1:]}:
            raise SchemaError(f"{child.table}: needs a contract for {WITHIN[rows_of(child)]} too")
    return found


def record_field(tables: list[Contract]) -> str:
    """The root field of one record: `order` for `orders`."""
    return table_object(tables).removesuffix("s")


def type_name(tables: list[Contract]) -> str:
    """A record's type: `Order` for `orders`."""
    name = record_field(tables)
    return name[0].upper() + name[1:]


def where_of(tables: list[Contract]) -> str:
    """The stream's name for messages."""
    return f"Shopify {table_object(tables)}"


def search_terms(window: Window) -> str:
    """Shopify's search syntax for the window."""
    terms = [f"updated_at:<'{_iso(window.until)}'"]
    if window.since is not None:
        terms.insert(0, f"updated_at:>='{_iso(window.since)}'")
    return " AND ".join(terms)


def filter_of(tables: list[Contract], window: Window) -> str | None:
    """The search that selects what to read; None reads all there is.

    Without `since` nothing bounds it: what is edited while it is read would seem to be absent.
    """
    if cursor_column(tables[0]) is None or window.since is None:
        return None
    return search_terms(window)


def counted_by(tables: list[Contract], window: Window) -> str | None:
    """The search that selects what is counted; None counts all there is, as Shopify does with variants."""
    if cursor_column(tables[0]) is None or unfiltered_count(tables):
        return None
    return search_terms(window)


def unfiltered_count(tables: list[Contract]) -> bool:
    """Whether Shopify counts the stream's records only as a whole."""
    return table_object(tables) == "productVariants"


def _iso(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")
