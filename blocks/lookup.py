"""Saved blocks by tenant."""

from __future__ import annotations

from typing import TypeVar

from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL

B = TypeVar("B", bound=Block)


def saved(block_class: type[B], tenant: str) -> B | None:
    """The block saved under the tenant's name, or None when there is none.

    One request; none at all without a server, where nothing can be saved (asking would start one).

    Raises:
        ValidationError: the block was saved with fields that no longer fit its class.
        PrefectHTTPStatusError: the server refused.
    """
    if not PREFECT_API_URL.value():
        return None
    with get_client(sync_client=True) as client:
        try:
            document = client.read_block_document_by_name(
                name=tenant, block_type_slug=block_class.get_block_type_slug()
            )
        except ObjectNotFound:
            return None
    return block_class._from_block_document(document)
