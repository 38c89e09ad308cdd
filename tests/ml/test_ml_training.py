"""Training and scoring: order in time, refusals, choice of family, determinism, degenerate input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from omni.errors import ConfigError, SchemaError, TerminalError
from omni.ml import Prediction, Trained, fingerprint, load_predictions, predictions, score, train
from omni.ml.classifier import probabilities
from omni.ml.dataset import split
from omni.settings import settings

pytestmark = pytest.mark.slow

Leads = Callable[..., pl.DataFrame]


def test_slices_are_in_time_order_and_share_no_day(leads: pl.DataFrame, prediction: Prediction) -> None:
    parts = split(leads.sample(fraction=1, shuffle=True, seed=1), prediction)
    days = [frame["first_contact_date"] for frame in (parts.train, parts.calibrate, parts.holdout)]
    assert days[0].max() < days[1].min()
    assert days[1].max() < days[2].min()
    assert parts.trained_through == days[1].max()
    known = leads.filter(pl.col("converted").is_not_null())
    assert sum(map(len, days)) == known.height
    assert days[2].max() == known["first_contact_date"].max()
    assert len(days[2]) == pytest.approx(0.2 * known.height, abs=10)


def test_a_model_finds_what_there_is(trained: Trained) -> None:
    metrics = trained.metrics
    assert metrics["roc_auc"] > 0.7
    assert metrics["lift_at_10"] > 1.8
    assert metrics["ece"] < 0.1
    assert metrics["brier"] < metrics["base_rate"] * (1 - metrics["base_rate"])
    assert metrics["average_precision"] > metrics["base_rate"]
    assert trained.parameters["family"] == "logistic"
    assert len(trained.trials) == 3
    columns = trained.model.columns
    assert columns.dropped == ("country", "industry")
    assert "deal_amount" not in columns.names
    assert "first_contact_date" not in columns.names
    best = sorted(trained.feature_auc, key=lambda name: -trained.feature_auc[name])
    assert set(best[:2]) == {"lead_source", "visits_before_signup"}


def test_boosting_is_chosen_where_it_is_better_beyond_doubt(
    make_leads: Leads, prediction: Prediction
) -> None:
    result = train(make_leads(2500, curved=True), prediction, trials=2)
    assert result.parameters["family"] == "boosting"
    assert result.metrics["roc_auc"] > 0.75


def test_same_input_same_model_whatever_the_order(leads: pl.DataFrame, trained: Trained) -> None:
    again = train(leads.sample(fraction=1, shuffle=True, seed=5), trained.prediction)
    assert again.metrics == trained.metrics
    assert again.trials == trained.trials
    assert np.array_equal(probabilities(again.model, leads), probabilities(trained.model, leads))


def test_labels_of_the_holdout_reach_no_fit(leads: pl.DataFrame, trained: Trained) -> None:
    later = pl.col("first_contact_date") > trained.trained_through
    flipped = leads.with_columns(
        pl.when(later).then(~pl.col("converted")).otherwise("converted").alias("converted")
    )
    other = train(flipped, trained.prediction)
    assert np.array_equal(probabilities(other.model, leads), probabilities(trained.model, leads))
    assert other.metrics["roc_auc"] == pytest.approx(1 - trained.metrics["roc_auc"])


def test_scores_rank_every_lead(leads: pl.DataFrame, trained: Trained) -> None:
    scored = score(trained.model, leads)
    assert scored.columns == ["lead_id", "score", "decile"]
    assert scored["lead_id"].to_list() == sorted(leads["lead_id"])
    assert scored["score"].is_between(0, 1).all()
    assert scored.group_by("decile").len().sort("decile")["len"].to_list() == [90] * 10
    best = scored.filter(pl.col("decile") == 10)["score"].min()
    assert best >= scored.filter(pl.col("decile") < 10)["score"].max()  # type: ignore[operator]
    assert score(trained.model, leads.reverse().select(reversed(leads.columns))).equals(scored)
    assert score(trained.model, leads.head(0)).is_empty()
    assert score(trained.model, leads.head(3))["decile"].is_between(1, 10).all()


def test_values_never_seen_are_scored(leads: pl.DataFrame, trained: Trained) -> None:
    strange = leads.head(4).with_columns(
        lead_source=pl.Series(["moon", None, "", "search"]),
        employees=pl.Series([float("inf"), float("nan"), None, -1.0]),
        newsletter=pl.Series([None, True, False, None]),
    )
    assert score(trained.model, strange)["score"].is_finite().all()


def test_changed_features_are_refused_when_scoring(leads: pl.DataFrame, trained: Trained) -> None:
    with pytest.raises(SchemaError, match="lead_source"):
        score(trained.model, leads.drop("lead_source"))
    with pytest.raises(SchemaError, match="employees"):
        score(trained.model, leads.with_columns(pl.col("employees").cast(pl.String)))


@pytest.mark.parametrize("kind", ["number", "category", "missing"])
def test_a_feature_that_knows_the_label_is_refused(
    leads: pl.DataFrame, prediction: Prediction, kind: str
) -> None:
    won = pl.col("converted")
    leak = {
        "number": pl.when(won).then(pl.col("employees").fill_null(9) + 1000).otherwise(0.5),
        "category": pl.when(won).then(pl.lit("customer")).otherwise(pl.lit("lead")),
        "missing": pl.when(won).then(pl.lit(1.0)),
    }[kind]
    with pytest.raises(SchemaError, match=r"converted away in won_value \(AUC"):
        train(leads.with_columns(won_value=leak), prediction)


def test_an_identifier_is_no_leak(leads: pl.DataFrame, prediction: Prediction) -> None:
    with_key = leads.with_columns(session=pl.col("lead_id") + "-session")
    result = train(with_key, prediction, trials=2)
    assert result.feature_auc["session"] == 0.5


def test_data_that_cannot_be_trained_on_are_refused(leads: pl.DataFrame, prediction: Prediction) -> None:
    with pytest.raises(TerminalError, match=r"100 rows .* 200 are needed"):
        train(leads.head(100), prediction)
    with pytest.raises(TerminalError, match="0 of them"):
        train(leads.with_columns(converted=pl.lit(value=False)), prediction)
    with pytest.raises(TerminalError, match=r"no column .* varies"):
        train(leads.select("lead_id", "first_contact_date", "converted", "country"), prediction)
    with pytest.raises(TerminalError, match="0 rows"):
        train(leads.head(0), prediction)


def test_tables_that_break_the_declaration_are_refused(leads: pl.DataFrame, prediction: Prediction) -> None:
    with pytest.raises(SchemaError, match="lacks converted"):
        train(leads.drop("converted"), prediction)
    with pytest.raises(SchemaError, match="expected Boolean"):
        train(leads.with_columns(pl.col("converted").cast(pl.Int8)), prediction)
    with pytest.raises(SchemaError, match="not unique: 5 rows"):
        train(pl.concat([leads, leads.head(5)]), prediction)
    with pytest.raises(SchemaError, match="first_contact_date is null in 900"):
        train(leads.with_columns(first_contact_date=pl.lit(None, dtype=pl.Date)), prediction)
    with pytest.raises(SchemaError, match="expected a date"):
        train(leads.with_columns(pl.col("first_contact_date").cast(pl.String)), prediction)
    with pytest.raises(SchemaError, match="signed_up is Date"):
        train(leads.with_columns(signed_up=pl.col("first_contact_date")), prediction)


def test_fingerprint_follows_content_only(leads: pl.DataFrame, prediction: Prediction) -> None:
    known = fingerprint(leads)
    assert fingerprint(leads.reverse().select(reversed(leads.columns))) == known
    assert fingerprint(leads.head(899)) != known
    assert fingerprint(leads.with_columns(pl.col("visits_before_signup") + 1)) != known
    assert fingerprint(leads.rename({"country": "land"})) != known
    assert fingerprint(leads, prediction) != known
    stricter = prediction.model_copy(update={"trials": 5})
    assert fingerprint(leads, stricter) != fingerprint(leads, prediction)


def test_the_declared_predictions_load() -> None:
    assert predictions()["lead_scoring"].table == "marts.lead_features"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("time: lead_id", "three different columns"),
        ("gate: {min_value: 0.3}", "gate.min_value"),
        ("gate: {metric: accuracy}", "gate.metric"),
        ("holdout_share: 0.49\ncalibrate_share: 0.4", "30 %"),
        ("trails: 5", "trails"),
        ("table: nowhere", "table"),
        ("name: other", "the file is named"),
        ("label: [a", "not valid YAML"),
    ],
)
def test_mistakes_in_a_declaration_are_named(tmp_path: Path, change: str, message: str) -> None:
    text = (settings().data / "predictions" / "lead_scoring.yml").read_text()
    key = change.split(":")[0]
    kept = [line for line in text.splitlines() if not line.startswith(f"{key}:")]
    (tmp_path / "lead_scoring.yml").write_text("\n".join([*kept, change]))
    with pytest.raises(ConfigError, match=message):
        load_predictions(tmp_path)


@pytest.mark.real_data
def test_marketplace_leads_are_ranked_better_than_by_chance() -> None:
    folder = settings().real_data / "olist"
    if not folder.exists():
        pytest.skip("Olist's leads are not in the folder of real data")
    won = pl.read_parquet(folder / "closed_deals.parquet").select("mql_id", won=pl.lit(value=True))
    day = pl.col("first_contact_date").cast(pl.Date)
    leads = (
        pl.read_parquet(folder / "marketing_qualified_leads.parquet")
        .join(won, on="mql_id", how="left")
        .select(
            lead_id="mql_id",
            first_contact_date=day,
            converted=pl.col("won").fill_null(value=False),
            lead_source="origin",
            landing_page="landing_page_id",
            contact_weekday=day.dt.weekday(),
            country=pl.lit(None, dtype=pl.String),
        )
    )
    result = train(leads, predictions()["lead_scoring"], trials=4)
    assert sum(result.rows.values()) == 8000
    assert result.metrics["roc_auc"] > 0.65
    assert result.metrics["lift_at_10"] > 1.5
    assert result.metrics["ece"] < 0.05
