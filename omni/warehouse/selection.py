"""Choosing models by name: `core.orders`, `orders`, `+core.orders`, `core.orders+`, `marts.*`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from omni.errors import ConfigError
from omni.warehouse.models import Model, in_order

EXAMPLES = "core.orders, core.orders+ (and what reads it), +core.orders (and what it reads), marts.*"


def select_models(models: Mapping[str, Model], patterns: Iterable[str]) -> list[str]:
    """The models that any of the patterns names, in the order they build.

    Args:
        models: every model, by name.
        patterns: a name or a glob; `+` before it adds what it reads, `+` after it what reads it. A name
            without its schema means every model of that name. No patterns: all models.

    Raises:
        ConfigError: a pattern names nothing.
    """
    order = [model.name for model in in_order(models, _tables(models))]
    wanted = list(patterns)
    if not wanted:
        return order
    chosen: set[str] = set()
    for pattern in wanted:
        chosen |= _matching(models, order, pattern)
    return [name for name in order if name in chosen]


def _tables(models: Mapping[str, Model]) -> set[str]:
    """What models read, so that an unknown table is no matter here."""
    return {parent for model in models.values() for parent in model.parents}


def _matching(models: Mapping[str, Model], order: list[str], pattern: str) -> set[str]:
    up, down = pattern.startswith("+"), pattern.endswith("+")
    name = pattern.strip("+")
    found = {n for n in order if fnmatchcase(n, name) or fnmatchcase(n.partition(".")[2], name)}
    if not name or not found:
        close = difflib.get_close_matches(name, order, n=1)
        hint = f"; did you mean {close[0]}?" if close else f"; for example {EXAMPLES}"
        raise ConfigError(f"--select {pattern!r} names no model{hint} (`omni models list` lists them)")
    more = set(found)
    if up:
        more |= ancestors(models, found)
    if down:
        more |= descendants(models, order, found)
    return more


def ancestors(models: Mapping[str, Model], names: Iterable[str]) -> set[str]:
    """Models that any of the named ones reads, directly or not, and they themselves."""
    found: set[str] = set()
    waiting = [name for name in names if name in models]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [parent for parent in models[name].parents if parent in models]
    return found


def descendants(models: Mapping[str, Model], order: Iterable[str], names: Iterable[str]) -> set[str]:
    """Models that read any of the named tables, directly or not; the named models among them.

    Args:
        models: by name.
        order: their names, parents first.
        names: tables or models.
    """
    reached = set(names)
    for name in order:
        if reached.intersection(models[name].parents):
            reached.add(name)
    return {name for name in reached if name in models}
