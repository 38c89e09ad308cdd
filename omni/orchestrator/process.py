"""A local Prefect server as an operating-system process (POSIX).

Each server lives in a folder of its own: database, log, state file, and a lock that the server process
itself inherits and holds for as long as it lives. Whether a server runs is therefore asked of the lock,
never of a process id, which may belong to another program by now.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from omni.errors import StorageError, TransientError
from omni.files import write_atomic
from omni.orchestrator import environment
from omni.orchestrator.api import healthy

START_TIMEOUT = 120.0
STOP_TIMEOUT = 15.0
HOST = "127.0.0.1"
GUARD = Path(__file__).with_name("guard.py")
_PORT_TAKEN = ("already in use", "already running on port")
_QUIET_SERVICES = (
    "SCHEDULER",
    "LATE_RUNS",
    "TRIGGERS",
    "FOREMAN",
    "PAUSE_EXPIRATIONS",
    "CANCELLATION_CLEANUP",
)


@dataclass(frozen=True)
class Seat:
    """The folder of one local server."""

    folder: Path

    @property
    def lock(self) -> Path:
        """Held by the server process while it lives."""
        return self.folder / "server.lock"

    @property
    def log(self) -> Path:
        """What the server of this seat printed last."""
        return self.folder / "server.log"

    @property
    def state(self) -> Path:
        """Process id and URL of the server started last."""
        return self.folder / "server.json"


@dataclass(frozen=True)
class Recorded:
    """A server process as its state file tells it."""

    pid: int
    url: str


class SeatTakenError(Exception):
    """A server holds this seat."""


def recorded(seat: Seat) -> Recorded | None:
    """What the state file says; None when there is none or it cannot be read."""
    try:
        content = json.loads(seat.state.read_text(encoding="utf-8"))
        return Recorded(pid=int(content["pid"]), url=str(content["url"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _open_lock(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StorageError(
            f"Cannot write {path}: {error.strerror}. Make the folder writable or set OMNI_HOME."
        ) from error


def alive(seat: Seat) -> bool:
    """Whether a server process lives in this seat."""
    if not seat.lock.exists():
        return False
    descriptor = _open_lock(seat.lock)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _take(descriptor: int, until: float) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(0.05)
        else:
            return True


@contextmanager
def exclusively(path: Path, timeout: float) -> Iterator[None]:
    """Hold a lock file, so that two processes do not start two servers.

    Raises:
        TransientError: another process held it for `timeout` seconds.
    """
    descriptor = _open_lock(path)
    try:
        if not _take(descriptor, time.monotonic() + timeout):
            raise TransientError(
                f"Another process has been starting the local Prefect server for {timeout:.0f} s "
                f"(lock {path}). Look at the log beside it, end that process and run again."
            )
        yield
    finally:
        os.close(descriptor)


def free_port(first: int) -> int:
    """The first free port from `first` upwards; any free one for 0.

    Raises:
        TransientError: a hundred ports in a row are taken.
    """
    for port in range(first, min(first + 100, 65536)) if first else (0,):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise TransientError(f"No free port from {first} to {first + 99}. Set OMNI_SERVER_PORT to another start.")


def _server_environment(seat: Seat, port: int, *, tied: bool) -> dict[str, str]:
    foreign = {"PREFECT_API_URL", "PREFECT_API_KEY", "PREFECT_PROFILE", "PREFECT_SERVER_API_BASE_PATH"}
    if tied:
        foreign |= {"PREFECT_API_DATABASE_CONNECTION_URL"}
    variables = {name: value for name, value in os.environ.items() if name not in foreign}
    variables |= environment.environment()
    variables |= {
        "PREFECT_HOME": str(seat.folder),
        "PREFECT_SERVER_API_HOST": HOST,
        "PREFECT_SERVER_API_PORT": str(port),
        "PYTHONUNBUFFERED": "1",
    }
    if tied:
        variables["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = (
            f"sqlite+aiosqlite:///{seat.folder / 'prefect.db'}"
        )
        variables |= {f"PREFECT_SERVER_SERVICES_{name}_ENABLED": "false" for name in _QUIET_SERVICES}
    return variables


def tail(path: Path, lines: int = 15) -> str:
    """The last lines of a log."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "(no log)"
    return "\n".join(text.splitlines()[-lines:]) or "(empty log)"


