"""The command line. Starts fast: everything heavy is imported by the command that needs it."""

from omni.cli.app import app

__all__ = ["app"]
