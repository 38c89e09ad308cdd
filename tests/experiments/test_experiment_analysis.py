"""Experiments on warehouse tables: deduplication, verdicts, published figures, bad data."""

from __future__ import annotations

from pathlib import Path

import duckdb
import polars as pl
import pytest

from omni.errors import ConfigError, SchemaError
from omni.experiments import RESULTS, Experiment, Outcome, analyse, load_experiments
from omni.experiments.analysis import read_units
from omni.settings import settings

MAIL = Experiment(
    name="mail",
    title="Mail",
    owner="owner@example.com",
    control="none",
    shares={"none": 0.5, "mail": 0.5},
    outcomes=[
        Outcome(name="conversion", kind="proportion", column="converted"),
        Outcome(name="spend", kind="mean", column="spend"),
    ],
)


@pytest.fixture
def con() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    con.execute("CREATE SCHEMA marts")
    con.execute(
        """CREATE TABLE marts.experiment_units (experiment VARCHAR, unit_id VARCHAR, variant VARCHAR,
           sent_at TIMESTAMPTZ, converted BOOLEAN, spend DECIMAL(18,2))"""
    )
    return con


def fill(con: duckdb.DuckDBPyConnection, arm: str, units: int, converted: int, name: str = "mail") -> None:
    con.execute(
        """INSERT INTO marts.experiment_units SELECT $name, $arm || '-' || i, $arm, TIMESTAMPTZ
           '2026-03-01 08:00:00+00', i < $converted, CASE WHEN i < $converted THEN 10 + i % 7 ELSE 0 END
           FROM range($units) r(i)""",
        {"name": name, "arm": arm, "units": units, "converted": converted},
    )


def test_a_clear_effect_is_better_and_its_interval_holds_it(con: duckdb.DuckDBPyConnection) -> None:
    fill(con, "none", 2000, 200)
    fill(con, "mail", 2000, 300)
    fill(con, "mail", 50, 50, name="another")
    result = analyse(con, MAIL)
    assert dict(result.schema) == RESULTS
    conversion = result.row(0, named=True)
    assert conversion["outcome"] == "conversion"
    assert (conversion["n"], conversion["n_control"]) == (2000, 2000)
    assert conversion["effect"] == pytest.approx(0.05)
    assert conversion["ci_low"] < 0.05 < conversion["ci_high"]
    assert conversion["relative_effect"] == pytest.approx(0.5)
    assert conversion["srm_ok"]
    assert result["decision"].to_list() == ["better", "better"]
    assert (result["p_adjusted"] >= result["p_value"]).all()


def test_direction_decides_what_is_worse(con: duckdb.DuckDBPyConnection) -> None:
    fill(con, "none", 2000, 200)
    fill(con, "mail", 2000, 300)
    returns = MAIL.model_copy(
        update={
            "outcomes": [Outcome(name="returns", kind="proportion", column="converted", direction="down")]
        }
    )
    assert analyse(con, returns)["decision"].to_list() == ["worse"]


def test_no_units_give_an_empty_table(con: duckdb.DuckDBPyConnection) -> None:
    result = analyse(con, MAIL)
    assert result.is_empty()
    assert dict(result.schema) == RESULTS


def test_units_count_once_with_their_first_row_and_crossed_ones_not_at_all(
    con: duckdb.DuckDBPyConnection,
) -> None:
    fill(con, "none", 100, 10)
    fill(con, "mail", 100, 20)
    before = analyse(con, MAIL)
    con.execute(
        """INSERT INTO marts.experiment_units VALUES
           ('mail', 'mail-50', 'mail', '2026-03-09 08:00:00+00', true, 999),
           ('mail', 'mail-50', 'mail', NULL, true, 999),
           ('mail', 'crossed', 'mail', '2026-03-02 08:00:00+00', true, 500),
           ('mail', 'crossed', 'none', '2026-03-03 08:00:00+00', true, 500),
           ('mail', NULL, 'mail', '2026-03-03 08:00:00+00', true, 500),
           ('mail', 'no-arm', NULL, '2026-03-03 08:00:00+00', true, 500)"""
    )
    after = analyse(con, MAIL)
    assert after["units_excluded"].to_list() == [1, 1]
    assert after.drop("units_excluded").equals(before.drop("units_excluded"))


