"""Every control table, imported in one place so that migrations see them all."""

from omni.control import hooks, inbox, keys, ledger, outbox, partners, tokens
from omni.control.database import Base

__all__ = ["Base", "hooks", "inbox", "keys", "ledger", "outbox", "partners", "tokens"]
