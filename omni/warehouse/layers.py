"""The layers of a warehouse: each a schema, or in PostgreSQL one of the tenant's own."""

from __future__ import annotations

SCHEMAS = (
    "raw",
    "seeds",
    "staging",
    "core",
    "marts",
    "metrics",
    "ops",
    "ml",
    "experiments",
    "anomaly",
    "rag",
)

PUBLISHED = ("core", "marts", "metrics", "ml", "experiments", "anomaly", "rag", "ops")
"""What readers get. Raw and staging stay inside: they hold what the source sent, row by row."""
