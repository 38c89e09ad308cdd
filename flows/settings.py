"""What all flows share."""

from __future__ import annotations

from prefect.task_runners import ThreadPoolTaskRunner

RUNNER: ThreadPoolTaskRunner = ThreadPoolTaskRunner(max_workers=128)
"""Threads: DuckDB and Polars use every core by themselves. A waiting step holds a thread, so there are
enough for all steps of a night; steps are submitted after what they need, so waiting cannot deadlock."""
