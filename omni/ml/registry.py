"""Models under version control: logged with what they were trained on, promoted by a gate, found by alias.

MLflow keeps the record. Every call names its tracking server, so registries do not disturb each other
and nothing is written to the working folder. `champion` is the model in use, `rollback` the one before.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import polars as pl

from omni.errors import StorageError, TerminalError, TransientError
from omni.ml.classifier import Model, Trained, probabilities
from omni.ml.dataset import Columns, matrix
from omni.ml.evaluation import paired_gain, roc_auc
from omni.settings import settings

TRUSTED_TYPES = [
    "functools.partial",
    "numpy.dtype",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.utils.validation.check_array",
]
"""What a stored model may hold besides skops' own safe types. Loading asks this list, not the model's."""

REQUIREMENTS = ("scikit-learn", "skops", "numpy", "pandas")


@dataclass(frozen=True)
class Version:
    """One registered model."""

    name: str
    version: int
    fingerprint: str


@dataclass(frozen=True)
class Promotion:
    """What the gate decided about a version, why, and which version was champion before."""

    promoted: bool
    reason: str
    version: int
    previous: int | None


@dataclass(frozen=True)
class Champion:
    """The model in use."""

    model: Model
    version: Version


class Registry:
    """Models of all tenants; a model's name starts with its tenant's."""

    def __init__(self, tracking_uri: str, artifacts: Path) -> None:
        """Nothing is opened yet.

        Args:
            tracking_uri: of MLflow, for example sqlite:////state/mlflow.db or http://mlflow.example:5000.
            artifacts: folder of model files when the registry is local.
        """
        self.tracking_uri = tracking_uri
        self.artifacts = artifacts
        self._opened: Any = None
        self._opening = threading.Lock()

    @classmethod
    def from_settings(cls) -> Registry:
        """The server of `OMNI_TRACKING_URI`, else SQLite and files under the state folder."""
        folder = settings().home / "registry"
        return cls(settings().tracking_uri or f"sqlite:///{folder / 'mlflow.db'}", folder / "models")

    def log(self, trained: Trained, name: str, fingerprint: str) -> Version:
        """Record and register a trained model. The same fingerprint again gives the version there is.

        Args:
            name: registered name, for example acme.lead_scoring.
            fingerprint: of the training data, see `omni.ml.fingerprint`.

        Raises:
            StorageError: the state folder cannot be written.
            TransientError: the registry does not answer.
        """
        with _answering():
            return self._log(trained, name, fingerprint)

    def _log(self, trained: Trained, name: str, fingerprint: str) -> Version:
        client = self._client()
        _register_name(client, name)
        for found in client.search_model_versions(f"name='{name}'"):
            if found.tags.get("fingerprint") == fingerprint:
                return Version(name, int(found.version), fingerprint)
        run = client.create_run(self._experiment(name), run_name=f"{name} {trained.trained_through}")
        _log_numbers(client, run.info.run_id, trained)
        logged = client.create_logged_model(
            run.info.experiment_id, name=trained.prediction.name, source_run_id=run.info.run_id
        )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model"
            _save(trained, path)
            client.log_model_artifacts(logged.model_id, str(path))
        client.finalize_logged_model(logged.model_id, "READY")
        client.set_terminated(run.info.run_id)
        # Locally, MLflow looks `models:/` up in the process-wide default server instead of this one.
        source = f"models:/{logged.model_id}" if self._remote else logged.artifact_location
        tags = {
            "fingerprint": fingerprint,
            "trained_through": trained.trained_through.isoformat(),
            "rows": json.dumps(trained.rows),
        }
        created = client.create_model_version(
            name, source, run_id=run.info.run_id, tags=tags, model_id=logged.model_id
        )
        return Version(name, int(created.version), fingerprint)

    def promote(self, version: Version, trained: Trained) -> Promotion:
        """Make a version champion if its gate lets it. Decided once: asked again, the answer is the same.

        It needs the gate's `min_value` on its holdout and, where there is a champion, a gain over it that
        exceeds `min_gain` at the lower end of the interval, both on the holdout's rows that neither has
        seen in training.

        Raises:
            TransientError: the registry does not answer.
        """
        with _answering():
            return self._promote(version, trained)

    def _promote(self, version: Version, trained: Trained) -> Promotion:
        client = self._client()
        known = client.get_model_version(version.name, str(version.version)).tags
        current = _alias(client, version.name, "champion")
        if "gate_reason" in known:
            previous = int(known["gate_previous"]) if known["gate_previous"] else None
            decision = Promotion(
                known["gate_promoted"] == "true", known["gate_reason"], version.version, previous
            )
        else:
            promoted, reason = self._decide(client, version, trained, current)
            decision = Promotion(promoted, reason, version.version, current)
            for key, value in {
                "gate_promoted": str(promoted).lower(),
                "gate_previous": "" if current is None else str(current),
                "gate_reason": reason,
            }.items():
                client.set_model_version_tag(version.name, str(version.version), key, value)
        if decision.promoted and current == decision.previous:
            if current is not None:
                client.set_registered_model_alias(version.name, "rollback", str(current))
            client.set_registered_model_alias(version.name, "champion", str(version.version))
        return decision

    def load_champion(self, name: str) -> Champion | None:
        """The model in use, None when no version has been promoted.

        Raises:
            TerminalError: its files are missing or cannot be read by the installed packages.
            TransientError: the registry does not answer.
        """
        with _answering():
            client = self._client()
            number = _alias(client, name, "champion")
            return None if number is None else self._load(client, name, number)

    @property
    def _remote(self) -> bool:
        return self.tracking_uri.startswith(("http://", "https://"))

    def _client(self) -> Any:
        """MLflow's client; the first use of a new SQLite file creates its tables, one process at a time."""
        with self._opening:
            if self._opened is None:
                client_class = _quiet_mlflow().MlflowClient
                if self._remote:
                    self._opened = client_class(tracking_uri=self.tracking_uri)
                    return self._opened
                try:
                    self.artifacts.mkdir(parents=True, exist_ok=True)
                    lock = (self.artifacts / ".opening").open("w")
                except OSError as error:
                    raise StorageError(
                        f"Cannot write the model registry {self.artifacts}: {error.strerror or error}. "
                        "Free space or make the folder writable."
                    ) from error
                with lock:
                    fcntl.flock(lock, fcntl.LOCK_EX)
                    client = client_class(tracking_uri=self.tracking_uri)
                    client.search_experiments(max_results=1)
                    client.search_registered_models(max_results=1)
                self._opened = client
            return self._opened

    def _experiment(self, name: str) -> str:
        client = self._client()
        found = client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        location = None if self._remote else (self.artifacts / name).resolve().as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except _quiet_mlflow().MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return str(client.get_experiment_by_name(name).experiment_id)

    def _decide(
        self, client: Any, version: Version, trained: Trained, current: int | None
    ) -> tuple[bool, str]:
        gate, value = trained.prediction.gate, trained.metrics[trained.prediction.gate.metric]
        if value < gate.min_value:
            return False, f"{gate.metric} {value:.4f} on the holdout is below the least {gate.min_value:g}"
        if current is None:
            return True, f"first champion, {gate.metric} {value:.4f} on the holdout"
        try:
            champion = self._load(client, version.name, current)
            through = client.get_model_version(version.name, str(current)).tags.get("trained_through", "")
            return _compare(trained, champion.model, date.fromisoformat(through), current)
        except (TerminalError, ValueError) as error:
            return True, f"champion {current} cannot be compared: {error} Challenger has {value:.4f}"

    def _load(self, client: Any, name: str, number: int) -> Champion:
        import mlflow.models
        import skops.io  # type: ignore[import-untyped, unused-ignore]

        found = client.get_model_version(name, str(number))
        try:
            folder = self._files(client, found.source)
            card = mlflow.models.Model.load(str(folder)).metadata
            estimator = skops.io.load(folder / "model.skops", trusted=TRUSTED_TYPES)
            model = Model(
                prediction=card["prediction"],
                entity=card["entity"],
                columns=Columns(tuple(card["categorical"]), tuple(card["numeric"]), tuple(card["dropped"])),
                estimator=estimator,
            )
        except TransientError:
            raise
        # A stored model fails in as many ways as there are packages in it.
        except Exception as error:
            raise TerminalError(
                f"Version {number} of {name} cannot be read ({type(error).__name__}). Train again, or move "
                "the alias champion to a version that can."
            ) from error
        return Champion(model, Version(name, number, found.tags.get("fingerprint", "")))

    def _files(self, client: Any, source: str) -> Path:
        """A version's files, fetched if the registry is remote."""
        from mlflow.artifacts import download_artifacts

        location = source
        if source.startswith("models:/"):
            location = client.get_logged_model(source.removeprefix("models:/")).artifact_location
        try:
            return Path(download_artifacts(location, tracking_uri=self.tracking_uri))
        except Exception as error:
            if not self._remote:
                raise
            raise TransientError(
                f"Cannot fetch a model's files from the registry ({type(error).__name__})."
            ) from error


