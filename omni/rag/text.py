"""How text becomes terms and sentences: deterministic, unicode, the same for documents and questions.

A change of anything here that changes terms must raise `ANALYZER`, so that existing indexes rebuild.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from omni.rag.stem import stem

ANALYZER = "words-porter-1"

_STOP_WORDS = """
    a about after all also am an and any are as at be because been before being but by can could did do
    does doing for from had has have having he her here hers him his how i if in into is it its just may me
    might more most must my no nor not of off on once only or other our ours out over own she should so some
    such than that the their theirs them then there these they this those through to too under until up us
    very was we were what when where which while who whom whose why will with would you your yours
    """
_STOPPED = frozenset(_STOP_WORDS.split())

_LINK = re.compile(r"!?\[([^\[\]]{0,300})\]\((?:[^()\n]|\([^()\n]*\))*\)")
_REFERENCE = re.compile(r"\[([^\[\]]{1,300})\]\[[^\[\]\n]*\]")
_NOISE = re.compile(
    r"\{[%#].*?[%#]\}|\{\{.*?\}\}|<!--.*?-->|</?[a-zA-Z][\w-]*(?:\s[^<>]{0,500})?/?>", re.DOTALL
)
_EMPHASIS = re.compile(r"(?<!\w)(\*{1,3}|_{1,3}|`{1,3}|~~)(?=\S)(.+?)(?<=\S)\1(?!\w)")
_LINE_START = re.compile(
    r"^[ \t]*(?:#{1,6}[ \t]+|>[ \t]?|[-*+][ \t]+(?:\[[ xX]\][ \t]+)?|\d{1,9}[.)][ \t]+)", re.M
)
_ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
_SENTENCE_END = re.compile(r"(?:[.!?…]+[\"'”’)\]*_]*(?=\s)|[。！？]|\n)")
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|vs|cf|approx|no|inc|ltd|co|mr|mrs|ms|dr|st|u\.s|[a-z]))\.$", re.I
)


def plain(markdown: str) -> str:
    """Text as a reader sees it: no link targets, tags, template marks, emphasis or list signs."""
    text = _LINK.sub(r"\1", _NOISE.sub(" ", markdown))
    text = _EMPHASIS.sub(r"\2", _REFERENCE.sub(r"\1", _LINE_START.sub("", text)))
    return " ".join(_ESCAPE.sub(r"\1", text).split())


def _words(text: str) -> Iterator[str]:
    folded = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    for found in _WORD.finditer(folded):
        word = found.group()
        if _UNSPACED.search(word):
            yield from _grams(word)
        else:
            yield word.removesuffix("'s").replace("'", "")


def _grams(word: str) -> Iterator[str]:
    # Chinese, Japanese and Thai are written without spaces: pairs of letters stand in for words.
    position = 0
    for run in _UNSPACED.finditer(word):
        if word[position : run.start()]:
            yield word[position : run.start()]
        letters = run.group()
        yield from (letters[i : i + 2] for i in range(max(1, len(letters) - 1)))
        position = run.end()
    if word[position:]:
        yield word[position:]


def words(text: str) -> list[str]:
    """Case-folded words of plain text without English stop words, in order, unstemmed."""
    return [word for word in _words(text) if word not in _STOPPED]


def terms(text: str) -> list[str]:
    """Index terms of plain text: its words, stemmed."""
    return [stem(word) for word in words(text)]


def sentences(text: str) -> Iterator[tuple[int, int]]:
    """Spans of the sentences of a passage, without surrounding white space.

    A line break ends a sentence only before a blank line, a list item, a heading or a table row; wrapped
    lines of a paragraph belong together, and a table row is one sentence.
    """
    start = 0
    for mark in _SENTENCE_END.finditer(text):
        if mark.group() == "\n" and not _breaks(text, mark.end()):
            continue
        if mark.group() != "\n" and _in_table_row(text, mark.start()):
            continue
        if mark.group() != "\n" and _ABBREVIATION.search(text[max(start, mark.end() - 8) : mark.end()]):
            continue
        yield from _trimmed(text, start, mark.end())
        start = mark.end()
    yield from _trimmed(text, start, len(text))


_NEW_BLOCK = re.compile(r"[ \t]*(?:\r?\n|#{1,6}[ \t]|>|[-*+][ \t]|\d{1,9}[.)][ \t]|\||```|~~~|\Z)")


def _in_table_row(text: str, position: int) -> bool:
    return text[text.rfind("\n", 0, position) + 1 : position].lstrip(" \t").startswith("|")


def _breaks(text: str, position: int) -> bool:
    line_start = text.rfind("\n", 0, position - 1) + 1
    line = text[line_start : position - 1].lstrip()
    return line.startswith(("#", "|")) or bool(_NEW_BLOCK.match(text, position))


def _trimmed(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    piece = text[start:end]
    left = start + len(piece) - len(piece.lstrip())
    right = start + len(piece.rstrip())
    if left < right:
        yield left, right
