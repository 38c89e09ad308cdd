"""A Prefect server to run flows against: one that answers, else one of our own.

A real server process, never Prefect's in-process one: that costs twelve seconds in every process and
loses task records when the process ends before its queue is written.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

from omni.errors import OmniError, TransientError
from omni.orchestrator import api, environment, process
from omni.orchestrator.process import Process, Recorded, Seat
from omni.settings import settings

EPHEMERAL_SEATS = 32
DRAIN_TIMEOUT = 60.0
ANSWER_TIMEOUT = 30.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Server:
    """A server that answers. `note` says, where it matters, why it is this one."""

    url: str
    ui_url: str
    started: bool
    note: str = ""
    expected: dict[str, int] = field(default_factory=dict, repr=False)

    def expect(self, flow_run_id: UUID | str, task_runs: int) -> None:
        """Name the task runs that must be on record before an ephemeral server ends."""
        self.expected[str(flow_run_id)] = task_runs


@dataclass(frozen=True)
class Status:
    """What `status` found. `origin` is `PREFECT_API_URL`, `local` or `none`."""

    origin: str
    url: str | None
    answers: bool
    version: str | None
    pid: int | None
    log: str | None


def _server(url: str, *, started: bool, note: str = "") -> Server:
    return Server(url=url, ui_url=url.removesuffix("/api"), started=started, note=note)


def _local_seat() -> Seat:
    return Seat(environment.home())


def _start(seat: Seat, first_port: int, *, tied: bool) -> Process:
    for attempt in range(5):
        port = process.free_port(first_port + attempt if first_port else 0)
        started = process.launch(seat, port, tied=tied)
        if process.await_health(started):
            return started
    raise TransientError(
        f"The local Prefect server found its port taken five times from {first_port}. "
        "Set OMNI_SERVER_PORT to a quieter range."
    )


def _running(seat: Seat) -> Recorded | None:
    """The answering server of a seat; None when the seat is empty.

    Raises:
        TransientError: a process lives there but does not answer.
    """
    known = process.recorded(seat)
    if known is not None and process.answers_within(seat, known.url, ANSWER_TIMEOUT):
        return known
    if not process.alive(seat):
        return None
    raise TransientError(
        f"A local Prefect server lives in {seat.folder} but does not answer. "
        f"Stop it with `python -m omni.orchestrator stop` and run again. "
        f"{seat.log} ends:\n{process.tail(seat.log)}"
    )


def _shared(note: str) -> Server:
    seat = _local_seat()
    with process.exclusively(seat.folder / "start.lock", process.START_TIMEOUT * 1.5):
        known = _running(seat)
        if known is not None:
            return _server(known.url, started=False, note=note)
        started = _start(seat, settings().server_port, tied=False)
    return _server(started.recorded.url, started=True, note=note)


def _find_or_start() -> Server:
    chosen, note = environment.api_url(), ""
    if chosen is not None:
        if api.healthy(chosen):
            return _server(chosen, started=False)
        note = f"PREFECT_API_URL={chosen} does not answer; using a local server instead."
        logger.warning(note)
    return _shared(note)


def _start_ephemeral() -> Process:
    for number in range(1, EPHEMERAL_SEATS + 1):
        seat = Seat(environment.home() / "ephemeral" / str(number))
        if process.alive(seat):
            continue
        try:
            return _start(seat, 0, tied=True)
        except process.SeatTakenError:
            continue
    raise TransientError(
        f"{EPHEMERAL_SEATS} ephemeral Prefect servers run already. Wait for their runs to end."
    )


def _await_records(server: Server) -> None:
    try:
        for flow_run_id, expected in server.expected.items():
            records = api.drain(server.url, flow_run_id, expected, DRAIN_TIMEOUT)
            if not records.complete:
                logger.error(
                    "Only %d of %d task records of flow run %s were written within %.0f s.",
                    records.finished, expected, flow_run_id, DRAIN_TIMEOUT,
                )  # fmt: skip
        if not api.settle(server.url):
            logger.warning("Some task records were still open when the ephemeral server ended.")
    except OmniError as error:
        logger.error("Task records could not be waited for: %s", error)  # noqa: TRY400


@contextmanager
def server(*, ephemeral: bool) -> Iterator[Server]:
    """A Prefect server for the body of the `with`.

    Args:
        ephemeral: start one for this run alone and end it afterwards, once every task record is
            written. Otherwise use the one named by `PREFECT_API_URL` if it answers, else the local
            one that runs, else start a local one and leave it running.

    Raises:
        TransientError: no server could be had; the message quotes the log.
    """
    if not ephemeral:
        yield _find_or_start()
        return
    started = _start_ephemeral()
    own = _server(started.recorded.url, started=True)
    try:
        yield own
    finally:
        try:
            _await_records(own)
        finally:
            process.stop_process(started)


def stop() -> bool:
    """Stop the local server. Another program that got its process id or port meanwhile is left alone.

    Returns:
        Whether one ran.
    """
    seat = _local_seat()
    if not process.alive(seat):
        seat.state.unlink(missing_ok=True)
        return False
    known = process.recorded(seat)
    if known is None:
        raise TransientError(f"A local server is just being started in {seat.folder}. Try again.")
    return process.end(seat, known.pid)


def status() -> Status:
    """Which server a run would use now. Starts nothing and raises nothing."""
    chosen = environment.api_url()
    if chosen is not None and api.healthy(chosen):
        return Status(
            "PREFECT_API_URL", chosen, answers=True, version=api.version(chosen), pid=None, log=None
        )
    seat = _local_seat()
    known = process.recorded(seat) if process.alive(seat) else None
    if known is not None:
        answers = api.healthy(known.url)
        told = api.version(known.url) if answers else None
        return Status("local", known.url, answers=answers, version=told, pid=known.pid, log=str(seat.log))
    if chosen is not None:
        return Status("PREFECT_API_URL", chosen, answers=False, version=None, pid=None, log=None)
    return Status("none", None, answers=False, version=None, pid=None, log=None)
