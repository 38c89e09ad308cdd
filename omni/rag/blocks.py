"""The blocks of a Markdown document, with exact offsets: headings, tables, code and everything else.

Follows CommonMark 0.31 (ATX and setext headings, fenced and indented code) and GFM tables as far as
cutting a document needs; nothing is rendered and no character is changed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["heading", "code", "table", "text"]


@dataclass(frozen=True)
class Block:
    """A run of whole lines `text[start:end]`; `level` and `title` are set for headings."""

    kind: Kind
    start: int
    end: int
    level: int = 0
    title: str = ""


_LINES = re.compile(r"[^\n]*\n|[^\n]+\Z")
_FRONT_MATTER = re.compile(r"---[ \t]*\r?\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
_TITLE = re.compile(r"^title:[ \t]*(.+?)[ \t]*\r?$", re.MULTILINE)
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*\r?\n?\Z")
_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*\r?\n?\Z")
_FENCE = re.compile(r"[ \t]*(?:[-*+][ \t]+|\d{1,9}[.)][ \t]+)?(`{3,}|~{3,})([^\n]*)")
_DELIMITER_ROW = re.compile(r"[ \t]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*\r?\n?\Z")
_HTML_ATOM = re.compile(r"[ \t]*<(table|pre)\b", re.IGNORECASE)
_LIST_ITEM = re.compile(r"[ \t]*(?:[-*+]|\d{1,9}[.)])[ \t]+\S")
_INDENTED = re.compile(r"(?: {4}| {0,3}\t)[ \t]*\S")


def front_matter(text: str) -> tuple[int, str]:
    """Length of the YAML front matter (0 when there is none) and the title it declares ('' when none)."""
    found = _FRONT_MATTER.match(text)
    if found is None:
        return 0, ""
    title = _TITLE.search(found.group(1))
    return found.end(), title.group(1).strip("\"'") if title else ""


class _Scanner:
    """One pass over the lines of a document."""

    def __init__(self, text: str, start: int) -> None:
        self.text = text
        self.spans = [(m.start(), m.end()) for m in _LINES.finditer(text, start)]
        self.in_list = False

    def line(self, i: int) -> str:
        return self.text[slice(*self.spans[i])] if i < len(self.spans) else ""

    def blank(self, i: int) -> bool:
        return not self.line(i).strip()

    def code_end(self, i: int) -> int:
        """Index after the code block that starts at line `i`; `i` when none does."""
        fence = _FENCE.match(self.line(i))
        if fence and not (fence.group(1)[0] == "`" and "`" in fence.group(2)):
            mark = fence.group(1)
            closing = re.compile(rf"[ \t]*{re.escape(mark[0])}{{{len(mark)},}}[ \t]*\r?\n?\Z")
            end = i + 1
            while end < len(self.spans) and not closing.match(self.line(end)):
                end += 1
            return min(end + 1, len(self.spans))
        if self.in_list or not _INDENTED.match(self.line(i)):
            return i
        end = last = i
        while end < len(self.spans) and (self.blank(end) or _INDENTED.match(self.line(end))):
            end += 1
            last = end if not self.blank(end - 1) else last
        return last

    def table_end(self, i: int) -> int:
        """Index after the table that starts at line `i`; `i` when none does."""
        html = _HTML_ATOM.match(self.line(i))
        if html:
            closing = f"</{html.group(1).lower()}>"
            for end in range(i, len(self.spans)):
                if closing in self.line(end).lower():
                    return end + 1
            return i
        piped = self.line(i).lstrip().startswith("|")
        delimiter = self.line(i + 1)
        if not piped and not ("|" in self.line(i) and "|" in delimiter and _DELIMITER_ROW.match(delimiter)):
            return i
        end = i
        while end < len(self.spans) and "|" in self.line(end):
            end += 1
        return end

    def text_end(self, i: int) -> int:
        """Index after the run of text lines that starts at line `i`; at least one line long."""
        end = i + 1
        while end < len(self.spans) and not self.blank(end):
            line = self.line(end)
            if _ATX.match(line) or _FENCE.match(line) or self.table_end(end) > end:
                break
            if _SETEXT.match(line) and not _LIST_ITEM.match(self.line(end - 1)):
                break
            end += 1
        return end

    def setext(self, end: int) -> bool:
        """Whether line `end` underlines the one before it."""
        return end < len(self.spans) and not self.blank(end - 1) and bool(_SETEXT.match(self.line(end)))


def parse(text: str, start: int = 0) -> list[Block]:
    """Blocks of `text[start:]` in order. Every character outside a block is white space."""
    scan = _Scanner(text, start)
    blocks: list[Block] = []
    i = 0

    def add(kind: Kind, first: int, after: int, level: int = 0, title: str = "") -> int:
        blocks.append(Block(kind, scan.spans[first][0], scan.spans[after - 1][1], level, title.strip()))
        return after

    while i < len(scan.spans):
        if scan.blank(i):
            i += 1
        elif heading := _ATX.match(scan.line(i)):
            scan.in_list = False
            i = add("heading", i, i + 1, len(heading.group(1)), heading.group(2) or "")
        elif (end := scan.code_end(i)) > i:
            i = add("code", i, end)
        elif (end := scan.table_end(i)) > i:
            i = add("table", i, end)
        else:
            end = scan.text_end(i)
            if scan.setext(end) and not _LIST_ITEM.match(scan.line(end - 1)):
                if end - 1 > i:
                    add("text", i, end - 1)
                level = 1 if "=" in scan.line(end) else 2
                scan.in_list = False
                i = add("heading", end - 1, end + 1, level, scan.line(end - 1))
                continue
            first = scan.line(i)
            scan.in_list = bool(_LIST_ITEM.match(first)) or (scan.in_list and first[:1] in " \t")
            i = add("text", i, end)
    return blocks
