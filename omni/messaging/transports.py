"""How messages are sent: into a folder where nothing is set up, else by SMTP."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Collection
from dataclasses import dataclass
from email import policy
from email.message import EmailMessage
from pathlib import Path
from typing import Protocol

from omni.errors import TerminalError, TransientError
from omni.files import private_folder, write_atomic
from omni.settings import SmtpSettings, settings
from omni.tenancy import Tenant


class PartlyRefused(TerminalError):
    """Some recipients have it, others were refused.

    Args:
        message: what happened; names nobody.
        refused: the addresses that do not have it.
    """

    def __init__(self, message: str, refused: Collection[str]) -> None:
        super().__init__(message)
        self.refused = frozenset(refused)


class Transport(Protocol):
    """Takes a message out of the house."""

    def send(self, mail: EmailMessage, identity: str) -> None:
        """Send a message; sending one of the same identity again does no harm.

        Raises:
            TransientError: it may go another time.
            TerminalError: it will never go as it is; `PartlyRefused` if it went to some.
        """


@dataclass(frozen=True)
class Folder:
    """Writes each message to a file that mail programs open."""

    path: Path

    def send(self, mail: EmailMessage, identity: str) -> None:
        """Write `<identity>.eml`."""
        private_folder(self.path)
        write_atomic(self.path / f"{identity}.eml", mail.as_bytes(policy=policy.SMTP))


@dataclass(frozen=True)
class Smtp:
    """Hands each message to a mail server."""

    config: SmtpSettings

    def send(self, mail: EmailMessage, identity: str) -> None:
        """One connection, one message.

        Raises:
            TransientError: the server does not answer, or asks to try later.
            TerminalError: it refuses the message, the sender, or our login.
            PartlyRefused: it refuses some of the recipients.
        """
        del identity  # the Message-ID carries it
        config = self.config
        try:
            with self._connected() as server:
                if config.username and config.password:
                    server.login(config.username, config.password.get_secret_value())
                refused = server.send_message(mail)
        except smtplib.SMTPRecipientsRefused as error:
            codes = {code for code, _ in error.recipients.values()}
            raise _refused(codes, "every recipient") from None
        except smtplib.SMTPResponseException as error:
            raise _refused({error.smtp_code}, type(error).__name__) from None
        except (smtplib.SMTPException, OSError) as error:
            raise TransientError(
                f"{config.host}:{config.port} does not take mail: {type(error).__name__}"
            ) from None
        if refused:
            number = len(refused)
            raise PartlyRefused(
                f"{config.host} refused {number} of the recipients; the others have it", refused
            )

    def _connected(self) -> smtplib.SMTP:
        config = self.config
        assert config.host is not None
        if config.tls == "tls":
            context = ssl.create_default_context()
            return smtplib.SMTP_SSL(config.host, config.port, timeout=config.timeout, context=context)
        server = smtplib.SMTP(config.host, config.port, timeout=config.timeout)
        if config.tls == "starttls":
            try:
                server.starttls(context=ssl.create_default_context())
            except BaseException:
                server.close()
                raise
        return server


def _refused(codes: set[int], what: str) -> Exception:
    """Servers' 4xx pass, 5xx do not; their words may name people and are left out."""
    said = ", ".join(str(code) for code in sorted(codes))
    if all(code < 500 for code in codes):
        return TransientError(f"the mail server asks to try again later ({said}, {what})")
    return TerminalError(f"the mail server refuses it ({said}, {what})")


def transport_of(tenant: Tenant) -> Transport:
    """What the settings say: a mail server, else the tenant's outbox folder."""
    config = settings().smtp
    return Smtp(config) if config.host else Folder(tenant.home / "outbox" / "mail")
