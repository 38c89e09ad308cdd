"""Calls to a vendor's JSON API: limits, bounded retries, and errors that say what to do.

A call that reads may be repeated, and so may a write that says it is `repeatable`; any other write is
sent again only when the vendor certainly did not act on it.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Self

import httpx

from omni.errors import AuthError, ConfigError, SourceError, TransientError
from omni.files import replacing
from omni.sources.connection import Access, Connection
from omni.sources.limits import Limit, shared
from omni.sources.replies import Reply, decode, describe, need, retry_after

__all__ = [
    "Again",
    "Call",
    "Counters",
    "Dialect",
    "Http",
    "Reply",
    "decode",
    "describe",
    "need",
    "retry_after",
]

MAX_PAUSE = 60.0
"""Seconds one wait lasts at most, whatever the vendor asks for."""
MAX_THROTTLES = 40
MAX_MALFORMED = 2
MAX_BODY = 256 * 2**20
MAX_DOWNLOAD = 64 * 2**30
DOWNLOAD_PATIENCE = 6 * 3600.0
"""Seconds one download may take. Both are bounded, as a run holds the warehouse meanwhile."""
RETRY_STATUS = {408, 425, 429, 430, 477}
"""Besides 5xx. 430 and 477 are Shopify's and HubSpot's own ways to say "later"."""

# It logs whole addresses, and some carry their own permission.
logging.getLogger("httpx").setLevel(logging.WARNING)


class Again(Exception):
    """The call may succeed if repeated.

    Attributes:
        wait: seconds the vendor asks to wait; None leaves it to the backoff.
        throttled: the vendor is well but wants fewer calls.
        malformed: the reply was no JSON; seldom worth repeating.
        unsent: the vendor certainly did not act on the call.
    """

    def __init__(
        self,
        reason: str,
        *,
        wait: float | None = None,
        throttled: bool = False,
        malformed: bool = False,
        unsent: bool = False,
    ) -> None:
        super().__init__(reason)
        self.wait = wait
        self.throttled = throttled
        self.malformed = malformed
        self.unsent = unsent or throttled


class _Refused(Exception):
    """The token is no longer good."""


@dataclass(frozen=True)
class Call:
    """One request.

    Attributes:
        path: below the account's base URL, or a whole address at the same host.
        content: a JSON body.
        form: a form body.
        data: a body of other bytes; name its content type among the headers.
        plain: the answer is text, not JSON.
        repeatable: doing it twice does no more than doing it once.
    """

    method: str
    path: str
    params: Mapping[str, str] | None = None
    content: Any = None
    form: Mapping[str, str] | None = None
    data: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    plain: bool = False
    repeatable: bool = True


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _burst(connection: Connection) -> tuple[Limit, ...]:
    return (Limit(connection.requests_per_10s, 10.0),)


def _nothing_special(_reply: Reply, _where: str) -> None:
    return None


@dataclass(frozen=True)
class Dialect:
    """What differs between vendors.

    Attributes:
        title: the vendor's name for messages.
        advice: what to do when the token is refused.
        headers: headers that carry a token; by default it is a bearer's.
        limits: client-side limits of a connection; by default its requests in ten seconds.
        judge: looks at each reply before the general rules; raises `Again` or an error of its own.
    """

    title: str
    advice: str
    headers: Callable[[str], dict[str, str]] = _bearer
    limits: Callable[[Connection], tuple[Limit, ...]] = _burst
    judge: Callable[[Reply, str], None] = _nothing_special


@dataclass
class Counters:
    """What the calls cost: requests sent, repeats among them, seconds spent waiting."""

    requests: int = 0
    retries: int = 0
    waited: float = 0.0


class Http:
    """One account's client. Use as a context manager.

    Args:
        connection: the account.
        dialect: the vendor's ways.
        rng: jitter of the backoff; give a seeded one for repeatable waits.
        clock: seconds that only grow.
        sleep: waits for seconds.

    Raises:
        ConfigError: address or token cannot be used in a request.
    """

    def __init__(
        self,
        connection: Connection,
        dialect: Dialect,
        *,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.title = dialect.title
        self.download_patience = DOWNLOAD_PATIENCE
        self.counters = Counters()
        self._connection = connection
        self._dialect = dialect
        self._rng = rng or random.Random()  # noqa: S311 (jitter, not a secret)
        self._clock = clock
        self._sleep = sleep
        self._not_before = 0.0
        fixed = Access(connection.token, connection.base_url)
        self._access = connection.login.access() if connection.login else fixed
        self._token()
        url = httpx.URL(self._access.base_url or connection.base_url)
        if url.scheme not in ("http", "https") or not url.host:
            raise ConfigError(
                f"{dialect.title}: the base URL needs scheme and host, e.g. https://api.example.com"
            )
        account = (connection.vendor, connection.base_url, None if connection.login else connection.token)
        self._limiter = shared(account, dialect.limits(connection))
        self._client = httpx.Client(
            base_url=url,
            timeout=connection.timeout,
            headers={"Accept": "application/json"},
            trust_env=url.host not in ("localhost", "127.0.0.1", "::1"),
        )

    def _token(self) -> str:
        token = self._access.token.get_secret_value()
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise ConfigError(
                f"{self._dialect.title}: the access token is empty or holds characters no token has, such as "
                f"a line break. {self._dialect.advice}"
            )
        return token

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str, params: dict[str, str]) -> Any:
        """GET and decode; raises as `call`."""
        return self.call("GET", path, params=params)

    def post(self, path: str, content: dict[str, Any], params: dict[str, str] | None = None) -> Any:
        """POST JSON and decode; raises as `call`."""
        return self.call("POST", path, params=params, content=content)

    def hold(self, seconds: float) -> None:
        """Send nothing for so long, bounded by `MAX_PAUSE`: a vendor's bucket needs time to fill."""
        self._not_before = self._clock() + min(max(seconds, 0.0), MAX_PAUSE)

    def call(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, str] | None = None,
        content: dict[str, Any] | None = None,
    ) -> Any:
        """The decoded JSON body of one call, repeated within bounds; raises as `send`."""
        return self.send(Call(method, path, params=params, content=content)).body

    def send(self, call: Call) -> Reply:
        """One call, repeated within bounds.

        Returns:
            The answer. JSON numbers with a fraction are `ExactFloat`.

        Raises:
            AuthError: the token was refused.
            SourceError: the vendor refused the call, or its answer is no JSON.
            TransientError: every try failed, or time is up; or it is unknown whether a call that is not
                repeatable was carried out.
        """

        def once(deadline: float) -> Reply:
            with self._request(call, authenticated=True) as response:
                raw = self._body(response, f"{self.title} {call.method} {call.path}", deadline)
            return self._judged(call, response, raw)

        return self._repeated(call, once)

    def download(self, url: str, target: Path, *, authenticated: bool = True, **options: Any) -> Reply:
        """Store an answer of any size as a file, whole or not at all.

        Args:
            url: a path below the account's base URL, or a whole address.
            target: the file.
            authenticated: send the token. False for addresses that carry their own permission.
            options: further fields of the `Call`.

        Returns:
            Status and headers; the body is None.

        Raises:
            As `send`, and StorageError where the file cannot be written.
        """
        call = Call("GET", url, plain=True, **options)

        def once(deadline: float) -> Reply:
            with self._request(call, authenticated=authenticated) as response:
                if response.status_code >= 300:
                    raw = self._body(response, f"{self.title} {call.method}", deadline)
                    return self._judged(call, response, raw)
                self._store(response, target, call.path)
            return Reply(response.status_code, response.headers, None)

        return self._repeated(call, once)

    def _store(self, response: httpx.Response, target: Path, url: str) -> None:
        ends, size = self._clock() + max(self._connection.patience, self.download_patience), 0
        with replacing(target) as temporary, temporary.open("wb") as file:
            for chunk in response.iter_bytes():
                file.write(chunk)
                size += len(chunk)
                if size > MAX_DOWNLOAD:
                    raise SourceError(f"{self.title}: a download exceeds {MAX_DOWNLOAD >> 30} GiB.")
                if self._clock() > ends:
                    raise Again(f"the download of {httpx.URL(url).path} came too slowly")

    def _repeated(self, call: Call, once: Callable[[float], Reply]) -> Reply:
        where = f"{self.title} {call.method} {call.path.partition('?')[0]}"
        started = self._clock()
        tries = throttles = malformed = 0
        renewed = False
        while True:
            try:
                return once(started + self._connection.patience)
            except _Refused:
                assert self._connection.login is not None
                if renewed:
                    raise AuthError(
                        f"{where}: access refused with a new token. {self._dialect.advice}"
                    ) from None
                renewed = True
                self._access = self._connection.login.renew(self._access.token)
            except Again as again:
                tries += not again.throttled
                throttles += again.throttled
                malformed += again.malformed
                if again.malformed and malformed > MAX_MALFORMED:
                    raise SourceError(f"{where}: {again}, {malformed} times over.") from None
                wait = self._wait(again, tries + throttles)
                spent = self._clock() - started
                over = tries >= self._connection.attempts or throttles > MAX_THROTTLES
                if not call.repeatable and not again.unsent:
                    raise TransientError(
                        f"{where}: {again}; it is unknown whether the vendor carried it out."
                    ) from None
                if over or spent + wait > self._connection.patience:
                    self._give_up(where, again, tries + throttles, spent)
                self.counters.retries += 1
                self._pause(wait)

    def _give_up(self, where: str, again: Again, tries: int, spent: float) -> NoReturn:
        raise TransientError(
            f"{where}: {again}; gave up after {tries} tries in {spent:.0f} s. "
            f"Run again later; what was loaded so far stays.",
            retry_after=again.wait,
        ) from None

    def _wait(self, again: Again, tries: int) -> float:
        doubled: float = self._connection.backoff * 2.0 ** min(tries - 1, 12)
        backoff = min(doubled, MAX_PAUSE) * self._rng.uniform(0.5, 1.0)
        if again.wait is None:
            return backoff
        # A wait that was asked for is kept, but when it did not help three times, ours counts too.
        return min(max(again.wait, backoff if tries > 3 else 0.0), MAX_PAUSE)

    def _pause(self, seconds: float) -> None:
        if seconds > 0:
            self.counters.waited += seconds
            self._sleep(seconds)

    @contextmanager
    def _request(self, call: Call, *, authenticated: bool) -> Iterator[httpx.Response]:
        """Send within the limits; failures of the connection become `Again`."""
        headers = dict(call.headers)
        if authenticated:
            self._check_host(call.path)
            headers |= self._dialect.headers(self._token())
        self._pause(self._not_before - self._clock())
        self.counters.waited += self._limiter.acquire(call.path)
        self.counters.requests += 1
        try:
            with self._client.stream(
                call.method,
                call.path,
                params=call.params,
                json=call.content,
                data=call.form,
                content=call.data,
                headers=headers,
            ) as response:
                yield response
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Again(f"{type(error).__name__} {error}".strip(), unsent=True) from None
        except httpx.TimeoutException as error:
            raise Again(f"{type(error).__name__} {error}".strip()) from None
        except (httpx.TransportError, httpx.DecodingError) as error:
            # Only the kind: texts of protocol errors can quote headers, and one of ours is the token.
            raise Again(f"the connection failed ({type(error).__name__})") from None

    def _check_host(self, path: str) -> None:
        """Never send the token to another host, whatever address an answer named."""
        url, base = httpx.URL(path), self._client.base_url
        if url.is_absolute_url and (url.scheme, url.host, url.port) != (base.scheme, base.host, base.port):
            raise SourceError(f"{self.title}: an answer points to another host, {url.host}; not followed.")

    def _judged(self, call: Call, response: httpx.Response, raw: bytes) -> Reply:
        status, headers = response.status_code, response.headers
        where = f"{self.title} {call.method} {call.path.partition('?')[0]}"
        if status == 401 and self._connection.login is not None:
            raise _Refused
        if call.plain and 200 <= status < 300:
            body, problem = raw.decode(errors="replace"), None
        elif not raw and status in (201, 202, 204):
            body, problem = None, None
        else:
            body, problem = decode(raw, headers.get("content-type", "none"))
        reply = Reply(status, headers, body)
        self._dialect.judge(reply, where)
        self._general(reply, where)
        if problem:
            raise Again(problem, malformed=True)
        return reply

    def _body(self, response: httpx.Response, where: str, deadline: float) -> bytes:
        chunks, size = [], 0
        for chunk in response.iter_bytes():
            chunks.append(chunk)
            size += len(chunk)
            if size > MAX_BODY:
                raise SourceError(f"{where}: the answer exceeds {MAX_BODY >> 20} MiB.")
            if self._clock() > deadline:
                raise Again("the answer came too slowly")
        return b"".join(chunks)

    def _general(self, reply: Reply, where: str) -> None:
        """Rules that hold for every vendor."""
        if 200 <= reply.status < 300:
            return
        said = describe(reply)
        if reply.status in (401, 403):
            raise AuthError(f"{where}: access refused (HTTP {reply.status}){said}. {self._dialect.advice}")
        if reply.status in RETRY_STATUS or reply.status >= 500:
            wait = retry_after(reply.headers)
            raise Again(f"HTTP {reply.status}{said}", wait=wait, throttled=reply.status == 429)
        raise SourceError(f"{where}: refused (HTTP {reply.status}){said}.")
