"""The project's block types, the one of a vendor, and saved blocks by tenant."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import Any, TypeVar

from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL

import blocks

B = TypeVar("B", bound=Block)

ELSEWHERE = {"files": "drop_folder"}
"""Vendors whose block is not in the module of their own name."""


def block_types() -> list[type[Block]]:
    """Every block type of the project, by the name of its module."""
    names = sorted(module.name for module in pkgutil.iter_modules(blocks.__path__))
    return [found for name in names for found in _defined(importlib.import_module(f"blocks.{name}"))]


def account_block(vendor: str) -> type[Any] | None:
    """The block type that holds a vendor's account, defined in `blocks/<vendor>.py`; None without one."""
    name = ELSEWHERE.get(vendor, vendor)
    if name not in {module.name for module in pkgutil.iter_modules(blocks.__path__)}:
        return None
    return next(iter(_defined(importlib.import_module(f"blocks.{name}"))), None)


def _defined(module: ModuleType) -> list[type[Block]]:
    return [
        found
        for found in vars(module).values()
        if isinstance(found, type) and issubclass(found, Block) and found.__module__ == module.__name__
    ]


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
