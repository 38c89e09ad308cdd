"""The vendors there are. Each is a module beside this one with a value `VENDOR`, loaded when it is used."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

from omni.errors import ConfigError
from omni.sources.vendor import Vendor

_VALUE = re.compile(r"^VENDOR\b.*= Vendor\(", re.MULTILINE)

NAMES = tuple(
    sorted(
        path.stem
        for path in Path(__file__).parent.glob("*.py")
        if _VALUE.search(path.read_text(encoding="utf-8"))
    )
)
"""Found in the modules' text: loading all of them to see would cost every command their imports."""


def vendor_named(name: str) -> Vendor[Any]:
    """A vendor: one of the modules, or a REST API declared under `data/rest/`.

    Raises:
        ConfigError: there is none of that name.
    """
    if name in NAMES:
        vendor: Vendor[Any] = importlib.import_module(f"omni.sources.{name}").VENDOR
        return vendor
    from omni.sources import rest

    if (declared := rest.declarations().get(name)) is not None:
        return rest.vendor(declared)
    known = ", ".join([*NAMES, *rest.declarations()])
    raise ConfigError(f"Unknown vendor {name!r}. Known: {known}.")
