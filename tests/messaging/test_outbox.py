"""The outbox keeps what is to be sent until it is, and sends it once."""

from __future__ import annotations

import email
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from email import policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP

from omni.control.database import now
from omni.errors import ConfigError, TerminalError, TransientError
from omni.mail import is_address
from omni.messaging.outbox import (
    ATTEMPTS,
    KEEP,
    LEASE,
    WAITS,
    Attachment,
    Message,
    _kept,
    entries,
    forget,
    post,
    retry,
    send_due,
)
from omni.messaging.transports import Folder, Smtp, transport_of
from omni.settings import SmtpSettings
from omni.tenancy import Tenant

MESSAGE = Message(
    kind="export daily_sales",
    to=("ann@acme.example", "bob@acme.example"),
    subject="Sales of Müller & Söhne",
    text="Complete through 2026-05-01\n",
    attachments=(Attachment("sales.csv", "text/csv", b"day,revenue\r\n2026-05-01,3\r\n"),),
)
SENDER = "data@acme.example"


class Recorder:
    """Takes every message, or says what it was told to."""

    def __init__(self, answer: Callable[[], None] = lambda: None) -> None:
        self.mails: list[tuple[str, EmailMessage]] = []
        self.answer = answer

    def send(self, mail: EmailMessage, identity: str) -> None:
        self.mails.append((identity, mail))
        self.answer()


def refuse(error: Exception) -> Callable[[], None]:
    def answer() -> None:
        raise error

    return answer


def send(tenant: Tenant, transport: Any, **options: Any) -> dict[str, int]:
    return send_due(tenant, transport, sender=SENDER, **options).summary()


def test_a_message_is_sent_once(home: Path, either_database: str, tenant: Tenant) -> None:
    assert post(tenant, MESSAGE, about="export daily_sales 2026-05-01")
    assert not post(tenant, MESSAGE, about="export daily_sales 2026-05-01")
    recorder = Recorder()
    assert send(tenant, recorder) == {"sent": 1, "failed": 0, "dead": 0}
    assert send(tenant, recorder) == {"sent": 0, "failed": 0, "dead": 0}
    ((identity, mail),) = recorder.mails
    assert mail["To"] == "ann@acme.example, bob@acme.example"
    assert mail["Subject"] == "Sales of Müller & Söhne"
    assert mail["Message-ID"] == f"<{identity}@acme.example>"
    assert mail.get_body().get_content() == MESSAGE.text
    (attachment,) = mail.iter_attachments()
    assert (attachment.get_filename(), attachment.get_content_type()) == ("sales.csv", "text/csv")
    assert attachment.get_payload(decode=True) == MESSAGE.attachments[0].content
    (entry,) = entries(tenant.tenant)
    assert (entry.state, entry.attempts, entry.about) == ("sent", 1, "export daily_sales 2026-05-01")


def test_whom_it_is_for_and_what_it_says_are_nowhere_in_the_clear(
    home: Path, either_database: str, tenant: Tenant, control_content: Callable[[], bytes]
) -> None:
    post(tenant, MESSAGE, about="x")
    assert b"ann@" not in control_content()
    assert b"Complete through" not in control_content()
    assert "ann" not in repr(MESSAGE)


def test_what_may_pass_is_tried_again_within_bounds(home: Path, either_database: str, tenant: Tenant) -> None:
    post(tenant, MESSAGE, about="x")
    down = Recorder(refuse(TransientError("the server is down")))
    moment = now()
    for wait in WAITS:
        assert send(tenant, down, moment=moment) == {"sent": 0, "failed": 1, "dead": 0}
        assert send(tenant, down, moment=moment + wait - timedelta(seconds=1))["failed"] == 0
        moment += wait
    assert send(tenant, down, moment=moment) == {"sent": 0, "failed": 0, "dead": 1}
    assert len({identity for identity, _ in down.mails}) == 1
    assert len(down.mails) == len(WAITS) + 1
    (entry,) = entries(tenant.tenant)
    assert (entry.state, entry.reason) == ("dead", "the server is down")
    assert send(tenant, Recorder(), moment=moment + timedelta(days=1))["sent"] == 0
    with pytest.raises(ConfigError, match="omni outbox list"):
        retry(tenant.tenant, "zz")
    assert retry(tenant.tenant, entry.id[:6]) == 1
    assert send(tenant, Recorder())["sent"] == 1


def test_a_refused_message_is_given_up_and_the_others_go(
    home: Path, either_database: str, tenant: Tenant
) -> None:
    for number in range(3):
        post(tenant, MESSAGE, about=str(number))
    taken: list[int] = []

    def second_fails() -> None:
        taken.append(1)
        if len(taken) == 2:
            raise TerminalError("refused (550)")

    assert send(tenant, Recorder(second_fails)) == {"sent": 2, "failed": 0, "dead": 1}


