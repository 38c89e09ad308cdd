"""The plan lists what a run would do, no more and no less, and writes nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from omni.errors import ConfigError
from omni.settings import PROJECT
from omni.tenancy import get
from omni.warehouse.build import build_models
from omni.warehouse.database import Warehouse, open_warehouse
from omni.warehouse.differences import differences
from omni.warehouse.models import Model, load_models
from omni.warehouse.plan import Planned, plan_models
from omni.warehouse.runner import build
from omni.warehouse.selection import descendants, select_models
from omni.warehouse.versions import record_change


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project's declarations, to be changed."""
    folder = tmp_path_factory.mktemp("project") / "data"
    shutil.copytree(PROJECT / "data", folder, ignore=shutil.ignore_patterns("var"))
    return folder


@pytest.fixture
def warehouse(home: Path) -> Iterator[Warehouse]:
    with open_warehouse(get("demo")) as opened:
        yield opened


def planned(warehouse: Warehouse, models: dict[str, Model], **how: object) -> dict[str, Planned]:
    with warehouse.cursor() as con:
        return {p.model: p for p in plan_models(con, models, warehouse.tenant, **how)}  # type: ignore[arg-type]


def changed(data: Path, name: str, old: str, new: str) -> dict[str, Model]:
    """The project's models with one file changed."""
    path = data / "models" / f"{name}.sql"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    try:
        return load_models(data / "models")
    finally:
        path.write_text(text, encoding="utf-8")


@pytest.mark.slow
def test_a_changed_staging_model_lists_its_descendants_and_nothing_else(
    warehouse: Warehouse, data: Path
) -> None:
    models = load_models(data / "models")
    everything = planned(warehouse, models)
    assert all(one.moves and one.certain for one in everything.values())
    outcomes = build_models(warehouse, models, run_id="first")
    assert {outcome.status for outcome in outcomes} == {"done"}
    assert {one.action for one in planned(warehouse, models).values()} == {"skip"}

    name = "staging.salesforce__opportunities"
    other = changed(data, name.replace(".", "/"), "FROM raw.", "FROM /* as sold */ raw.")
    assert {one.action for one in planned(warehouse, other).values()} == {"skip"}, "a comment is no change"

    other = changed(data, name.replace(".", "/"), "lower(", "upper(")
    plan = planned(warehouse, other)
    moving = {one.model for one in plan.values() if one.moves}
    assert moving == descendants(other, select_models(other, []), {name})
    assert len(moving) > 5
    assert plan[name].action == "view"
    assert plan[name].breaking
    assert all("computed differently" in text for text in plan[name].changes)
    direct = [one for one in plan.values() if one.moves and one.certain and one.kind != "view"]
    assert direct
    assert all(f"{name}" in one.reason and "through" in one.reason for one in direct)
    further = [plan[m] for m in moving if plan[m].kind == "full" and not plan[m].certain]
    assert further
    assert all("differ after the build" in one.reason for one in further)

    built = {o.model for o in build_models(warehouse, other, run_id="second") if o.built.action != "skip"}
    assert built <= moving, "whatever ran was announced"
    assert {
        one.model for one in plan.values() if one.moves and one.certain and one.action != "shows"
    } <= built


FULL = """/*
kind: full
owner: a@b.example
description: Orders.
grain: [id]
time_column: day
*/
SELECT id, day, amount FROM raw.source
"""
DAILY = """/*
kind: incremental_by_time
owner: a@b.example
description: By day.
grain: [day]
time_column: day
lookback: 1
*/
SELECT day, CAST(sum(amount) AS BIGINT) AS amount FROM core.orders GROUP BY day
"""


def small(folder: Path, full: str = FULL, daily: str = DAILY) -> dict[str, Model]:
    for name, sql in {"core/orders": full, "marts/daily": daily}.items():
        path = folder / f"{name}.sql"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(sql, encoding="utf-8")
    return load_models(folder)


@pytest.fixture
def built(warehouse: Warehouse, tmp_path: Path) -> dict[str, Model]:
    models = small(tmp_path / "models")
    with warehouse.transaction() as con:
        con.execute("CREATE TABLE raw.source (id INTEGER, day DATE, amount INTEGER)")
        con.execute(
            "INSERT INTO raw.source SELECT i, DATE '2026-01-01' + CAST(i % 10 AS INTEGER), i "
            "FROM range(100) AS t(i)"
        )
        record_change(con, "raw.source", None, run_id="load")
    run(warehouse, models)
    return models


