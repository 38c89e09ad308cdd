"""From a validated GraphQL query to its answer, by walking stored dictionaries along the selection set.

The selection set is compiled once per request into small functions; per node only dictionary look-ups remain.
The executor of graphql-core would call a resolver per field, which for a page of products takes longer than
everything else together.

Cost, in points: a connection at the root costs 2, and one point per five rows asked for; a connection inside
its rows one point more per five rows at the root and ten of its own; any other field at the root one point;
everything else is free. So 250 orders with up to 50 lines each cost 2 + 50 * (1 + 5) = 302, while 250 orders
with 250 lines each would cost 1,302 and exceed what one query may.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any

from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLSchema,
    SelectionNode,
    get_named_type,
    is_leaf_type,
)
from graphql.execution.values import get_argument_values, get_directive_values
from graphql.type import GraphQLIncludeDirective, GraphQLSkipDirective

from omni.sandbox.company import Node
from omni.sandbox.shopify_find import Page, encode, page_of, whole

PAGE_LIMIT, ROOT_STEP, NESTED_STEP = 250, 5, 10

Getter = Callable[[Node], Any]
Fields = dict[str, list[FieldNode]]


def refuse(message: str, code: str, **more: Any) -> GraphQLError:
    """An error with Shopify's code among the extensions."""
    return GraphQLError(message, extensions={"code": code, **more})


class Compiler:
    """Compiles selection sets of one request and adds up what they ask for.

    Args:
        schema: the API's schema.
        fragments: the document's fragments by name.
        variables: coerced variables, as graphql-core gives them.
    """

    def __init__(
        self, schema: GraphQLSchema, fragments: dict[str, FragmentDefinitionNode], variables: Any
    ) -> None:
        self._schema = schema
        self._fragments = fragments
        self._variables = variables
        self.nested_cost = 0
        """Points per step of rows of the root field being compiled."""

    def fields(self, selections: Iterable[SelectionNode], on: str) -> Fields:
        """Fields selected on a concrete type by answer key; fragments opened, directives heeded."""
        found: Fields = {}
        for selection in selections:
            if self._left_out(selection):
                continue
            if isinstance(selection, FieldNode):
                key = (selection.alias or selection.name).value
                found.setdefault(key, []).append(selection)
                continue
            if isinstance(selection, FragmentSpreadNode):
                selection = self._fragments[selection.name.value]  # noqa: PLW2901
            condition = selection.type_condition
            if condition is None or self._applies(condition.name.value, on):
                for key, nodes in self.fields(selection.selection_set.selections, on).items():
                    found.setdefault(key, []).extend(nodes)
        return found

    def _left_out(self, selection: SelectionNode) -> bool:
        skip = get_directive_values(GraphQLSkipDirective, selection, self._variables)
        include = get_directive_values(GraphQLIncludeDirective, selection, self._variables)
        return bool(skip and skip["if"]) or bool(include and not include["if"])

    def _applies(self, condition: str, on: str) -> bool:
        interfaces = getattr(self._schema.type_map[on], "interfaces", ())
        return condition == on or condition in {i.name for i in interfaces}

    def arguments(self, on: str, node: FieldNode) -> dict[str, Any]:
        """A field's arguments with defaults and variables filled in."""
        field = self._schema.type_map[on].fields[node.name.value]
        values: dict[str, Any] = get_argument_values(field, node, self._variables)
        return values

    def type_of(self, on: str, name: str) -> Any:
        """The named type of a field."""
        return get_named_type(self._schema.type_map[on].fields[name].type)

    def object(self, nodes: Sequence[FieldNode], on: str) -> Getter:
        """A function from a stored node to what is selected of it."""
        return self.project(self.fields(selections_of(nodes), on), on)

    def project(self, selected: Fields, on: str) -> Getter:
        """The same of fields that were selected already."""
        plan = [(key, self._getter(same, on)) for key, same in selected.items()]

        def project(node: Node) -> Node:
            return {key: get(node) for key, get in plan}

        return project

    def _getter(self, nodes: list[FieldNode], on: str) -> Getter:
        name = nodes[0].name.value
        if name == "__typename":
            return lambda _: on
        kind = self.type_of(on, name)
        if is_leaf_type(kind):
            return itemgetter(name)
        if kind.name.endswith("Connection"):
            return self._nested(nodes, on, kind.name)
        project = self.object(nodes, kind.name)
        arguments = self.arguments(on, nodes[0])
        most, names = arguments.get("first"), arguments.get("names")

        def get(node: Node) -> Any:
            value = node[name]
            if isinstance(value, list):
                kept = value if names is None else [item for item in value if item["name"] in names]
                return [project(item) for item in kept[:most]]
            return None if value is None else project(value)

        return get

    def _nested(self, nodes: list[FieldNode], on: str, kind: str) -> Getter:
        name, arguments = nodes[0].name.value, self.arguments(on, nodes[0])
        first = page_size(arguments)
        self.nested_cost += -(-first // NESTED_STEP)
        build = self.connection(nodes, kind)
        return lambda node: build(
            page_of(whole(node[name]), first, arguments.get("after"), reverse=arguments["reverse"])
        )

    def connection(self, nodes: Sequence[FieldNode], kind: str) -> Callable[[Page], Node]:
        """A function from a page to the connection's answer."""
        parts: list[tuple[str, Callable[[Page], Any]]] = []
        for key, same in self.fields(selections_of(nodes), kind).items():
            name = same[0].name.value
            if name == "__typename":
                parts.append((key, lambda _: kind))
            elif name == "pageInfo":
                info = self.object(same, "PageInfo")
                parts.append((key, lambda page, info=info: info(_page_info(page))))  # type: ignore[misc]
            elif name == "nodes":
                project = self.object(same, self.type_of(kind, "nodes").name)
                parts.append((key, lambda page, project=project: [project(r) for r in page.rows]))  # type: ignore[misc]
            else:
                edge = self.object(same, self.type_of(kind, "edges").name)
                parts.append((key, lambda page, edge=edge: [edge(e) for e in _edges(page)]))  # type: ignore[misc]
        return lambda page: {key: part(page) for key, part in parts}


def selections_of(nodes: Sequence[FieldNode]) -> list[SelectionNode]:
    """The selections of fields that share an answer key, one after the other."""
    return [s for node in nodes if node.selection_set for s in node.selection_set.selections]


def _page_info(page: Page) -> Node:
    return {
        "hasNextPage": page.has_next,
        "hasPreviousPage": page.has_previous,
        "startCursor": encode(page.keys[0]) if page.keys else None,
        "endCursor": encode(page.keys[-1]) if page.keys else None,
    }


def _edges(page: Page) -> list[Node]:
    return [{"cursor": encode(key), "node": row} for key, row in zip(page.keys, page.rows, strict=True)]


def connection_cost(rows: int, nested_cost: int) -> int:
    """Points of a connection at the root."""
    return 2 + -(-rows // ROOT_STEP) * (1 + nested_cost)


def page_size(arguments: dict[str, Any]) -> int:
    """A connection's `first`.

    Raises:
        GraphQLError: absent, or not from 1 to 250.
    """
    first = arguments.get("first")
    if first is None:
        raise refuse("you must provide one of first or last", "BAD_USER_INPUT")
    if not 1 <= first <= PAGE_LIMIT:
        raise refuse(f"first must be between 1 and {PAGE_LIMIT}, not {first}", "BAD_USER_INPUT")
    return int(first)
