"""Prefect's settings for this project, as environment variables.

Prefect reads `prefect.toml` from the current directory only, and reads its settings once, when it is
imported. Whoever starts a flow, a server or a worker therefore calls `apply_environment` first. This
module and `omni.settings` are the only readers of the environment.
"""

from __future__ import annotations

import logging
import os
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from omni.errors import ConfigError
from omni.files import private_folder
from omni.settings import PROJECT, settings

SETTINGS_FILE = PROJECT / "prefect.toml"

logger = logging.getLogger(__name__)


def home() -> Path:
    """Folder of Prefect's state: `PREFECT_HOME` where the user set it, else under our state folder."""
    chosen = os.environ.get("PREFECT_HOME")
    return Path(chosen).expanduser() if chosen else settings().home / "prefect"


def api_url() -> str | None:
    """The Prefect API the user chose by `PREFECT_API_URL`, without a trailing slash."""
    return os.environ.get("PREFECT_API_URL", "").rstrip("/") or None


def credentials() -> tuple[str | None, str | None]:
    """Basic-auth string (`user:password`) and API key of the configured server, where set."""
    return os.environ.get("PREFECT_API_AUTH_STRING") or None, os.environ.get("PREFECT_API_KEY") or None


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(_text(item) for item in value)
    return str(value)


def _flatten(table: Mapping[str, object], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        name = f"{prefix}_{key.upper()}"
        if isinstance(value, Mapping):
            yield from _flatten(value, name)
        else:
            yield name, _text(value)


def project_settings(path: Path | None = None) -> dict[str, str]:
    """The project's `prefect.toml` as variables: `[results] x` is `PREFECT_RESULTS_X`.

    Raises:
        ConfigError: the file is missing or is not TOML.
    """
    path = path or SETTINGS_FILE
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{path} is missing: without it Prefect loses task records under load. "
            "Run from a checkout installed with `uv sync` (an editable install), or restore the file."
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    return dict(_flatten(table, "PREFECT"))


def environment() -> dict[str, str]:
    """Every variable a Prefect process of this project needs; what the user set keeps its value."""
    ours = {
        **project_settings(),
        "DO_NOT_TRACK": "1",
        "PREFECT_HOME": str(home()),
        "PREFECT_RESULTS_LOCAL_STORAGE_PATH": str(home() / "results"),
    }
    return {name: os.environ.get(name) or value for name, value in sorted(ours.items())}


def prepare_home() -> None:
    """Make the folder of Prefect's state; Prefect itself does not make its parents, and then has no database.

    Raises:
        StorageError: it cannot be made.
    """
    private_folder(settings().home)
    private_folder(home())


def apply_environment() -> None:
    """Set the variables of `environment` in this process. Call it before Prefect is imported.

    Raises:
        ConfigError: the project's prefect.toml cannot be read.
        StorageError: the folder of Prefect's state cannot be made.
    """
    prepare_home()
    wanted = environment()
    changed = [name for name, value in wanted.items() if os.environ.get(name) != value]
    os.environ.update(wanted)
    if changed and "prefect.settings" in sys.modules:
        logger.warning(
            "Prefect was imported before its settings were applied; %s take effect only in new processes.",
            ", ".join(changed),
        )
