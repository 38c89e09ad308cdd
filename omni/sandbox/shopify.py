"""Shopify's GraphQL Admin API, read side, with its cost throttle.

Queries are parsed and validated against `shopify.graphql`; their answers come from `shopify_project`.
Errors arrive in a 200 answer, as Shopify sends them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    GraphQLError,
    OperationDefinitionNode,
    build_schema,
    parse,
    validate,
)
from graphql.execution.values import get_variable_values

from omni.sandbox.company import Company, Node
from omni.sandbox.limits import Bucket
from omni.sandbox.reply import Reply
from omni.sandbox.shopify_find import Found, Rows, SearchError, page_of
from omni.sandbox.shopify_project import Compiler, connection_cost, page_size, refuse

VERSIONS = ("2026-01", "2026-04", "2026-07", "2026-10")
MAX_QUERY_COST = 1_000
DOCUMENTATION = "rate limits of the GraphQL Admin API"

SCHEMA = build_schema((Path(__file__).parent / "shopify.graphql").read_text(encoding="utf-8"))

Step = tuple[str, int, Callable[[], tuple[Any, int]]]
"""Answer key, points asked for, and what gives the answer with the points it took."""


def answering_version(asked: str) -> str:
    """The version that answers: the one asked for, else the oldest or newest there is (it falls forward)."""
    if asked in VERSIONS or asked == "unstable":
        return asked
    dated = re.fullmatch(r"\d{4}-\d{2}", asked)
    return VERSIONS[-1] if dated and asked > VERSIONS[-1] else VERSIONS[0]


@lru_cache(maxsize=64)
def _document(text: str) -> DocumentNode | list[GraphQLError]:
    """A query parsed and validated, or what is wrong with it."""
    try:
        document = parse(text)
    except GraphQLError as error:
        return [error]
    return validate(SCHEMA, document) or document


def root_fields(text: str) -> tuple[str, ...]:
    """Names of the fields a query selects at its root; empty where it is wrong."""
    document = _document(text)
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
        self.bucket = bucket
        self._shop = {"name": shop.name, "currencyCode": shop.currency, "ianaTimezone": company.timezone}

    def answer(self, body: Any) -> Reply:
        """Answer one request's body: `{"query", "variables"?, "operationName"?}`."""
        if not isinstance(body, dict) or not isinstance(body.get("query"), str):
            return Reply({"errors": "query is missing"}, 400)
        document = _document(body["query"])
        if isinstance(document, list):
            return _failed(*document)
        try:
            return self._run(document, body)
        except GraphQLError as error:
            return _failed(error)
        except SearchError as error:
            return _failed(refuse(str(error), "BAD_USER_INPUT"))

    def throttled(self, requested: float = 0) -> Reply:
        """Shopify's answer when the bucket holds too little."""
        error = {"message": "Throttled", "extensions": {"code": "THROTTLED", "documentation": DOCUMENTATION}}
        cost = {
            "requestedQueryCost": requested,
            "actualQueryCost": None,
            "throttleStatus": self.bucket.status(),
        }
        return Reply({"errors": [error], "extensions": {"cost": cost}})

    def _run(self, document: DocumentNode, body: dict[str, Any]) -> Reply:
        operation = _operation(document, body.get("operationName"))
        variables = get_variable_values(
            SCHEMA, operation.variable_definitions or (), body.get("variables") or {}
        )
        if isinstance(variables, list):
            return _failed(*variables)
        fragments = {d.name.value: d for d in document.definitions if isinstance(d, FragmentDefinitionNode)}
        compiler = Compiler(SCHEMA, fragments, variables)
        warnings: list[dict[str, Any]] = []
        selected = compiler.fields(operation.selection_set.selections, "QueryRoot")
        steps = [self._step(compiler, key, nodes, warnings) for key, nodes in selected.items()]
        requested = sum(points for _, points, _ in steps)
        if requested > MAX_QUERY_COST:
            message = f"Query cost is {requested}, which exceeds the single query max cost limit"
            message = f"{message} ({MAX_QUERY_COST})."
            raise refuse(message, "MAX_COST_EXCEEDED", cost=requested, maxCost=MAX_QUERY_COST)
        if not self.bucket.take(requested):
            return self.throttled(requested)
        return self._perform(steps, requested, warnings)

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

    def _step(
        self, compiler: Compiler, key: str, nodes: list[FieldNode], warnings: list[dict[str, Any]]
    ) -> Step:
        name = nodes[0].name.value
        if name == "__typename":
            return key, 0, lambda: ("QueryRoot", 0)
        if name.startswith("__"):
            raise refuse("Introspection is not served; see shopify.graphql", "ACCESS_DENIED")
        arguments = compiler.arguments("QueryRoot", nodes[0])
        if name in self.rows.by_kind:
            return self._connection(compiler, key, nodes, arguments, warnings)
        if name == "shop":
            project = compiler.object(nodes, "Shop")
            return key, 1, lambda: (project(self._shop), 1)
        if name.endswith("Count"):
            project = compiler.object(nodes, "Count")
            found = self._find(key, name.removesuffix("Count"), arguments.get("query"), "ID", warnings)
            return key, 1, lambda: (project(_count(found, arguments.get("limit"))), 1)
        return self._single(compiler, key, nodes, name, arguments["id"])

    def _single(self, compiler: Compiler, key: str, nodes: list[FieldNode], name: str, wanted: str) -> Step:
        """One object by global id; null where there is none of that type."""
        node = self.rows.by_id.get(wanted)
        if node is None or name not in ("node", node["__typename"].lower()):
            return key, 1, lambda: (None, 1)
        compiler.nested_cost = 0
        project = compiler.object(nodes, node["__typename"])
        points = 1 + compiler.nested_cost
        return key, points, lambda: (project(node), points)

    def _find(
        self, key: str, kind: str, query: str | None, sort_key: str, warnings: list[dict[str, Any]]
    ) -> Found:
        found = self.rows.find(kind, query, sort_key)
        if found.warnings:
            warnings.append({"path": [key], "query": query, "warnings": list(found.warnings)})
        return found

    def _connection(
        self,
        compiler: Compiler,
        key: str,
        nodes: list[FieldNode],
        arguments: dict[str, Any],
        warnings: list[dict[str, Any]],
    ) -> Step:
        name = nodes[0].name.value
        first = page_size(arguments)
        compiler.nested_cost = 0
        build = compiler.connection(nodes, compiler.type_of("QueryRoot", name).name)
        nested = compiler.nested_cost
        found = self._find(key, name, arguments.get("query"), arguments["sortKey"], warnings)
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
