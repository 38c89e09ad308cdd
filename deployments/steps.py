"""Steps that a worker runs before a flow."""

from __future__ import annotations

import os
from pathlib import Path

from omni.settings import PROJECT

VARIABLE = "OMNI_PROJECT"


def enter_project(variable: str = VARIABLE) -> dict[str, str]:
    """Go to the project's folder on the worker's machine.

    Prefect's own step takes a folder that is fixed when deploying, and the empty string when a
    `{{ $VARIABLE }}` is unset. Here the worker decides: the variable where it is set, else the checkout
    that is installed in its environment.

    Args:
        variable: name of an environment variable that holds a folder.

    Raises:
        FileNotFoundError: the folder is not a checkout of this project.
    """
    chosen = os.environ.get(variable)
    folder = Path(chosen).expanduser().resolve() if chosen else PROJECT
    if not (folder / "prefect.yaml").is_file():
        raise FileNotFoundError(
            f"{folder} holds no prefect.yaml. Set {variable} on the worker to the folder of the checkout."
        )
    os.chdir(folder)
    return {"directory": str(folder)}
