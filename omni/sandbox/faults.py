"""Faults on request and at random: what goes wrong between a client and its vendors.

Any fault can be forced for the next requests whose target matches a pattern. At random come only those that
a client must survive without losing a row.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Any

PASSING = ("429_retry_after", "429", "500", "502", "503", "cut_body")
"""Faults that pass by themselves; for Shopify `throttled` too."""
BULK = ("bulk_failed", "bulk_timeout", "bulk_expired", "bulk_canceled", "bulk_lost", "bulk_scattered")
"""What becomes of a bulk operation of Shopify; see `shopify_bulk`."""
PLAIN = (*PASSING, *BULK, "throttled", "401", "malformed_json", "missing_results", "truncate_page")
WITH_ARGUMENT = {"drop_property": 1, "change_type": 2, "slow": 1, "error_code": 1}
"""Kinds written with arguments, `drop_property:email`, and how many."""

DEFINITION = {"fieldType", "soapType"}
"""What a dictionary that defines a property has, at HubSpot or at Salesforce."""

_STAND_IN = {
    "number": "7",
    "bool": "true",
    "date": "2026-01-01",
    "datetime": "2026-01-01T00:00:00.000Z",
}


@dataclass(frozen=True)
class Fault:
    """One fault to inject: its kind and arguments."""

    kind: str
    arguments: tuple[str, ...] = ()

    def __str__(self) -> str:
        return ":".join((self.kind, *self.arguments))


@dataclass
class _Forced:
    fault: Fault
    pattern: re.Pattern[str]
    left: int | None


def parse_fault(text: str) -> Fault:
    """Read `kind` or `kind:argument:…`.

    Raises:
        ValueError: no such kind, or wrong arguments; the message lists what there is.
    """
    kind, *arguments = text.split(":")
    if kind in PLAIN and not arguments:
        return Fault(kind)
    if kind in WITH_ARGUMENT and len(arguments) == WITH_ARGUMENT[kind] and all(arguments):
        if kind == "slow" and not re.fullmatch(r"\d{1,2}(\.\d+)?", arguments[0]):
            raise ValueError(f"slow needs seconds below 100, for example slow:0.5, not {text!r}")
        return Fault(kind, tuple(arguments))
    known = (*PLAIN, "drop_property:NAME", "change_type:NAME:TYPE", "slow:SECONDS", "error_code:CODE")
    raise ValueError(f"unknown fault {text!r}; known ones: {', '.join(known)}")


class Faults:
    """Decides which requests fail, and how.

    Args:
        rate: share of requests that fail at random, 0 to 1.
        seed: of the random choice.
    """

    def __init__(self, rate: float = 0.0, seed: int = 0) -> None:
        self._rate = rate
        self._random = random.Random(seed)  # noqa: S311
        self._forced: list[_Forced] = []

    def force(self, kind: str, path: str, times: int | None = 1) -> None:
        """Let the next `times` (None: all) requests whose target matches the pattern `path` fail.

        Raises:
            ValueError: unknown kind, broken pattern, or `times` below one.
        """
        if times is not None and times < 1:
            raise ValueError(f"times must be at least 1 or null, not {times}")
        try:
            pattern = re.compile(path)
        except re.error as error:
            raise ValueError(f"path is not a regular expression: {error}") from None
        self._forced.append(_Forced(parse_fault(kind), pattern, times))

    def clear(self) -> None:
        """Forget what was forced."""
        self._forced.clear()

    def draw(self, target: str, *, shopify: bool) -> Fault | None:
        """The fault this request gets, if any; forced ones first, oldest first."""
        for forced in self._forced:
            if forced.pattern.search(target):
                if forced.left is not None:
                    forced.left -= 1
                    if not forced.left:
                        self._forced.remove(forced)
                return forced.fault
        if self._rate and self._random.random() < self._rate:
            return Fault(self._random.choice((*PASSING, "throttled") if shopify else PASSING))
        return None


def spoil(payload: Any, fault: Fault) -> Any:
    """What the payload becomes under a fault of content; the payload itself is left alone."""
    if fault.kind == "missing_results":
        return _without(payload, {"results", "nodes", "edges", "records"})
    if fault.kind == "drop_property":
        return _without(payload, {fault.arguments[0]})
    if fault.kind == "change_type":
        return _retyped(payload, *fault.arguments)
    if fault.kind == "truncate_page":
        return _halved(payload)
    return payload


def _without(value: Any, names: set[str]) -> Any:
    """A copy less the keys, and less property definitions, of these names."""
    if isinstance(value, dict):
        return {k: _without(v, names) for k, v in value.items() if k not in names}
    if isinstance(value, list):
        return [_without(v, names) for v in value if not _defines(v, names)]
    return value


def _defines(value: Any, names: set[str]) -> bool:
    return isinstance(value, dict) and bool(DEFINITION & value.keys()) and value.get("name") in names


def _retyped(value: Any, name: str, kind: str) -> Any:
    """A copy in which the property has another type, in definitions and in values."""
    if isinstance(value, list):
        return [_retyped(v, name, kind) for v in value]
    if not isinstance(value, dict):
        return value
    if DEFINITION & value.keys() and value.get("name") == name:
        return {**value, "type": kind}
    changed = {k: _retyped(v, name, kind) for k, v in value.items()}
    if name in changed and isinstance(changed[name], str | int | float):
        changed[name] = _STAND_IN.get(kind, f"about {changed[name]}")
    return changed


def _halved(value: Any) -> Any:
    """A copy whose outermost list of results holds half its rows; paging is as promised."""
    if not isinstance(value, dict):
        return value
    for key in ("results", "nodes", "edges", "records"):
        if isinstance(value.get(key), list):
            return {**value, key: value[key][: len(value[key]) // 2]}
    return {k: _halved(v) for k, v in value.items()}
