"""Reaching Prefect without importing it: its settings as environment variables, a local server, its HTTP API."""
