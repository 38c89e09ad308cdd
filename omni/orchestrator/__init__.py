"""Reaching Prefect without importing it: settings as environment variables, a local server, HTTP."""
