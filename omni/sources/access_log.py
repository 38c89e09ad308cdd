"""Lines of a web server's access log in the combined format (Apache, nginx).

    client - user [time] "request" status bytes "referrer" "user agent"

What is not needed is not passed on: a line's user, its user agent, and everything behind `?` in addresses,
which may hold a person's data. A line has no id; its key is a digest of it, together with its number among
equal lines of its file. So a log that grew and is delivered again gives the same keys. The digest must be
hashed with a key before it is kept (`protect: hash`): whoever knows the rest of a line could otherwise find
its client's address by trying all there are.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any
from urllib.parse import urlsplit

COLUMNS = (
    "line", "client", "occurred_at", "method", "path", "protocol", "status", "bytes", "referrer_host",
    "is_bot",
)  # fmt: skip
"""What a row has. `client` is the address in clear: a contract must protect it."""

BOTS = (
    "bot", "crawl", "spider", "slurp", "feed", "rss", "reader", "fetch", "scan", "monitor", "preview",
    "archiver", "curl", "wget", "python", "java/", "libwww", "perl", "ruby", "go-http", "httpclient",
    "okhttp", "phantomjs", "headless", "facebookexternalhit", "validator", "check_http", "pingdom",
    "apachebench",
)  # fmt: skip
"""A user agent with one of these words in it, in any case, is no human's; nor is one that is missing.

Short on purpose: it finds those that say what they are. A robot that poses as a browser counts as human.
"""

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
_BOT = re.compile("|".join(map(re.escape, BOTS)), re.IGNORECASE)
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
    return agent.strip() in ("", "-") or _BOT.search(agent) is not None


def _path(target: str) -> str:
    """The path a request asks for, without query and fragment."""
    if "://" in target.partition("?")[0]:
        target = "/" + target.partition("://")[2].partition("/")[2]
    return re.split(r"[?#;]", target, maxsplit=1)[0] or "/"


def _host(referrer: str) -> str | None:
    """The host a referrer names, in lower case; None where it names none."""
    try:
        return urlsplit(referrer).hostname if "://" in referrer else None
    except ValueError:
        return None
