"""`omni doctor`: is everything here that a night needs, and if not, what to do."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape

from omni import tenancy
from omni.errors import OmniError, WarehouseLocked
from omni.files import write_atomic
from omni.settings import settings
from omni.tenancy import Tenant

FREE_BYTES = 1 << 30


@dataclass(frozen=True)
class Finding:
    """One thing looked at: fine, or what to do about it."""

    what: str
    good: bool
    detail: str


def examine(company: str) -> bool:
    """Look at everything and print it.

    Returns:
        Whether nothing must be done.
    """
    console = Console()
    good = True
    for look in (
        _python,
        _pins,
        _state,
        _declarations,
        lambda: look_at_warehouse(company),
        _server,
        _optional,
    ):
        for finding in look():
            mark = "[green]✓[/]" if finding.good else "[bold red]✗[/]"
            console.print(f"{mark} {finding.what}: {escape(finding.detail)}", highlight=False)
            good = good and finding.good
    return good


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("Python", sys.version_info >= (3, 11), f"{version} (3.11 or newer is needed)")


def _pins() -> Iterator[Finding]:
    for package, bound in {"duckdb": "2", "fastapi": "0.151"}.items():
        version = importlib.metadata.version(package)
        below = _numbers(version) < _numbers(bound)
        advice = "" if below else f"; must be below {bound}: run `make setup`"
        yield Finding(package, below, version + advice)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def _state() -> Iterator[Finding]:
    home = settings().home
    try:
        write_atomic(home / ".doctor", "written by omni doctor")
        (home / ".doctor").unlink()
    except OmniError as error:
        yield Finding("State folder", good=False, detail=str(error))
        return
    free = shutil.disk_usage(home).free
    enough = free > FREE_BYTES
    advice = "" if enough else "; a night wants at least 1 GB: free space or set OMNI_HOME"
    yield Finding("State folder", enough, f"{home}, {free / (1 << 30):.1f} GB free{advice}")


def _declarations() -> Iterator[Finding]:
    from omni.declarations import validate_all

    try:
        counts = ", ".join(f"{number} {what}" for what, number in validate_all().items())
        yield Finding("Declarations", good=True, detail=counts)
    except OmniError as error:
        yield Finding("Declarations", good=False, detail=str(error))


def look_at_warehouse(company: str) -> Iterator[Finding]:
    """The tenant's warehouse: which it is, whether it can be used."""
    from omni.warehouse.database import open_warehouse, path_of

    try:
        tenant = tenancy.get(company)
        if settings().warehouse_url is not None:
            yield from _postgres(tenant)
            return
        path = path_of(tenant)
        if not path.exists():
            yield Finding("Warehouse", good=True, detail=f"none yet for {company}; `omni nightly` makes it")
            return
        with open_warehouse(tenant, timeout=0):
            size = path.stat().st_size / (1 << 20)
            yield Finding("Warehouse", good=True, detail=f"DuckDB, {path}, {size:.1f} MB")
    except WarehouseLocked as error:
        yield Finding("Warehouse", good=True, detail=f"in use: {error}")
    except OmniError as error:
        yield Finding("Warehouse", good=False, detail=str(error))


def _postgres(tenant: Tenant) -> Iterator[Finding]:
    from omni.warehouse.postgres import looking, standing

    with looking(tenant) as session:
        found = standing(session, tenant)
    where = f"PostgreSQL {found.role.release}, database {found.database}"
    if found.schemas:
        detail = f"{where}, {found.schemas} schemas {found.prefix}*, {found.size / (1 << 20):.1f} MB"
    else:
        detail = f"{where}; nothing of {tenant.tenant} yet, `omni nightly` makes it"
    yield Finding(
        "Warehouse", good=True, detail=detail + (f"; written by {found.holder}" if found.holder else "")
    )
    try:
        found.role.refuse_unsafe()
    except OmniError as error:
        yield Finding("Warehouse role", good=False, detail=str(error))
    else:
        advice = "" if found.schemas or found.role.may_create else "; it needs CREATE on the database"
        yield Finding("Warehouse role", not advice, f"{found.role.name}, bound by row security{advice}")
    if found.unprotected:
        yield Finding(
            "Row security",
            good=False,
            detail=f"missing on {', '.join(found.unprotected)}; the next run forces it",
        )
    if not found.role.sorts_by_code_point:
        yield Finding(
            "Warehouse order",
            good=True,
            detail=f"text sorts by {found.role.collation}; with a database in the collation C, results equal "
            "DuckDB's also where rows are told apart by the order of text",
        )


def _server() -> Iterator[Finding]:
    from omni.orchestrator.server import status

    found = status()
    if found.origin == "PREFECT_API_URL" and not found.answers:
        yield Finding(
            "Prefect server",
            good=False,
            detail=f"PREFECT_API_URL={found.url} does not answer: start it or unset it",
        )
    elif found.answers:
        yield Finding("Prefect server", good=True, detail=f"{found.url} answers, version {found.version}")
    else:
        yield Finding("Prefect server", good=True, detail="none runs; `omni nightly` starts one")


def _optional() -> Iterator[Finding]:
    real = settings().real_data
    detail = str(real) if real.exists() else "not here; only needed for company olist (OMNI_REAL_DATA)"
    yield Finding("Real data", good=True, detail=detail)
