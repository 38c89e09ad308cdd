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
        document = yaml.safe_load(text)
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
