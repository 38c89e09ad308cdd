"""What may stand in the head of a mail: addresses and one line of text."""

from __future__ import annotations

import re
import unicodedata

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ADDRESS = re.compile(rf"(?=.{{3,254}}\Z){_ATOM}(?:\.{_ATOM})*@{_LABEL}(?:\.{_LABEL})+\Z")
_LOCAL = 64
"""Characters before the @ (RFC 5321)."""
_TURNED = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that change the direction of what follows, so that it reads as something else."""


def is_address(text: str) -> bool:
    """Whether it is one plain address, `name@host.example`, in ASCII as every server takes it (RFC 5321)."""
    return _ADDRESS.match(text) is not None and text.index("@") <= _LOCAL


def one_line(text: str) -> str:
    """A text as one line: white space of any kind, line feeds too, becomes single spaces.

    Raises:
        ValueError: it holds characters that control a terminal or turn the reading direction, or is empty.
    """
    line = " ".join(text.split())
    if any(unicodedata.category(c) in ("Cc", "Cs") or c in _TURNED for c in line):
        raise ValueError("holds control characters; leave them out")
    if not line:
        raise ValueError("is empty")
    return line
