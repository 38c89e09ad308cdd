"""Scores to subscribers: one event for each change, the same one however often it is sent."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from omni.control.database import session
from omni.control.hooks import HookDelivery
from omni.destinations import webhook
from omni.destinations.ledger import intend, known_rows
from omni.destinations.plan import plan
from omni.errors import ConfigError
from omni.sources.connection import Connection
from omni.webhooks import hooks

TO = {
    "to": {"vendor": "hooks", "object": "score.changed"},
    "key": {"column": "lead", "property": "lead"},
    "columns": {"score": {"column": "score", "decimals": 2}},
}


@pytest.fixture
def subscribers(control, tenant):
    hooks.subscribe(tenant.tenant, "score.changed", "http://127.0.0.1:9/hook", loopback=True)
    return SimpleNamespace(
        connection=Connection("hooks", "", SecretStr(""), options={"tenant": tenant.tenant})
    )


def owed():
    """How many deliveries there are."""
    with session() as opened:
        return opened.scalar(sa.select(sa.func.count()).select_from(HookDelivery))


def test_each_change_is_one_event(subscribers, published, declared, run, tenant):
    one = declared(**TO)
    published({"1": 0.5, "2": 0.6})
    assert run(one, subscribers).written == 2
    assert run(one, subscribers).written == 0
    for value in (0.7, 0.5):  # back to the first value: a change all the same
        published({"1": value, "2": 0.6})
        assert run(one, subscribers).written == 1
    assert owed() == 4


def test_sending_again_after_a_crash_is_no_second_event(subscribers, published, declared, run, tenant):
    one = declared(**TO)
    published({"1": 0.5})
    with webhook.opened(subscribers.connection) as client:
        webhook.send(client, one, plan(tenant, one, {}).items)
    assert run(one, subscribers).written == 1
    assert owed() == 1


def test_a_change_after_a_lost_answer_is_an_event_of_its_own(subscribers, published, declared, run, tenant):
    """Told of 0.5, then perhaps of 0.6: whoever was must be told of 0.5 again."""
    one = declared(**TO)
    published({"1": 0.5})
    run(one, subscribers)
    for value in (0.6, 0.5, 0.6):
        published({"1": value})
        items = plan(tenant, one, known_rows(tenant.tenant, one)).items
        intend(tenant.tenant, one, items, "run-1")
        with webhook.opened(subscribers.connection) as client:
            webhook.send(client, one, items)  # … and the process dies
    assert owed() == 4
    assert run(one, subscribers).written == 1
    assert owed() == 4
    assert run(one, subscribers).written == 0


def test_rows_that_leave_are_told(subscribers, published, declared, run, tenant):
    one = declared(**TO, on_leave={"clear": {"score": None}})
    published({"1": 0.5, "2": 0.6})
    run(one, subscribers)
    published({"1": 0.5})
    assert run(one, subscribers).written == 1
    assert owed() == 3


def test_an_unknown_event_is_refused(subscribers, published, declared, run):
    published({"1": 0.5})
    with pytest.raises(ConfigError, match=r"unknown event 'lead\.scored'\. Known: segment\.entered"):
        run(declared(**TO | {"to": {"vendor": "hooks", "object": "lead.scored"}}), subscribers)
