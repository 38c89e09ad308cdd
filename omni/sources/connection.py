"""How to reach one account of one vendor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pydantic import SecretStr


@dataclass(frozen=True)
class Access:
    """What a login gives: a token and, where the vendor names it, the address to use it at."""

    token: SecretStr
    base_url: str | None = None


class Login(Protocol):
    """Gives access tokens and renews them; `omni.sources.oauth` has the ways vendors offer."""

    def access(self) -> Access:
        """A token that is valid for a while yet.

        Raises:
            AuthError: the vendor refuses to give one.
        """

    def renew(self, refused: SecretStr) -> Access:
        """A token in place of one the vendor just refused; another process may have renewed it already.

        Raises:
            AuthError: the vendor refuses to give one.
        """


@dataclass(frozen=True)
class Connection:
    """An account's address, token and limits.

    Attributes:
        vendor: for example "hubspot".
        base_url: scheme and host, for example "https://api.hubapi.com".
        token: access token; hidden in every representation. Unused with `login`.
        requests_per_10s: requests we send at most in any ten seconds.
        searches_per_second: of them, searches in any second.
        timeout: seconds to wait for the vendor's next bytes.
        attempts: tries of one call before giving up; waits asked for by a throttle do not count.
        backoff: seconds before the second try; doubles with each further one.
        patience: seconds one call may take in all, with its waits.
        login: gives the tokens where they expire.
        options: what else a vendor needs to know, such as the sub-account.
    """

    vendor: str
    base_url: str
    token: SecretStr
    requests_per_10s: int = 190
    searches_per_second: int = 5
    timeout: float = 30.0
    attempts: int = 6
    backoff: float = 0.5
    patience: float = 300.0
    login: Login | None = None
    options: Mapping[str, str] = field(default_factory=dict)
