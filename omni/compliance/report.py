"""The compliance report: what is stored, what was checked, what that is evidence for.

`report.json` is sorted and changes only with its findings, except for `generated_at`:

    schema        "omni-compliance-report/1"
    tenant, title
    generated_at  ISO 8601, UTC
    counts        {"pass", "fail", "unknown", "not_applicable"}: number of checks
    checks        [{"id", "title", "status", "severity", "evidence", "controls", "remediation"}], by id;
                  status is pass, fail, unknown or not_applicable; controls lists ids by framework
    inventory     [{"table", "kind", "owner", "description", "personal": [{"column", "category", …}]}]
    not_automated what such a report cannot say

`report.html` shows the same for people. Neither holds personal data: names of tables and columns, counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omni.compliance.checks import CheckOutcome
from omni.files import write_atomic
from omni.tenancy import Tenant

SCHEMA = "omni-compliance-report/1"
STATUSES = ("pass", "fail", "unknown", "not_applicable")
FRAMEWORKS = {
    "soc2": "SOC 2 (trust services criteria)",
    "iso27001": "ISO/IEC 27001:2022 Annex A",
    "hipaa": "HIPAA Security Rule (45 CFR 164)",
    "gdpr": "GDPR (Regulation (EU) 2016/679)",
    "nist_800_53": "NIST SP 800-53 rev. 5",
}
NOT_AUTOMATED = (
    "Governance, risk assessment, training, physical security, supplier contracts, impact assessments and "
    "the weighing of interests are not covered by these checks: they need an owner, a document and a review "
    "date. "
    "The mapping to controls is the project's own; an auditor decides whether evidence suffices."
)
TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Report:
    """Where the report lies, and how many checks ended how."""

    html: Path
    json: Path
    passed: int
    failed: int
    unknown: int
    not_applicable: int


def report(
    outcomes: Sequence[CheckOutcome],
    inventory: Sequence[Mapping[str, Any]],
    tenant: Tenant,
    folder: Path,
    *,
    generated_at: datetime,
) -> Report:
    """Write `report.json` and `report.html`.

    Args:
        outcomes: what the checks found (`omni.compliance.checks.assess`).
        inventory: one row per table (`omni.privacy.datamap.DataMap.inventory`).
        tenant: whose warehouse was looked at.
        folder: where the two files go.
        generated_at: when it was looked at, with a zone.

    Raises:
        StorageError: the folder cannot be written.
    """
    content = _content(outcomes, inventory, tenant, generated_at)
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomic(folder / "report.json", text)
    write_atomic(folder / "report.html", _page(content, tenant))
    counts = content["counts"]
    return Report(
        folder / "report.html",
        folder / "report.json",
        counts["pass"],
        counts["fail"],
        counts["unknown"],
        counts["not_applicable"],
    )


def _content(
    outcomes: Sequence[CheckOutcome],
    inventory: Sequence[Mapping[str, Any]],
    tenant: Tenant,
    generated_at: datetime,
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "tenant": tenant.tenant,
        "title": tenant.title,
        "generated_at": generated_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "counts": {status: sum(o.status == status for o in outcomes) for status in STATUSES},
        "checks": [asdict(outcome) for outcome in sorted(outcomes, key=lambda o: o.id)],
        "inventory": sorted((dict(row) for row in inventory), key=lambda row: str(row["table"])),
        "not_automated": NOT_AUTOMATED,
    }


def _page(content: Mapping[str, Any], tenant: Tenant) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["readable"] = readable
    order = {status: place for place, status in enumerate(("fail", "unknown", "pass", "not_applicable"))}
    return environment.get_template("report.html").render(
        content=content,
        tenant=tenant,
        checks=sorted(content["checks"], key=lambda check: (order[check["status"]], check["id"])),
        with_personal=[row for row in content["inventory"] if row["personal"]],
        others=[row for row in content["inventory"] if not row["personal"]],
        frameworks=FRAMEWORKS,
    )


def readable(value: object) -> str:
    """A piece of evidence in one line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {readable(part)}" for key, part in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(readable(part) for part in value) or "none"
    return f"{value:,}" if isinstance(value, (int, float)) else str(value)
