"""Locks, ports and the guard of a server process, with small processes in the server's place."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from omni.errors import StorageError, TransientError
from omni.orchestrator import process, server
from omni.orchestrator.process import Recorded, Seat

pytestmark = pytest.mark.slow

HOLD = """
import fcntl, os, sys, time
descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(descriptor, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def hold() -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """Start a process that holds a lock file, as a server does."""
    started: list[subprocess.Popen[str]] = []

    def start(lock: Path) -> subprocess.Popen[str]:
        lock.parent.mkdir(parents=True, exist_ok=True)
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        started.append(holder)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        return holder

    yield start
    for holder in started:
        holder.kill()
        holder.communicate()


def until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def write_state(seat: Seat, pid: int, url: str = "http://127.0.0.1:1/api") -> None:
    seat.folder.mkdir(parents=True, exist_ok=True)
    seat.state.write_text(json.dumps({"pid": pid, "url": url}))


def test_a_seat_lives_as_long_as_its_process(
    tmp_path: Path, hold: Callable[[Path], subprocess.Popen[str]]
) -> None:
    seat = Seat(tmp_path)
    assert not process.alive(seat)
    holder = hold(seat.lock)
    assert process.alive(seat)
    holder.send_signal(signal.SIGKILL)
    assert until(lambda: not process.alive(seat))


def test_a_stale_state_harms_nobody(isolated: Path) -> None:
    """The process id of a dead server may be somebody else's by now: here it is this test's own."""
    seat = Seat(isolated / "prefect")
    seat.folder.mkdir(parents=True)
    seat.lock.touch()
    write_state(seat, os.getpid())
    assert server.status().origin == "none"
    assert server.stop() is False
    assert not seat.state.exists()


def test_stopping_ends_the_process_that_holds_the_seat(
    isolated: Path, hold: Callable[[Path], subprocess.Popen[str]]
) -> None:
    seat = Seat(isolated / "prefect")
    holder = hold(seat.lock)
    write_state(seat, holder.pid)
    found = server.status()
    assert (found.origin, found.answers, found.pid) == ("local", False, holder.pid)
    assert server.stop() is True
    assert holder.wait(5) == -signal.SIGTERM


def test_a_seat_is_taken_once(tmp_path: Path, hold: Callable[[Path], subprocess.Popen[str]]) -> None:
    seat = Seat(tmp_path)
    hold(seat.lock)
    with pytest.raises(process.SeatTakenError):
        process.launch(seat, 47299, tied=False)


def test_waiting_for_another_starter_is_bounded(
    tmp_path: Path, hold: Callable[[Path], subprocess.Popen[str]]
) -> None:
    hold(tmp_path / "start.lock")
    with (
        pytest.raises(TransientError, match=r"start\.lock"),
        process.exclusively(tmp_path / "start.lock", 0.2),
    ):
        pytest.fail("the lock is held by another process")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="OMNI_HOME"), process.exclusively(tmp_path / "file" / "lock", 1):
        pytest.fail("there is no such folder")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"pid": "x", "url": "u"}'])
def test_an_unreadable_state_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "server.json").write_text(content)
    assert process.recorded(Seat(tmp_path)) is None


def test_a_taken_port_is_passed_over() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert process.free_port(port) != port


def test_a_server_that_dies_is_explained(tmp_path: Path) -> None:
    seat = Seat(tmp_path)
    seat.log.write_text("".join(f"line {number}\n" for number in range(40)))
    dead = process.Process(seat, Recorded(os.getpid(), "http://127.0.0.1:1/api"), None)
    with pytest.raises(TransientError, match=r"(?s)ended while starting.*line 39"):
        process.await_health(dead, 5)
    seat.log.write_text("Port 4200 is already in use.\n")
    assert process.await_health(dead, 5) is False


STARTER = """
import os, subprocess, sys, time
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from omni.orchestrator import process
descriptor = process._open_lock(Path(sys.argv[1]) / "server.lock")
process._take(descriptor, time.monotonic() + 5)
guard = subprocess.Popen(
    [sys.executable, str(process.GUARD), "tied", sys.argv[1] + "/server.log", str(descriptor),
     sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"],
    stdin=subprocess.PIPE, pass_fds=(descriptor,), start_new_session=True)
os.close(descriptor)
while "up" not in process.tail(Path(sys.argv[1]) / "server.log"):
    time.sleep(0.02)
print("up", flush=True)
time.sleep(60)
"""


def test_a_tied_server_ends_with_its_starter(tmp_path: Path) -> None:
    """Even when the starter is killed and can clean nothing up."""
    root = str(Path(process.__file__).parents[2])
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(tmp_path), root], stdout=subprocess.PIPE, text=True
    )
    assert starter.stdout is not None
    assert starter.stdout.readline() == "up\n"
    assert process.alive(Seat(tmp_path))
    starter.kill()
    starter.communicate()
    assert until(lambda: not process.alive(Seat(tmp_path)))
