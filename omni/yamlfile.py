"""Declarations in YAML, read strictly: safe loader, pydantic models, errors that name file and field."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from omni.errors import ConfigError


class Declaration(BaseModel):
    """Base of every declaration: unknown keys are mistakes, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


D = TypeVar("D", bound=BaseModel)

_FASTEST: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's safe loader where PyYAML was built with it: seven times faster."""


class _Loader(_FASTEST):  # type: ignore[misc]  # one of two classes
    """A safe loader that refuses what the usual one swallows: repeated keys, days no calendar has."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} is there twice", key.start_mark
                    )
                seen.add(key.value)
        made: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return made

    def construct_scalar_of_time(self, node: yaml.ScalarNode) -> Any:
        try:
            return self.construct_yaml_timestamp(node)
        except ValueError as error:
            raise yaml.constructor.ConstructorError(
                None, None, f"{node.value} is no point in time: {error}", node.start_mark
            ) from None


_Loader.add_constructor("tag:yaml.org,2002:timestamp", _Loader.construct_scalar_of_time)


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
        document = yaml.load(text, Loader=_Loader)  # noqa: S506  a safe loader, see there
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
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8; save it as UTF-8") from None
    return parse(text, model, str(path))


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
