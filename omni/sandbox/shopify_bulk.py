"""Shopify's bulk operations: a query without pages is run aside, and its result is a file of lines.

An operation takes a step each time it is asked about: CREATED, RUNNING, COMPLETED. A try to start another
moves the others on as well, so that a place becomes free. Results live seven days.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from graphql import FieldNode, GraphQLError, OperationDefinitionNode, is_list_type
from graphql.type import GraphQLNonNull

from omni.sandbox.company import Node, shop_time
from omni.sandbox.shopify_find import Rows, SearchError
from omni.sandbox.shopify_project import Compiler, Getter, selections_of
from omni.sandbox.shopify_schema import SCHEMA, document_of

MAX_CONNECTIONS, MAX_DEPTH = 5, 2
LIFETIME = 7 * 86_400
KEPT = 8
"""Operations whose results are kept; older ones are forgotten with theirs."""
PATH = "/_bulk/shopify"


def allowed(version: str) -> int:
    """How many operations may run at once."""
    return 1 if version < "2026-01" else 5


@dataclass(frozen=True)
class _Plan:
    """How a row becomes lines: itself, then its nested connections' rows."""

    own: Getter
    children: list[tuple[str, _Plan]]


@dataclass
class _Operation:
    number: int
    query: str
    lines: Callable[[], list[Node]]
    doom: str | None
    started: float
    status: str = "CREATED"
    key: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    body: bytes = b""
    objects: int = 0
    roots: int = 0
    ended: float | None = None

    @property
    def running(self) -> bool:
        return self.status in ("CREATED", "RUNNING", "CANCELING")


