"""What a spreadsheet makes of the texts of a CSV file."""

from __future__ import annotations

import re
import unicodedata

FORMULA = "=+-@|%"
"""Characters that make a spreadsheet run the text they begin (OWASP, CSV injection)."""
_INNER = re.compile(r"[;\t\r\n]")
"""Where a spreadsheet may begin a new cell though the text is quoted: in many countries at semicolons."""
_UNSEEN = ("C", "Z", "M")
"""Unicode categories a spreadsheet may skip: control and format characters, spaces, combining marks."""
_PLAIN = re.compile(r"[A-Za-z0-9][^;\t\r\n]*\Z")


def formula_safe(value: object) -> object:
    """A text that a spreadsheet would run as a formula gets an apostrophe where the formula would begin.

    That is at its beginning, and after a semicolon, tab or line break inside it. Characters nobody sees
    before the formula do not hide it, nor do its full-width forms.
    """
    if not isinstance(value, str) or _PLAIN.match(value):
        return value
    guarded = f"'{value}" if _runs(value) or _begins_unseen(value) else value
    if _INNER.search(guarded) is None:
        return guarded
    return "".join(_guarded_parts(guarded))


def _guarded_parts(text: str) -> list[str]:
    """The text cut after each separator, apostrophes where needed."""
    cuts = [found.end() for found in _INNER.finditer(text)]
    parts = [text[: cuts[0]]]
    for start, end in zip(cuts, [*cuts[1:], len(text)], strict=True):
        part = text[start:end]
        parts.append(f"'{part}" if _runs(part) else part)
    return parts


def _begins_unseen(text: str) -> bool:
    """Whether it begins with a control character, blanks aside: spreadsheets differ in what they drop."""
    return unicodedata.category(text.lstrip(" ")[:1] or " ") == "Cc"


def _runs(text: str) -> bool:
    """Whether a cell of this text would be a formula."""
    for at, character in enumerate(text):
        if character != '"' and unicodedata.category(character)[0] not in _UNSEEN:
            folded = unicodedata.normalize("NFKC", text[at : at + 1]).lstrip()
            return folded[:1] in FORMULA and folded != ""
    return False
