"""Numbers as people read them: by unit, in the company's currency, with the change from before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from omni.bi.metrics import Direction, Unit

SYMBOLS = {"EUR": "€", "USD": "$", "GBP": "£", "BRL": "R$", "JPY": "¥", "INR": "₹", "CNY": "CN¥"}
NOTHING = "–"

Tone = Literal["good", "bad", "flat"]


def symbol(currency: str) -> str:
    """What stands before an amount: a sign, or the currency's code and a no-break space."""
    return SYMBOLS.get(currency, f"{currency}\u00a0")


def show(value: float | None, unit: Unit, currency: str, *, compact: bool = False) -> str:
    """One number.

    Args:
        value: in the metric's unit; a percentage is a fraction. None is shown as a dash.
        compact: round large numbers to three digits and a suffix (1.23M).
    """
    if value is None:
        return NOTHING
    sign = "−" if value < 0 else ""
    size = abs(value)
    match unit:
        case "currency":
            text = _compact(size) if compact and size >= 100_000 else f"{size:,.{0 if size >= 1000 else 2}f}"
            return f"{sign}{symbol(currency)}{text}"
        case "percent":
            return f"{sign}{100 * size:.{1 if size >= 0.01 else 2}f}%"
        case "days":
            return f"{sign}{size:,.1f} days"
        case "score":
            return f"{sign}{size:.2f}"
        case _:
            text = _compact(size) if compact and size >= 100_000 else f"{size:,.{0 if size % 1 == 0 else 1}f}"
            return f"{sign}{text}"


def _compact(size: float) -> str:
    for limit, suffix in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if size >= limit:
            scaled = size / limit
            return f"{scaled:.{2 if scaled < 10 else 1 if scaled < 100 else 0}f}{suffix}"
    return f"{size:.0f}"


@dataclass(frozen=True)
class Change:
    """How a number moved against the period before: text, whether it rose, and whether that is good."""

    text: str
    arrow: str
    tone: Tone

    @property
    def spoken(self) -> str:
        """The tone in words, for those who do not see its colour."""
        return {"good": "better", "bad": "worse", "flat": "no judgement"}[self.tone]


def change(
    current: float | None, before: float | None, unit: Unit, direction: Direction, currency: str
) -> Change | None:
    """The move from `before` to `current`: relative, or in points for percentages and scores.

    None where either is unknown or the former is zero, so that no relative change exists.
    """
    if current is None or before is None:
        return None
    moved = current - before
    if unit == "percent":
        text, flat = f"{100 * abs(moved):.2f} pp", abs(moved) < 5e-5
    elif unit == "score":
        text, flat = show(abs(moved), unit, currency), abs(moved) < 5e-3
    elif before == 0:
        return None
    else:
        text, flat = f"{100 * abs(moved / before):.1f}%", abs(moved / before) < 5e-4
    if flat:
        return Change(text, "→", "flat")
    if direction == "neutral":
        return Change(text, "▲" if moved > 0 else "▼", "flat")
    good = (moved > 0) == (direction == "up_is_good")
    return Change(text, "▲" if moved > 0 else "▼", "good" if good else "bad")