def run(warehouse: Warehouse, models: dict[str, Model]) -> None:
    for name in ("core.orders", "marts.daily"):
        build(warehouse, models[name], models, "run")


def test_days_that_changed_are_named_with_their_rows(warehouse: Warehouse, built: dict[str, Model]) -> None:
    with warehouse.transaction() as con:
        con.execute("UPDATE raw.source SET amount = 0 WHERE day = DATE '2026-01-04'")
        record_change(con, "raw.source", [date(2026, 1, 4)], run_id="late")
    plan = planned(warehouse, built)
    assert (plan["core.orders"].action, plan["core.orders"].rows) == ("full", 100)
    assert not plan["marts.daily"].certain
    build(warehouse, built["core.orders"], built, "run")
    daily = planned(warehouse, built)["marts.daily"]
    assert (daily.action, daily.certain, daily.rows) == ("days", True, 2)
    assert daily.days == (date(2026, 1, 4), date(2026, 1, 5))


def test_a_range_and_full_are_planned_as_asked(warehouse: Warehouse, built: dict[str, Model]) -> None:
    plan = planned(warehouse, built, span=(date(2026, 1, 2), date(2026, 1, 5)))
    assert (plan["core.orders"].action, plan["marts.daily"].action) == ("skip", "days")
    assert plan["marts.daily"].days == (date(2026, 1, 2), date(2026, 1, 3), date(2026, 1, 4))
    assert {one.action for one in planned(warehouse, built, full=True).values()} == {"full"}


def test_changes_of_header_and_sql_are_told_and_weighed(
    warehouse: Warehouse, built: dict[str, Model], tmp_path: Path
) -> None:
    more = small(tmp_path / "more", full=FULL.replace("amount FROM", "amount, amount + 1 AS next FROM"))
    plan = planned(warehouse, more)["core.orders"]
    assert (plan.changes, plan.breaking) == (("column next added",), False)
    renamed = small(tmp_path / "renamed", daily=DAILY.replace("AS amount", "AS total"))
    assert planned(warehouse, renamed)["marts.daily"].changes == ("column amount renamed to total",)
    longer = small(tmp_path / "longer", daily=DAILY.replace("lookback: 1", "lookback: 3"))
    assert planned(warehouse, longer)["marts.daily"].changes == ("header: lookback is 3, was 1",)


