"""The outbox: a message is written down first and sent after, so that none is lost and none sent for nothing.

A row is leased before it is sent and settled after. A crash in between sends it again under the same
Message-ID, by which mail programs drop what they have. Whatever could name a person is sealed.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from email.message import EmailMessage
from pathlib import Path

import sqlalchemy as sa

from omni.control.database import insert_new, now, session
from omni.control.outbox import OutboxMessage
from omni.errors import ConfigError, TerminalError, TransientError
from omni.files import private_folder, write_atomic
from omni.messaging.transports import Transport
from omni.security.vault import Vault
from omni.tenancy import Tenant

PURPOSE = "outbox"
WAITS = tuple(timedelta(minutes=m) for m in (1, 5, 30, 120, 360))
"""Waits before further attempts: six in all within nine hours."""
LEASE = timedelta(minutes=10)
"""How long a sender has a message for itself; after a crash it is sent again then."""
KEEP = timedelta(days=30)
"""How long what became of a message is remembered."""
CLAIM = 20


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
    """
    identity, moment = uuid.uuid4().hex, now()
    files = [_kept(tenant, one) for one in message.attachments]
    said = json.dumps({"to": message.to, "subject": message.subject, "text": message.text}).encode()
    row = {
        "id": identity,
        "tenant": tenant.tenant,
        "dedupe_key": about,
        "kind": message.kind,
        "content": Vault(tenant.tenant).seal(said, purpose=PURPOSE, name=identity),
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


def _kept(tenant: Tenant, attachment: Attachment) -> dict[str, str]:
    """Write an attachment into the outbox folder, under the digest of its content."""
    digest = hashlib.sha256(attachment.content).hexdigest()
    path = _file(tenant, digest)
    if not path.exists():
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
    outcome, left = Sent(), limit
    while left > 0:
        rows = _claim(tenant, moment or now(), min(CLAIM, left))
        if not rows:
            break
        for row in rows:
            _send(tenant, transport, row, sender, moment, outcome)
        left -= len(rows)
    return outcome


def _claim(tenant: Tenant, moment: datetime, many: int) -> list[OutboxMessage]:
    with session() as opened:
        due = (
            sa.select(OutboxMessage)
            .where(OutboxMessage.tenant == tenant.tenant, OutboxMessage.due_at <= moment)
            .where(OutboxMessage.state.in_(("new", "failed", "sending")))
            .order_by(OutboxMessage.created_at, OutboxMessage.id)
            .limit(many)
            .with_for_update(skip_locked=True)
        )
        rows = list(opened.scalars(due))
        for row in rows:
            row.state, row.due_at, row.attempts = "sending", moment + LEASE, row.attempts + 1
    return rows


def _send(
    tenant: Tenant,
    transport: Transport,
    row: OutboxMessage,
    sender: str,
    moment: datetime | None,
    outcome: Sent,
) -> None:
    state, reason, wait = "sent", None, timedelta()
    try:
        transport.send(_mail(tenant, row, sender), row.id)
        outcome.sent += 1
    except TransientError as error:
        reason = str(error)[:300]
        if row.attempts > len(WAITS):
            state, outcome.dead = "dead", outcome.dead + 1
        else:
            state, wait, outcome.failed = "failed", WAITS[row.attempts - 1], outcome.failed + 1
    except TerminalError as error:
        state, reason, outcome.dead = "dead", str(error)[:300], outcome.dead + 1
    if reason:
        outcome.reasons.append(f"{row.kind} {row.id[:8]}: {reason}")
    with session() as opened:
        at = moment or now()
        values = {"state": state, "reason": reason, "due_at": at + wait}
        if state == "sent":
            values |= {"content": None, "settled_at": at}
        opened.execute(sa.update(OutboxMessage).where(OutboxMessage.id == row.id).values(values))


def _mail(tenant: Tenant, row: OutboxMessage, sender: str) -> EmailMessage:
    """The message as mail.

    Raises:
        TerminalError: a file that goes with it is gone.
    """
    assert row.content is not None
    said = json.loads(Vault(tenant.tenant).open(row.content, purpose=PURPOSE, name=row.id))
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
