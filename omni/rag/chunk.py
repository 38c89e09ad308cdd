"""Cutting a Markdown document into chunks that keep their headings and exact offsets.

A chunk never crosses a heading that has text above it. It holds at most `max_size` characters, or, when
it contains a table or a code block, at most `atom_size`: those are cut (between lines) only beyond that.
`text[chunk.start:chunk.end] == chunk.text` always, chunks do not overlap, and every character outside
front matter and white space lies in exactly one chunk.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import PurePosixPath

from omni.errors import ConfigError
from omni.rag import blocks
from omni.rag.text import plain

CHUNKER = "markdown-1"
SEPARATOR = " > "
_TITLE_SIZE = 200
_CUTS = (
    re.compile(r"\n(?=[ \t]*(?:[-*+]|\d{1,9}[.)])[ \t])"),
    re.compile(r"\n"),
    re.compile(r"(?<=[.!?…;。])\s+|(?<=[。！？])"),
    re.compile(r"\s+"),
)
_AT_LINES = 1


@dataclass(frozen=True)
class ChunkConfig:
    """Bounds in characters. Part of the index's identity: a change rebuilds it."""

    max_size: int = 1200
    atom_size: int = 6000

    def __post_init__(self) -> None:
        if not 50 <= self.max_size <= self.atom_size <= 100_000:
            raise ConfigError(
                f"Chunk sizes must satisfy 50 <= max_size <= atom_size <= 100000, "
                f"got {self.max_size} and {self.atom_size}; for example 1200 and 6000."
            )

    @property
    def digest(self) -> str:
        """Identity of chunker and bounds."""
        return hashlib.sha256(json.dumps([CHUNKER, asdict(self)], sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Chunk:
    """One passage; offsets count characters of the stored document."""

    chunk_id: str
    path: str
    ordinal: int
    heading: str
    start: int
    end: int
    text: str

    @cached_property
    def searchable(self) -> str:
        """What is indexed: the headings above, then the passage as a reader sees it."""
        return f"{self.heading}\n{plain(self.text)}"


@dataclass(frozen=True)
class _Piece:
    start: int
    end: int
    kind: blocks.Kind
    heading: tuple[str, ...] = ()


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())


def _split(text: str, start: int, end: int, limit: int, level: int = 0) -> Iterator[tuple[int, int]]:
    """Spans of at most `limit` characters: by list items, lines, sentences, words, then characters."""
    start, end = _trim(text, start, end)
    if start >= end:
        return
    if end - start <= limit:
        yield start, end
        return
    if level == len(_CUTS):
        cuts = range(start, end, limit)
        yield from (span for cut in cuts for span in _split(text, cut, min(cut + limit, end), limit))
        return
    bounds = [start, *(mark.end() for mark in _CUTS[level].finditer(text, start, end)), end]
    smaller = (
        span for left, right in pairwise(bounds) for span in _split(text, left, right, limit, level + 1)
    )
    first, last = next(smaller)
    for left, right in smaller:
        if right - first > limit:
            yield first, last
            first = left
        last = right
    yield first, last


def _sections(parsed: list[blocks.Block], title: str) -> Iterator[list[tuple[blocks.Block, tuple[str, ...]]]]:
    """Groups of blocks under one heading; headings with nothing below them join the next group."""
    stack: list[tuple[int, str]] = []
    group: list[tuple[blocks.Block, tuple[str, ...]]] = []
    has_text = False
    for block in parsed:
        if block.kind == "heading":
            if has_text:
                yield group
                group, has_text = [], False
            stack = [entry for entry in stack if entry[0] < block.level]
            stack.append((block.level, plain(block.title)[:_TITLE_SIZE]))
        else:
            has_text = True
        names = [name for _, name in stack if name]
        if title and names[:1] != [title]:
            names.insert(0, title)
        group.append((block, tuple(names)))
    if group:
        yield group


def _pieces(
    text: str, section: list[tuple[blocks.Block, tuple[str, ...]]], config: ChunkConfig
) -> Iterator[_Piece]:
    room = config.max_size
    for block, path in section:
        if block.kind in {"code", "table"}:
            start, end = _trim(text, block.start, block.end)
            # Leading spaces are part of an indented block, so that it reads as it was written.
            start = max(block.start, text.rfind("\n", 0, start) + 1)
            if end - start <= config.atom_size:
                yield _Piece(start, end, block.kind, path)
            else:
                for left, right in _split(text, start, end, config.max_size, _AT_LINES):
                    yield _Piece(left, right, "text", path)
            room = config.max_size
            continue
        # The first text below a heading leaves room for it, so that no heading stands alone.
        limit = room if block.kind == "text" and room >= config.max_size // 2 else config.max_size
        for left, right in _split(text, block.start, block.end, limit):
            yield _Piece(left, right, block.kind, path)
        room = room - (block.end - block.start) - 2 if block.kind == "heading" else config.max_size


def _packed(pieces: Iterator[_Piece], config: ChunkConfig) -> Iterator[list[_Piece]]:
    group: list[_Piece] = []
    for piece in pieces:
        if group:
            size = piece.end - group[0].start
            only_headings = all(p.kind == "heading" for p in group)
            atom_below_heading = only_headings and piece.kind in {"code", "table"}
            if size > (config.atom_size if atom_below_heading else config.max_size):
                yield group
                group = []
        group.append(piece)
    if group:
        yield group


def title_of(path: str, text: str) -> str:
    """The document's title: from its front matter, else its first heading, else its file name."""
    skip, title = blocks.front_matter(text)
    if not title:
        title = next((b.title for b in blocks.parse(text, skip) if b.kind == "heading" and b.title), "")
    name = PurePosixPath(path).stem.replace("-", " ").replace("_", " ").strip()
    return plain(title)[:_TITLE_SIZE] or name[:_TITLE_SIZE]


def chunk(path: str, text: str, config: ChunkConfig) -> list[Chunk]:
    """Cut one document.

    Args:
        path: the document's name, part of the chunk ids.
        text: Markdown; any text is accepted, also empty.
        config: the bounds.

    Returns:
        Chunks in order. The same path, text and bounds always give the same chunks and ids.
    """
    skip, _ = blocks.front_matter(text)
    chunks: list[Chunk] = []
    for section in _sections(blocks.parse(text, skip), title_of(path, text)):
        for group in _packed(_pieces(text, section, config), config):
            start, end = group[0].start, group[-1].end
            body = text[start:end]
            content = hashlib.sha256(body.encode()).hexdigest()
            identity = f"{path}\0{len(chunks)}\0{content}"
            chunk_id = hashlib.sha256(identity.encode()).hexdigest()[:24]
            heading = SEPARATOR.join(group[-1].heading)
            chunks.append(Chunk(chunk_id, path, len(chunks), heading, start, end, body))
    return chunks
