"""The report's two files."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from omni.compliance.checks import CheckOutcome
from omni.compliance.report import SCHEMA, readable, report
from omni.errors import StorageError
from omni.tenancy import Tenant

AT = datetime(2026, 7, 1, 3, 0, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script>"


def outcome(name: str, status: Any, **evidence: Any) -> CheckOutcome:
    controls = {"soc2": ["CC6.1"], "iso27001": [], "hipaa": [], "gdpr": ["Art. 30"], "nist_800_53": ["ac-3"]}
    return CheckOutcome(name, f"Title of {name}", status, evidence, controls, "high", "Mend it.")


OUTCOMES = [
    outcome("zebra", "pass", rows=12_345),
    outcome("apple", "fail", tables={"core.x": {"rows": 3}}, columns=[HOSTILE]),
    outcome("mango", "unknown", reason="not given"),
    outcome("other", "not_applicable"),
]
INVENTORY: list[dict[str, Any]] = [
    {"table": "raw.b", "kind": "loaded", "owner": "a@demo.example", "description": HOSTILE, "personal": []},
    {
        "table": "raw.a", "kind": "loaded", "owner": "a@demo.example", "description": "People.",
        "personal": [
            {
                "column": f"email{HOSTILE}", "category": "contact.email", "subject": "contact",
                "protect": "hash", "on_erase": "null", "reason": None, "lawful_basis": "consent",
                "retention": "P3Y", "through": "loaded",
            }
        ],
    },
]  # fmt: skip


def test_counts_keep_unknown_apart_from_passed(tenant: Tenant, tmp_path: Path) -> None:
    made = report(OUTCOMES, INVENTORY, tenant, tmp_path, generated_at=AT)
    assert (made.passed, made.failed, made.unknown, made.not_applicable) == (1, 1, 1, 1)
    content = json.loads(made.json.read_text(encoding="utf-8"))
    assert content["schema"] == SCHEMA
    assert content["counts"] == {"pass": 1, "fail": 1, "unknown": 1, "not_applicable": 1}
    assert [check["id"] for check in content["checks"]] == ["apple", "mango", "other", "zebra"]
    assert [row["table"] for row in content["inventory"]] == ["raw.a", "raw.b"]


def test_two_runs_differ_only_in_generated_at(tenant: Tenant, tmp_path: Path) -> None:
    first = report(OUTCOMES, INVENTORY, tenant, tmp_path / "a", generated_at=AT)
    later = AT.replace(day=2)
    second = report(OUTCOMES[::-1], INVENTORY[::-1], tenant, tmp_path / "b", generated_at=later)
    old, new = (made.json.read_text(encoding="utf-8") for made in (first, second))
    assert old != new
    assert old.replace("2026-07-01T03:00:00Z", "2026-07-02T03:00:00Z") == new
    assert first.html.read_text(encoding="utf-8").replace(
        "2026-07-01T03", "2026-07-02T03"
    ) == second.html.read_text(encoding="utf-8")


class Elements(HTMLParser):
    """The elements of a page, and whether each that was opened was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, _attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_escapes_what_it_shows_and_loads_nothing(tenant: Tenant, tmp_path: Path) -> None:
    hostile = tenant.model_copy(update={"title": HOSTILE})
    text = report(OUTCOMES, INVENTORY, hostile, tmp_path, generated_at=AT).html.read_text(encoding="utf-8")
    page = Elements()
    page.feed(text)
    assert page.open == []
    assert "script" not in page.seen
    assert text.count("&lt;script&gt;") >= 4
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    assert "Evidence collected for:" in text
    assert "12,345" in text
    assert not re.search(r"\bcompliant\b|\bcertified\b", text, re.IGNORECASE)


def test_failures_come_first_with_what_to_do(tenant: Tenant, tmp_path: Path) -> None:
    text = report(OUTCOMES, INVENTORY, tenant, tmp_path, generated_at=AT).html.read_text(encoding="utf-8")
    order = re.findall(r'class="card check (\w+)"', text)
    assert order == ["fail", "unknown", "pass", "not_applicable"]
    assert text.count("Mend it.") == 2


def test_folder_that_cannot_be_written_says_so(tenant: Tenant, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="Cannot write"):
        report(OUTCOMES, INVENTORY, tenant, tmp_path / "file", generated_at=AT)


def test_generated_at_is_written_in_utc(tenant: Tenant, tmp_path: Path) -> None:
    there = datetime.fromisoformat("2026-07-01T05:00:00+02:00")
    made = report([replace(OUTCOMES[0])], [], tenant, tmp_path, generated_at=there)
    assert json.loads(made.json.read_text())["generated_at"] == "2026-07-01T03:00:00Z"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": 1, "b": [True, False]}, "a: 1; b: yes, no"),
        ([], "none"),
        ({}, "none"),
        (1234.5, "1,234.5"),
        ("x", "x"),
    ],
)
def test_evidence_reads_as_a_line(value: object, text: str) -> None:
    assert readable(value) == text
