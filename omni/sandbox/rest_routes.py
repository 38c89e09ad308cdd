"""An API like many: ratings that buyers gave, listed in every usual paging style, behind every usual auth.

`/rest/<auth>/<style>/ratings` with auth bearer, header, query, basic, oauth2 or none, and style page, offset,
cursor, next_url, link_header or none. `updated_since` is inclusive, `updated_before` exclusive.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from omni.sandbox.company import Company, crm_time
from omni.sandbox.faults import Fault
from omni.sandbox.reply import Refusal, Reply
from omni.sandbox.serving import DOWN, Endpoint, State, deliver, retry_header, target_of

MAX_SIZE = 100
CLIENT_ID = "sandbox"
"""Of OAuth client credentials; the secret is the sandbox's token."""

Row = dict[str, Any]


def ratings(company: Company) -> list[Row]:
    """The company's reviews, less their words, oldest id first."""
    found = company.crm["reviews"].records if "reviews" in company.crm else ()
    return [
        {
            "id": int(record.id),
            "order": {"name": record.properties.get("order_ref")},
            "score": int(score) if (score := record.properties.get("score")) else None,
            "created_at": crm_time(record.created_ms),
            "updated_at": crm_time(record.updated_ms),
        }
        for record in found
        if record.archived_ms is None
    ]


def _problem(status: int, message: str, headers: Mapping[str, str] | None = None) -> Refusal:
    return Refusal(Reply({"error": {"code": status, "message": message}}, status, headers or {}))


def _instead(fault: Fault) -> Reply | None:
    if fault.kind in DOWN:
        return _problem(int(fault.kind), DOWN[fault.kind]).reply
    if fault.kind == "401":
        return _problem(401, "invalid token").reply
    if fault.kind in ("429", "429_retry_after"):
        wait = retry_header(1.0 if fault.kind == "429_retry_after" else None)
        return _problem(429, "slow down", wait).reply
    return None


def _admit(request: Request, given: set[str], token: str) -> None:
    """Refuse a request without the right credentials; `given` are the tokens of OAuth."""
    auth, headers = request.path_params["auth"], request.headers
    said = headers.get("authorization", "")
    basic = "Basic " + base64.b64encode(f"user:{token}".encode()).decode()
    admitted = {
        "none": True,
        "bearer": said == f"Bearer {token}",
        "header": headers.get("x-api-key") == token,
        "query": request.query_params.get("api_key") == token,
        "basic": said == basic,
        "oauth2": said.removeprefix("Bearer ") in given,
    }
    if not admitted.get(auth, False):
        raise _problem(401, "invalid token")


def _moment(text: str | None, name: str) -> datetime | None:
    if text is None:
        return None
    try:
        moment: datetime | None = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise _problem(400, f"{name} must be ISO 8601 with a zone")
    return moment


def _chosen(rows: list[Row], query: Mapping[str, str]) -> list[Row]:
    since = _moment(query.get("updated_since"), "updated_since")
    before = _moment(query.get("updated_before"), "updated_before")
    return [
        row
        for row in rows
        if (since is None or datetime.fromisoformat(row["updated_at"]) >= since)
        and (before is None or datetime.fromisoformat(row["updated_at"]) < before)
    ]


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise _problem(400, f"{name} must be a whole number")
    return int(text)


def _page(request: Request, rows: list[Row]) -> Reply:
    """One page in the style the path names."""
    query, style = request.query_params, request.path_params["style"]
    chosen = _chosen(rows, query)
    size = max(1, min(_number(query, "limit", 20), MAX_SIZE))
    if style == "none":
        return Reply({"data": chosen, "meta": {"total": len(chosen)}})
    if style == "page":
        start = (max(1, _number(query, "page", 1)) - 1) * size
    elif style == "offset":
        start = _number(query, "offset", 0)
    elif style in ("cursor", "next_url", "link_header"):
        # A cursor names the last row seen, so rows that come or go before it move nothing.
        last = _number(query, "cursor", 0)
        start = sum(row["id"] <= last for row in chosen)
    else:
        raise _problem(404, "no such API")
    found = chosen[start : start + size]
    meta: dict[str, Any] = {"total": len(chosen), "has_more": start + size < len(chosen)}
    headers = {"X-Total-Count": str(len(chosen))}
    if meta["has_more"] and found:
        token = str(found[-1]["id"])
        url = str(request.url.include_query_params(cursor=token).remove_query_params("api_key"))
        if style == "cursor":
            meta["next"] = token
        elif style == "next_url":
            meta["next"] = url
        elif style == "link_header":
            first = request.url.remove_query_params("cursor")
            headers["Link"] = f'<{first}>; rel="first", <{url}>; rel="next"; title="a, b"'
    return Reply({"data": found, "meta": meta}, 200, headers)


def _one(request: Request, rows: list[Row]) -> Reply:
    for row in rows:
        if str(row["id"]) == request.path_params["key"]:
            return Reply(row)
    raise _problem(404, "no such rating")


def routes(state: State) -> list[Route]:
    """The API's routes over the company's reviews."""
    rows, given, token = ratings(state.company), set[str](), state.options.token

    def endpoint(one: bool) -> Endpoint:
        async def answer(request: Request) -> Response:
            state.requests["rest item" if one else "rest list"] += 1

            def make() -> Reply:
                try:
                    _admit(request, given, token)
                    return _one(request, rows) if one else _page(request, rows)
                except Refusal as refusal:
                    return refusal.reply

            return await deliver(state, state.faults.draw(target_of(request), shopify=False), _instead, make)

        return answer

    async def tokens(request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode()))

        def make() -> Reply:
            wanted = {"grant_type": "client_credentials", "client_id": CLIENT_ID, "client_secret": token}
            if any(form.get(key) != value for key, value in wanted.items()):
                return Reply({"error": "invalid_client"}, 401)
            given.add(fresh := secrets.token_urlsafe(16))
            return Reply({"access_token": fresh, "token_type": "Bearer", "expires_in": 3600})

        return await deliver(state, state.faults.draw(target_of(request), shopify=False), _instead, make)

    base = "/rest/{auth}/{style}/ratings"
    return [
        Route("/rest/oauth/token", tokens, methods=["POST"]),
        Route(base, endpoint(one=False)),
        Route(base + "/{key}", endpoint(one=True)),
    ]
