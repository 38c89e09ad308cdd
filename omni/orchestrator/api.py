"""Reading a Prefect server over HTTP: health, run records, recent runs. Every request has a timeout."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import httpx

from omni.errors import AuthError, SourceError, TransientError
from omni.orchestrator import environment

TERMINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
BLOCKED = "NotReady"
"""Last state of a task whose upstream failed: pending by its type, final all the same."""
TIMEOUT = 10.0


@dataclass(frozen=True)
class Records:
    """How many task runs a server holds in their last state, against how many there should be."""

    expected: int
    finished: int

    @property
    def complete(self) -> bool:
        """No task record is missing."""
        return self.finished >= self.expected


@dataclass(frozen=True)
class Run:
    """One flow run as the server tells it. Times are UTC."""

    id: str
    name: str
    flow: str
    state: str
    started_at: datetime | None
    ended_at: datetime | None
    seconds: float
    tenant: str | None
    message: str


@contextmanager
def _client(url: str, timeout: float = TIMEOUT) -> Iterator[httpx.Client]:
    basic, key = environment.credentials()
    auth = httpx.BasicAuth(*basic.split(":", 1)) if basic and ":" in basic else None
    headers = {"Authorization": f"Bearer {key}"} if key and auth is None else {}
    address = httpx.URL(url)
    loopback = address.host in {"127.0.0.1", "localhost", "::1"}
    with httpx.Client(
        base_url=url,
        timeout=timeout,
        auth=auth,
        headers=headers,
        trust_env=not loopback,
        verify=address.scheme == "https",
    ) as client:
        yield client


def _post(client: httpx.Client, path: str, body: Mapping[str, object]) -> object:
    try:
        response = client.post(path, json=body)
        response.raise_for_status()
        return response.json()
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        if status in {401, 403}:
            raise AuthError(
                f"The Prefect server at {client.base_url} refused us ({status}). "
                "Set PREFECT_API_AUTH_STRING=user:password (or PREFECT_API_KEY)."
            ) from None
        if status in {408, 425, 429} or status >= 500:
            raise TransientError(f"The Prefect server at {client.base_url} answered {status}.") from None
        raise SourceError(f"The Prefect server at {client.base_url}{path} answered {status}.") from None
    except httpx.TransportError as error:
        raise TransientError(f"The Prefect server at {client.base_url} does not answer: {error}") from None
    except ValueError:
        raise SourceError(f"{client.base_url} does not speak Prefect's API (no JSON).") from None


def healthy(url: str, timeout: float = 5.0) -> bool:
    """Whether a Prefect API answers at `url`; another program on that port does not count."""
    try:
        with _client(url, timeout) as client:
            return client.get("/health").json() is True
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return False


def version(url: str) -> str | None:
    """Prefect's version on the server, or None when it does not say."""
    try:
        with _client(url, 5.0) as client:
            answer = client.get("/admin/version").json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return None
    return answer if isinstance(answer, str) else None


def count_task_runs(url: str, *, flow_run_id: UUID | str | None = None, finished: bool = False) -> int:
    """Task runs on the server, of one flow run and in their last state where asked for.

    Raises:
        TransientError: the server does not answer or is overloaded.
        AuthError: it refused our credentials.
        SourceError: it answered something else.
    """
    wanted: dict[str, object] = {}
    if flow_run_id is not None:
        wanted["flow_run_id"] = {"any_": [str(flow_run_id)]}
    if finished:
        wanted["state"] = {
            "operator": "or_",
            "type": {"any_": list(TERMINAL)},
            "name": {"any_": [BLOCKED]},
        }
    with _client(url) as client:
        answer = _post(client, "/task_runs/count", {"task_runs": wanted})
    if not isinstance(answer, int):
        raise SourceError(f"{url}/task_runs/count answered {type(answer).__name__}, not a number.")
    return answer


def drain(url: str, flow_run_id: UUID | str, expected: int, timeout: float = 60.0) -> Records:
    """Wait until the server has written the task runs of a flow run.

    Prefect's client sends task states in the background and the server writes them in batches, so a
    server stopped as soon as the flow returns loses records. Call this while the process that ran the
    flow still lives.

    Args:
        url: the API.
        flow_run_id: the flow run.
        expected: task runs the flow made.
        timeout: seconds to wait at most.

    Returns:
        What is written by then; `complete` says whether that is everything.
    """
    end = time.monotonic() + timeout
    finished = 0
    while True:
        try:
            finished = count_task_runs(url, flow_run_id=flow_run_id, finished=True)
        except TransientError:
            if time.monotonic() >= end:
                raise
        if finished >= expected or time.monotonic() >= end:
            return Records(expected, finished)
        time.sleep(0.2)


def settle(url: str, quiet: float = 3.0, timeout: float = 30.0) -> bool:
    """Wait until no task run is open and the number of records has stopped growing.

    For runs whose number of tasks is unknown. A run killed half-way leaves open records for ever, so
    after three quiet periods without any change open records are given up.

    Returns:
        True when the records came to rest with none open.
    """
    end = time.monotonic() + timeout
    seen, since = (-1, -1), time.monotonic()
    while time.monotonic() < end:
        try:
            now = (count_task_runs(url), count_task_runs(url, finished=True))
        except TransientError:
            now = (-1, -1)
        if now != seen:
            seen, since = now, time.monotonic()
        rest = time.monotonic() - since
        if seen[0] == seen[1] >= 0 and rest >= quiet:
            return True
        if rest >= 3 * quiet:
            return False
        time.sleep(0.2)
    return False


def _moment(value: object) -> datetime | None:
    return datetime.fromisoformat(value) if isinstance(value, str) else None


def _run(record: Mapping[str, object], flows: Mapping[str, str]) -> Run:
    state = record.get("state")
    parameters = record.get("parameters")
    tenant = parameters.get("tenant") if isinstance(parameters, Mapping) else None
    seconds = record.get("total_run_time")
    return Run(
        id=str(record["id"]),
        name=str(record["name"]),
        flow=flows.get(str(record["flow_id"]), "?"),
        state=str(record.get("state_name") or "?"),
        started_at=_moment(record.get("start_time")),
        ended_at=_moment(record.get("end_time")),
        seconds=float(seconds) if isinstance(seconds, int | float) else 0.0,
        tenant=tenant if isinstance(tenant, str) else None,
        message=str(state.get("message") or "") if isinstance(state, Mapping) else "",
    )


def recent_runs(url: str, limit: int = 10) -> list[Run]:
    """The newest flow runs that have begun, newest first.

    Raises:
        TransientError, AuthError, SourceError: as `count_task_runs`.
    """
    query = {
        "sort": "START_TIME_DESC",
        "limit": limit,
        "flow_runs": {"start_time": {"is_null_": False}},
    }
    with _client(url) as client:
        records = _post(client, "/flow_runs/filter", query)
        if not isinstance(records, list):
            raise SourceError(f"{url}/flow_runs/filter answered {type(records).__name__}, not a list.")
        ids = sorted({str(record["flow_id"]) for record in records})
        named = _post(client, "/flows/filter", {"flows": {"id": {"any_": ids}}}) if ids else []
    if not isinstance(named, list):
        raise SourceError(f"{url}/flows/filter answered {type(named).__name__}, not a list.")
    flows = {str(flow["id"]): str(flow["name"]) for flow in named}
    return [_run(record, flows) for record in records]
