"""Every control table, imported in one place so that migrations see them all."""

from omni.control import hooks, inbox, keys, ledger, tokens

__all__ = ["hooks", "inbox", "keys", "ledger", "tokens"]
