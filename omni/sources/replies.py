"""A vendor's answers: decoding them, finding their parts, and saying what they complain about."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import msgspec

from omni.errors import SourceError
from omni.sources.parse import ExactFloat

T = TypeVar("T")


@dataclass(frozen=True)
class Reply:
    """A vendor's answer; `body` is decoded JSON or text, None when it was neither."""

    status: int
    headers: Mapping[str, str]
    body: Any


_DECODER = msgspec.json.Decoder(float_hook=ExactFloat)
_PLACE = re.compile(r"byte (\d+)")


def decode(raw: bytes, content_type: str) -> tuple[Any, str | None]:
    """The JSON value, or None and what is wrong; never a word of the content."""
    try:
        return _DECODER.decode(raw), None
    except msgspec.DecodeError as error:
        found = _PLACE.search(str(error))
        place = f"at byte {found.group(1)} of {len(raw)}" if found else f"({len(raw)} bytes)"
        return None, f"the answer is no valid JSON {place} ({content_type})"
    except (UnicodeDecodeError, ValueError, RecursionError):
        return None, f"the answer is no valid JSON ({len(raw)} bytes, {content_type})"


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header, given as seconds or as a date; None without a usable one."""
    text = headers.get("retry-after")
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = parsedate_to_datetime(text)
        except ValueError:
            return None
        seconds = (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return seconds if 0 <= seconds < float("inf") else None


def describe(reply: Reply) -> str:
    """The vendor's message and correlation id, ready to follow a sentence; empty when it gave neither."""
    body = reply.body if isinstance(reply.body, dict) else {}
    message = body.get("message") or body.get("errors") or body.get("error") or ""
    text = " ".join((message if isinstance(message, str) else json.dumps(message)).split())
    trace = body.get("correlationId") or reply.headers.get("x-request-id")
    said = f": {text[:300]}" if text else ""
    return said + (f" [id {str(trace)[:80]}]" if trace else "")


def need(value: Any, path: str, kind: type[T], where: str) -> T:
    """The part of a reply at a dotted path.

    Raises:
        SourceError: it is missing or of another type; quotes the place, not the data.
    """
    walked: list[str] = []
    for key in path.split("."):
        walked.append(key)
        if not isinstance(value, dict) or key not in value:
            missing = ".".join(walked)
            raise SourceError(f"{where}: the answer lacks {missing}. The vendor's format may have changed.")
        value = value[key]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise SourceError(
            f"{where}: {path} should be {kind.__name__} but is {type(value).__name__}. "
            "The vendor's format may have changed."
        )
    return value
