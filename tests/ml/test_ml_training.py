"""Training and scoring: order in time, refusals, choice of family, determinism, degenerate input."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from omni.errors import ConfigError, SchemaError, TerminalError
from omni.ml import Prediction, Trained, fingerprint, load_predictions, score, train
from omni.ml.classifier import probabilities
from omni.ml.dataset import split, usable_columns
from omni.settings import settings

if TYPE_CHECKING:
    from conftest import LEADS, make_leads
else:
    import importlib.util

    spec = importlib.util.spec_from_file_location("ml_leads", Path(__file__).with_name("conftest.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    LEADS, make_leads = module.LEADS, module.make_leads