@dataclass(frozen=True)
class Process:
    """A server process that was started; `guard` is its parent when its life is tied to ours."""

    seat: Seat
    recorded: Recorded
    guard: subprocess.Popen[bytes] | None


def launch(seat: Seat, port: int, *, tied: bool) -> Process:
    """Start a server process and record it. It does not answer yet: see `await_health`.

    Args:
        seat: the folder it lives in.
        port: where it listens, on the loopback interface.
        tied: it ends with this process, however this process ends; otherwise it stays.

    Raises:
        SeatTakenError: a server lives in this seat already.
    """
    descriptor = _open_lock(seat.lock)
    try:
        if not _take(descriptor, time.monotonic() + 0.5):
            raise SeatTakenError(str(seat.folder))
        seat.state.unlink(missing_ok=True)
        command = [sys.executable, "-m", "prefect", "server", "start"]
        guard = subprocess.Popen(  # noqa: S603
            [
                sys.executable,
                str(GUARD),
                "tied" if tied else "detached",
                str(seat.log),
                str(descriptor),
                *command,
            ],
            stdin=subprocess.PIPE if tied else subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if tied else subprocess.PIPE,
            cwd=seat.folder,
            env=_server_environment(seat, port, tied=tied),
            pass_fds=(descriptor,),
            start_new_session=True,
        )
    finally:
        os.close(descriptor)
    pid = guard.pid
    if not tied:
        output, _ = guard.communicate(timeout=START_TIMEOUT)
        pid = int(output)
    process = Process(seat, Recorded(pid, f"http://{HOST}:{port}/api"), guard if tied else None)
    write_atomic(seat.state, json.dumps({"pid": pid, "url": process.recorded.url}))
    return process


def answers_within(seat: Seat, url: str, timeout: float) -> bool:
    """Wait until the server of a seat answers; False when it ended or the time is over."""
    end = time.monotonic() + timeout
    while alive(seat):
        if healthy(url, 2.0):
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(0.2)
    return False


def await_health(process: Process, timeout: float = START_TIMEOUT) -> bool:
    """Wait until a started server answers.

    Returns:
        False when it ended because its port was taken meanwhile: start it on another.

    Raises:
        TransientError: it ended or did not answer in time; the message quotes its log. It is stopped.
    """
    seat = process.seat
    if answers_within(seat, process.recorded.url, timeout):
        return True
    lives = alive(seat)
    stop_process(process)
    if not lives:
        if any(text in tail(seat.log) for text in _PORT_TAKEN):
            return False
        raise TransientError(
            f"The local Prefect server ended while starting. {seat.log} ends:\n{tail(seat.log)}"
        )
    raise TransientError(
        f"The local Prefect server did not answer within {timeout:.0f} s. The machine may be overloaded: "
        f"run again, or set PREFECT_API_URL to a running server. {seat.log} ends:\n{tail(seat.log)}"
    )


def _signal_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def end(seat: Seat, pid: int) -> bool:
    """Stop the server of a seat: politely, then by force. Nothing is signalled unless the seat is alive.

    Returns:
        Whether a server was stopped.
    """
    if not alive(seat):
        seat.state.unlink(missing_ok=True)
        return False
    for number, patience in ((signal.SIGTERM, STOP_TIMEOUT), (signal.SIGKILL, 5.0)):
        _signal_group(pid, number)
        until = time.monotonic() + patience
        while time.monotonic() < until:
            if not alive(seat):
                seat.state.unlink(missing_ok=True)
                return True
            time.sleep(0.1)
    raise TransientError(
        f"The local Prefect server (process {pid}) did not end. End it by hand: kill -9 -{pid}"
    )


def stop_process(process: Process) -> None:
    """Stop a server we started and reap its guard."""
    if process.guard is not None and process.guard.stdin is not None:
        process.guard.stdin.close()
    end(process.seat, process.recorded.pid)
    if process.guard is not None:
        process.guard.wait(STOP_TIMEOUT)
