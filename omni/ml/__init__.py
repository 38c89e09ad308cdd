"""Predictions: trained on a time-ordered split, registered, promoted by a gate, scored into the warehouse."""

from omni.ml.classifier import Model, Trained, score, train
from omni.ml.dataset import fingerprint
from omni.ml.declaration import Gate, Prediction, load_predictions, predictions
from omni.ml.registry import Champion, Promotion, Registry, Version

__all__ = [
    "Champion",
    "Gate",
    "Model",
    "Prediction",
    "Promotion",
    "Registry",
    "Trained",
    "Version",
    "fingerprint",
    "load_predictions",
    "predictions",
    "score",
    "train",
]
