"""Starting fast: for commands that are done in less time than their imports would take."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_pandas() -> Iterator[None]:
    """Keep DuckDB from importing pandas, which it tries at the first parameter it is given (0.3 s).

    Only for a command that has no use for pandas in any of its threads; does nothing where it is imported.
    """
    if "pandas" in sys.modules:
        yield
        return
    sys.modules["pandas"] = None  # type: ignore[assignment]  # "import pandas" then says that there is none
    try:
        yield
    finally:
        del sys.modules["pandas"]
