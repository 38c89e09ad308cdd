"""Leads with a known structure, and a registry whose tables exist already."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from omni.ml import Prediction, Registry, Trained, train


@pytest.fixture(scope="session")
def prediction() -> Prediction:
    """Lead scoring as the project declares it, with few candidates."""
    return Prediction(
        name="lead_scoring",
        title="Lead scoring",
        owner="owner@example.com",
        table="marts.lead_features",
        scores="ml.lead_scores",
        entity="lead_id",
        time="first_contact_date",
        label="converted",
        horizon="a deal within 90 days",
        exclude=["deal_amount"],
        trials=3,
    )


def _leads(rows: int = 900, seed: int = 0, *, curved: bool = False) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    visits = random.poisson(4, rows)
    employees = random.lognormal(3, 1, rows)
    source = random.choice(["partner", "search", "social", "fair"], rows)
    logit = -2 + 0.45 * (visits - 4) + 1.5 * (source == "partner")
    if curved:
        logit = np.where((visits > 4) == (employees > 20), 1.5, -3.0)
    converted = random.random(rows) < 1 / (1 + np.exp(-logit))
    day = np.sort(random.integers(0, 300, rows))
    return pl.DataFrame(
        {
            "lead_id": [f"lead-{i:05d}" for i in random.permutation(rows)],
            "first_contact_date": [date(2025, 1, 1) + timedelta(days=int(d)) for d in day],
            "converted": [bool(c) if i < 0.9 * rows else None for i, c in enumerate(converted)],
            "lead_source": [str(s) if random.random() > 0.05 else None for s in source],
            "landing_page": [f"page-{int(p)}" for p in random.zipf(1.4, rows) % 400],
            "employees": [float(e) if random.random() > 0.2 else None for e in employees],
            "visits_before_signup": visits,
            "newsletter": random.random(rows) < 0.4,
            "country": ["DE"] * rows,
            "industry": pl.Series([None] * rows, dtype=pl.String),
            "deal_amount": [100.0 if c else None for c in converted],
        }
    )


@pytest.fixture(scope="session")
def make_leads() -> Callable[..., pl.DataFrame]:
    """Leads over 300 days, the last tenth without a label: `make_leads(rows, seed, curved=False)`.

    Conversion rises with the visits before sign-up and with the source `partner`; when curved, it
    depends on visits and employees together, which no additive model can follow.
    """
    return _leads


@pytest.fixture(scope="session")
def leads() -> pl.DataFrame:
    """The usual leads."""
    return _leads()


@pytest.fixture(scope="session")
def trained(leads: pl.DataFrame, prediction: Prediction) -> Trained:
    """A model trained on the usual leads."""
    return train(leads, prediction)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its tables made: making them takes seconds, copying the file none."""
    folder = tmp_path_factory.mktemp("migrated")
    registry = Registry(f"sqlite:///{folder / 'mlflow.db'}", folder / "models")
    assert registry.load_champion("nobody.nothing") is None
    return folder / "mlflow.db"


@pytest.fixture
def open_registry(migrated: Path, tmp_path: Path) -> Callable[[], Registry]:
    """Opens the test's registry; every call is like another process coming to the same state."""
    shutil.copy(migrated, tmp_path / "mlflow.db")
    return lambda: Registry(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "models")
