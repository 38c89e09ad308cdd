"""Declarations in YAML, read strictly: safe loader, pydantic models, errors that name file and field."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from omni.errors import ConfigError


class Declaration(BaseModel):
    """Base of every declaration: unknown keys are mistakes, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


D = TypeVar("D", bound=BaseModel)

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's safe loader where PyYAML was built with it: seven times faster."""


def parse(text: str, model: type[D], origin: str) -> D:
    """Validate one YAML document.

    Args:
        text: the document.
        model: what it must be.
        origin: the file, for messages.

    Raises:
        ConfigError: the text is no YAML mapping, or fields are missing, misspelt or wrong.
    """
    try:
        document = yaml.load(text, Loader=_LOADER)  # noqa: S506  a safe loader, see there
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin}: not valid YAML: {error}") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{origin}: expected a mapping of fields, found {type(document).__name__}")
    try:
        return model.model_validate(document)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(p) for p in problem['loc']) or 'document'}: {problem['msg']}"
            for problem in error.errors()
        )
        raise ConfigError(f"{origin}: {problems}") from None


def load(path: Path, model: type[D]) -> D:
    """Read and validate one file (see `parse`)."""
    return parse(path.read_text(encoding="utf-8"), model, str(path))


def load_folder(folder: Path, model: type[D], name: str = "name") -> dict[str, D]:
    """Read every YAML file under a folder, each holding one declaration named as its file.

    Args:
        folder: searched recursively; a missing one holds nothing.
        model: what each file must be.
        name: the field that names it.

    Returns:
        The declarations by name, in order of their paths.

    Raises:
        ConfigError: a file is wrong, not named after its declaration, or declares what another one does.
    """
    found: dict[str, D] = {}
    for path in sorted(folder.rglob("*.yml")):
        declaration = load(path, model)
        named = getattr(declaration, name)
        if named != path.stem:
            raise ConfigError(f"{path}: {name}: is {named!r}, but the file is named {path.stem!r}")
        if named in found:
            raise ConfigError(f"{path}: {name}: {named!r} is also declared in another folder")
        found[named] = declaration
    return found
