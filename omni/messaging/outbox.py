"""The outbox: a message is written down first and sent after, so that none is lost and none sent for nothing.

A row is leased right before it is sent and settled after, by whoever still has the lease. A crash in between
sends it again under the same Message-ID, by which mail programs drop what they have; so does a sender that is
slower than its lease. Whatever goes wrong with one message, the others go. Whatever could name a person is
sealed.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from omni.control.database import insert_new, now, session
from omni.control.outbox import OutboxMessage
from omni.errors import ConfigError, TerminalError, TransientError
from omni.files import private_folder, write_atomic
from omni.mail import is_address, one_line
from omni.messaging.transports import PartlyRefused, Transport
from omni.security.vault import Vault
from omni.tenancy import Tenant

PURPOSE = "outbox"
WAITS = tuple(timedelta(minutes=m) for m in (1, 5, 30, 120, 360))
"""Waits before further attempts: six in all within nine hours."""
ATTEMPTS = len(WAITS) + 1
LEASE = timedelta(minutes=10)
"""How long a sender has a message for itself; after a crash it is sent again then."""
KEEP = timedelta(days=30)
"""How long what became of a message is remembered."""


@dataclass(frozen=True)
class Attachment:
    """A file that goes with a message."""

    name: str
    media_type: str
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class Message:
    """What is to be said to whom; its representation names nobody."""

    kind: str
    to: tuple[str, ...] = field(repr=False)
    subject: str = field(repr=False)
    text: str = field(repr=False)
    attachments: tuple[Attachment, ...] = ()


def post(tenant: Tenant, message: Message, *, about: str) -> bool:
    """Put a message into the outbox.

    Args:
        tenant: who sends it.
        message: what.
        about: what it is about, for example an export and its day; nothing personal. A second message about
            the same is not taken.

    Returns:
        Whether it is new.

    Raises:
        ConfigError: a recipient is no address, or the subject or a file's name holds control characters.
    """
    message = _fit_for_mail(message)
    identity, moment = uuid.uuid4().hex, now()
    files = [_kept(tenant, one) for one in message.attachments]
    said = {"to": message.to, "subject": message.subject, "text": message.text}
    row = {
        "id": identity,
        "tenant": tenant.tenant,
        "dedupe_key": about,
        "kind": message.kind,
        "content": _sealed(tenant, identity, said),
        "attachments": json.dumps(files),
        "state": "new",
        "attempts": 0,
        "due_at": moment,
        "reason": None,
        "created_at": moment,
        "settled_at": None,
    }
    with session() as opened:
        return insert_new(opened, OutboxMessage, ["tenant", "dedupe_key"], [row]) == 1


def _fit_for_mail(message: Message) -> Message:
    if not message.to or not all(is_address(one) for one in message.to):
        raise ConfigError(f"message {message.kind}: a recipient is not an e-mail address")
    try:
        files = tuple(replace(one, name=one_line(one.name)) for one in message.attachments)
        return replace(message, subject=one_line(message.subject), attachments=files)
    except ValueError as error:
        raise ConfigError(f"message {message.kind}: the subject or the name of a file {error}") from None


def _sealed(tenant: Tenant, identity: str, said: Mapping[str, object]) -> bytes:
    return Vault(tenant.tenant).seal(json.dumps(said).encode(), purpose=PURPOSE, name=identity)


def _opened(tenant: Tenant, row: OutboxMessage) -> dict[str, Any]:
    if row.content is None:
        raise TerminalError("its content is gone from the outbox")
    said: dict[str, Any] = json.loads(Vault(tenant.tenant).open(row.content, purpose=PURPOSE, name=row.id))
    return said


def _kept(tenant: Tenant, attachment: Attachment) -> dict[str, str]:
    """Write an attachment into the outbox folder, under the digest of its content."""
    digest = hashlib.sha256(attachment.content).hexdigest()
    path = _file(tenant, digest)
    try:
        os.utime(path)  # as young as its newest message, or `forget` takes it
    except FileNotFoundError:
        private_folder(path.parent)
        write_atomic(path, attachment.content)
    return {"name": attachment.name, "media_type": attachment.media_type, "digest": digest}


def _file(tenant: Tenant, digest: str) -> Path:
    return tenant.home / "outbox" / "files" / digest


@dataclass
class Sent:
    """What a round of sending did."""

    sent: int = 0
    failed: int = 0
    dead: int = 0
    reasons: list[str] = field(default_factory=list)

    def summary(self) -> dict[str, int]:
        """The counts."""
        return {name: value for name, value in asdict(self).items() if name != "reasons"}


def send_due(
    tenant: Tenant, transport: Transport, *, sender: str, moment: datetime | None = None, limit: int = 500
) -> Sent:
    """Send what is due, oldest first.

    Args:
        tenant: whose.
        transport: how.
        sender: the From address.
        moment: the time it is taken to be; now by default.
        limit: messages at most.
    """
    outcome = Sent()
    for _ in range(limit):
        row = _claim(tenant, moment or now())
        if row is None:
            break
        if row.attempts > ATTEMPTS:
            left = "every attempt was begun and none ended"
            _settle(row, {"state": "dead", "reason": left}, outcome)
        else:
            _settle(row, _sent(tenant, transport, row, sender, moment), outcome)
    return outcome


def _claim(tenant: Tenant, moment: datetime) -> OutboxMessage | None:
    """The oldest message that is due, from now on this sender's: one at a time, as each may take minutes."""
    with session() as opened:
        due = (
            sa.select(OutboxMessage)
            .where(OutboxMessage.tenant == tenant.tenant, OutboxMessage.due_at <= moment)
            .where(OutboxMessage.state.in_(("new", "failed", "sending")))
            .order_by(OutboxMessage.created_at, OutboxMessage.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        row = opened.scalars(due).first()
        if row is not None:
            row.state, row.due_at, row.attempts = "sending", moment + LEASE, row.attempts + 1
    return row


def _sent(
    tenant: Tenant, transport: Transport, row: OutboxMessage, sender: str, moment: datetime | None
) -> dict[str, Any]:
    """Send a message; what its row says then. Nothing that goes wrong with one message stops the others."""
    try:
        transport.send(_mail(tenant, row, sender), row.id)
    except PartlyRefused as error:
        # Whoever has it must not get it again: what is left of it is for the others.
        said = _opened(tenant, row)
        said["to"] = [one for one in said["to"] if one in error.refused]
        return {"state": "dead", "reason": str(error), "content": _sealed(tenant, row.id, said)}
    except TerminalError as error:
        return {"state": "dead", "reason": str(error)}
    except Exception as error:  # noqa: BLE001
        # The words of an error that is not ours may name people.
        known = isinstance(error, TransientError)
        reason = str(error) if known else f"{type(error).__name__} while it was built or sent"
        if row.attempts >= ATTEMPTS:
            return {"state": "dead", "reason": reason}
        due = (moment or now()) + WAITS[row.attempts - 1]
        return {"state": "failed", "reason": reason, "due_at": due}
    return {"state": "sent", "reason": None, "content": None, "settled_at": moment or now()}


def _settle(row: OutboxMessage, values: dict[str, Any], outcome: Sent) -> None:
    """Write down what became of a message, unless its lease ran out and it is another sender's now."""
    if reason := values["reason"]:
        values["reason"] = reason[:300]
    with session() as opened:
        mine = (
            OutboxMessage.id == row.id,
            OutboxMessage.state == "sending",
            OutboxMessage.attempts == row.attempts,
        )
        settled = opened.execute(sa.update(OutboxMessage).where(*mine).values(values))
        if settled.rowcount == 0:  # type: ignore[attr-defined]
            return
    state = values["state"]
    setattr(outcome, state, getattr(outcome, state) + 1)
    if reason:
        outcome.reasons.append(f"{row.kind} {row.id[:8]}: {reason[:300]}")


def _mail(tenant: Tenant, row: OutboxMessage, sender: str) -> EmailMessage:
    """The message as mail.

    Raises:
        TerminalError: what it says, or a file that goes with it, is gone.
    """
    said = _opened(tenant, row)
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = sender, ", ".join(said["to"]), said["subject"]
    mail["Date"] = row.created_at
    mail["Message-ID"] = f"<{row.id}@{sender.rpartition('@')[2]}>"
    mail.set_content(said["text"])
    for file in json.loads(row.attachments):
        path = _file(tenant, file["digest"])
        if not path.exists():
            raise TerminalError(f"the attachment {file['name']} is gone from the outbox folder")
        main, _, sub = file["media_type"].partition("/")
        mail.add_attachment(path.read_bytes(), maintype=main, subtype=sub, filename=file["name"])
    return mail


@dataclass(frozen=True)
class Entry:
    """A message as lists show it."""

    id: str
    kind: str
    about: str
    state: str
    attempts: int
    created_at: datetime
    reason: str | None


def entries(tenant: str, *, states: Sequence[str] = ()) -> list[Entry]:
    """A tenant's messages, newest first."""
    with session() as opened:
        query = sa.select(OutboxMessage).where(OutboxMessage.tenant == tenant)
        if states:
            query = query.where(OutboxMessage.state.in_(states))
        rows = opened.scalars(query.order_by(OutboxMessage.created_at.desc(), OutboxMessage.id)).all()
    return [Entry(r.id, r.kind, r.dedupe_key, r.state, r.attempts, r.created_at, r.reason) for r in rows]


def retry(tenant: str, identity: str | None = None) -> int:
    """Try given up messages again; all of them, or the one whose id begins so. Returns how many.

    Raises:
        ConfigError: none of them has such an id.
    """
    with session() as opened:
        query = sa.update(OutboxMessage).where(OutboxMessage.tenant == tenant, OutboxMessage.state == "dead")
        if identity is not None:
            query = query.where(OutboxMessage.id.startswith(identity, autoescape=True))
        found = opened.execute(query.values(state="failed", attempts=0, due_at=now()))
        count = int(found.rowcount)  # type: ignore[attr-defined]
    if identity is not None and count == 0:
        raise ConfigError(f"No message given up begins with {identity!r}; see `omni outbox list`")
    return count


def forget(tenant: Tenant, *, moment: datetime | None = None) -> int:
    """Drop what was sent or given up long ago, and files that no message needs. Returns dropped messages."""
    before = (moment or now()) - KEEP
    with session() as opened:
        mine = OutboxMessage.tenant == tenant.tenant
        over = sa.delete(OutboxMessage).where(
            mine, OutboxMessage.state.in_(("sent", "dead")), OutboxMessage.created_at < before
        )
        dropped = int(opened.execute(over).rowcount)  # type: ignore[attr-defined]
        waiting = opened.scalars(
            sa.select(OutboxMessage.attachments).where(mine, OutboxMessage.state != "sent")
        ).all()
        needed = {file["digest"] for listed in waiting for file in json.loads(listed)}
        folder = tenant.home / "outbox" / "files"
        for path in folder.iterdir() if folder.exists() else ():
            # A file younger than this may belong to a message that is just being written down.
            old = path.stat().st_mtime < ((moment or now()) - LEASE).timestamp()
            if path.name not in needed and old:
                with suppress(FileNotFoundError):
                    path.unlink()
    return dropped
