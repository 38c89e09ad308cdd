"""From one page of a REST API to the next, in the ways APIs have.

A place is a small JSON value from which reading goes on, also in another process. A way that leads back to
where it was is an error, not a loop.

Where places are counted, a record that leaves the list while it is read lets those behind it move up, and the
next page begins too far. The total then falls, and reading begins again.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

from omni.errors import SourceError, TransientError
from omni.sources.http import Reply
from omni.sources.rest_declaration import Stream

Place = dict[str, Any]

AGAIN = 10
"""How often reading begins again because records left the list meanwhile."""

_LINK = re.compile(r'<([^>]*)>((?:\s*;\s*[\w*-]+(?:\s*=\s*(?:"[^"]*"|[^\s";,]*))?)*)')
_REL = re.compile(r';\s*rel\s*=\s*(?:"([^"]*)"|([^\s";,]*))', re.IGNORECASE)


def first(stream: Stream) -> Place:
    """Where reading begins."""
    if stream.paging.style == "page":
        return {"page": stream.paging.first}
    return {"offset": 0} if stream.paging.style == "offset" else {}


def request(stream: Stream, params: Mapping[str, str], place: Place) -> tuple[str, dict[str, str]]:
    """Path or whole address, and parameters, of the page at a place."""
    paging = stream.paging
    if "url" in place:
        parts = urlsplit(place["url"])
        return urlunsplit(parts._replace(query="", fragment="")), dict(
            parse_qsl(parts.query, keep_blank_values=True)
        )
    asked = dict(params)
    if paging.size_param:
        asked[paging.size_param] = str(paging.size)
    value = place.get("page", place.get("offset", place.get("cursor")))
    if paging.param and value is not None:
        asked[paging.param] = str(value)
    return stream.path, asked


def following(
    stream: Stream, place: Place, reply: Reply, found: int, base_url: str, where: str
) -> Place | None:
    """The place behind a page, or None at the end.

    Args:
        stream: the declaration.
        place: where the page began.
        reply: the answer.
        found: records on the page.
        base_url: what relative addresses are relative to.
        where: for messages.

    Raises:
        SourceError: the answer says neither where the next page is nor that there is none.
        TransientError: records left the list too often while it was read.
    """
    paging = stream.paging
    total = total_of(stream, reply) if paging.style in ("page", "offset") else None
    if total is not None and total < place.get("total", total):
        return _again(stream, place, where)
    if paging.more is not None and not _more(at(reply.body, paging.more), paging.more, where):
        return None
    if paging.style == "none":
        return None
    read = int(place.get("read", 0)) + found
    if paging.style in ("page", "offset"):
        if not found or (total is not None and read >= total):
            return None
        step = {"page": place["page"] + 1} if paging.style == "page" else {"offset": place["offset"] + found}
        known = {"total": total} if total is not None else {}
        return step | {"read": read} | known | {key: place[key] for key in ("again",) if key in place}
    token: Any = (
        link_next(reply.headers.get("link", ""))
        if paging.style == "link_header"
        else at(reply.body, paging.next or "")
    )
    if token is None or token is False or token == "":
        return None
    if isinstance(token, bool) or not isinstance(token, (str, int)):
        raise SourceError(f"{where}: {paging.next} should be a text, but is {type(token).__name__}.")
    if paging.style == "cursor":
        return {"cursor": token}
    return {"url": urljoin(base_url.rstrip("/") + stream.path, str(token))}


def _again(stream: Stream, place: Place, where: str) -> Place:
    times = int(place.get("again", 0)) + 1
    if times > AGAIN:
        raise TransientError(
            f"{where}: records left the list each of the {times} times it was read, so that others may have "
            "been passed over. Run again when fewer change, or declare a paging by cursor if the API has one."
        )
    return first(stream) | {"again": times}


def _more(value: Any, path: str, where: str) -> bool:
    if isinstance(value, bool):
        return value
    raise SourceError(f"{where}: {path} should be true or false, but is {type(value).__name__}.")


def at(body: Any, path: str) -> Any:
    """The value at a dotted path of objects; None where there is none."""
    for key in path.split("."):
        if not isinstance(body, dict):
            return None
        body = body.get(key)
    return body


def total_of(stream: Stream, reply: Reply) -> int | None:
    """How many records there are in all, if the answer says."""
    said: Any = None
    if stream.total_header:
        said = reply.headers.get(stream.total_header.lower())
    elif stream.total:
        said = at(reply.body, stream.total)
    if isinstance(said, bool) or said is None:
        return None
    text = str(said).strip()
    return int(text) if text.isascii() and text.isdigit() else None


def without(url: str, names: Collection[str]) -> str:
    """An address less some parameters: a key must not be kept with a place."""
    parts = urlsplit(url)
    kept = [(k, v) for k, v in parse_qsl(parts.query, keep_blank_values=True) if k not in names]
    return urlunsplit(parts._replace(query=urlencode(kept)))


def link_next(header: str) -> str | None:
    """The address that a Link header (RFC 8288) calls next."""
    for url, rest in _LINK.findall(header):
        for quoted, bare in _REL.findall(rest):
            if "next" in (quoted or bare).lower().split():
                return str(url)
    return None
