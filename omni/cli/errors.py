"""How the command line fails: one clear message, no traceback for what the user can put right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.text import Text

from omni.errors import OmniError

FAILED, USAGE = 1, 2


@contextmanager
def clear_errors() -> Iterator[None]:
    """Print errors raised on purpose and exit with 2; let bugs show their traceback."""
    try:
        yield
    except OmniError as error:
        Console(stderr=True).print(Text("Error: ", style="bold red").append(str(error), style="default"))
        raise typer.Exit(USAGE) from None
