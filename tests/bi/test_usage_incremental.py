"""Late events and identities that become known: the built tables are always those of one full build."""

from __future__ import annotations

import re
from datetime import date
from typing import Any

import pytest

from omni.settings import settings
from omni.tenancy import Tenant
from omni.usage.collect import Collector
from omni.warehouse.build import build_models
from omni.warehouse.contracts import contracts
from omni.warehouse.database import Warehouse, open_warehouse
from omni.warehouse.models import cached_models
from omni.warehouse.selection import select_models
from omni.warehouse.versions import record_change

pytestmark = pytest.mark.slow

TENANT = Tenant(tenant="acme", title="Acme", timezone="Europe/Berlin", currency="EUR", sources={})
BUILT = ["core.usage_actors", "core.usage_events", "core.usage_sessions", "marts.usage_daily"]


def arrive(warehouse: Warehouse, table: str, days: list[str], *rows: dict[str, Any]) -> None:
    kinds = contracts()[table].column_types()
    with warehouse.transaction() as con:
        for row in rows:
            names = ", ".join(f'"{name}"' for name in row)
            values = ", ".join(f"CAST(? AS {kinds[name]})" for name in row)
            con.execute(f"INSERT INTO {table} ({names}) VALUES ({values})", list(row.values()))
        record_change(con, table, [date.fromisoformat(day) for day in days], run_id="load")


def used(event_id: str, moment: str, actor: str = "u") -> dict[str, Any]:
    own = {"source": "app", "event_id": event_id, "actor_id": actor, "event": "opened"}
    return own | {"occurred_at": moment, "received_at": moment}


def seen(event_id: str, moment: str, visitor: str, contact: str | None = None) -> dict[str, Any]:
    own = {"id": event_id, "visitor_id": visitor, "contact_id": contact, "event": "page_view", "page": "/"}
    return own | {"occurred_at": moment, "updated_at": moment, "archived": False}


def rebuilt(warehouse: Warehouse) -> dict[str, tuple[str, int]]:
    """Bring the models up to date; what was done to each, and that the result is a full build's."""
    models = cached_models(settings().data / "models")
    outcomes = build_models(
        warehouse, models, select=select_models(models, [f"+{n}" for n in BUILT]), run_id="r"
    )
    assert {outcome.status for outcome in outcomes} == {"done"}
    with warehouse.cursor() as con:
        for name in BUILT:
            columns = ", ".join(row[0] for row in con.execute(f"DESCRIBE {name}").fetchall())
            stored = con.execute(f"SELECT {columns} FROM {name} ORDER BY ALL").fetchall()
            whole = f"SELECT {columns} FROM ({models[name].bound(TENANT)}) AS whole ORDER BY ALL"
            assert stored == con.execute(whole).fetchall(), name
    return {o.model: o.built.action for o in outcomes if o.built}


def test_late_events_rebuild_their_day_and_new_identities_everything(home):
    with open_warehouse(TENANT) as warehouse:
        arrive(
            warehouse, "raw.usage__events", ["2024-01-10", "2024-01-11"],
            used("1", "2024-01-10T10:00:00Z"), used("2", "2024-01-10T22:50:00Z"),
            used("3", "2024-01-10T23:05:00Z"),
        )  # fmt: skip
        arrive(
            warehouse, "raw.hubspot__web_events", ["2024-01-09", "2024-01-11"],
            seen("1", "2024-01-09T10:00:00Z", "v"), seen("2", "2024-01-11T10:00:00Z", "w", "7"),
        )  # fmt: skip
        assert rebuilt(warehouse)["core.usage_events"] == "full"
        assert set(rebuilt(warehouse).values()) == {"skip"}

        arrive(warehouse, "raw.usage__events", ["2024-01-10"], used("0", "2024-01-10T09:59:00Z"))
        done = rebuilt(warehouse)
        assert (done["core.usage_events"], done["marts.usage_daily"]) == ("days", "days")
        assert done["core.usage_actors"] == "skip"

        arrive(
            warehouse, "raw.hubspot__web_events", ["2024-01-12"], seen("3", "2024-01-12T10:00:00Z", "v", "7")
        )
        done = rebuilt(warehouse)
        assert done["core.usage_events"] == "full"
        with warehouse.cursor() as con:
            found = con.execute(
                "SELECT DISTINCT actor_id FROM core.usage_events WHERE source = '~hubspot_web'"
            ).fetchall()
        assert found == [("contact:7",)]
        assert set(rebuilt(warehouse).values()) == {"skip"}


def test_collected_events_may_have_the_ids_and_sources_of_others(home):
    with open_warehouse(TENANT) as warehouse:
        arrive(
            warehouse, "raw.usage__events", ["2024-01-10"],
            *(used("1", "2024-01-10T10:00:00Z") | {"source": source} for source in ("web", "access_log")),
        )  # fmt: skip
        arrive(warehouse, "raw.hubspot__web_events", ["2024-01-10"], seen("1", "2024-01-10T10:00:00Z", "v"))
        rebuilt(warehouse)
        with warehouse.cursor() as con:
            found = con.execute("SELECT source FROM core.usage_events ORDER BY source").fetchall()
    assert found == [("access_log",), ("web",), ("~hubspot_web",)]


def test_no_collected_event_can_have_a_source_of_the_models(home):
    model = cached_models(settings().data / "models")["core.usage_events"]
    own = re.findall(r"'([^']+)' AS source", model.sql)
    assert len(own) == 2
    records = [{"id": "1", "source": source, "type": "login"} for source in [*own, "web"]]
    delivery = Collector(TENANT).read_records(records)
    assert [refusal.index for refusal in delivery.refused] == [0, 1]
