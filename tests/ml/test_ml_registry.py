"""The registry on a real MLflow store: what is kept, who becomes champion, what a crash leaves."""

from __future__ import annotations

import dataclasses
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from omni.errors import StorageError, TerminalError, TransientError
from omni.ml import Gate, Prediction, Promotion, Registry, Trained, Version, score, train
from omni.settings import settings

pytestmark = pytest.mark.slow

Open = Callable[[], Registry]
Leads = Callable[..., pl.DataFrame]
NAME = "acme.lead_scoring"


def gated(trained: Trained, **gate: float) -> Trained:
    prediction = trained.prediction.model_copy(update={"gate": Gate.model_validate(gate)})
    return dataclasses.replace(trained, prediction=prediction)


def client_of(registry: Registry) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=registry.tracking_uri)


@pytest.fixture(scope="session")
def useless(leads: pl.DataFrame, prediction: Prediction, trained: Trained) -> Trained:
    """A model that knows little, measured on the same holdout."""
    weak = train(
        leads.select("lead_id", "first_contact_date", "converted", "newsletter", "employees"), prediction
    )
    assert weak.trained_through == trained.trained_through
    return dataclasses.replace(weak, holdout=trained.holdout)


def test_a_champion_comes_back_with_the_same_scores(
    open_registry: Open, trained: Trained, leads: pl.DataFrame
) -> None:
    registry = open_registry()
    assert registry.load_champion(NAME) is None
    version = registry.log(trained, NAME, "print-1")
    assert registry.load_champion(NAME) is None
    promotion = registry.promote(version, trained)
    assert (promotion.promoted, promotion.version, promotion.previous) == (True, 1, None)
    champion = open_registry().load_champion(NAME)
    assert champion is not None
    assert champion.version == version
    assert champion.model.columns == trained.model.columns
    assert score(champion.model, leads).equals(score(trained.model, leads))
    assert open_registry().load_champion("other.lead_scoring") is None


def test_a_boosted_model_comes_back_too(
    open_registry: Open, make_leads: Leads, prediction: Prediction
) -> None:
    table = make_leads(1500, curved=True)
    boosted = train(table, prediction, trials=2)
    assert boosted.parameters["family"] == "boosting"
    registry = open_registry()
    assert registry.promote(registry.log(boosted, NAME, "x"), boosted).promoted
    champion = registry.load_champion(NAME)
    assert champion is not None
    assert score(champion.model, table).equals(score(boosted.model, table))


def test_what_is_kept_of_a_model(open_registry: Open, trained: Trained) -> None:
    from mlflow.models import Model

    registry = open_registry()
    version = registry.log(trained, NAME, "print-1")
    client = client_of(registry)
    stored = client.get_model_version(NAME, "1")
    assert stored.tags["fingerprint"] == version.fingerprint == "print-1"
    assert stored.tags["trained_through"] == trained.trained_through.isoformat()
    run = client.get_run(stored.run_id)
    assert run.data.metrics["roc_auc"] == pytest.approx(trained.metrics["roc_auc"])
    assert run.data.params["family"] == trained.parameters["family"]
    assert run.info.status == "FINISHED"
    folder = Path(stored.source.removeprefix("file://"))
    card = Model.load(folder)
    assert [spec.name for spec in card.signature.inputs] == list(trained.model.columns.names)
    assert "scikit-learn==" in (folder / "requirements.txt").read_text()


def test_the_same_fingerprint_is_one_version(open_registry: Open, trained: Trained) -> None:
    first = open_registry().log(trained, NAME, "same")
    assert open_registry().log(trained, NAME, "same") == first
    assert open_registry().log(trained, NAME, "other").version == first.version + 1


def test_logging_takes_less_than_a_second(open_registry: Open, trained: Trained) -> None:
    registry = open_registry()
    registry.log(trained, NAME, "warm")
    best = 9.0
    for number in range(3):
        start = time.process_time()
        registry.log(trained, NAME, f"print-{number}")
        best = min(best, time.process_time() - start)
    assert best < 1


def test_the_gate_refuses_a_weak_model(open_registry: Open, trained: Trained) -> None:
    registry = open_registry()
    strict = gated(trained, min_value=0.99)
    promotion = registry.promote(registry.log(strict, NAME, "a"), strict)
    assert not promotion.promoted
    assert "below the least 0.99" in promotion.reason
    assert registry.load_champion(NAME) is None


def test_only_a_better_model_replaces_the_champion(
    open_registry: Open, trained: Trained, useless: Trained
) -> None:
    registry = open_registry()
    weak = gated(useless, min_value=0.5)
    weak = dataclasses.replace(weak, metrics=weak.metrics | {"roc_auc": max(0.5, weak.metrics["roc_auc"])})
    assert registry.promote(registry.log(weak, NAME, "weak"), weak).promoted
    better = registry.promote(registry.log(trained, NAME, "good"), trained)
    assert better == Promotion(True, better.reason, 2, 1)
    assert "gain +" in better.reason
    back = registry.promote(registry.log(weak, NAME, "weak again"), weak)
    assert (back.promoted, back.previous) == (False, 2)
    assert "champion kept" in back.reason
    equal = registry.promote(registry.log(trained, NAME, "same model"), trained)
    assert not equal.promoted
    tolerant = gated(trained, min_gain=-0.02)
    assert registry.promote(registry.log(tolerant, NAME, "no worse"), tolerant).promoted
    client = client_of(registry)
    assert client.get_model_version_by_alias(NAME, "champion").version == 5
    assert client.get_model_version_by_alias(NAME, "rollback").version == 2
    tags = client.get_model_version(NAME, "3").tags
    assert tags["gate_promoted"] == "false"
    assert tags["gate_reason"] == back.reason


