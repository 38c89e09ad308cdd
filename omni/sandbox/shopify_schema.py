"""The part of the GraphQL Admin API this sandbox serves, and documents checked against it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from graphql import DocumentNode, GraphQLError, build_schema, parse, validate

SCHEMA = build_schema((Path(__file__).parent / "shopify.graphql").read_text(encoding="utf-8"))


@lru_cache(maxsize=64)
def document_of(text: str) -> DocumentNode | list[GraphQLError]:
    """A query parsed and validated, or what is wrong with it."""
    try:
        document = parse(text)
    except GraphQLError as error:
        return [error]
    return validate(SCHEMA, document) or document