@contextmanager
def _answering() -> Iterator[None]:
    """Turn MLflow's ways of saying that a server or a database is busy or away into `TransientError`."""
    mlflow = _quiet_mlflow()
    try:
        yield
    except mlflow.MlflowException as error:
        if error.error_code not in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED"):
            raise
        raise TransientError(
            f"The model registry does not answer ({error.error_code}). Is the server of OMNI_TRACKING_URI up?"
        ) from error


def _quiet_mlflow() -> Any:
    """MLflow, imported so that it neither reports usage nor talks, and gives up on a server in seconds."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return mlflow


def _register_name(client: Any, name: str) -> None:
    try:
        client.create_registered_model(name)
    except _quiet_mlflow().MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _alias(client: Any, name: str, alias: str) -> int | None:
    try:
        return int(client.get_model_version_by_alias(name, alias).version)
    except _quiet_mlflow().MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def _log_numbers(client: Any, run_id: str, trained: Trained) -> None:
    from mlflow.entities import Metric, Param

    now = int(time.time() * 1000)
    values = trained.metrics | {f"feature_auc/{name}": auc for name, auc in trained.feature_auc.items()}
    facts = {
        **trained.parameters,
        "seed": trained.seed,
        "trials": len(trained.trials),
        "trained_through": trained.trained_through,
        **{f"rows_{name}": rows for name, rows in trained.rows.items()},
        "dropped": ",".join(trained.model.columns.dropped),
    }
    client.log_batch(
        run_id,
        metrics=[Metric(key, value, now, 0) for key, value in sorted(values.items())],
        params=[Param(key, str(value)[:6000]) for key, value in sorted(facts.items())],
    )


def _save(trained: Trained, path: Path) -> None:
    import mlflow.sklearn
    from mlflow.models import infer_signature

    model = trained.model
    example = trained.holdout.head(50)
    mlflow.sklearn.save_model(
        model.estimator,
        path,
        signature=infer_signature(matrix(example, model.columns), probabilities(model, example)),
        pip_requirements=[f"{package}=={metadata.version(package)}" for package in REQUIREMENTS],
        pyfunc_predict_fn="predict_proba",
        skops_trusted_types=TRUSTED_TYPES,
        metadata={
            "prediction": model.prediction,
            "entity": model.entity,
            "categorical": list(model.columns.categorical),
            "numeric": list(model.columns.numeric),
            "dropped": list(model.columns.dropped),
        },
    )


def _compare(trained: Trained, champion: Model, through: date, number: int) -> tuple[bool, str]:
    """Challenger against champion on the holdout's rows later than both were trained through."""
    prediction = trained.prediction
    unseen = trained.holdout.filter(pl.col(prediction.time).cast(pl.Date) > through)
    labels = unseen[prediction.label].to_numpy().astype(bool)
    if min(labels.sum(), (~labels).sum()) < prediction.min_class:
        return False, (
            f"champion {number} was trained through {through}; of the holdout's later {labels.size} rows too "
            "few are of one class to compare"
        )
    mine, theirs = probabilities(trained.model, unseen), probabilities(champion, unseen)
    gate = prediction.gate
    gain, low, high = paired_gain(labels, mine, theirs, confidence=gate.confidence)
    told = (
        f"{gate.metric} {roc_auc(labels, mine):.4f} against {roc_auc(labels, theirs):.4f} of champion "
        f"{number} on {labels.size} rows, gain {gain:+.4f} "
        f"({gate.confidence:.0%} interval {low:+.4f} to {high:+.4f})"
    )
    if low > gate.min_gain:
        return True, f"{told}, above the margin {gate.min_gain:g}"
    return False, f"{told}, not above the margin {gate.min_gain:g}: champion kept"
