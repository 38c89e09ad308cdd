"""Any REST API by a declaration (`rest_declaration.Api`) in `data/rest/`, as a vendor like the others.

A record's `id` is what the declaration's `key` leads to, as text; a field of that name which is not the key
is `_row.id`. Tokens come from a saved block or `OMNI_REST__<NAME>__TOKEN`, never from the declaration.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import quote

from pydantic import SecretStr

from omni.errors import ConfigError, SchemaError, SourceError
from omni.settings import RestSettings, settings
from omni.sources import rest_paging
from omni.sources.connection import Connection, Login
from omni.sources.http import Call, Dialect, Http, Reply, describe
from omni.sources.limits import Limit
from omni.sources.parse import EPOCH_START
from omni.sources.records import PARENT, Record
from omni.sources.rest_declaration import Api, Since, Stream, declarations
from omni.sources.vendor import Page, Vendor, Window, table_object
from omni.tenancy import Tenant
from omni.warehouse.contracts import Contract

__all__ = ["configured", "declarations", "vendor"]

STEPS = {"iso_ms": timedelta(milliseconds=1), "epoch_ms": timedelta(milliseconds=1)}
"""The finest step of a format; of the others a second."""


class _Gone(SourceError):
    """404 or 410."""


@dataclass(frozen=True)
class Client:
    """An account of a declared API: `secret` are parameters that carry the key."""

    http: Http
    api: Api
    base_url: str
    secret: dict[str, str]

    def get(self, path: str, params: dict[str, str]) -> Reply:
        """One answer; raises as `Http.send`."""
        return self.http.send(Call("GET", path, params=params | self.secret))


def vendor(api: Api) -> Vendor[Client]:
    """A declared API as a vendor."""
    formats = [stream.since.format for stream in api.streams.values() if stream.since]
    step = max((STEPS.get(form, timedelta(seconds=1)) for form in formats), default=timedelta(milliseconds=1))
    can_reread = any(stream.item for stream in api.streams.values())
    return Vendor(
        name=api.name,
        title=api.title,
        open=partial(_opened, api),
        lag=timedelta(seconds=api.lag),
        resolution=step,
        check=check,
        count=count,
        read=read,
        reread=reread if can_reread else None,
    )


def configured(tenant: Tenant, name: str) -> Connection | None:
    """A tenant's account of a declared API by the settings; None where a sandbox stands in.

    Raises:
        ConfigError: the token is not set.
    """
    api, chosen = declarations()[name], settings().rest.get(name, RestSettings())
    if tenant.company is not None:
        return None
    return account(
        api,
        str(chosen.base_url or api.base_url),
        token=chosen.token,
        client_id=chosen.client_id,
        client_secret=chosen.client_secret,
    )


def account(
    api: Api,
    base_url: str,
    *,
    token: SecretStr | None = None,
    client_id: str | None = None,
    client_secret: SecretStr | None = None,
    **limits: Any,
) -> Connection:
    """A connection to a declared API.

    Raises:
        ConfigError: what its auth needs is missing.
    """
    login: Login | None = None
    if api.auth.kind == "oauth2":
        login = _app_login(api, base_url, client_id, client_secret)
    elif token is None and api.auth.kind != "none":
        raise ConfigError(f"{api.title} needs a token: save a RestApi block, or set {api.variable}TOKEN.")
    return Connection(api.name, base_url.rstrip("/"), token or SecretStr(""), login=login, **limits)


def _app_login(api: Api, base_url: str, client_id: str | None, secret: SecretStr | None) -> Login:
    from omni.sources.oauth import AppLogin
    from omni.sources.oauth import Client as App
    from omni.sources.oauth_providers import Provider

    if not client_id or secret is None:
        raise ConfigError(f"{api.title} needs {api.variable}CLIENT_ID and {api.variable}CLIENT_SECRET.")
    provider = Provider(
        vendor=api.name,
        title=api.title,
        consent_at="",
        tokens_at=api.auth.token_url or "",
        api=base_url.rstrip("/"),
        scopes=api.auth.scope,
    )
    return AppLogin(provider, App(client_id, "client_credentials", secret))


@contextmanager
def _opened(api: Api, connection: Connection) -> Iterator[Client]:
    secret: dict[str, str] = {}
    if api.auth.kind == "api_key" and api.auth.place == "query":
        secret = {api.auth.name or "": connection.token.get_secret_value()}
        logging.getLogger("httpx").setLevel(logging.WARNING)  # at INFO it writes whole addresses
    usable = connection
    if api.auth.kind == "none":
        usable = replace(connection, token=SecretStr("none"))
    elif api.auth.kind == "basic":
        coded = base64.b64encode(connection.token.get_secret_value().encode()).decode()
        usable = replace(connection, token=SecretStr(coded if connection.token else ""))
    with Http(usable, _dialect(api)) as http:
        yield Client(http, api, connection.base_url.rstrip("/"), secret)


def _dialect(api: Api) -> Dialect:
    def limits(connection: Connection) -> tuple[Limit, ...]:
        if api.limits:
            return tuple(Limit(rate.requests, rate.seconds) for rate in api.limits)
        return (Limit(connection.requests_per_10s, 10.0),)

    needs = "CLIENT_ID and CLIENT_SECRET" if api.auth.kind == "oauth2" else "TOKEN"
    return Dialect(
        title=api.title,
        headers=_headers(api),
        limits=limits,
        advice=f"Check {api.variable}{needs}, or the tenant's RestApi block.",
        judge=_judge,
    )


def _headers(api: Api) -> Callable[[str], dict[str, str]]:
    auth, fixed = api.auth, api.headers

    def headers(token: str) -> dict[str, str]:
        if auth.kind == "none" or auth.place == "query":
            return {**fixed}
        if auth.kind == "api_key":
            return {**fixed, auth.name or "": auth.prefix + token}
        return {**fixed, "Authorization": f"{'Basic' if auth.kind == 'basic' else 'Bearer'} {token}"}

    return headers


def _judge(reply: Reply, where: str) -> None:
    if reply.status in (404, 410):
        raise _Gone(f"{where}: refused (HTTP {reply.status}){describe(reply)}.")


def _stream(client: Client, tables: list[Contract]) -> tuple[Stream, str]:
    name = table_object(tables)
    if name not in client.api.streams:
        known = ", ".join(client.api.streams)
        raise ConfigError(
            f"data/rest/{client.api.name}.yml declares no stream {name!r}, which {tables[0].table} names; "
            f"it has {known}."
        )
    stream = client.api.streams[name]
    return stream, f"{client.api.title} {name} ({stream.path})"


def check(client: Client, tables: list[Contract]) -> list[str]:
    """That the stream is declared; an API without a schema has nothing else to compare.

    Raises:
        ConfigError: it is not.
    """
    _stream(client, tables)
    return []


def _written(moment: datetime, form: str) -> str:
    milliseconds = (moment - EPOCH_START) // timedelta(milliseconds=1)
    if form in ("epoch", "epoch_ms"):
        return str(milliseconds if form == "epoch_ms" else milliseconds // 1000)
    utc = moment.astimezone(UTC)
    if form == "date":
        return utc.date().isoformat()
    return utc.isoformat(timespec="milliseconds" if form == "iso_ms" else "seconds").replace("+00:00", "Z")


def _params(stream: Stream, window: Window, *, ends: bool) -> dict[str, str]:
    """What is asked for: the window if it `ends`, else all since its beginning."""
    params, since = dict(stream.params), stream.since
    if since is None:
        return params
    if window.since is not None:
        early = _step(since) if since.exclusive else timedelta(0)
        params[since.param] = _written(window.since - early, since.format)
    if since.until_param and ends:
        # A day ends after its moments, so all of the window's last day is asked for.
        late = timedelta(days=1) if since.format == "date" else timedelta(0)
        params[since.until_param] = _written(window.until + late, since.format)
    return params


def _step(since: Since) -> timedelta:
    return timedelta(days=1) if since.format == "date" else STEPS.get(since.format, timedelta(seconds=1))


def count(client: Client, tables: list[Contract], window: Window) -> int | None:
    """Records the API says the window holds; None where the declaration names no total.

    Raises:
        SourceError: the total it promises is missing.
    """
    stream, where = _stream(client, tables)
    if not stream.total and not stream.total_header:
        return None
    path, params = rest_paging.request(stream, _params(stream, window, ends=True), rest_paging.first(stream))
    if stream.paging.size_param:
        params[stream.paging.size_param] = "1"
    total = rest_paging.total_of(stream, client.get(path, params))
    if total is None:
        raise SourceError(f"{where}: the answer lacks the total at {stream.total or stream.total_header}.")
    return total


def read(client: Client, tables: list[Contract], window: Window, resume: Any) -> Iterator[Page]:
    """The window's records in pages, without `since` later ones too; `resume` is a place of `rest_paging`.

    Raises:
        TransientError: records leave the list faster than it can be read.
        SourceError: an answer lacks the list or a record its key, or paging goes in a circle.
        SchemaError: a column that is not optional comes with no record at all.
    """
    stream, where = _stream(client, tables)
    # A full read has no end: what is edited while it is read would seem to be absent.
    params = _params(stream, window, ends=window.since is not None)
    place: rest_paging.Place | None = resume or rest_paging.first(stream)
    unseen = set() if resume else _required(tables)
    some = False
    been: set[str] = set()
    before: list[str] = []
    while place is not None:
        here = str({key: value for key, value in place.items() if key not in ("read", "total")})
        if here in been:
            raise SourceError(f"{where}: paging goes in a circle; check `paging` in the declaration.")
        been.add(here)
        reply = client.get(*rest_paging.request(stream, params, place))
        records = [_record(stream, raw, where) for raw in _list(stream, reply.body, where)]
        for record in records if unseen else ():
            unseen.difference_update(record)
        some = some or bool(records)
        ids = [record["id"] for record in records]
        if ids and ids == before and stream.paging.style in ("page", "offset"):
            raise SourceError(
                f"{where}: the same page came twice; {stream.paging.param} may be the wrong parameter, or "
                "the API repeats its last page: declare `more` or `total`."
            )
        begun = place.get("again", 0)
        place = rest_paging.following(stream, place, reply, len(records), client.base_url, where)
        before = ids if place and place.get("again", 0) == begun else []
        if place and "url" in place and client.secret:
            place["url"] = rest_paging.without(place["url"], client.secret)
        yield Page(records, place)
    if some and unseen:
        missing = ", ".join(sorted(map(repr, unseen)))
        raise SchemaError(
            f"{where}: no record has {missing}, which {tables[0].table} takes. Change the contract: another "
            "`from`, or `optional: true` if the API leaves out what is empty."
        )


def _required(tables: list[Contract]) -> set[str]:
    """Fields of a record of which some record must have each."""
    parent = tables[0]
    paths = [column.path or name for name, column in parent.columns.items() if not column.optional]
    own = {path.removeprefix(PARENT).partition(".")[0] for path in paths}
    return own - {"id", "_row"}


def _list(stream: Stream, body: Any, where: str) -> list[Any]:
    found = rest_paging.at(body, stream.records) if stream.records else body
    if not isinstance(found, list):
        kind = "missing" if found is None else f"of type {type(found).__name__}"
        raise SourceError(
            f"{where}: {stream.records or 'the answer itself'} should be a list, but is {kind}. The API's "
            "format may have changed, or `records` in the declaration is wrong."
        )
    return found


def _record(stream: Stream, raw: Any, where: str) -> Record:
    if not isinstance(raw, dict):
        raise SourceError(f"{where}: a record should be an object, but is {type(raw).__name__}.")
    parts = []
    for path in stream.key:
        value = rest_paging.at(raw, path)
        if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
            raise SourceError(f"{where}: a record lacks its key at {path}; check `key` in the declaration.")
        parts.append(str(value))
    record = dict(raw)
    if stream.key != ["id"] and "id" in raw:
        record["_row"] = {"id": raw["id"]}
    record["id"] = "|".join(parts)
    return record


def reread(client: Client, tables: list[Contract], ids: list[str]) -> Iterator[Page]:
    """Records by id, for a stream whose declaration has `item`; those that are gone are left out.

    Raises:
        ConfigError: the stream has none.
    """
    stream, where = _stream(client, tables)
    if stream.item is None:
        raise ConfigError(f"{where}: cannot be read by id; declare `item`, for example {stream.path}/{{id}}")
    for identity in ids:
        try:
            reply = client.get(stream.item.replace("{id}", quote(identity, safe="")), dict(stream.params))
        except _Gone:
            continue
        raw = rest_paging.at(reply.body, stream.item_record) if stream.item_record else reply.body
        yield Page([_record(stream, raw, where)])
