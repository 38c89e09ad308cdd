"""Terms, stems, sentences and reader's text."""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni.rag.chunk import CHUNKER, ChunkConfig, chunk
from omni.rag.embed import HASHING, HashingEmbedder
from omni.rag.stem import stem
from omni.rag.text import ANALYZER, plain, sentences, terms

# Porter's own examples (Program 14(3), 1980), with what his published programs make of them.
_STEMS = """caresses:caress ponies:poni cats:cat feed:feed agreed:agre plastered:plaster motoring:motor
sing:sing conflated:conflat troubled:troubl sized:size hopping:hop falling:fall hissing:hiss failing:fail
filing:file happy:happi sky:sky relational:relat conditional:condit digitizer:digit operator:oper
decisiveness:decis hopefulness:hope formaliti:formal sensibiliti:sensibl triplicate:triplic formalize:formal
electrical:electr goodness:good revival:reviv allowance:allow inference:infer adjustable:adjust
irritant:irrit replacement:replac adoption:adopt communism:commun activate:activ effective:effect
bowdlerize:bowdler probate:probat rate:rate cease:ceas controll:control roll:roll
generalizations:gener oscillators:oscil"""


@pytest.mark.parametrize("pair", _STEMS.split())
def test_stems(pair: str) -> None:
    word, expected = pair.split(":")
    assert stem(word) == expected


def test_terms_are_folded_and_stopped() -> None:
    assert terms("The TRAVELLERS' vouchers, don’t they?") == ["travel", "voucher", "dont"]
    assert terms("Überstunden ÜBERSTUNDEN") == ["überstunden"] * 2
    assert terms("ﬁne Ⅳ ½") == terms("fine iv 1⁄2")
    assert terms("加班必须") == ["加班", "班必", "必须"]
    assert terms("to be or not to be") == []


@given(text=st.text())
def test_any_text_is_accepted(text: str) -> None:
    assert terms(text) == terms(text)
    assert plain(text) == " ".join(plain(text).split())
    spans = list(sentences(text))
    assert all(left < right for left, right in spans)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    kept = "".join(text[left:right] for left, right in spans)
    assert "".join(kept.split()) == "".join(text.split())


def test_plain_keeps_what_a_reader_sees() -> None:
    source = (
        '## See [the\nguide]({% page "/x#y-(z)" %}) and **mail** <a@b.example> `x_y` ![pic](p.png) '
        "[r][1]<br/><b class='c'>bold</b> snake_case 2 < 3 {{ hidden }} \\*"
    )
    assert plain(source) == "See the guide and mail <a@b.example> x_y pic r bold snake_case 2 < 3 *"
    assert plain("- [x] done\n1. one\n> quoted") == "done one quoted"


def test_sentences_end_where_a_reader_stops() -> None:
    text = "Ask Dr. Lee, e.g. today. It costs 3.50\nEUR here! Why?\n\n- one\n- two\n\n| a | b |\n加班。好。"
    assert [text[left:right] for left, right in sentences(text)] == [
        "Ask Dr. Lee, e.g. today.",
        "It costs 3.50\nEUR here!", "Why?", "- one", "- two", "| a | b |", "加班。", "好。",
    ]  # fmt: skip


def test_behaviour_is_pinned_to_its_version() -> None:
    """A change of results must come with a new ANALYZER, CHUNKER or HASHING name: indexes rebuild by it."""
    table = "| a | b |\n|---|---|\n| 1 | 2 |"
    text = f"# Trip\n\nTravellers' vouchers (see [x](y)) cost 35 EUR.\n\n{table}\n\n加班 ok. " * 9
    pieces = [(p.start, p.end, p.heading) for p in chunk("a.md", text, ChunkConfig(max_size=80))]
    vector = HashingEmbedder(64).embed([plain(text)])[0].round(4).tolist()
    found = {
        ANALYZER: hashlib.sha256(json.dumps(terms(plain(text))).encode()).hexdigest()[:12],
        CHUNKER: hashlib.sha256(json.dumps(pieces).encode()).hexdigest()[:12],
        HASHING: hashlib.sha256(json.dumps(vector).encode()).hexdigest()[:12],
    }
    assert found == {
        "words-porter-1": "f852a0d72aa7",
        "markdown-1": "17d86e8821a9",
        "hashing-1": "beb42ec00106",
    }