def test_marks_of_the_table_are_heeded(con: duckdb.DuckDBPyConnection) -> None:
    fill(con, "none", 100, 10)
    fill(con, "mail", 100, 20)
    con.execute("ALTER TABLE marts.experiment_units ADD COLUMN crossed BOOLEAN")
    con.execute("ALTER TABLE marts.experiment_units ADD COLUMN over BOOLEAN DEFAULT TRUE")
    con.execute("UPDATE marts.experiment_units SET crossed = unit_id IN ('mail-0', 'none-0')")
    con.execute("UPDATE marts.experiment_units SET over = unit_id NOT IN ('mail-1', 'mail-2')")
    marked = MAIL.model_copy(update={"crossover": "crossed", "complete": "over"})
    result = analyse(con, marked)
    assert result["units_excluded"].to_list() == [2, 2]
    assert result["n"].to_list() == [97, 97]
    assert result["n_control"].to_list() == [99, 99]
    assert result["mean"][0] == pytest.approx(17 / 97)
    assert read_units(con, marked).counts == {"mail": 99, "none": 99}


def test_outcomes_not_yet_known_are_left_out(con: duckdb.DuckDBPyConnection) -> None:
    fill(con, "none", 100, 10)
    fill(con, "mail", 100, 20)
    con.execute("UPDATE marts.experiment_units SET spend = NULL WHERE unit_id = 'mail-99'")
    result = analyse(con, MAIL)
    assert result["n"].to_list() == [100, 99]


def test_wrong_sample_ratio_invalidates(con: duckdb.DuckDBPyConnection) -> None:
    fill(con, "none", 1000, 100)
    fill(con, "mail", 700, 300)
    result = analyse(con, MAIL)
    assert not result["srm_ok"].any()
    assert set(result["decision"]) == {"invalid"}


def test_an_outcome_nobody_shows_is_inconclusive(con: duckdb.DuckDBPyConnection) -> None:
    fill(con, "none", 50, 0)
    fill(con, "mail", 50, 0)
    result = analyse(con, MAIL)
    assert result["p_value"].to_list() == [None, None]
    assert set(result["decision"]) == {"inconclusive"}


def test_row_order_does_not_change_a_bit(con: duckdb.DuckDBPyConnection) -> None:
    fill(con, "none", 3000, 411)
    fill(con, "mail", 3000, 509)
    con.execute("ALTER TABLE marts.experiment_units ALTER spend TYPE DOUBLE USING spend * 0.1")
    first = analyse(con, MAIL)
    con.execute("CREATE TABLE shuffled AS SELECT * FROM marts.experiment_units ORDER BY hash(unit_id)")
    con.execute("DELETE FROM marts.experiment_units")
    con.execute("INSERT INTO marts.experiment_units SELECT * FROM shuffled")
    assert analyse(con, MAIL).equals(first)


def test_bad_tables_are_named(con: duckdb.DuckDBPyConnection) -> None:
    fill(con, "none", 10, 1)
    fill(con, "pigeon", 10, 1)
    with pytest.raises(SchemaError, match="'pigeon'"):
        analyse(con, MAIL)
    con.execute("DELETE FROM marts.experiment_units WHERE variant = 'pigeon'")
    con.execute("ALTER TABLE marts.experiment_units ALTER spend TYPE DOUBLE")
    con.execute("UPDATE marts.experiment_units SET spend = 'nan'::DOUBLE WHERE unit_id = 'none-1'")
    with pytest.raises(SchemaError, match=r"spend.*not finite"):
        analyse(con, MAIL)
    share = MAIL.model_copy(update={"outcomes": [Outcome(name="spend", kind="proportion", column="spend")]})
    con.execute("UPDATE marts.experiment_units SET spend = 2")
    with pytest.raises(SchemaError, match="proportion"):
        analyse(con, share)
    con.execute("ALTER TABLE marts.experiment_units DROP spend")
    with pytest.raises(SchemaError, match="lacks spend"):
        analyse(con, MAIL)
    with pytest.raises(SchemaError, match="does not exist"):
        analyse(con, MAIL.model_copy(update={"table": "marts.nowhere"}))


