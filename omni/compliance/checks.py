"""Automatic checks: each a query, its evidence, and the controls that evidence is collected for.

A check says what it found, never that a rule is obeyed: whether a control is met is for people to judge.
What could not be determined is `unknown`, which never counts as passed. Evidence holds names and counts
only. The controls are our own mapping (SOC 2 trust services criteria, ISO/IEC 27001:2022 Annex A,
45 CFR 164, Regulation (EU) 2016/679, NIST SP 800-53 rev. 5); have an auditor look at it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import duckdb

from omni.compliance import operations, personal
from omni.compliance.facts import Facts

Status = Literal["pass", "fail", "not_applicable", "unknown"]
Severity = Literal["high", "medium", "low"]


@dataclass(frozen=True)
class Check:
    """A check before it runs. `run` gives a status and its evidence."""

    id: str
    title: str
    severity: Severity
    controls: dict[str, list[str]]
    remediation: str
    run: Callable[[Facts], tuple[Status, dict[str, Any]]]


@dataclass(frozen=True)
class CheckOutcome:
    """What a check found.

    Attributes:
        controls: control ids by framework: soc2, iso27001, hipaa, gdpr, nist_800_53.
        remediation: what to do where it did not pass.
    """

    id: str
    title: str
    status: Status
    evidence: dict[str, Any]
    controls: dict[str, list[str]]
    severity: Severity
    remediation: str


def _controls(soc2: str, iso: str, hipaa: str, gdpr: str, nist: str) -> dict[str, list[str]]:
    names = ("soc2", "iso27001", "hipaa", "gdpr", "nist_800_53")
    return {
        name: [part.strip() for part in ids.split(";") if part.strip()]
        for name, ids in zip(names, (soc2, iso, hipaa, gdpr, nist), strict=True)
    }


CHECKS: tuple[Check, ...] = (
    Check(
        "inventory-complete",
        "Every stored table has an owner and a declaration",
        "medium",
        _controls("C1.1", "A.5.9; A.5.12", "164.308(a)(1)(ii)(A)", "Art. 30", "cm-8; pm-5.1"),
        "Write a contract or a model for each table listed, or drop it.",
        operations.inventory,
    ),
    Check(
        "personal-data-declared",
        "Every column that looks personal is declared, with category, lawful basis and protection",
        "high",
        _controls("C1.1; P3.1", "A.5.12; A.5.34", "164.308(a)(1)(ii)(A)", "Art. 6; Art. 30", "pm-5.1; pt-2"),
        "Declare the column personal in its contract, or rename it if it holds nothing personal.",
        personal.declared,
    ),
    Check(
        "protection-applied",
        "Columns declared hashed hold keyed hashes only, dropped ones nothing",
        "high",
        _controls("CC6.1; C1.1", "A.8.11; A.8.24", "164.312(a)(2)(iv)", "Art. 25(1); Art. 32(1)(a)", "sc-28"),
        "Load the tables listed anew, so that their protection applies: omni run ingest_crm --full.",
        personal.protected,
    ),
    Check(
        "no-readable-addresses",
        "No e-mail address stands readable in the tables people work with",
        "high",
        _controls("CC6.1; C1.1", "A.8.11; A.8.12", "164.312(a)(1)", "Art. 5(1)(c); Art. 25(2)", "si-12.1"),
        "Find where the listed columns come from and declare the source column protect: hash or drop.",
        personal.no_addresses,
    ),
    Check(
        "retention-kept",
        "No row is older than its contract's retention period",
        "high",
        _controls("C1.2; P4.2; P4.3", "A.8.10", "164.310(d)(2)(i)", "Art. 5(1)(e)", "si-12; si-12.3"),
        "Delete the rows past their period, or correct the period in the contract with its reason.",
        personal.retained,
    ),
    Check(
        "data-fresh",
        "Every source table was loaded within its contract's hours",
        "medium",
        _controls("A1.1; PI1.4", "A.8.16", "164.312(c)(1)", "Art. 5(1)(f)", "si-4; ca-7"),
        "See what became of the last load of the tables listed: omni status.",
        operations.fresh,
    ),
    Check(
        "loads-reconciled",
        "Rows loaded and refused account for every row the source reported",
        "high",
        _controls("PI1.2; PI1.3", "A.8.16", "164.312(c)(1)", "Art. 5(1)(f)", "si-7; si-10"),
        "Load everything anew and compare: omni run ingest_crm --full. Then replay the refused rows.",
        operations.reconciled,
    ),
    Check(
        "data-checks-passed",
        "Every data check of severity error passed when it last ran",
        "high",
        _controls("PI1.4; PI1.5", "A.8.16; A.8.29", "164.312(c)(1)", "Art. 5(1)(f)", "si-7; si-10"),
        "Mend the rows or the model named, then build again: omni run build_models.",
        operations.checked,
    ),
    Check(
        "secrets-kept",
        "Keys and state are closed to other users, and run records hold no token",
        "high",
        _controls(
            "CC6.1; CC6.3", "A.5.17; A.8.3", "164.312(a)(1); 164.312(d)", "Art. 32(1)(b)", "ac-3; ia-5"
        ),
        "chmod 700 the state folder and 600 its keys; revoke a token found and delete its file.",
        operations.secrets,
    ),
    Check(
        "orchestrator-safe",
        "The orchestrator keeps results as JSON, not pickles, and sends no usage data",
        "medium",
        _controls("CC6.8; CC7.1", "A.8.9; A.8.26", "164.308(a)(5)(ii)(B)", "Art. 25(2)", "cm-6; cm-7"),
        'Set results.default_serializer = "json" and server.analytics_enabled = false in prefect.toml.',
        operations.orchestrator,
    ),
)
"""The first ten, in the order of the report."""


def assess(facts: Facts) -> list[CheckOutcome]:
    """Run every check; one that breaks is unknown and names the kind of error, never its data."""
    return [_outcome(check, facts) for check in CHECKS]


def _outcome(check: Check, facts: Facts) -> CheckOutcome:
    status: Status
    try:
        status, evidence = check.run(facts)
    except (duckdb.Error, OSError) as error:
        status, evidence = "unknown", {"reason": f"could not be determined: {type(error).__name__}"}
    return CheckOutcome(
        check.id, check.title, status, evidence, check.controls, check.severity, check.remediation
    )