@pytest.mark.parametrize(
    ("old", "new", "told", "breaking"),
    [
        ("SELECT a FROM s.t", "select a from s.t -- same", [], False),
        ("SELECT a FROM s.t", "SELECT a, b FROM s.t", ["column b added"], False),
        ("SELECT a, b FROM s.t", "SELECT a FROM s.t", ["column b removed"], True),
        ("SELECT a FROM s.t", "SELECT a AS c FROM s.t", ["column a renamed to c"], True),
        ("SELECT a FROM s.t WHERE b", "SELECT a FROM s.t WHERE c", ["WHERE changed"], True),
        ("SELECT a FROM s.t", "SELECT DISTINCT a FROM s.t", ["DISTINCT added"], True),
        (
            "WITH w AS (SELECT a FROM s.t) SELECT a FROM w",
            "WITH w AS (SELECT a + 1 AS a FROM s.t) SELECT a FROM w",
            ["WITH w: column a computed differently"],
            True,
        ),
        ("SELECT a FROM s.t", "SELECT a FROM s.t JOIN s.u USING (a)", ["JOIN added"], True),
        (
            "SELECT a FROM s.t UNION ALL SELECT a FROM s.u",
            "SELECT a FROM s.t UNION ALL SELECT a FROM s.u WHERE b",
            ["branch 2: WHERE added"],
            True,
        ),
        ("SELECT a FROM s.t UNION ALL SELECT a FROM s.u", "SELECT a FROM s.t UNION SELECT a FROM s.u",
         ["UNION ALL became UNION"], True),
        ("SELECT a FROM s.t UNION ALL SELECT a FROM s.u", "SELECT a FROM s.t EXCEPT SELECT a FROM s.u",
         ["UNION ALL became EXCEPT"], True),
        ("SELECT 1 AS a UNION (SELECT 2 EXCEPT SELECT 3)", "(SELECT 1 AS a UNION SELECT 2) EXCEPT SELECT 3",
         ["UNION became EXCEPT"], True),
        ("SELECT a FROM s.t UNION ALL SELECT a FROM s.u LIMIT 5",
         "SELECT a FROM s.t UNION ALL SELECT a FROM s.u LIMIT 7", ["LIMIT changed"], True),
        ("SELECT a, b FROM s.t UNION ALL SELECT a, b FROM s.u",
         "SELECT a, b FROM s.t UNION ALL SELECT b, a FROM s.u", ["branch 2: columns in another order"], True),
        ("SELECT a FROM s.t UNION ALL SELECT a FROM s.u",
         "SELECT a, b FROM s.t UNION ALL SELECT a, b FROM s.u",
         ["branch 1: column b added", "branch 2: column b added"], False),
        ("SELECT a FROM s.t UNION SELECT a FROM s.u", "SELECT a, b FROM s.t UNION SELECT a, b FROM s.u",
         ["branch 1: column b added", "branch 2: column b added"], True),
        ("SELECT NULL, NULL FROM s.t UNION ALL SELECT 1, 1", "SELECT NULL, NULL FROM s.t UNION ALL SELECT 1",
         ["branch 2: column 1 at 2 removed"], True),
        ("SELECT a, b FROM s.t", "SELECT b, a FROM s.t", ["columns in another order"], False),
        ("SELECT a, b, count(*) AS n FROM s.t GROUP BY 1", "SELECT b, a, count(*) AS n FROM s.t GROUP BY 1",
         ["columns in another order", "GROUP BY changed"], True),
        ("SELECT a, sum(c) AS n FROM s.t GROUP BY 1", "SELECT a, sum(c) AS n FROM s.t GROUP BY a", [], False),
        ("SELECT DISTINCT a FROM s.t", "SELECT DISTINCT a, b FROM s.t", ["column b added"], True),
        ("SELECT a FROM s.t GROUP BY ALL", "SELECT a, b FROM s.t GROUP BY ALL", ["column b added"], True),
        ("SELECT a FROM s.t", "SELECT a, unnest(b) AS b FROM s.t", ["column b added"], True),
        ("SELECT 1 AS a FROM s.t", "SELECT 1 AS a, count(*) AS n FROM s.t", ["column n added"], True),
        ("SELECT a FROM s.t", "SELECT a, count(*) OVER () AS n FROM s.t", ["column n added"], False),
        ("SELECT a FROM s.t", "SELECT a, * EXCLUDE (b) FROM s.t", None, True),
        ("SELECT a FROM s.t ORDER BY a", "SELECT a FROM s.t ORDER BY a DESC", ["ORDER BY changed"], False),
        ("SELECT a FROM s.t ORDER BY a LIMIT 9", "SELECT a FROM s.t ORDER BY a DESC LIMIT 9",
         ["ORDER BY changed"], True),
        ("SELECT DISTINCT ON (a) a, b FROM s.t ORDER BY a, b",
         "SELECT DISTINCT ON (a) a, b FROM s.t ORDER BY a, b DESC", ["ORDER BY changed"], True),
        ("WITH w AS (VALUES (1)) SELECT * FROM w", "WITH w AS (VALUES (2)) SELECT * FROM w", None, True),
        ("WITH w(a, b) AS (SELECT a, b FROM s.t) SELECT a FROM w",
         "WITH w(b, a) AS (SELECT a, b FROM s.t) SELECT a FROM w", None, True),
        ("WITH w AS (SELECT a FROM s.t) SELECT DISTINCT * FROM w",
         "WITH w AS (SELECT a, b FROM s.t) SELECT DISTINCT * FROM w", ["WITH w: column b added"], True),
    ],
)  # fmt: skip
def test_differences_of_two_selects(old: str, new: str, told: list[str] | None, breaking: bool) -> None:
    found = differences(old, new)
    assert told is None or [change.text for change in found] == told
    assert any(change.breaking for change in found) == breaking


def test_selection_by_name_glob_and_relation(tmp_path: Path) -> None:
    models = small(tmp_path)
    assert select_models(models, []) == ["core.orders", "marts.daily"]
    assert select_models(models, ["daily"]) == ["marts.daily"]
    assert select_models(models, ["+marts.*"]) == ["core.orders", "marts.daily"]
    assert select_models(models, ["orders+"]) == ["core.orders", "marts.daily"]
    with pytest.raises(ConfigError, match=r"core\.order'.*did you mean core\.orders"):
        select_models(models, ["core.order"])
