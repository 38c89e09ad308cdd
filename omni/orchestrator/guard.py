"""Starts a server process for `omni.orchestrator.process`; run by path, needs the standard library only.

Two ways: `detached` leaves the server running on its own and prints its process id; `tied` stays as its
parent and stops it when standard input closes, which happens when the starter ends, even by SIGKILL.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

GRACE = 10.0
"""Seconds a server gets to end by itself before it is killed."""


def _start(log: str, lock: int, command: list[str], *, session: bool) -> subprocess.Popen[bytes]:
    with open(log, "wb") as output:  # noqa: PTH123  # pathlib costs start-up time and adds nothing here
        return subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=(lock,),
            start_new_session=session,
        )


def _end(process: subprocess.Popen[bytes]) -> int:
    process.terminate()
    try:
        return process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _watch(process: subprocess.Popen[bytes]) -> int:
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    signal.signal(signal.SIGINT, lambda number, _: asked.append(number))
    while process.poll() is None and not asked:
        readable, _, _ = select.select([0], [], [], 0.2)
        if readable and not os.read(0, 1024):
            break
    return _end(process) if process.poll() is None else process.returncode


def main(arguments: list[str]) -> int:
    """Run `guard.py detached|tied LOG LOCK_DESCRIPTOR COMMAND…`."""
    way, log, lock, *command = arguments
    process = _start(log, int(lock), command, session=way == "detached")
    if way == "detached":
        sys.stdout.write(str(process.pid))
        sys.stdout.flush()
        os._exit(0)
    return _watch(process)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
