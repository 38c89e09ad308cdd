"""Each check passes on a good warehouse and fails when just its subject is broken."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni.compliance.checks import CHECKS, CheckOutcome, assess
from omni.compliance.facts import Facts
from omni.compliance.personal import before
from omni.privacy.datamap import build_map
from omni.settings import PROJECT, settings
from omni.tenancy import Tenant
from omni.warehouse.contracts import load_contracts
from omni.warehouse.database import Warehouse, open_warehouse
from omni.warehouse.models import load_models
from omni.warehouse.runner import build

pytestmark = pytest.mark.slow

AT = datetime(2026, 7, 1, 3, 0, tzinfo=UTC)
HASHES = ["ab" * 32, "0f" * 32, "9c" * 32]
ORCHESTRATOR = {"PREFECT_RESULTS_DEFAULT_SERIALIZER": "json", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
MODELS = ("staging.hubspot__contacts", "core.contacts")


def fill(warehouse: Warehouse) -> None:
    """Three contacts, as an orderly load and build leave them."""
    with warehouse.transaction() as con:
        for number, value in enumerate(HASHES):
            con.execute(
                "INSERT INTO raw.hubspot__contacts BY NAME SELECT $1 AS id, $2 AS email, 'DE' AS country, "
                "'lead' AS lifecycle_stage, $3 AS created_at, $3 AS updated_at, false AS archived, "
                "$3 AS _loaded_at, 'r1' AS _run_id",
                [f"c{number}", value, AT - timedelta(days=30)],
            )
        con.execute(
            "INSERT INTO ops.loads VALUES "
            "('r1', 'hubspot', 'contacts', 'raw.hubspot__contacts', 3, 3, 0, 0, 1, 4, $1)",
            [AT - timedelta(hours=2)],
        )
        con.execute(
            "INSERT INTO ops.dead_letters (id, run_id, vendor, stream, table_name, record_key, column_name, "
            "reason, first_seen, replayed_at) VALUES ('d1', 'r1', 'hubspot', 'contacts', "
            "'raw.hubspot__contacts', 'c9', 'created_at', 'not a timestamp', $1, NULL)",
            [AT],
        )


@pytest.fixture
def warehouse(home: Path) -> Iterator[Warehouse]:
    """A good warehouse of a tenant with one stream."""
    tenant = Tenant(
        tenant="acme",
        title="Acme",
        timezone="Europe/Berlin",
        currency="EUR",
        sources={"hubspot": ["contacts"]},
    )
    models = load_models(PROJECT / "data" / "models")
    with open_warehouse(tenant) as opened:
        fill(opened)
        for name in MODELS:
            build(opened, models[name], models, "r1")
        tenant.home.chmod(0o700)
        (home / "keys").mkdir(exist_ok=True)
        (home / "keys" / "master.key").write_text("00" * 32)
        (home / "keys" / "master.key").chmod(0o600)
        (tenant.home / "runs").mkdir()
        (tenant.home / "runs" / "r1.json").write_text(json.dumps({"status": "done", "rows": 3}))
        yield opened


@pytest.fixture
def facts(warehouse: Warehouse) -> Facts:
    contracts = load_contracts(PROJECT / "data" / "contracts")
    models = {name: m for name, m in load_models(PROJECT / "data" / "models").items() if name in MODELS}
    data_map = build_map(contracts, models)
    return Facts(
        con=warehouse.cursor(),
        raw=warehouse.cursor(),
        tenant=warehouse.tenant,
        contracts=contracts,
        models=models,
        personal=data_map.personal_columns(),
        clear=data_map.clear_columns(),
        home=settings().home,
        orchestrator=ORCHESTRATOR,
        at=AT,
    )


def by_status(outcomes: list[CheckOutcome], status: str) -> set[str]:
    return {outcome.id for outcome in outcomes if outcome.status == status}


def test_a_good_warehouse_passes_every_check(facts: Facts) -> None:
    outcomes = assess(facts)
    assert len(outcomes) == 10
    assert by_status(outcomes, "pass") == {check.id for check in CHECKS}


def statement(sql: str) -> Callable[[Facts], None]:
    def change(facts: Facts) -> None:
        facts.con.execute(sql)

    return change


def token_in_record(facts: Facts) -> None:
    file = facts.home / "tenants" / "acme" / "runs" / "r2.json"
    file.write_text(json.dumps({"reason": "401 for shpat_0123456789abcdef0123456789abcdef"}))


def open_state(facts: Facts) -> None:
    for folder in (facts.home, facts.home / "tenants", facts.home / "tenants" / "acme"):
        folder.chmod(0o755)


BREAKS: dict[str, tuple[str, Callable[[Facts], None]]] = {
    "a table nobody declared": ("inventory-complete", statement("CREATE TABLE core.export (x INTEGER)")),
    "a telephone number nobody declared": (
        "personal-data-declared",
        statement("ALTER TABLE raw.hubspot__deals ADD COLUMN buyer_phone VARCHAR"),
    ),
    "a plain digest is not the declared form": (
        "protection-applied",
        statement("UPDATE raw.hubspot__contacts SET email = 'AB' || email[3:] WHERE id = 'c1'"),
    ),
    "a name that should be dropped": (
        "protection-applied",
        statement("UPDATE raw.hubspot__contacts SET first_name = 'Ann' WHERE id = 'c1'"),
    ),
    "an address in a web address": (
        "no-readable-addresses",
        statement(
            "UPDATE core.contacts SET landing_page = '/welcome?to=ann.lee@mail.example.com' "
            "WHERE contact_id = 'c1'"
        ),
    ),
    "a row past its three years": (
        "retention-kept",
        statement("UPDATE raw.hubspot__contacts SET created_at = '2023-06-30T00:00:00Z' WHERE id = 'c1'"),
    ),
    "an undated row loaded long ago": (
        "retention-kept",
        statement(
            "UPDATE raw.hubspot__contacts SET created_at = NULL, _loaded_at = '2020-01-01T00:00:00Z' "
            "WHERE id = 'c1'"
        ),
    ),
    "a load that is too old": (
        "data-fresh",
        statement("UPDATE ops.loads SET loaded_at = loaded_at - INTERVAL 36 HOUR"),
    ),
    "rows the source has and we do not": (
        "loads-reconciled",
        statement("UPDATE ops.loads SET source_rows = 5"),
    ),
    "more rows than the source has": (
        "loads-reconciled",
        statement("UPDATE ops.loads SET source_rows = 2"),
    ),
    "a data check that failed last": (
        "data-checks-passed",
        statement(
            "INSERT INTO ops.check_results BY NAME SELECT 'r2' AS run_id, table_name, check_name, severity, "
            "rows, 1 AS failing, false AS passed, checked_at + INTERVAL 1 DAY AS checked_at "
            "FROM ops.check_results WHERE check_name = 'unique:contact_id'"
        ),
    ),
    "a key others can read": (
        "secrets-kept",
        lambda facts: (facts.home / "keys" / "master.key").chmod(0o644),
    ),
    "a state folder others can enter": ("secrets-kept", open_state),
    "a token in a run's record": ("secrets-kept", token_in_record),
}


@pytest.mark.parametrize("broken", BREAKS, ids=str)
def test_breaking_one_thing_fails_just_its_check(broken: str, facts: Facts) -> None:
    check, change = BREAKS[broken]
    change(facts)
    outcomes = assess(facts)
    assert by_status(outcomes, "fail") == {check}
    assert by_status(outcomes, "unknown") == set()


@pytest.mark.parametrize(
    "wrong", [{"PREFECT_RESULTS_DEFAULT_SERIALIZER": "pickle"}, {"PREFECT_SERVER_ANALYTICS_ENABLED": "true"}]
)
def test_unsafe_settings_fail(wrong: dict[str, str], facts: Facts) -> None:
    outcomes = assess(replace(facts, orchestrator=ORCHESTRATOR | wrong))
    assert by_status(outcomes, "fail") == {"orchestrator-safe"}


def test_settings_left_at_their_defaults_are_not_safe(facts: Facts) -> None:
    assert by_status(assess(replace(facts, orchestrator={})), "fail") == {"orchestrator-safe"}


def test_what_was_not_looked_at_is_unknown(facts: Facts) -> None:
    outcomes = assess(replace(facts, raw=None, orchestrator=None))
    assert by_status(outcomes, "unknown") == {"protection-applied", "retention-kept", "orchestrator-safe"}
    assert by_status(outcomes, "fail") == set()


def test_nothing_is_known_of_an_empty_warehouse(facts: Facts) -> None:
    with duckdb.connect() as nothing:
        outcomes = assess(replace(facts, con=nothing, raw=None, orchestrator=None, home=facts.home / "no"))
    assert by_status(outcomes, "pass") == {"personal-data-declared"}
    assert by_status(outcomes, "fail") == set()


def test_a_check_that_never_ran_is_unknown(facts: Facts) -> None:
    facts.con.execute("DELETE FROM ops.check_results WHERE check_name = 'unique:contact_id'")
    assert by_status(assess(facts), "unknown") == {"data-checks-passed"}


def test_result_of_a_check_no_longer_declared_does_not_count(facts: Facts) -> None:
    facts.con.execute(
        "INSERT INTO ops.check_results (run_id, table_name, check_name, severity, rows, failing, passed, "
        "checked_at) VALUES "
        "('r0', 'core.contacts', 'unique:old', 'error', 3, 3, false, '2026-01-01')"
    )
    assert by_status(assess(facts), "fail") == set()


def test_stream_that_never_arrived_is_late(facts: Facts) -> None:
    tenant = facts.tenant.model_copy(update={"sources": {"hubspot": ["contacts", "deals"]}})
    outcome = next(o for o in assess(replace(facts, tenant=tenant)) if o.id == "data-fresh")
    assert outcome.status == "fail"
    assert outcome.evidence["never_loaded"] == ["raw.hubspot__deals"]


def test_evidence_holds_no_values(facts: Facts) -> None:
    statement("UPDATE core.contacts SET landing_page = 'ann@example.com'")(facts)
    statement("UPDATE raw.hubspot__contacts SET first_name = 'Ann'")(facts)
    token_in_record(facts)
    text = json.dumps([outcome.evidence for outcome in assess(facts)])
    assert not any(secret in text for secret in ("ann@", "Ann", "shpat_", HASHES[0]))


def test_declared_clear_text_may_hold_addresses(facts: Facts) -> None:
    facts.con.execute("CREATE TABLE core.reviews AS SELECT 'write to ann@example.com' AS message")
    models = load_models(PROJECT / "data" / "models")
    data_map = build_map(facts.contracts, models)
    known = replace(
        facts, models=models, clear=data_map.clear_columns(), personal=data_map.personal_columns()
    )
    assert next(o for o in assess(known) if o.id == "no-readable-addresses").status == "pass"


def test_assessment_needs_a_zone(facts: Facts) -> None:
    with pytest.raises(ValueError, match="needs a zone"):
        replace(facts, at=datetime(2026, 7, 1))  # noqa: DTZ001


@pytest.mark.parametrize(
    ("moment", "period", "expected"),
    [
        ("2028-02-29", "P1Y", "2027-02-28"),
        ("2026-03-31", "P1M", "2026-02-28"),
        ("2026-01-15", "P2M", "2025-11-15"),
        ("2026-07-01", "P30D", "2026-06-01"),
    ],
)
def test_period_before_a_moment(moment: str, period: str, expected: str) -> None:
    assert before(datetime.fromisoformat(moment), period) == datetime.fromisoformat(expected)


@given(
    st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1)),  # noqa: DTZ001
    st.integers(1, 100),
)
def test_months_and_years_agree(moment: datetime, years: int) -> None:
    assert before(moment, f"P{years}Y") == before(moment, f"P{12 * years}M")
    assert before(moment, f"P{years + 1}Y") < before(moment, f"P{years}Y") < moment


@pytest.mark.real_data
def test_every_control_exists_in_its_framework() -> None:
    folder = settings().real_data / "oscal"
    if not folder.is_dir():
        pytest.skip("the folder of real data sets has no oscal/: OMNI_REAL_DATA")
    with (folder / "control_ids.csv").open(encoding="utf-8") as file:
        known = {row["id"] for row in csv.DictReader(file)}
    for catalog in folder.glob("NIST_SP-800-53*.json"):
        known |= {
            control["id"]
            for group in json.loads(catalog.read_text())["catalog"]["groups"]
            for outer in group["controls"]
            for control in [outer, *outer.get("controls", [])]
        }
    used = {control for check in CHECKS for ids in check.controls.values() for control in ids}
    assert used <= known