def test_rows_the_champion_was_trained_on_do_not_count(open_registry: Open, trained: Trained) -> None:
    registry = open_registry()
    ahead = dataclasses.replace(trained, trained_through=trained.trained_through + timedelta(days=365))
    assert registry.promote(registry.log(ahead, NAME, "ahead"), ahead).promoted
    promotion = registry.promote(registry.log(trained, NAME, "later"), trained)
    assert not promotion.promoted
    assert "too few" in promotion.reason


def test_asking_twice_changes_nothing(open_registry: Open, trained: Trained, useless: Trained) -> None:
    registry = open_registry()
    first = registry.log(gated(useless, min_value=0.5), NAME, "weak")
    weak = dataclasses.replace(gated(useless, min_value=0.5), metrics=trained.metrics)
    registry.promote(first, weak)
    second = registry.log(trained, NAME, "good")
    decision = registry.promote(second, trained)
    assert open_registry().promote(second, trained) == decision
    client = client_of(registry)
    assert client.get_model_version_by_alias(NAME, "rollback").version == 1


def test_a_crash_between_decision_and_alias_is_repaired_by_a_rerun(
    open_registry: Open, trained: Trained
) -> None:
    registry = open_registry()
    version = registry.log(trained, NAME, "good")
    decision = registry.promote(version, trained)
    client_of(registry).delete_registered_model_alias(NAME, "champion")
    assert registry.load_champion(NAME) is None
    assert open_registry().promote(open_registry().log(trained, NAME, "good"), trained) == decision
    champion = open_registry().load_champion(NAME)
    assert champion is not None
    assert champion.version == version


def test_a_champion_that_cannot_be_read_is_named_and_replaced(
    open_registry: Open, trained: Trained, tmp_path: Path
) -> None:
    registry = open_registry()
    registry.promote(registry.log(trained, NAME, "first"), trained)
    for stored in (tmp_path / "models").rglob("model.skops"):
        stored.write_bytes(b"torn")
    with pytest.raises(TerminalError, match="Version 1 of acme"):
        registry.load_champion(NAME)
    promotion = registry.promote(registry.log(trained, NAME, "second"), trained)
    assert promotion.promoted
    assert "cannot be compared" in promotion.reason


def test_tenants_log_side_by_side(open_registry: Open, trained: Trained) -> None:
    def night(tenant: str) -> int:
        registry = open_registry()
        version = registry.log(trained, f"{tenant}.lead_scoring", "print")
        assert registry.promote(version, trained).promoted
        return version.version

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(night, ["acme", "bolt", "crow"])) == [1, 1, 1]


def test_state_that_cannot_be_written_is_said(tmp_path: Path, trained: Trained) -> None:
    (tmp_path / "file").write_text("in the way")
    registry = Registry(f"sqlite:///{tmp_path}/file/mlflow.db", tmp_path / "file" / "models")
    with pytest.raises(StorageError, match="Cannot write the model registry"):
        registry.log(trained, NAME, "x")


def test_a_server_that_does_not_answer_may_come_back(
    tmp_path: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        registry = Registry(f"http://127.0.0.1:{unused.getsockname()[1]}", tmp_path / "models")
        for call in (
            lambda: registry.log(trained, NAME, "x"),
            lambda: registry.promote(Version(NAME, 1, "x"), trained),
            lambda: registry.load_champion(NAME),
        ):
            with pytest.raises(TransientError, match="does not answer"):
                call()
    assert not (tmp_path / "models").exists()


def test_settings_choose_the_place(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry.from_settings()
    assert registry.tracking_uri == f"sqlite:///{home / 'registry' / 'mlflow.db'}"
    monkeypatch.setenv("OMNI_TRACKING_URI", "http://mlflow.example:5000")
    settings.cache_clear()
    assert Registry.from_settings().tracking_uri == "http://mlflow.example:5000"


@pytest.mark.slow
def test_a_new_registry_is_silent_local_and_clean(tmp_path: Path) -> None:
    script = f"""
import socket
def refuse(*_, **__): raise RuntimeError("network used")
socket.socket.connect = refuse
from pathlib import Path
from omni.ml import Registry
registry = Registry("sqlite:///{tmp_path}/state/mlflow.db", Path("{tmp_path}/state/models"))
assert registry.load_champion("acme.lead_scoring") is None
"""
    work = tmp_path / "work"
    (tmp_path / "state").mkdir()
    work.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=work, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(work.iterdir()) == []
