"""The same events in PostgreSQL: loads, repeats, letters and live turns as in DuckDB."""

from __future__ import annotations

import pytest

from omni.usage.live import take_turn

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("postgres_warehouse")]


def test_turns_give_the_same_window_tables_and_letters(put, live, ask, event):
    put([event(1, "2026-03-08T11:00:00Z"), event(2), event(2, "2026-03-01T11:00:00Z"), event(3, type="odd")])
    assert take_turn(live).loaded.inserted == 2
    put(
        [
            event(2, type="odd"),
            event(2),
            event(3),
            event(4, "2026-03-08T12:00:00Z", data={"page": "/", "more": 1}),
        ]
    )
    turn = take_turn(live)
    assert (turn.loaded.inserted, turn.loaded.repeated, dict(turn.problems)) == (2, 1, {})
    state = live.feed.latest
    assert state["metrics"] == {"events": 2.0}
    assert [one["value"] for one in state["corrections"]] == [1.0, 2.0]
    page = "json_extract_string(properties, '$.page')"
    rows = ask(f"SELECT event_id, {page} FROM raw.usage__events ORDER BY 1")
    assert rows == [(f"e{n}", "/") for n in range(1, 5)]
    assert ask("SELECT record_key FROM ops.dead_letters WHERE replayed_at IS NULL") == []
    assert ask("SELECT event, reason, dropped FROM ops.usage_dropped") == [("page_view", "not declared", 1)]
    assert ask("SELECT rows_read, inserted, rejected FROM ops.loads") == [(6, 4, 2)]