class Operations:
    """The bulk operations of a shop.

    Args:
        rows: the shop's rows.
        clock: seconds since the epoch.
    """

    def __init__(self, rows: Rows, clock: Callable[[], float] = time.time) -> None:
        self._rows = rows
        self._clock = clock
        self._all: dict[str, _Operation] = {}
        self._count = 0

    def start(
        self, query: str, *, grouped: bool, places: int, base: str, doom: str | None = None
    ) -> tuple[Node | None, list[Node]]:
        """Start an operation; returns it, or what is wrong with it."""
        try:
            lines = self._compiled(query, grouped=grouped and doom != "bulk_scattered")
        except (GraphQLError, SearchError) as error:
            message = error.message if isinstance(error, GraphQLError) else str(error)
            return None, [_problem(f"Invalid bulk query: {message}", "INVALID")]
        running = [key for key, operation in self._all.items() if operation.running]
        if len(running) >= places:
            for key in running:
                self._step(self._all[key])
            message = f"A bulk query operation for this app and shop is already in progress: {running[-1]}."
            return None, [_problem(message, "OPERATION_IN_PROGRESS")]
        self._count += 1
        operation = _Operation(self._count, query, lines, doom, self._clock())
        self._all[f"gid://shopify/BulkOperation/{self._count}"] = operation
        for key in list(self._all)[:-KEPT]:
            if not self._all[key].running:
                del self._all[key]
        return self._node(operation, base), []

    def ask(self, wanted: str, base: str) -> Node | None:
        """An operation as it is now, after a step; None when there is none."""
        operation = self._all.get(wanted)
        if operation is None:
            return None
        self._step(operation)
        return self._node(operation, base)

    def latest(self, base: str) -> Node | None:
        """The operation started last, after a step."""
        return self.ask(next(reversed(self._all)), base) if self._all else None

    def cancel(self, wanted: str, base: str) -> tuple[Node | None, list[Node]]:
        """Cancel one; it is CANCELING until it is asked about."""
        operation = self._all.get(wanted)
        if operation is None:
            return None, [_problem("Bulk operation does not exist", "INVALID")]
        if not operation.running:
            message = f"A bulk operation cannot be canceled when it is {operation.status.lower()}"
            return self._node(operation, base), [_problem(message, "INVALID")]
        operation.status = "CANCELING"
        return self._node(operation, base), []

    def result(self, key: str) -> bytes | None:
        """A result by the signature in its address; None when there is none, or no longer."""
        for operation in self._all.values():
            if secrets.compare_digest(operation.key, key) and self._fetchable(operation):
                return operation.body
        return None

    def _fetchable(self, operation: _Operation) -> bool:
        self._expire(operation)
        return operation.status == "COMPLETED" or (operation.status == "FAILED" and bool(operation.body))

    def _expire(self, operation: _Operation) -> None:
        if operation.ended is not None and self._clock() - operation.ended > LIFETIME:
            operation.status, operation.body = "EXPIRED", b""

    def _step(self, operation: _Operation) -> None:
        self._expire(operation)
        if operation.status == "CREATED":
            operation.status = "RUNNING"
        elif operation.status == "CANCELING":
            self._end(operation, "CANCELED")
        elif operation.status == "RUNNING":
            self._finish(operation)

    def _finish(self, operation: _Operation) -> None:
        lines = operation.lines()
        operation.objects = len(lines)
        operation.roots = sum("__parentId" not in line for line in lines)
        if operation.doom in ("bulk_failed", "bulk_timeout"):
            lines = lines[: len(lines) // 2]
            self._end(operation, "FAILED")
        elif operation.doom in ("bulk_expired", "bulk_canceled"):
            lines = []
            self._end(operation, operation.doom.removeprefix("bulk_").upper())
        else:
            self._end(operation, "COMPLETED")
        if operation.doom == "bulk_lost":
            lines = [line for n, line in enumerate(lines) if n % 50 != 7]
        written = (json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines)
        operation.body = "".join(written).encode()

    def _end(self, operation: _Operation, status: str) -> None:
        operation.status, operation.ended = status, self._clock()

    def _node(self, operation: _Operation, base: str) -> Node:
        file = f"{base.rstrip('/')}{PATH}/bulk-{operation.number}.jsonl"
        address = f"{file}?Signature={operation.key}" if operation.body else None
        done, failed = operation.status == "COMPLETED", operation.status == "FAILED"
        reason = "TIMEOUT" if operation.doom == "bulk_timeout" else "ACCESS_DENIED"
        return {
            "__typename": "BulkOperation",
            "id": f"gid://shopify/BulkOperation/{operation.number}",
            "status": operation.status,
            "errorCode": reason if failed else None,
            "objectCount": str(operation.objects),
            "rootObjectCount": str(operation.roots),
            "fileSize": str(len(operation.body)) if done else None,
            "url": address if done else None,
            "partialDataUrl": address if failed else None,
            "query": operation.query,
            "type": "QUERY",
            "createdAt": shop_time(int(operation.started)),
            "completedAt": shop_time(int(operation.ended)) if operation.ended else None,
        }

    def _compiled(self, query: str, *, grouped: bool) -> Callable[[], list[Node]]:
        """What gives a query's lines.

        Raises:
            GraphQLError, SearchError: the query cannot be run in bulk.
        """
        document = document_of(query)
        if isinstance(document, list):
            raise document[0]
        [operation] = document.definitions[:1]
        if len(document.definitions) > 1 or not isinstance(operation, OperationDefinitionNode):
            raise GraphQLError("exactly one query operation without fragments is needed")
        compiler = Compiler(SCHEMA, {}, {})
        selected = compiler.fields(operation.selection_set.selections, "QueryRoot")
        roots = [nodes for nodes in selected.values() if nodes[0].name.value in self._rows.kinds]
        if len(selected) != 1 or len(roots) != 1:
            raise GraphQLError("Bulk queries must contain exactly one connection at the top level")
        [nodes] = roots
        name, arguments = nodes[0].name.value, compiler.arguments("QueryRoot", nodes[0])
        plan = _Planner(compiler).plan(nodes, compiler.type_of("QueryRoot", name).name, 0)
        found = self._rows.find(name, arguments.get("query"), arguments.get("sortKey", "ID"))
        if found.warnings:
            raise GraphQLError(f"the search has an unknown field {found.warnings[0]['field']!r}")
        taken = list(found.rows)

        def lines() -> list[Node]:
            every = [line for row in taken for line in _lines(row, plan, None)]
            return every if grouped else sorted(every, key=lambda line: "__parentId" in line)

        return lines


class _Planner:
    """Compiles a bulk query's connections and counts them."""

    def __init__(self, compiler: Compiler) -> None:
        self._compiler = compiler
        self._connections = 0

    def plan(self, nodes: list[FieldNode], kind: str, depth: int) -> _Plan:
        """A connection's rows to lines.

        Raises:
            GraphQLError: too many or too deep connections, one within a list, or no id to refer to.
        """
        self._connections += 1
        if self._connections > MAX_CONNECTIONS:
            raise GraphQLError(f"Bulk queries cannot contain more than {MAX_CONNECTIONS} connections.")
        if depth > MAX_DEPTH:
            raise GraphQLError(
                f"Bulk queries cannot contain connections with a depth of more than {MAX_DEPTH}."
            )
        row, on = self._row(nodes, kind)
        own, children = {}, []
        for key, same in row.items():
            name = same[0].name.value
            inner = None if name == "__typename" else self._compiler.type_of(on, name)
            if inner is not None and inner.name.endswith("Connection"):
                children.append((name, self.plan(same, inner.name, depth + 1)))
                continue
            own[key] = same
            if inner is not None:
                self._refuse_hidden(same, on)
        if children and "id" not in own:
            raise GraphQLError("The parent 'node' field for a nested connection must select the 'id' field.")
        return _Plan(self._compiler.project(own, on), children)

    def _row(self, nodes: list[FieldNode], kind: str) -> tuple[dict[str, list[FieldNode]], str]:
        """What is selected of a connection's rows, be it under `nodes` or `edges { node }`."""
        for same in self._compiler.fields(selections_of(nodes), kind).values():
            name, on = same[0].name.value, kind
            if name == "edges":
                on = self._compiler.type_of(kind, "edges").name
                inner = self._compiler.fields(selections_of(same), on)
                found = [f for f in inner.values() if f[0].name.value == "node"]
                if found:
                    same, name = found[0], "nodes"  # noqa: PLW2901
            if name == "nodes":
                row_type = self._compiler.type_of(kind, "nodes").name
                return self._compiler.fields(selections_of(same), row_type), row_type
        raise GraphQLError("Bulk queries must select 'nodes' or 'edges { node }' of each connection.")

    def _refuse_hidden(self, nodes: list[FieldNode], on: str) -> None:
        """No connection may lie within a list or a plain object."""
        name = nodes[0].name.value
        kind = SCHEMA.type_map[on].fields[name].type
        plain = kind.of_type if isinstance(kind, GraphQLNonNull) else kind
        inner = self._compiler.type_of(on, name).name
        for same in self._compiler.fields(selections_of(nodes), inner).values():
            if same[0].name.value == "__typename":
                continue
            if self._compiler.type_of(inner, same[0].name.value).name.endswith("Connection"):
                what = "a list" if is_list_type(plain) else "an object"
                raise GraphQLError(
                    f"Queries that contain a connection field within {what} field are unsupported."
                )
            self._refuse_hidden(same, inner)


def _lines(row: Node, plan: _Plan, parent: str | None) -> Iterator[Node]:
    line = plan.own(row)
    yield line if parent is None else {**line, "__parentId": parent}
    for name, inner in plan.children:
        for child in row[name]:
            yield from _lines(child, inner, row["id"])


def _problem(message: str, code: str) -> Node:
    fields: Any = None if code == "OPERATION_IN_PROGRESS" else ["query"]
    return {"field": fields, "message": message, "code": code}
