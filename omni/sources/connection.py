"""How to reach one account of one vendor."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import SecretStr


@dataclass(frozen=True)
class Connection:
    """An account's address, token and limits.

    Attributes:
        vendor: for example "hubspot".
        base_url: scheme and host, for example "https://api.hubapi.com".
        token: access token; hidden in every representation.
        requests_per_10s: requests we send at most in any ten seconds.
        searches_per_second: of them, searches in any second.
        timeout: seconds to wait for the vendor's next bytes.
        attempts: tries of one call before giving up; waits asked for by a throttle do not count.
        backoff: seconds before the second try; doubles with each further one.
        patience: seconds one call may take in all, with its waits.
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
