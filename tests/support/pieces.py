"""What a vendor consists of, looked up in a project's files without running them."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator
from dataclasses import MISSING, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from blocks.lookup import ELSEWHERE
from omni.sources.vendor import Vendor

SOURCES, BLOCKS, REST = Path("omni/sources"), Path("blocks"), Path("data/rest")
CONTRACTS, STAGING = Path("data/contracts/raw"), Path("data/models/staging")
TESTS, DOCS = Path("tests/sources"), Path("docs/sources.md")
OF_APIS = "REST APIs"

WITHOUT_ACCOUNT = ("webhooks",)
"""Deliveries come from the inbox."""
WITHOUT_CONTRACT = ("mongodb", "firestore")
"""Every database has other collections, so there are no tables that all tenants share."""

_RAW = re.compile(r"\braw\.(\w+)")
_OPENS = re.compile(r"def connection\(self\) ->")


def vendors(root: Path) -> list[str]:
    """Every vendor that any piece belongs to, so that one without its module is not forgotten."""
    modules = {path.stem for path in (root / SOURCES).glob("*.py") if _value(path) is not None}
    blocks = {path.stem for path in (root / BLOCKS).glob("*.py") if _OPENS.search(path.read_text("utf-8"))}
    held = {block: vendor for vendor, block in ELSEWHERE.items()}
    declared = {path.stem for path in (root / REST).glob("*.yml")}
    contracted = {contract["source"]["vendor"] for contract in _contracts(root)}
    named = modules | {held.get(block, block) for block in blocks} | declared | contracted
    return sorted(named - set(WITHOUT_ACCOUNT))


def missing_pieces(root: Path, vendor: str) -> list[str]:
    """What a vendor, or an API declared under data/rest, still lacks.

    Args:
        root: the project's folder.
        vendor: its name.

    Returns:
        One line for each piece, beginning with the file it belongs in.
    """
    declaration = root / REST / f"{vendor}.yml"
    if declaration.exists():
        streams = _parsed(declaration.read_text("utf-8"))["streams"]
        title, own = OF_APIS, [*_no_contract_of(root, vendor, streams), *_no_test(root, "rest")]
    else:
        value = _value(root / SOURCES / f"{vendor}.py")
        title = str(_texts(value).get("title", vendor)) if value else vendor
        own = [*_no_source(root, vendor), *_no_block(root, vendor), *_no_test(root, vendor)]
    return [*own, *_no_tables(root, vendor), *_no_section(root, title)]


_parsed = lru_cache(maxsize=None)(yaml.safe_load)
"""By text: looking for one piece after the other reads the same contracts over and over."""


def _contracts(root: Path) -> list[dict[str, Any]]:
    read = [_parsed(path.read_text("utf-8")) for path in sorted((root / CONTRACTS).glob("*.yml"))]
    return [contract for contract in read if contract.get("source")]


def _value(path: Path) -> ast.Call | None:
    """The call that makes a module's VENDOR."""
    if not path.exists():
        return None
    text = path.read_text("utf-8")
    for node in ast.parse(text).body if "VENDOR" in text else ():
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == "VENDOR" for target in targets):
            made = getattr(node, "value", None)
            return made if isinstance(made, ast.Call) else None
    return None


def _texts(value: ast.Call) -> dict[str | None, Any]:
    return {word.arg: word.value.value for word in value.keywords if isinstance(word.value, ast.Constant)}


def _no_source(root: Path, vendor: str) -> Iterator[str]:
    path = SOURCES / f"{vendor}.py"
    value = _value(root / path)
    if value is None:
        yield f"{path}: no module with a VENDOR (nor a declaration {REST / vendor}.yml)"
        return
    if (name := _texts(value).get("name")) != vendor:
        yield f"{path}: VENDOR is named {name!r}"
    given = {word.arg for word in value.keywords}
    needed = [f.name for f in fields(Vendor) if f.default is MISSING and f.default_factory is MISSING]
    yield from (f"{path}: VENDOR lacks {name}" for name in needed if name not in given)
    known = _known(ast.parse((root / path).read_text("utf-8")))
    for word in value.keywords:
        here = known | {arg.arg for arg in ast.walk(word.value) if isinstance(arg, ast.arg)}
        used = {node.id for node in ast.walk(word.value) if isinstance(node, ast.Name)}
        yield from (f"{path}: {word.arg} names {name}, which is not there" for name in sorted(used - here))


def _known(module: ast.Module) -> set[str]:
    """Names a module defines or imports at its top."""
    found = set(dir(builtins))
    for node in module.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {(name.asname or name.name).partition(".")[0] for name in node.names}
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        else:
            found |= {
                n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
            }
    return found


def _no_block(root: Path, vendor: str) -> Iterator[str]:
    path = BLOCKS / f"{ELSEWHERE.get(vendor, vendor)}.py"
    slug = f"omni-{path.stem.replace('_', '-')}"
    text = (root / path).read_text("utf-8") if (root / path).exists() else ""
    if f'_block_type_slug = "{slug}"' not in text:
        yield f"{path}: no block with the slug {slug}"
    elif not _OPENS.search(text):
        yield f"{path}: the block has no connection()"


def _no_contract_of(root: Path, vendor: str, streams: dict[str, Any]) -> Iterator[str]:
    found = {
        contract["source"]["object"]
        for contract in _contracts(root)
        if contract["source"]["vendor"] == vendor and "parent" not in contract
    }
    for stream in streams:
        if stream not in found:
            yield f"{CONTRACTS / vendor}__{stream}.yml: no contract of the stream {stream}"


def _no_tables(root: Path, vendor: str) -> Iterator[str]:
    """Tables without contract or view; a view may show several."""
    names = {path.stem for path in (root / CONTRACTS).glob("*.yml")}
    held = {c["table"].removeprefix("raw.") for c in _contracts(root) if c["source"]["vendor"] == vendor}
    shown: set[str] = set()
    for path in sorted((root / STAGING).glob(f"{vendor}__*.sql")):
        shown.update(_RAW.findall(path.read_text("utf-8")))
    for table in sorted(shown - names):
        yield f"{CONTRACTS / table}.yml: no contract of raw.{table}, which a staging view reads"
    for table in sorted(held - shown):
        yield f"{STAGING / table}.sql: no staging view reads raw.{table}"
    if not held and vendor not in WITHOUT_CONTRACT:
        yield f"{CONTRACTS / vendor}__<object>.yml: no contract"


def _no_test(root: Path, name: str) -> Iterator[str]:
    """Declared APIs share the tests of the code that reads them all."""
    if not any((root / TESTS).glob(f"test_{name}*.py")):
        yield f"{TESTS}/test_{name}.py: no test"


def _no_section(root: Path, title: str) -> Iterator[str]:
    text = (root / DOCS).read_text("utf-8") if (root / DOCS).exists() else ""
    if f"## {title}".lower() not in text.lower().splitlines():
        yield f"{DOCS}: no section `## {title}`"
