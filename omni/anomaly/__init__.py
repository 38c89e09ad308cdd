"""Days on which a metric did something its own history does not explain."""

from omni.anomaly.detect import ANOMALIES, Detector, detect, detect_all

__all__ = ["ANOMALIES", "Detector", "detect", "detect_all"]
