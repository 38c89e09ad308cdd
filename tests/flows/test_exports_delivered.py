"""`deliver_exports` as it runs at night: the file, the message, and nothing the second time."""

from __future__ import annotations

import email
from datetime import date
from email import policy

import pytest

from omni.messaging.outbox import entries
from omni.tenancy import get
from omni.warehouse.database import open_warehouse
from omni.warehouse.publish import publish
from omni.warehouse.versions import record_change

pytestmark = pytest.mark.slow


@pytest.fixture
def published(home):
    """A demo company with two days of sales, published."""
    with open_warehouse(get("demo")) as warehouse:
        with warehouse.transaction() as con:
            con.execute(
                "CREATE TABLE marts.daily_sales AS SELECT day AS order_date, '=web' AS channel, "
                "'DE' AS country, 3 AS orders, 1 AS cancelled_orders, 4 AS items, "
                "12.50 :: DECIMAL(18, 2) AS revenue "
                "FROM (VALUES (DATE '2026-05-01'), (DATE '2026-05-02')) AS days(day)"
            )
            days = {date(2026, 5, 1), date(2026, 5, 2)}
            record_change(con, "marts.daily_sales", days, run_id="test")
        publish(warehouse)
    return home


def test_an_export_is_written_and_delivered_once(published, night):
    first = night(published, flow="deliver_exports")
    assert first.returncode == 0, first.output
    folder = published / "tenants" / "demo"
    (file,) = (folder / "exports").iterdir()
    (path,) = (folder / "outbox" / "mail").iterdir()
    mail = email.message_from_bytes(path.read_bytes(), policy=policy.default)
    assert (mail["To"], mail["Subject"]) == ("analysts@demo.example", "Daily sales")
    (attached,) = mail.iter_attachments()
    assert attached.get_filename() == file.name
    assert attached.get_payload(decode=True) == file.read_bytes()
    assert "Rows              2" in mail.get_body().get_content()
    sent_at = path.stat().st_mtime_ns

    second = night(published, flow="deliver_exports")
    assert second.returncode == 0, second.output
    steps = second.summary["stages"]["exports"]["steps"]
    assert (steps["daily_sales"]["posted"], steps["outbox"]["sent"]) == (False, 0)
    assert path.stat().st_mtime_ns == sent_at
    assert [entry.state for entry in entries("demo")] == ["sent"]
