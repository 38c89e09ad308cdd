"""Lines of a web server's access log in the combined format (Apache, nginx).

    client - user [time] "request" status bytes "referrer" "user agent"

What is not needed is not passed on: a line's user, its user agent, and everything behind `?` in addresses,
encoded or not, which may hold a person's data. Part of a path that holds an e-mail address becomes `E_MAIL`.
A line has no id; its key is a digest of it, together with its number among equal lines of its file. So a log
that grew and is delivered again gives the same keys. The digest must be hashed with a key before it is kept
(`protect: hash`): whoever knows the rest of a line could otherwise find its client's address by trying all
there are.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Any
from urllib.parse import quote, unquote, urlsplit

COLUMNS = (
    "line", "client", "occurred_at", "method", "path", "protocol", "status", "bytes", "referrer_host",
    "is_bot",
)  # fmt: skip
"""What a row has. `client` is the address in clear: a contract must protect it."""

BOTS = re.compile(
    r"""
    (?<!cu)bots?(?![a-z]) | crawl | spider | slurp | feed(?!back) | (?<![a-z])rss | rss(?![a-z])
    | reader(?![a-z]) | fetch | scan(?:s|ner|ning)?(?![a-z]) | monitor | preview | archiver | curl(?![a-z])
    | wget | (?<![a-z])python | (?<![a-z])java/ | libwww | (?<![a-z])perl(?![a-z]) | (?<![a-z])ruby(?![a-z])
    | go-http | httpclient | okhttp | phantomjs | headless | facebookexternalhit | validator | check_http
    | pingdom | apachebench
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""A user agent that this is found in is no human's; nor is one that is missing.

CUBOT (a telephone), FeedbackApp and Scandinavia are no bots. Short on purpose: it finds those that say what
they are. A robot that poses as a browser counts as human.
"""
E_MAIL = "(e-mail)"
"""What stands in a path for a part that holds an e-mail address."""
MOST_ENCODINGS = 5
"""How often a path may be encoded over and again and still be read."""

_QUOTED = r'"((?:[^"\\]|\\.)*)"'
_LINE = re.compile(
    r"(?P<client>\S+) \S+ [^\[]*? ?\[(?P<day>\d\d)/(?P<month>[A-Z][a-z]{2})/(?P<year>\d{4}):"
    r"(?P<time>\d\d:\d\d:\d\d) (?P<zone>[+-]\d{4})\] "
    + _QUOTED.replace("(", "(?P<request>", 1)
    + r" (?P<status>\d{3}) (?P<bytes>\d+|-) "
    + _QUOTED.replace("(", "(?P<referrer>", 1)
    + " "
    + _QUOTED.replace("(", "(?P<agent>", 1)
    + r"\s*"
)
_REQUEST = re.compile(r"(?P<method>[A-Z]+) (?P<target>\S+)(?: (?P<protocol>HTTP/[0-9.]+))?")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#;]*", re.IGNORECASE)
_ADDRESS = re.compile(r"[^\s@]@(?!\dx\.)(?:[\w-]+\.)+[^\W\d_]{2}")
"""An e-mail address; images for fine screens (`logo@2x.png`) and versions (`lib@1.2.3`) are none."""
_MONTHS = {
    "Jan": "01", "Feb": "02", "Mar": "03", "Apr": "04", "May": "05", "Jun": "06", "Jul": "07", "Aug": "08",
    "Sep": "09", "Oct": "10", "Nov": "11", "Dec": "12",
}  # fmt: skip


def parse(raw: bytes) -> dict[str, Any] | str:
    """A line's row (see `COLUMNS`), or what is wrong with it, free of what it says.

    Times are ISO 8601 with the log's offset. A `-` for bytes is 0, as Apache means it. Method, path and
    protocol are None where the request is not one of HTTP.
    """
    raw = raw.rstrip(b"\r\n")
    found = _LINE.fullmatch(raw.decode("utf-8", errors="replace"))
    if found is None:
        return "not a line of the combined log format"
    part = found.groupdict()
    if part["month"] not in _MONTHS:
        return "its time names no month"
    request = _REQUEST.fullmatch(part["request"])
    date = f"{part['year']}-{_MONTHS[part['month']]}-{part['day']}"
    return {
        "line": hashlib.blake2b(raw, digest_size=16).hexdigest(),
        "client": part["client"],
        "occurred_at": f"{date}T{part['time']}{part['zone']}",
        "method": request["method"] if request else None,
        "path": _path(request["target"]) if request else None,
        "protocol": request["protocol"] if request else None,
        "status": int(part["status"]),
        "bytes": 0 if part["bytes"] == "-" else int(part["bytes"]),
        "referrer_host": _host(part["referrer"]),
        "is_bot": is_bot(part["agent"]),
    }


def is_bot(agent: str) -> bool:
    """Whether a user agent says that it is no human's browser, or says nothing."""
    return agent.strip() in ("", "-") or BOTS.search(agent) is not None


def _path(target: str) -> str:
    """The path a request asks for, without query and fragment, and without e-mail addresses."""
    if origin := _ORIGIN.match(target):
        target = "/" + target[origin.end() :].removeprefix("/")
    parts = re.split(r"[?#;]", target, maxsplit=1)[0].split("/")
    for place, part in enumerate(parts):
        read, mark, _ = _plain(part).partition("?")
        if _ADDRESS.search(read):
            parts[place] = E_MAIL
        elif mark:
            parts[place] = quote(read)
        if mark:  # an encoded one; what follows may be a query
            del parts[place + 1 :]
            break
    return "/".join(parts) or "/"


def _plain(text: str) -> str:
    """A text as people read it: not encoded, and in plain characters; servers write `\\xe2` for some."""
    text = text.replace("\\x", "%")
    for _ in range(MOST_ENCODINGS):
        decoded = unquote(text)
        if decoded == text:
            break
        text = decoded
    return unicodedata.normalize("NFKC", text)


def _host(referrer: str) -> str | None:
    """The host a referrer names, in lower case; None where it names none."""
    try:
        host = urlsplit(referrer).hostname if "://" in referrer else None
    except ValueError:
        return None
    return None if host is None or _ADDRESS.search(_plain(host)) else host
