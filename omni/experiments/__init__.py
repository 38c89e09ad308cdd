"""Randomised experiments: declared once, read from the warehouse, told with intervals and caveats."""

from omni.experiments.analysis import RESULTS, analyse
from omni.experiments.declaration import Experiment, Outcome, experiments, load_experiments

__all__ = ["RESULTS", "Experiment", "Outcome", "analyse", "experiments", "load_experiments"]
