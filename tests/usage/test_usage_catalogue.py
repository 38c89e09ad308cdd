"""Event declarations: what they may say, and what is read by them."""

from __future__ import annotations

import pytest

from omni.errors import ConfigError
from omni.settings import settings
from omni.usage.catalogue import Event, Property, event_named, form, load_catalogue

GOOD = "name: opened\ndescription: d\nowner: a@example.com\n"


def test_the_projects_events_are_right():
    events = load_catalogue(settings().data / "events")
    assert {"page_view", "purchase", "signup"} <= events.keys()
    assert events["purchase"].properties["order_id"].required


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD + "properties: {a: {type: enum}}", "properties.a: .*enum needs values"),
        (GOOD + "properties: {a: {type: string, values: [x]}}", "only enum has them"),
        (GOOD + "properties: {a: {type: enum, values: [x, x]}}", "listed twice"),
        (GOOD + "properties: {a: {type: integer, max_length: 3}}", "belongs to type string"),
        (GOOD + "properties: {a: {type: money}}", "properties.a.type"),
        (GOOD + "properties: {BadName: {type: string}}", "small letters"),
        (GOOD + "colour: red", "colour"),
        (GOOD.replace("opened", "closed"), "the file is named 'opened'"),
    ],
)
def test_a_wrong_declaration_names_file_and_field(tmp_path, text, said):
    (tmp_path / "opened.yml").write_text(text)
    with pytest.raises(ConfigError, match=f"(?s)opened.yml.*{said}"):
        load_catalogue(tmp_path)


def test_an_unknown_event_is_told_with_a_hint():
    with pytest.raises(ConfigError, match="did you mean page_view"):
        event_named("page_viewed")


def _read(kind, value, lax=False, **more):
    event = Event(name="e", description="d", owner="o", properties={"p": Property(type=kind, **more)})
    return form(event, lax=lax).readers["p"](value)


@pytest.mark.parametrize(
    ("kind", "value", "stored"),
    [
        ("string", "ü", "ü"),
        ("integer", -(2**63), -(2**63)),
        ("float", 3, 3.0),
        ("boolean", False, False),
        ("timestamp", "2026-01-15T07:00:00+01:00", "2026-01-15T06:00:00+00:00"),
    ],
)
def test_a_value_of_its_type_is_kept(kind, value, stored):
    assert _read(kind, value) == stored
    assert type(_read(kind, value)) is type(stored)


@pytest.mark.parametrize(
    ("kind", "value", "more"),
    [
        ("string", 5, {}),
        ("string", "x" * 1001, {}),
        ("string", "abcd", {"max_length": 3}),
        ("string", "a\0b", {}),
        ("string", "write to zoe@example.com", {}),
        ("string", "/u/zoe%40example.com", {}),
        ("string", "zoe%2540example%2Ecom", {}),
        ("string", "zoe\uff20example.com", {}),
        ("string", "zoe\u200b@example.com", {}),
        ("integer", True, {}),
        ("integer", 1.0, {}),
        ("integer", 2**63, {}),
        ("integer", "1", {}),
        ("float", float("nan"), {}),
        ("float", "1.5", {}),
        ("boolean", 1, {}),
        ("timestamp", "2026-01-16T06:00:00", {}),
        ("timestamp", "yesterday", {}),
        ("timestamp", 17, {}),
        ("enum", "c", {"values": ["a", "b"]}),
        ("enum", ["a"], {"values": ["a", "b"]}),
    ],
)
def test_a_value_of_another_type_is_refused_and_not_quoted(kind, value, more):
    with pytest.raises(ValueError, match=r"^(is|has|holds|looks)") as raised:
        _read(kind, value, **more)
    assert str(value) not in str(raised.value)


@pytest.mark.parametrize("end", ["?mail=zoe@example.com", "#zoe", ";id=zoe", "%3Fmail=zoe", "?a\nb"])
def test_a_path_ends_where_its_query_begins(end):
    event = Event(
        name="e", description="d", owner="o",
        properties={
            "page": Property(type="string"),
            "entry": Property(type="string", path=True),
            "url": Property(type="string", path=False),
        },
    )  # fmt: skip
    readers = form(event).readers
    assert readers["page"]("/a/b" + end) == readers["entry"]("/a/b" + end) == "/a/b"
    assert readers["url"]("/a?b") == "/a?b"


@pytest.mark.parametrize(
    ("kind", "text", "stored"),
    [("integer", " 12 ", 12), ("float", "1e3", 1000.0), ("boolean", "True", True), ("string", 7, "7")],
)
def test_texts_of_a_csv_file_stand_for_values(kind, text, stored):
    assert _read(kind, text, lax=True) == stored


@pytest.mark.parametrize(("kind", "text"), [("integer", "1.5"), ("float", "much"), ("boolean", "yes")])
def test_texts_that_are_no_values_are_refused(kind, text):
    with pytest.raises(ValueError, match=r"^is n"):
        _read(kind, text, lax=True)
