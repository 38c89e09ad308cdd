"""Salesforce's endpoints: `/services/data/vXX.0/…` and `/services/oauth2/…`, with faults.

`POST /_sandbox/salesforce` does to the org what no client of its own would: `{"action": …}` with one of
change, delete, undelete, purge (`object`, `id`, `values`), expire (end all sessions), usage (`used`,
`allowed`: API requests of the day), fate (`state`, `message`: the end the next query job comes to), parts
(`rows`: the most a part of a job's results holds) and register (`client_id`, `client_secret`,
`public_key`, `users`: a connected app).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from omni.sandbox import salesforce as rest
from omni.sandbox import salesforce_jobs as bulk
from omni.sandbox import salesforce_oauth as oauth
from omni.sandbox.faults import Fault
from omni.sandbox.reply import Refusal, Reply
from omni.sandbox.salesforce_org import Invalid, Org
from omni.sandbox.serving import DOWN, Endpoint, State, deliver, retry_header, target_of

Handler = Callable[[Request, bytes], Reply]
ROOT = "/services/data/v{version}"


@dataclass
class Server:
    """The org behind the endpoints, made when it is first asked for, and what they remember."""

    make: Callable[[], Org]
    logins: oauth.Logins
    cursors: rest.Cursors = field(default_factory=rest.Cursors)
    usage: rest.Usage = field(default_factory=rest.Usage)

    @cached_property
    def org(self) -> Org:
        """The org."""
        return self.make()

    @cached_property
    def jobs(self) -> bulk.Jobs:
        """Its bulk jobs."""
        return bulk.Jobs(self.org)


def _instead(fault: Fault) -> Reply | None:
    """The answer of a fault that keeps the request from being served."""
    if fault.kind in DOWN:
        code = "SERVER_UNAVAILABLE" if fault.kind == "503" else "UNKNOWN_EXCEPTION"
        return rest.refused(int(fault.kind), code, DOWN[fault.kind]).reply
    if fault.kind == "401":
        return _expired().reply
    if fault.kind in ("429", "429_retry_after"):
        reply = rest.refused(429, "SERVER_BUSY", "too many requests").reply
        return Reply(reply.payload, 429, retry_header(1.0 if fault.kind == "429_retry_after" else None))
    if fault.kind == "error_code":
        code = fault.arguments[0]
        status = 403 if code == "REQUEST_LIMIT_EXCEEDED" else 400
        return rest.refused(status, code, f"{code} on request").reply
    return None


def _expired() -> Refusal:
    return rest.refused(401, "INVALID_SESSION_ID", "Session expired or invalid")


def _admit(server: Server, request: Request) -> None:
    """Let a request in and count it.

    Raises:
        Refusal: 401, 403 or 404.
    """
    if "version" in request.path_params:
        rest.check_version(request.path_params["version"])
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme not in ("Bearer", "OAuth") or not server.logins.good(token):
        raise _expired()
    if server.usage.used >= server.usage.allowed:
        raise rest.refused(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")
    server.usage.used += 1


def _endpoint(state: State, server: Server, name: str, handle: Handler) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        label = f"salesforce {name} {request.path_params.get('object', '')}".strip()
        state.requests[label] += 1
        raw = await request.body()

        def make() -> Reply:
            try:
                _admit(server, request)
                reply = handle(request, raw)
            except Refusal as refusal:
                reply = refusal.reply
            return Reply(reply.payload, reply.status, {**reply.headers, **server.usage.header})

        return await deliver(state, state.faults.draw(target_of(request), shopify=False), _instead, make)

    return endpoint


def _open_endpoint(state: State, name: str, handle: Handler) -> Endpoint:
    """An endpoint that needs no token."""

    async def endpoint(request: Request) -> Response:
        state.requests[f"salesforce {name}"] += 1
        raw = await request.body()

        def make() -> Reply:
            try:
                return handle(request, raw)
            except Refusal as refusal:
                return refusal.reply

        return await deliver(state, state.faults.draw(target_of(request), shopify=False), _instead, make)

    return endpoint


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        raise rest.refused(400, "JSON_PARSER_ERROR", "the body is no JSON") from None


def _object(raw: bytes) -> dict[str, Any]:
    body = _json(raw)
    if not isinstance(body, dict):
        raise rest.refused(400, "JSON_PARSER_ERROR", "a JSON object is needed")
    return body


def _version(request: Request) -> str:
    return str(request.path_params["version"])


def _instance(request: Request) -> str:
    return f"{request.url.scheme}://{request.url.netloc}"


def routes(state: State) -> list[Route]:
    """Salesforce's routes over the company's org; none where it has no org."""
    if state.company.org is None:
        return []
    server = Server(state.company.org, oauth.Logins(state.options.token))
    return [
        *_rest_routes(state, server),
        *_record_routes(state, server),
        *_job_routes(state, server),
        *_login_routes(state, server),
        _control(server),
    ]


def _rest_routes(state: State, server: Server) -> list[Route]:
    cursors = server.cursors

    def ask(request: Request, *, deleted: bool) -> Reply:
        options = request.headers.get("sforce-query-options", "")
        asked = request.query_params
        return rest.query(server.org, cursors, _version(request), asked, options, deleted=deleted)

    table: list[tuple[str, str, Handler]] = [
        ("query", "/query", lambda r, _: ask(r, deleted=False)),
        ("queryAll", "/queryAll", lambda r, _: ask(r, deleted=True)),
        (
            "queryMore",
            "/query/{locator}",
            lambda r, _: rest.query_more(cursors, _version(r), r.path_params["locator"]),
        ),
        ("limits", "/limits", lambda _r, _b: rest.limits(server.usage)),
        ("describeGlobal", "/sobjects", lambda r, _: rest.describe_global(server.org, _version(r))),
        (
            "describe",
            "/sobjects/{object}/describe",
            lambda r, _: rest.describe(server.org, _version(r), r.path_params["object"]),
        ),
    ]
    return [
        Route(ROOT + path, _endpoint(state, server, name, handle), methods=["GET"])
        for name, path, handle in table
    ]


def _record_routes(state: State, server: Server) -> list[Route]:
    def at(request: Request) -> tuple[Org, str, str]:
        return server.org, request.path_params["object"], request.path_params.get("key", "")

    def get(request: Request, _: bytes) -> Reply:
        org, name, key = at(request)
        return rest.get_record(org, _version(request), name, key, request.query_params.get("fields"))

    def find(request: Request, _: bytes) -> Reply:
        org, name, value = at(request)
        key = rest.external_key(org, name, request.path_params["field"], value)
        return rest.get_record(org, _version(request), name, key, request.query_params.get("fields"))

    def upsert(request: Request, raw: bytes) -> Reply:
        org, name, key = at(request)
        return rest.upsert_record(org, name, request.path_params["field"], key, _object(raw))

    one = "/sobjects/{object}/{key}"
    table: list[tuple[str, str, str, Handler]] = [
        ("create", "POST", "/sobjects/{object}", lambda r, b: rest.create_record(*at(r)[:2], _object(b))),
        ("get", "GET", one, get),
        ("change", "PATCH", one, lambda r, b: rest.change_record(*at(r), _object(b))),
        ("delete", "DELETE", one, lambda r, _: rest.delete_record(*at(r))),
        ("get", "GET", "/sobjects/{object}/{field}/{key}", find),
        ("upsert", "PATCH", "/sobjects/{object}/{field}/{key}", upsert),
    ]
    return [
        Route(ROOT + path, _endpoint(state, server, name, handle), methods=[way])
        for name, way, path, handle in table
    ]


def _job_routes(state: State, server: Server) -> list[Route]:
    def at(request: Request) -> tuple[bulk.Jobs, str, str]:
        return server.jobs, _version(request), request.path_params.get("key", "")

    def kind(request: Request) -> tuple[bulk.Jobs, str, str, str]:
        return server.jobs, _version(request), request.path_params["kind"], request.path_params["key"]

    def upload(request: Request, raw: bytes) -> Reply:
        return bulk.put_batch(*at(request), raw, request.headers.get("content-type", ""))

    one, which = "/{kind}/{key}", "/ingest/{key}/{which}"
    table: list[tuple[str, str, str, Handler]] = [
        ("bulk query", "POST", "/query", lambda r, b: bulk.create_query(*at(r)[:2], _json(b))),
        ("bulk results", "GET", "/query/{key}/results", lambda r, _: bulk.results(*at(r), r.query_params)),
        ("ingest", "POST", "/ingest", lambda r, b: bulk.create_ingest(*at(r)[:2], _json(b))),
        ("ingest upload", "PUT", "/ingest/{key}/batches", upload),
        ("ingest results", "GET", which, lambda r, _: bulk.ingest_results(*at(r), r.path_params["which"])),
        ("bulk state", "GET", one, lambda r, _: bulk.job_info(*kind(r))),
        ("bulk change", "PATCH", one, lambda r, b: bulk.set_state(*kind(r), _json(b))),
        ("bulk drop", "DELETE", one, lambda r, _: bulk.drop(*kind(r))),
    ]
    return [
        Route(f"{ROOT}/jobs{path}", _endpoint(state, server, name, handle), methods=[way])
        for name, way, path, handle in table
    ]


def _login_routes(state: State, server: Server) -> list[Route]:
    def token(request: Request, raw: bytes) -> Reply:
        form = dict(parse_qsl(raw.decode(errors="replace")))
        header = request.headers.get("authorization", "")
        return oauth.token(server.logins, form, header, _instance(request))

    def revoke(_: Request, raw: bytes) -> Reply:
        return oauth.revoke(server.logins, dict(parse_qsl(raw.decode(errors="replace"))))

    authorize = _open_endpoint(
        state, "authorize", lambda r, _: oauth.authorize(server.logins, r.query_params)
    )
    return [
        Route("/services/oauth2/token", _open_endpoint(state, "token", token), methods=["POST"]),
        Route("/services/oauth2/revoke", _open_endpoint(state, "revoke", revoke), methods=["POST"]),
        Route("/services/oauth2/authorize", authorize, methods=["GET"]),
    ]


def _control(server: Server) -> Route:
    """The org's own switch, for tests in other processes."""

    async def control(request: Request) -> Response:
        try:
            body = json.loads(await request.body())
            done = act(server, body)
        except (ValueError, KeyError, TypeError, AttributeError, Invalid) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
            return Response(json.dumps(answer), 400, media_type="application/json")
        return Response(json.dumps({"done": done}), media_type="application/json")

    return Route("/_sandbox/salesforce", control, methods=["POST"])


def act(server: Server, body: dict[str, Any]) -> str:
    """Do what a control request asks for.

    Raises:
        ValueError, KeyError: it asks for something unknown.
        Invalid: the org refuses it.
    """
    action = body["action"]
    if action in ("delete", "undelete", "purge"):
        getattr(server.org, action)(body["object"], body["id"])
    elif action == "change":
        server.org.change(body["object"], body["id"], body["values"])
    elif action == "expire":
        server.logins.expire()
    elif action == "usage":
        server.usage.used = body.get("used", server.usage.used)
        server.usage.allowed = body.get("allowed", server.usage.allowed)
    elif action == "fate":
        server.jobs.fate = (body["state"], body.get("message", ""))
    elif action == "parts":
        server.jobs.most = int(body["rows"])
    elif action == "register":
        users = tuple(body.get("users", (oauth.USER,)))
        secret = body.get("client_secret", server.logins.fixed)
        app = oauth.App(body["client_id"], secret, body.get("public_key"), users)
        server.logins.apps[app.client_id] = app
    else:
        raise ValueError(f"unknown action {action!r}")
    return str(action)
