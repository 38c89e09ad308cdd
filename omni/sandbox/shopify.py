"""Shopify's GraphQL Admin API with its cost throttle: what reads, and bulk operations.

Queries are parsed and validated against `shopify.graphql`; their answers come from `shopify_project`.
Errors arrive in a 200 answer, as Shopify sends them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    GraphQLError,
    OperationDefinitionNode,
    OperationType,
)
from graphql.execution.values import get_variable_values

from omni.sandbox.company import Company, Node, shop_time
from omni.sandbox.limits import Bucket
from omni.sandbox.reply import Reply
from omni.sandbox.shopify_bulk import Operations, allowed
from omni.sandbox.shopify_find import Found, Rows, SearchError, page_of
from omni.sandbox.shopify_project import PAGE_LIMIT, Compiler, connection_cost, page_size, refuse
from omni.sandbox.shopify_schema import SCHEMA, document_of

__all__ = ["SCHEMA", "SCOPES", "VERSIONS", "Asked", "ShopApi", "answering_version", "root_fields"]

VERSIONS = ("2026-01", "2026-04", "2026-07", "2026-10")
MAX_QUERY_COST = 1_000
MUTATION_COST = 10
SCOPES = (
    "read_all_orders",
    "read_customers",
    "read_inventory",
    "read_locations",
    "read_orders",
    "read_products",
)
"""What the app may read."""
DOCUMENTATION = "rate limits of the GraphQL Admin API"

Step = tuple[str, int, Callable[[], tuple[Any, int]]]
"""Answer key, points asked for, and what gives the answer with the points it took."""


@dataclass(frozen=True)
class Asked:
    """What else matters of a request.

    Attributes:
        version: that answers.
        base: the shop's address, for addresses in answers.
        doom: the fault its bulk operation gets.
    """

    version: str = VERSIONS[-1]
    base: str = "http://127.0.0.1"
    doom: str | None = None


@dataclass
class _Answering:
    """One operation on its way."""

    compiler: Compiler
    asked: Asked
    warnings: list[dict[str, Any]] = field(default_factory=list)


def answering_version(asked: str) -> str:
    """The version that answers: the one asked for, else the oldest or newest there is (it falls forward)."""
    if asked in VERSIONS or asked == "unstable":
        return asked
    dated = re.fullmatch(r"\d{4}-\d{2}", asked)
    return VERSIONS[-1] if dated and asked > VERSIONS[-1] else VERSIONS[0]


def root_fields(text: str) -> tuple[str, ...]:
    """Names of the fields a query selects at its root; empty where it is wrong."""
    document = document_of(text)
    if isinstance(document, list):
        return ()
    return tuple(
        node.name.value
        for operation in document.definitions
        if isinstance(operation, OperationDefinitionNode)
        for node in operation.selection_set.selections
        if isinstance(node, FieldNode)
    )


class ShopApi:
    """A shop that answers queries.

    Args:
        company: whose shop it is.
        bucket: the plan's cost points.
    """

    def __init__(self, company: Company, bucket: Bucket) -> None:
        shop = company.shop
        self.rows = Rows(shop)
        self.bulk = Operations(self.rows)
        self.bucket = bucket
        self._shop = {"name": shop.name, "currencyCode": shop.currency, "ianaTimezone": company.timezone}

    def answer(self, body: Any, asked: Asked = Asked()) -> Reply:
        """Answer one request's body: `{"query", "variables"?, "operationName"?}`."""
        if not isinstance(body, dict) or not isinstance(body.get("query"), str):
            return Reply({"errors": "query is missing"}, 400)
        document = document_of(body["query"])
        if isinstance(document, list):
            return _failed(*document)
        try:
            return self._run(document, body, asked)
        except GraphQLError as error:
            return _failed(error)
        except SearchError as error:
            return _failed(refuse(str(error), "BAD_USER_INPUT"))

    def about(self) -> dict[str, Any]:
        """What the REST API says of the shop."""
        shown = {"id": 1, "name": self._shop["name"], "currency": self._shop["currencyCode"]}
        return shown | {"iana_timezone": self._shop["ianaTimezone"]}

    def change(self, wanted: str, changes: Node, at: str | None = None) -> bool:
        """Change fields of a row while the shop is served, and the time it was last changed.

        Args:
            wanted: its global id.
            changes: values by field name, as the graph shows them.
            at: the time of the change, ISO 8601; now when None.

        Returns:
            Whether there is such a row.

        Raises:
            KeyError: a field the row does not have.
        """
        row = self.rows.by_id(wanted)
        if row is None:
            return False
        if unknown := changes.keys() - row.keys():
            raise KeyError(f"{row['__typename']} has no field {', '.join(sorted(unknown))}")
        return self.rows.change(wanted, changes, at or shop_time(int(time.time()))) is not None

    def delete(self, wanted: str) -> bool:
        """Delete a row while the shop is served; returns whether there was one."""
        return self.rows.delete(wanted) is not None

    def throttled(self, requested: float = 0) -> Reply:
        """Shopify's answer when the bucket holds too little."""
        error = {"message": "Throttled", "extensions": {"code": "THROTTLED", "documentation": DOCUMENTATION}}
        cost = {
            "requestedQueryCost": requested,
            "actualQueryCost": None,
            "throttleStatus": self.bucket.status(),
        }
        return Reply({"errors": [error], "extensions": {"cost": cost}})

    def _run(self, document: DocumentNode, body: dict[str, Any], asked: Asked) -> Reply:
        operation = _operation(document, body.get("operationName"))
        variables = get_variable_values(
            SCHEMA, operation.variable_definitions or (), body.get("variables") or {}
        )
        if isinstance(variables, list):
            return _failed(*variables)
        fragments = {d.name.value: d for d in document.definitions if isinstance(d, FragmentDefinitionNode)}
        now = _Answering(Compiler(SCHEMA, fragments, variables), asked)
        mutation = operation.operation is OperationType.MUTATION
        step, root = (self._mutation, "Mutation") if mutation else (self._step, "QueryRoot")
        selected = now.compiler.fields(operation.selection_set.selections, root)
        steps = [step(now, key, nodes) for key, nodes in selected.items()]
        requested = sum(points for _, points, _ in steps)
        if requested > MAX_QUERY_COST:
            message = f"Query cost is {requested}, which exceeds the single query max cost limit"
            message = f"{message} ({MAX_QUERY_COST})."
            raise refuse(message, "MAX_COST_EXCEEDED", cost=requested, maxCost=MAX_QUERY_COST)
        if not self.bucket.take(requested):
            return self.throttled(requested)
        return self._perform(steps, requested, now.warnings)

    def _perform(self, steps: list[Step], requested: int, warnings: list[dict[str, Any]]) -> Reply:
        """Give the answers, and the points that were asked for and not used back to the bucket."""
        data, actual = {}, 0
        for key, _, give in steps:
            data[key], took = give()
            actual += took
        self.bucket.give_back(requested - actual)
        status = self.bucket.status()
        cost = {"requestedQueryCost": requested, "actualQueryCost": actual, "throttleStatus": status}
        extensions: dict[str, Any] = {"cost": cost}
        if warnings:
            extensions["search"] = warnings
        return Reply({"data": data, "extensions": extensions})

    def _mutation(self, now: _Answering, key: str, nodes: list[FieldNode]) -> Step:
        name, compiler = nodes[0].name.value, now.compiler
        if name == "__typename":
            return key, 0, lambda: ("Mutation", 0)
        project = compiler.object(nodes, compiler.type_of("Mutation", name).name)
        arguments, base, doom = compiler.arguments("Mutation", nodes[0]), now.asked.base, now.asked.doom

        def give() -> tuple[Any, int]:
            if name == "bulkOperationCancel":
                operation, problems = self.bulk.cancel(arguments["id"], base)
            else:
                operation, problems = self.bulk.start(
                    arguments["query"],
                    grouped=arguments["groupObjects"],
                    places=allowed(now.asked.version),
                    base=base,
                    doom=doom,
                )
            return project({"bulkOperation": operation, "userErrors": problems}), MUTATION_COST

        return key, MUTATION_COST, give

    def _step(self, now: _Answering, key: str, nodes: list[FieldNode]) -> Step:
        name, compiler = nodes[0].name.value, now.compiler
        if name == "__typename":
            return key, 0, lambda: ("QueryRoot", 0)
        if name.startswith("__"):
            raise refuse("Introspection is not served; see shopify.graphql", "ACCESS_DENIED")
        arguments = compiler.arguments("QueryRoot", nodes[0])
        if name in self.rows.kinds:
            return self._connection(now, key, nodes, arguments)
        if name == "shop":
            project = compiler.object(nodes, "Shop")
            return key, 1, lambda: (project(self._shop), 1)
        if name == "currentAppInstallation":
            project = compiler.object(nodes, "AppInstallation")
            return key, 1, lambda: (project({"accessScopes": [{"handle": s} for s in SCOPES]}), 1)
        if name.endswith("Count"):
            return self._number(now, key, nodes, arguments)
        if name == "nodes":
            return self._several(compiler, key, nodes, arguments["ids"])
        wanted = arguments.get("id", "")
        if "ulkOperation" in name or wanted.startswith("gid://shopify/BulkOperation/"):
            return self._operation(now, key, nodes, wanted)
        return self._single(compiler, key, nodes, name, wanted)

    def _number(self, now: _Answering, key: str, nodes: list[FieldNode], arguments: dict[str, Any]) -> Step:
        project = now.compiler.object(nodes, "Count")
        kind, search = nodes[0].name.value.removesuffix("Count"), arguments.get("query")
        if kind == "productVariants" and search:
            problem = {"field": search, "message": "No search fields.", "code": "invalid_field"}
            now.warnings.append({"path": [key], "query": search, "warnings": [problem]})
            search = None
        found = self._find(now, key, kind, search, "ID")
        return key, 1, lambda: (project(_count(found, arguments.get("limit"))), 1)

    def _operation(self, now: _Answering, key: str, nodes: list[FieldNode], wanted: str) -> Step:
        """A bulk operation; being asked moves it on."""
        project, base = now.compiler.object(nodes, "BulkOperation"), now.asked.base
        latest = nodes[0].name.value == "currentBulkOperation"

        def give() -> tuple[Any, int]:
            node = self.bulk.latest(base) if latest else self.bulk.ask(wanted, base)
            return (project(node) if node else None), 1

        return key, 1, give

    def _single(self, compiler: Compiler, key: str, nodes: list[FieldNode], name: str, wanted: str) -> Step:
        """One object by global id; null where there is none of that type."""
        node = self.rows.by_id(wanted)
        kind = node["__typename"] if node else ""
        if node is None or name not in ("node", kind[0].lower() + kind[1:]):
            return key, 1, lambda: (None, 1)
        compiler.nested_cost = 0
        project = compiler.object(nodes, kind)
        points = 1 + compiler.nested_cost
        return key, points, lambda: (project(node), points)

    def _several(self, compiler: Compiler, key: str, nodes: list[FieldNode], ids: list[str]) -> Step:
        """Objects by global id, in the order asked for; null where there is none."""
        if len(ids) > PAGE_LIMIT:
            raise refuse(
                f"The input array size of {len(ids)} is greater than the maximum allowed of 250",
                "BAD_USER_INPUT",
            )
        for wanted in ids:
            if not wanted.startswith("gid://shopify/"):
                raise refuse(f"Invalid global id '{wanted}'", "BAD_USER_INPUT")
        found = [self.rows.by_id(wanted) for wanted in ids]
        projects, nested = {}, 0
        for kind in {node["__typename"] for node in found if node}:
            compiler.nested_cost = 0
            projects[kind] = compiler.object(nodes, kind)
            nested = max(nested, compiler.nested_cost)
        points = connection_cost(len(ids), nested)
        return key, points, lambda: ([n and projects[n["__typename"]](n) for n in found], points)

    def _find(self, now: _Answering, key: str, kind: str, query: str | None, sort_key: str) -> Found:
        found = self.rows.find(kind, query, sort_key)
        if found.warnings:
            now.warnings.append({"path": [key], "query": query, "warnings": list(found.warnings)})
        return found

    def _connection(
        self, now: _Answering, key: str, nodes: list[FieldNode], arguments: dict[str, Any]
    ) -> Step:
        name, compiler = nodes[0].name.value, now.compiler
        first = page_size(arguments)
        compiler.nested_cost = 0
        build = compiler.connection(nodes, compiler.type_of("QueryRoot", name).name)
        nested = compiler.nested_cost
        found = self._find(now, key, name, arguments.get("query"), arguments.get("sortKey", "ID"))
        page = page_of(found, first, arguments.get("after"), reverse=arguments["reverse"])
        took = connection_cost(len(page.rows), nested)
        return key, connection_cost(first, nested), lambda: (build(page), took)


def _count(found: Found, limit: int | None) -> Node:
    size = len(found.rows)
    if limit is not None and size > limit:
        return {"count": limit, "precision": "AT_LEAST"}
    return {"count": size, "precision": "EXACT"}


def _operation(document: DocumentNode, name: str | None) -> OperationDefinitionNode:
    found = [
        d
        for d in document.definitions
        if isinstance(d, OperationDefinitionNode) and (name is None or (d.name and d.name.value == name))
    ]
    if len(found) != 1:
        raise refuse(
            "An operation name is required" if found else f"No operation named {name}", "BAD_USER_INPUT"
        )
    operation: OperationDefinitionNode = found[0]
    return operation


def _failed(*errors: GraphQLError) -> Reply:
    """Errors as Shopify sends them: in a 200 answer."""
    return Reply({"errors": [error.formatted for error in errors]})