def test_a_crash_between_sending_and_noting_sends_under_the_same_id(
    home: Path, either_database: str, tenant: Tenant
) -> None:
    post(tenant, MESSAGE, about="x")
    crashing = Recorder(refuse(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        send(tenant, crashing)
    again = Recorder()
    assert send(tenant, again)["sent"] == 0
    assert send(tenant, again, moment=now() + LEASE)["sent"] == 1
    assert crashing.mails[0][1]["Message-ID"] == again.mails[0][1]["Message-ID"]


def test_who_was_too_slow_says_nothing_about_a_message(
    home: Path, either_database: str, tenant: Tenant
) -> None:
    """A sender whose lease ran out fails after another one sent it: it is sent, and what follows goes."""
    post(tenant, MESSAGE, about="x")
    moment, fast = now(), Recorder()

    def meanwhile() -> None:
        assert send(tenant, fast, moment=moment + LEASE + timedelta(seconds=1))["sent"] == 1
        raise TransientError("timeout")

    assert send(tenant, Recorder(meanwhile), moment=moment) == {"sent": 0, "failed": 0, "dead": 0}
    (entry,) = entries(tenant.tenant)
    assert (entry.state, entry.reason) == ("sent", None)
    post(tenant, MESSAGE, about="y")
    assert send(tenant, fast, moment=moment + timedelta(hours=1)) == {"sent": 1, "failed": 0, "dead": 0}


def test_who_was_too_slow_leaves_the_message_to_who_has_it_now(
    home: Path, either_database: str, tenant: Tenant
) -> None:
    post(tenant, MESSAGE, about="x")
    moment = now()

    def meanwhile() -> None:
        with pytest.raises(KeyboardInterrupt):
            send(tenant, Recorder(refuse(KeyboardInterrupt())), moment=moment + LEASE)
        raise TransientError("timeout")

    send(tenant, Recorder(meanwhile), moment=moment)
    (entry,) = entries(tenant.tenant)
    assert (entry.state, entry.attempts, entry.reason) == ("sending", 2, None)


def test_who_was_too_slow_does_not_undo_what_a_person_had_sent_again(
    home: Path, either_database: str, tenant: Tenant
) -> None:
    post(tenant, MESSAGE, about="x")
    moment = now()

    def meanwhile() -> None:
        assert send(tenant, Recorder(refuse(TerminalError("no"))), moment=moment + LEASE)["dead"] == 1
        assert retry(tenant.tenant) == 1
        assert send(tenant, Recorder(), moment=moment + LEASE)["sent"] == 1
        raise TransientError("timeout")

    send(tenant, Recorder(meanwhile), moment=moment)
    (entry,) = entries(tenant.tenant)
    assert (entry.state, entry.attempts) == ("sent", 1)


def test_a_slow_message_does_not_use_up_the_lease_of_the_next(
    home: Path, either_database: str, tenant: Tenant
) -> None:
    for about in ("x", "y"):
        post(tenant, MESSAGE, about=about)
    moment, other = now(), Recorder()

    def meanwhile() -> None:
        if len(slow.mails) == 1:
            send(tenant, other, moment=moment + LEASE - timedelta(seconds=1))

    slow = Recorder(meanwhile)
    send(tenant, slow, moment=moment)
    assert (len(slow.mails), len(other.mails)) == (1, 1)
    assert slow.mails[0][0] != other.mails[0][0]


def test_what_no_mail_can_say_fails_alone(home: Path, either_database: str, tenant: Tenant) -> None:
    """Building fails, and so does a transport by an error of its own: both by the ordinary rules."""
    post(tenant, replace(MESSAGE, text="a lone surrogate: \ud800"), about="unbuildable")
    post(tenant, MESSAGE, about="fine")
    good, moment = Recorder(), now()
    assert send(tenant, good, moment=moment) == {"sent": 1, "failed": 1, "dead": 0}
    for wait in WAITS:
        moment += wait
        last = send(tenant, good, moment=moment)
    assert last == {"sent": 0, "failed": 0, "dead": 1}
    post(tenant, MESSAGE, about="refused in words")
    broken = Recorder(refuse(RuntimeError("ann@acme.example is unknown")))
    assert send(tenant, broken, moment=moment)["failed"] == 1
    states = {entry.about: (entry.state, entry.reason) for entry in entries(tenant.tenant)}
    assert states == {
        "unbuildable": ("dead", "UnicodeEncodeError while it was built or sent"),
        "fine": ("sent", None),
        "refused in words": ("failed", "RuntimeError while it was built or sent"),
    }


def test_one_that_ends_every_sender_is_given_up_and_can_be_retried(
    home: Path, either_database: str, tenant: Tenant
) -> None:
    post(tenant, MESSAGE, about="x")
    moment, killing = now(), Recorder(refuse(KeyboardInterrupt()))
    for _ in range(ATTEMPTS):
        with pytest.raises(KeyboardInterrupt):
            send(tenant, killing, moment=moment)
        moment += LEASE
    post(tenant, MESSAGE, about="y")
    assert send(tenant, Recorder(), moment=moment) == {"sent": 1, "failed": 0, "dead": 1}
    assert len(killing.mails) == ATTEMPTS
    assert retry(tenant.tenant) == 1
    assert send(tenant, Recorder(), moment=moment)["sent"] == 1


def test_two_senders_never_take_the_same_message(home: Path, either_database: str, tenant: Tenant) -> None:
    post(tenant, MESSAGE, about="x")
    inner = Recorder()
    outer = Recorder(lambda: send(tenant, inner) and None)
    assert send(tenant, outer)["sent"] == 1
    assert inner.mails == []


def test_tenants_have_outboxes_of_their_own(home: Path, tenant: Tenant) -> None:
    other = tenant.model_copy(update={"tenant": "beta"})
    assert post(tenant, MESSAGE, about="x")
    assert post(other, MESSAGE, about="x")
    assert send(tenant, Recorder())["sent"] == 1
    assert [entry.state for entry in entries("beta")] == ["new"]


def test_what_is_over_is_forgotten_and_its_files_with_it(home: Path, tenant: Tenant) -> None:
    post(tenant, MESSAGE, about="x")
    files = tenant.home / "outbox" / "files"
    forget(tenant, moment=now() + timedelta(hours=1))
    assert len(list(files.iterdir())) == 1
    send(tenant, Recorder())
    assert forget(tenant, moment=now() + timedelta(hours=1)) == 0
    assert list(files.iterdir()) == []
    assert forget(tenant, moment=now() + KEEP + timedelta(days=1)) == 1
    assert entries(tenant.tenant) == []


def test_a_missing_attachment_is_said_and_not_left_out(home: Path, tenant: Tenant) -> None:
    post(tenant, MESSAGE, about="x")
    for path in (tenant.home / "outbox" / "files").iterdir():
        path.unlink()
    assert send(tenant, Recorder())["dead"] == 1
    assert entries(tenant.tenant)[0].reason == "the attachment sales.csv is gone from the outbox folder"


def test_a_file_that_a_new_message_shares_is_young_again(home: Path, tenant: Tenant) -> None:
    """Between keeping the file and writing the message down, `forget` sees an old file that nobody needs."""
    post(tenant, MESSAGE, about="x")
    send(tenant, Recorder())
    (path,) = (tenant.home / "outbox" / "files").iterdir()
    os.utime(path, (0, 0))
    _kept(tenant, MESSAGE.attachments[0])
    forget(tenant)
    assert path.exists()


@pytest.mark.parametrize("subject", ["Sales\n", "  Sales of\r\n\tMay ", "Sales\u2028May"])
def test_a_subject_is_one_line_and_the_file_stays_with_it(home: Path, tenant: Tenant, subject: str) -> None:
    post(tenant, replace(MESSAGE, subject=subject), about="x")
    transport = transport_of(tenant)
    assert isinstance(transport, Folder)
    assert send(tenant, transport)["sent"] == 1
    mail = email.message_from_bytes(next(transport.path.iterdir()).read_bytes(), policy=policy.default)
    assert mail["Subject"] == " ".join(subject.split())
    assert [part.get_filename() for part in mail.iter_attachments()] == ["sales.csv"]


@pytest.mark.parametrize("subject", ["", "\x00", "a\x1b[2J", "a \u202e b", "\ud800"])
def test_subjects_that_hide_something_are_refused(home: Path, tenant: Tenant, subject: str) -> None:
    with pytest.raises(ConfigError, match="subject"):
        post(tenant, replace(MESSAGE, subject=subject), about="x")
    assert entries(tenant.tenant) == []


@pytest.mark.parametrize(
    "address",
    ["", "ann", "a@b.c\x00", "a\u202e@b.example", "..@.", "a@b@c.d", "a@b", "a..b@c.d", ".a@c.d", "a@-c.d",
     "a@c..d", "a@c.d\n", "a b@c.d", "Ann <a@c.d>", "a@c.d, e@f.g", "ä@c.d", "a@" + "c" * 64 + ".d",
     "a" * 65 + "@c.d", '"a b"@c.d'],
)  # fmt: skip
def test_addresses_are_read_strictly(home: Path, tenant: Tenant, address: str) -> None:
    assert not is_address(address)
    with pytest.raises(ConfigError, match="a recipient is not an e-mail address"):
        post(tenant, replace(MESSAGE, to=("bob@acme.example", address)), about="x")


@pytest.mark.parametrize("address", ["a@b.example", "o'neil+x.y_z@xn--mller-kva.de", "a@1.2-3.co"])
def test_usual_addresses_are_addresses(address: str) -> None:
    assert is_address(address)


def test_without_a_server_messages_become_files(home: Path, tenant: Tenant) -> None:
    post(tenant, MESSAGE, about="x")
    transport = transport_of(tenant)
    assert isinstance(transport, Folder)
    assert send(tenant, transport)["sent"] == 1
    (path,) = transport.path.iterdir()
    mail = email.message_from_bytes(path.read_bytes(), policy=policy.default)
    assert mail["Subject"] == MESSAGE.subject


class Handler:
    def __init__(self) -> None:
        self.received: list[Any] = []
        self.answer = "250 OK"
        self.unknown: set[str] = set()

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if address in self.unknown:
            return "550 unknown"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.answer.startswith("2"):
            self.received.append(envelope)
        return self.answer


@pytest.fixture
def mail_server() -> Iterator[tuple[Handler, SmtpSettings]]:
    handler = Handler()

    class Plain(Controller):
        def factory(self) -> SMTP:
            return SMTP(self.handler, hostname="localhost")

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    controller = Plain(handler, hostname="127.0.0.1", port=port)
    controller.start()
    yield handler, SmtpSettings(host="127.0.0.1", port=port, tls="none", timeout=5)
    controller.stop()


def test_a_mail_server_gets_it(mail_server: Any, home: Path, tenant: Tenant) -> None:
    handler, config = mail_server
    post(tenant, MESSAGE, about="x")
    assert send(tenant, Smtp(config))["sent"] == 1
    (envelope,) = handler.received
    assert envelope.rcpt_tos == ["ann@acme.example", "bob@acme.example"]
    assert b"sales.csv" in envelope.content


@pytest.mark.parametrize(
    ("answer", "state"), [("451 later", "failed"), ("550 no such user ann@acme", "dead")]
)
def test_refusals_are_told_apart_and_their_words_left_out(
    mail_server: Any, home: Path, tenant: Tenant, answer: str, state: str
) -> None:
    handler, config = mail_server
    handler.answer = answer
    post(tenant, MESSAGE, about="x")
    assert send(tenant, Smtp(config))[state] == 1
    (entry,) = entries(tenant.tenant)
    assert entry.state == state
    assert answer[:3] in str(entry.reason)
    assert "ann" not in str(entry.reason)


def test_whom_the_server_refused_gets_it_later_and_the_others_not_twice(
    mail_server: Any, home: Path, tenant: Tenant, control_content: Callable[[], bytes]
) -> None:
    handler, config = mail_server
    handler.unknown = {"bob@acme.example"}
    post(tenant, MESSAGE, about="x")
    assert send(tenant, Smtp(config)) == {"sent": 0, "failed": 0, "dead": 1}
    (entry,) = entries(tenant.tenant)
    assert entry.reason == "127.0.0.1 refused 1 of the recipients; the others have it"
    assert b"bob@" not in control_content()
    assert retry(tenant.tenant) == 1
    assert send(tenant, Smtp(config))["dead"] == 1
    handler.unknown = set()
    assert retry(tenant.tenant) == 1
    assert send(tenant, Smtp(config))["sent"] == 1
    assert [envelope.rcpt_tos for envelope in handler.received] == [
        ["ann@acme.example"],
        ["bob@acme.example"],
    ]


def test_a_server_that_is_down_is_tried_again(home: Path, tenant: Tenant) -> None:
    post(tenant, MESSAGE, about="x")
    nowhere = Smtp(SmtpSettings(host="127.0.0.1", port=1, tls="none", timeout=1))
    assert send(tenant, nowhere)["failed"] == 1
    assert "127.0.0.1:1 does not take mail" in str(entries(tenant.tenant)[0].reason)


def test_an_unsecured_server_is_not_spoken_to_when_starttls_is_asked_for(
    mail_server: Any, home: Path, tenant: Tenant
) -> None:
    handler, config = mail_server
    post(tenant, MESSAGE, about="x")
    assert send(tenant, Smtp(config.model_copy(update={"tls": "starttls"})))["failed"] == 1
    assert handler.received == []
