"""Chunks: exact offsets, full cover, bounds, whole tables and code, stable ids."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni.errors import ConfigError
from omni.rag import blocks
from omni.rag.chunk import Chunk, ChunkConfig, chunk, title_of

SMALL = ChunkConfig(max_size=60, atom_size=200)

_LINES = st.sampled_from(
    [
        "# Top", "## Part", "### Detail?", "Underlined", "=====", "---", "", "", "  ", "plain words here.",
        "A longer sentence that goes on. And another one! Is it?", "- item one", "  - nested item",
        "1. first",
        "| a | b |", "|---|---|", "| 1 | 2 |", "```", "```python", "x = 1  # not a heading", "~~~",
        "    indented code", "\ttabbed", "> quoted", "<table><tr><td>1</td>", "</table>", "<pre>", "</pre>",
        "😀 emoji and ünïcode", "加班必须事先得到批准。好的。", "w" * 150, "\r", "title: x",
        "{% page \"/x\" %}",
    ]
)  # fmt: skip
_DOCUMENTS = st.one_of(
    st.lists(_LINES, max_size=40).map("\n".join),
    st.lists(_LINES, max_size=25).map("\r\n".join),
    st.text(max_size=400),
)


def _is_atomic(piece: Chunk) -> bool:
    return any(block.kind in {"code", "table"} for block in blocks.parse(piece.text))


@given(text=_DOCUMENTS, sizes=st.sampled_from([(50, 50), (60, 200), (120, 600)]))
def test_chunks_cover_the_text_within_bounds(text: str, sizes: tuple[int, int]) -> None:
    config = ChunkConfig(*sizes)
    pieces = chunk("a.md", text, config)
    position, _ = blocks.front_matter(text)
    for piece in pieces:
        assert text[piece.start : piece.end] == piece.text
        assert piece.text.strip()
        assert not text[position : piece.start].strip()
        assert piece.start >= position
        assert len(piece.text) <= config.atom_size
        position = piece.end
    assert not text[position:].strip()
    assert [piece.ordinal for piece in pieces] == list(range(len(pieces)))
    assert len({piece.chunk_id for piece in pieces}) == len(pieces)
    assert pieces == chunk("a.md", text, config)


@given(text=st.lists(_LINES.filter(lambda line: not set("|`~<") & set(line)), max_size=30).map("\n".join))
def test_only_tables_and_code_exceed_the_bound(text: str) -> None:
    for piece in chunk("a.md", text, SMALL):
        assert len(piece.text) <= SMALL.max_size or "    " in piece.text or "\t" in piece.text


@given(rows=st.integers(2, 7), before=st.integers(0, 5), fenced=st.booleans())
def test_tables_and_code_stay_whole(rows: int, before: int, fenced: bool) -> None:
    if fenced:
        atom = "```sql\n" + "\n\n".join("# SELECT 12345" for _ in range(rows)) + "\n```"
    else:
        atom = "| a | b |\n|---|---|\n" + "\n".join("| 12345 | 67890 |" for _ in range(rows))
    text = "# T\n\n" + "Some words that fill. " * before + "\n\n" + atom + "\n\nMore words after it.\n"
    assert sum(atom in piece.text for piece in chunk("a.md", text, SMALL)) == 1


def test_an_oversized_table_is_cut_between_rows() -> None:
    rows = [f"| row {n:03d} | value |" for n in range(40)]
    pieces = chunk("a.md", "\n".join(["| a | b |", "|---|---|", *rows]), SMALL)
    assert max(len(piece.text) for piece in pieces) <= SMALL.max_size
    assert [line for piece in pieces for line in piece.text.split("\n")][2:] == rows


def test_heading_paths_and_title() -> None:
    text = (
        "---\ntitle: 'The Guide'\n---\nIntro.\n\n# One\n\n## Deep\n\nText.\n\nTwo\n===\n\nMore.\n\n## Last\n"
    )
    found = [(piece.heading, piece.text.split("\n")[0]) for piece in chunk("x/guide.md", text, ChunkConfig())]
    assert found == [
        ("The Guide", "Intro."),
        ("The Guide > One > Deep", "# One"),
        ("The Guide > Two", "Two"),
        ("The Guide > Two > Last", "## Last"),
    ]
    assert title_of("a/travel-guide_faq.md", "no heading") == "travel guide faq"
    assert title_of("a.md", "text\n\n# First *one*\n") == "First one"


def test_code_is_not_mistaken_for_structure() -> None:
    fenced = "```\n# not a heading\n| not | a table |\n```"
    text = f"# A\n\n{fenced}\n\n- item\n\n    continued, no code\n\nText\n\n    code\n"
    kinds = [block.kind for block in blocks.parse(text)]
    assert kinds == ["heading", "code", "text", "text", "text", "code"]


@pytest.mark.parametrize("text", ["", " \n\t\n", "---\ntitle: x\n---\n"])
def test_nothing_to_say_gives_no_chunk(text: str) -> None:
    assert chunk("a.md", text, ChunkConfig()) == []


def test_a_heading_alone_is_a_chunk() -> None:
    (piece,) = chunk("a.md", "# Only this\n", ChunkConfig())
    assert (piece.heading, piece.text) == ("Only this", "# Only this")


@pytest.mark.parametrize("line", ["word " * 200_000, "x" * 1_000_000, "A sentence. " * 80_000])
def test_a_megabyte_is_cut(line: str) -> None:
    pieces = chunk("a.md", line, ChunkConfig())
    assert max(len(piece.text) for piece in pieces) <= 1200
    assert sum(len(piece.text) for piece in pieces) > 900_000


def test_ids_depend_on_path_place_and_content() -> None:
    def ids(path: str, text: str) -> list[str]:
        return [piece.chunk_id for piece in chunk(path, text, ChunkConfig())]

    text = "# A\n\none\n\n# B\n\ntwo\n"
    assert ids("a.md", text) != ids("b.md", text)
    assert ids("a.md", text)[0] == ids("a.md", text.replace("two", "three"))[0]
    assert ids("a.md", text)[1] != ids("a.md", text.replace("two", "three"))[1]


def test_wrong_bounds_are_refused() -> None:
    with pytest.raises(ConfigError, match="for example 1200 and 6000"):
        ChunkConfig(max_size=500, atom_size=100)