def test_the_declared_experiments_load() -> None:
    assert "spring_mail" in load_experiments()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("control: {control: x}", "control"),
        ("control: someone", "not among the arms"),
        ("shares: {none: 0.5, mail: 0.7}", "sum to 1"),
        ("alpha: 2", "alpha"),
        ("colour: red", "colour"),
        ("name: other", "the file is named"),
        ("outcomes: [{name: a, kind: median, column: b}]", "kind"),
        ("outcomes: [{name: a, kind: mean, column: 'b; DROP'}]", "column"),
        ("table: nowhere", "table"),
    ],
)
def test_mistakes_in_a_declaration_are_named(tmp_path: Path, change: str, message: str) -> None:
    fields = {
        "name": "mail",
        "title": "Mail",
        "owner": "owner@example.com",
        "control": "none",
        "shares": "{none: 0.5, mail: 0.5}",
        "outcomes": "[{name: a, kind: mean, column: b}]",
    }
    key, value = change.split(": ", 1)
    text = "\n".join(f"{k}: {v}" for k, v in (fields | {key: value}).items())
    (tmp_path / "mail.yml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_experiments(tmp_path)


HILLSTROM = {
    ("womens", "visit"): (0.0452331066, 0.0388934938, 0.0515727194, 2.43245e-44),
    ("womens", "conversion"): (0.0031110575, 0.0014985924, 0.0047235227, 1.56028e-4),
    ("womens", "spend"): (0.4244122159, 0.1689567899, 0.6798676420, 0.00112940),
    ("mens", "visit"): (0.0765895637, 0.0699531476, 0.0832259797, 1.36445e-112),
    ("mens", "conversion"): (0.0068050065, 0.0050000707, 0.0086099423, 1.50182e-13),
    ("mens", "spend"): (0.7698271559, 0.4851397326, 1.0545145792, 1.16381e-7),
}
"""Effect, 95 % interval and p-value as tea-tasting 1.14 and 2.0 print them (Welch)."""

HILLSTROM_RELATIVE = {
    ("womens", "visit"): (0.4260550703, 0.3543970578, 0.4977130827),
    ("womens", "conversion"): (0.5433130437, 0.1932221271, 0.8934039603),
    ("womens", "spend"): (0.6501518639, 0.1491124609, 1.1511912669),
    ("mens", "spend"): (1.1792887704, 0.5442847607, 1.8142927800),
}
"""Relative effect and 95 % interval as gbstats 0.8 prints them (delta method)."""


@pytest.mark.real_data
def test_hillstrom_equals_the_reference_packages(con: duckdb.DuckDBPyConnection) -> None:
    path = settings().real_data / "hillstrom" / "hillstrom.parquet"
    if not path.exists():
        pytest.skip("Hillstrom's e-mail data are not in the folder of real data")
    arms = {"Womens E-Mail": "womens", "Mens E-Mail": "mens", "No E-Mail": "none"}
    hillstrom = pl.read_parquet(path).with_columns(variant=pl.col("segment").replace_strict(arms))
    con.execute("DROP TABLE marts.experiment_units")
    con.register("hillstrom", hillstrom)
    con.execute(
        """CREATE TABLE marts.experiment_units AS SELECT 'email' AS experiment, variant, visit, conversion,
           spend, row_number() OVER ()::VARCHAR AS unit_id, TIMESTAMPTZ '2008-03-20 00:00:00+00' AS sent_at
           FROM hillstrom"""
    )
    email = Experiment(
        name="email",
        title="Hillstrom's e-mail test",
        owner="owner@example.com",
        control="none",
        shares={"womens": 1 / 3, "mens": 1 / 3, "none": 1 / 3},
        outcomes=[
            Outcome(name="visit", kind="proportion", column="visit"),
            Outcome(name="conversion", kind="proportion", column="conversion"),
            Outcome(name="spend", kind="mean", column="spend"),
        ],
    )
    assert read_units(con, email).counts == {"womens": 21387, "mens": 21307, "none": 21306}
    result = analyse(con, email)
    rows = {(row["variant"], row["outcome"]): row for row in result.iter_rows(named=True)}
    for key, (effect, low, high, p_value) in HILLSTROM.items():
        found = tuple(rows[key][name] for name in ("effect", "ci_low", "ci_high"))
        assert found == pytest.approx((effect, low, high), rel=0, abs=6e-11)
        assert rows[key]["p_value"] == pytest.approx(p_value, rel=5e-6)
    for key, values in HILLSTROM_RELATIVE.items():
        found = tuple(rows[key][name] for name in ("relative_effect", "relative_low", "relative_high"))
        assert found == pytest.approx(values, rel=0, abs=6e-11)
    assert result["srm_p"][0] == pytest.approx(0.9036929576, abs=6e-11)
    womens = analyse(con, _two_arms(con, email))
    assert womens["p_adjusted"].to_list() == pytest.approx([7.29734e-44, 2.34043e-4, 1.12940e-3], rel=5e-6)
    assert womens["srm_p"][0] == pytest.approx(0.6950444648, abs=6e-11)


def _two_arms(con: duckdb.DuckDBPyConnection, experiment: Experiment) -> Experiment:
    con.execute("DELETE FROM marts.experiment_units WHERE variant = 'mens'")
    return experiment.model_copy(update={"shares": {"womens": 0.5, "none": 0.5}})
