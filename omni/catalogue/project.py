"""The project's declarations together, read without asking whether they fit each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from omni import yamlfile
from omni.bi.board import Board
from omni.bi.daily import rollup_models
from omni.bi.funnel_sql import funnel_models
from omni.bi.metrics import Metric, load_metrics
from omni.bi.metrics import metrics as project_metrics
from omni.settings import settings
from omni.warehouse.contracts import Contract, contracts, load_contracts
from omni.warehouse.models import Model, cached_models, load_models


@dataclass(frozen=True)
class Project:
    """Contracts, models (those that metrics stand for among them), metrics and dashboards."""

    folder: Path
    contracts: Mapping[str, Contract]
    models: Mapping[str, Model]
    metrics: Mapping[str, Metric]
    boards: Mapping[str, Board]


def all_models(folder: Path | None = None) -> dict[str, Model]:
    """The project's models, its seeds, and the models its metrics and funnels stand for, by name.

    Args:
        folder: where the declarations lie; the project's `data/` by default, read once per process.
    """
    return dict(_all_models(folder or settings().data))


@cache
def _all_models(folder: Path) -> dict[str, Model]:
    return cached_models(folder / "models") | _made_models(folder)


def _made_models(folder: Path) -> dict[str, Model]:
    """The models that other declarations stand for."""
    return rollup_models(folder / "metrics") | funnel_models(folder / "funnels")


def load_boards(folder: Path) -> dict[str, Board]:
    """The dashboards under a folder by file, each right in itself."""
    return {str(path): yamlfile.load(path, Board) for path in sorted(folder.glob("*.yml"))}


def load_project(folder: Path | None = None) -> Project:
    """Read the declarations, afresh if a folder is given.

    Raises:
        ConfigError: a file is wrong in itself.
    """
    data = folder or settings().data
    boards = load_boards(data / "dashboards")
    if folder is None:
        return Project(data, contracts(), all_models(), project_metrics(), boards)
    models = load_models(data / "models") | _made_models(data)
    return Project(data, load_contracts(data / "contracts"), models, load_metrics(data / "metrics"), boards)
