"""Event declarations: which events there are and which properties each has, one file under `data/events/`.

    name: add_to_cart
    description: A product was put into the cart.
    owner: product@demo.example
    properties:
      product_id: {type: string, required: true, description: "the shop's product number"}
      quantity: {type: integer}
      channel: {type: enum, values: [web, app]}

What is not declared does not come in: an unknown event goes to the dead letters, an unknown property is
dropped and counted.
"""

from __future__ import annotations

import difflib
import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import unquote

from pydantic import Field, model_validator

from omni import yamlfile
from omni.errors import ConfigError
from omni.settings import settings
from omni.yamlfile import Declaration

NAME = r"^[a-z][a-z0-9_]{0,62}$"
MAX_TEXT = 1_000
"""Characters of a text property unless its declaration says otherwise."""
INT64 = 2**63
ADDRESS = re.compile(r"[\w.+-]+@[\w-]+\.\w")
"""What looks like an e-mail address: personal, and no event may carry it in clear."""

AFTER_PATH = re.compile(r"([?#;]|%3[fFbB]|%23).*", re.DOTALL)
"""What follows the path in an address, plain or encoded."""
PATHS = {"page", "url", "path", "referrer"}
"""Properties that are paths unless their declaration says otherwise."""

Kind = Literal["string", "integer", "float", "boolean", "timestamp", "enum"]


class Property(Declaration):
    """One property of an event. Nothing personal: properties are stored as they come."""

    type: Kind
    description: str | None = None
    required: bool = Field(False, description="without a right value the event goes to the dead letters")
    values: list[str] | None = Field(None, min_length=1, description="of an enum")
    max_length: int | None = Field(None, ge=1, le=10_000, description="characters of a string")
    path: bool | None = Field(
        None,
        description="a string is an address in the web, kept up to its first ?, # or ; only: what follows "
        "often names a person; by default so for properties named page, url, path and referrer",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.type == "enum") != (self.values is not None):
            raise ValueError("type: enum needs values, and only enum has them")
        if self.values is not None and len(set(self.values)) < len(self.values):
            raise ValueError("values: one is listed twice")
        if self.max_length is not None and self.type != "string":
            raise ValueError("max_length belongs to type string")
        if self.path is not None and self.type != "string":
            raise ValueError("path belongs to type string")
        return self


class Event(Declaration):
    """One kind of event."""

    name: str = Field(pattern=NAME)
    description: str = Field(min_length=1)
    owner: str
    properties: dict[str, Property] = {}

    @model_validator(mode="after")
    def _names(self) -> Self:
        for name in self.properties:
            if not re.fullmatch(NAME, name):
                raise ValueError(f"properties: {name!r} is no name: small letters, digits and underscores")
        return self


Reader = Callable[[Any], Any]
"""Gives a property's value as it is stored; raises ValueError with the reason, which quotes no value."""


@dataclass(frozen=True)
class Form:
    """An event's properties, ready to be read.

    Attributes:
        readers: a reader by property.
        required: properties that must have a right value.
    """

    readers: Mapping[str, Reader]
    required: tuple[str, ...]


def load_catalogue(folder: Path) -> dict[str, Event]:
    """All event declarations under a folder, by name.

    Raises:
        ConfigError: a file is wrong or not named after its event.
    """
    return yamlfile.load_folder(folder, Event)


@lru_cache(maxsize=4)
def _cached(folder: Path) -> dict[str, Event]:
    return load_catalogue(folder)


def catalogue() -> dict[str, Event]:
    """The project's events, read once per process."""
    return _cached(settings().data / "events")


def event_named(name: str) -> Event:
    """One event.

    Raises:
        ConfigError: it is not declared.
    """
    known = catalogue()
    if name not in known:
        raise ConfigError(f"No event {name!r} in data/events{close_to(name, known)}")
    return known[name]


def close_to(name: str, known: Mapping[str, object]) -> str:
    """A hint for a misspelt name, or nothing."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def form(event: Event, *, lax: bool = False) -> Form:
    """How an event's properties are read.

    Args:
        event: its declaration.
        lax: texts stand for values of their type too, as in a CSV file.
    """
    readers = {name: _reader(name, declared, lax) for name, declared in event.properties.items()}
    return Form(readers, tuple(name for name, declared in event.properties.items() if declared.required))


def unmasked(text: str) -> str:
    """A text as whoever reads it would see it: percent signs decoded, look-alikes and hidden signs resolved.

    Only to look for what is personal; it is not stored.
    """
    if text.isascii() and "%" not in text:
        return text
    for _ in range(4):  # what is encoded more often no reader decodes either
        plain = unicodedata.normalize("NFKC", unquote(text))
        if plain == text:
            break
        text = plain
    return "".join(sign for sign in text if unicodedata.category(sign) != "Cf")


def _reader(name: str, declared: Property, lax: bool) -> Reader:
    if declared.type == "string":
        path = name in PATHS if declared.path is None else declared.path
        return _text(declared.max_length or MAX_TEXT, lax, path)
    if declared.type == "enum":
        return _member(frozenset(declared.values or ()))
    return (LAX if lax else STRICT)[declared.type]


def _text(most: int, lax: bool, path: bool) -> Reader:
    def read(value: Any) -> str:
        if lax and isinstance(value, (int, float)) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            raise ValueError("is no text")  # noqa: TRY004  readers raise one kind of error
        text = AFTER_PATH.sub("", value) if path else value
        if len(text) > most:
            raise ValueError(f"has more than {most} characters")
        if "\0" in text:
            raise ValueError("holds a null character")
        plain = unmasked(text)
        if "@" in plain and ADDRESS.search(plain):
            raise ValueError("looks like an e-mail address")
        return text

    return read


def _member(values: frozenset[str]) -> Reader:
    def read(value: Any) -> str:
        if not isinstance(value, str) or value not in values:
            raise ValueError("is none of its values")
        return value

    return read


def _integer(value: Any) -> int:
    if type(value) is not int or not -INT64 <= value < INT64:
        raise ValueError("is no integer")
    return value


def _float(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError("is no number")
    return float(value)


def _boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError("is neither true nor false")
    return value


def _timestamp(value: Any) -> str:
    try:
        at = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        text = at.astimezone(UTC).isoformat() if at.tzinfo else ""
    except (TypeError, ValueError, OverflowError):
        text = ""
    if not text:
        raise ValueError("is no time such as 2026-01-15T06:00:00Z")
    return text


def _lax(read: Reader, texts: Mapping[str, Any] | Callable[[str], Any]) -> Reader:
    def reader(value: Any) -> Any:
        if isinstance(value, str):
            text = value.strip().lower()
            try:
                value = texts(text) if callable(texts) else texts[text]
            except (ValueError, KeyError):
                value = None
        return read(value)

    return reader


STRICT: dict[str, Reader] = {
    "integer": _integer,
    "float": _float,
    "boolean": _boolean,
    "timestamp": _timestamp,
}
LAX: dict[str, Reader] = {
    "integer": _lax(_integer, int),
    "float": _lax(_float, float),
    "boolean": _lax(_boolean, {"true": True, "false": False, "1": True, "0": False}),
    "timestamp": _timestamp,
}
