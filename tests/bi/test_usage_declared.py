"""A funnel's steps are events that exist; what is printed as CSV runs in no spreadsheet."""

from __future__ import annotations

import shutil

import pytest

from omni.cli.usage import Format, _print
from omni.declarations import validate_all
from omni.errors import ConfigError
from omni.settings import PROJECT

FUNNEL = """name: looks
title: Looks
description: Who looked and signed in.
owner: marketing@demo.example
window: 1 day
steps:
  - {name: looked, event: product_view}
  - {name: signed_in, event: EVENT}
"""


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(PROJECT / "data", folder, ignore=shutil.ignore_patterns("var"))
    return folder


@pytest.mark.slow
def test_a_step_of_no_event_is_refused(data):
    (data / "funnels" / "looks.yml").write_text(FUNNEL.replace("EVENT", "log_in"))
    with pytest.raises(
        ConfigError, match=r"looks.yml: step signed_in: no event 'log_in'.*did you mean login"
    ):
        validate_all(data)


@pytest.mark.slow
def test_steps_may_be_events_of_the_web_site_and_the_log(data):
    (data / "funnels" / "looks.yml").write_text(FUNNEL.replace("EVENT", "purchase"))
    for gone in ("purchase", "page_view"):
        (data / "events" / f"{gone}.yml").unlink()
    assert validate_all(data)["funnels"] == 3


def test_csv_runs_in_no_spreadsheet(capsys):
    _print("paths", ["from_step", "transitions"], [("=HYPERLINK(1)", -1)], Format.csv)
    assert capsys.readouterr().out.splitlines() == ["from_step,transitions", "'=HYPERLINK(1),-1"]
