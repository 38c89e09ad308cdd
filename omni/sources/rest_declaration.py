"""What is said of a REST API in `data/rest/<name>.yml`: where it is, how it pages, what changed since.

name: feedback
title: Feedback
base_url: https://api.feedback.example
auth: {kind: bearer}
streams:
  reviews:
    path: /v1/reviews
    records: data
    key: id
    paging: {style: cursor, next: meta.next, param: cursor, size: 100, size_param: limit}
    since: {param: updated_since, format: iso}
    total: meta.total
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from omni import yamlfile
from omni.errors import ConfigError
from omni.settings import settings
from omni.yamlfile import Declaration

PATH = r"^\w[\w-]*(\.\w[\w-]*)*$"
SECRET_HEADERS = ("authorization", "cookie", "proxy-authorization")


class Auth(Declaration):
    """How requests are authenticated.

    `bearer` and `api_key` take the token as it is (`api_key` in the header or parameter `name`), `basic`
    takes `user:password`, `oauth2` asks `token_url` for tokens with the app's client credentials.
    """

    kind: Literal["none", "bearer", "api_key", "basic", "oauth2"] = "bearer"
    name: str | None = Field(None, description="header or parameter of an api_key")
    place: Literal["header", "query"] = "header"
    prefix: str = Field("", description="before an api_key, for example 'Token '")
    token_url: str | None = Field(None, pattern=r"^https?://")
    scope: str = ""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "api_key" and not self.name:
            raise ValueError("auth api_key needs name, for example X-Api-Key")
        if self.kind == "oauth2" and not self.token_url:
            raise ValueError("auth oauth2 needs token_url, for example https://id.example.com/oauth/token")
        return self


class Paging(Declaration):
    """How one page leads to the next.

    `page` counts pages in `param`, `offset` records; they end with an empty page, or where `more` or the
    stream's `total` says so. `cursor` sends the token found at `next` as `param`. `next_url` follows the
    address at `next`, `link_header` the one that the Link header calls next.
    """

    style: Literal["none", "page", "offset", "cursor", "next_url", "link_header"] = "none"
    param: str | None = Field(None, description="parameter of page number, offset or cursor")
    next: str | None = Field(None, pattern=PATH, description="path of the next token or address")
    more: str | None = Field(None, pattern=PATH, description="path of a boolean: whether there is more")
    first: int = Field(1, ge=0, description="number of the first page")
    size: int | None = Field(None, ge=1, le=10_000, description="records of a page")
    size_param: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needs = {"page": ["param"], "offset": ["param"], "cursor": ["param", "next"], "next_url": ["next"]}
        for name in needs.get(self.style, []):
            if getattr(self, name) is None:
                raise ValueError(f"paging {self.style} needs {name}")
        if (self.size is None) != (self.size_param is None):
            raise ValueError("size and size_param go together, for example size: 100, size_param: limit")
        return self


class Since(Declaration):
    """How to ask for what changed; without it, everything is read each time.

    `exclusive`: the API leaves out what changed at that very moment, so one step earlier is asked for.
    """

    param: str
    until_param: str | None = None
    format: Literal["iso", "iso_ms", "epoch", "epoch_ms", "date"] = "iso"
    exclusive: bool = False


class Stream(Declaration):
    """One list of records."""

    path: str = Field(pattern=r"^/[^?#\s]*$")
    records: str | None = Field(None, pattern=PATH, description="path of the list; absent: the answer is it")
    key: list[str] = Field(["id"], min_length=1, description="path of what identifies a record; several join")
    params: dict[str, str] = {}
    paging: Paging = Paging()
    since: Since | None = None
    total: str | None = Field(None, pattern=PATH, description="path of how many records there are in all")
    total_header: str | None = Field(None, description="header that says so")
    item: str | None = Field(None, pattern=r"^/[^?#\s]*\{id\}[^?#\s]*$", description="path of one record")
    item_record: str | None = Field(None, pattern=PATH, description="path of the record in that answer")

    @field_validator("key", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value


class Rate(Declaration):
    """At most so many requests in so many seconds."""

    requests: int = Field(ge=1)
    seconds: float = Field(1.0, gt=0)


class Api(Declaration):
    """A REST API."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,40}$")
    title: str
    base_url: str = Field(pattern=r"^https?://[^/\s@]+(/[^\s?#]*)?$", description="without a password in it")
    auth: Auth = Auth()
    headers: dict[str, str] = {}
    limits: list[Rate] = []
    lag: float = Field(60.0, ge=0, description="seconds the API may take to show a change")
    streams: dict[str, Stream] = Field(min_length=1)

    @field_validator("headers")
    @classmethod
    def _no_secrets(cls, value: dict[str, str]) -> dict[str, str]:
        if secret := [name for name in value if name.lower() in SECRET_HEADERS]:
            raise ValueError(f"{secret[0]} is a secret: declare auth, and set the token in the settings")
        return value

    @property
    def variable(self) -> str:
        """How its settings' variables begin."""
        return f"OMNI_REST__{self.name.upper()}__"


def load_apis(folder: Path) -> dict[str, Api]:
    """The APIs declared in a folder, by name.

    Raises:
        ConfigError: naming file and field of a wrong one.
    """
    from omni.sources.vendors import NAMES

    found = yamlfile.load_folder(folder, Api)
    if taken := sorted(set(found) & set(NAMES)):
        raise ConfigError(f"{folder / taken[0]}.yml: name: {taken[0]!r} is a vendor of our own")
    return found


_cached = lru_cache(maxsize=4)(load_apis)


def declarations() -> dict[str, Api]:
    """The declared APIs by name.

    Raises:
        ConfigError: naming file and field of a wrong one.
    """
    return _cached(settings().data / "rest")
