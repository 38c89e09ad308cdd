"""Google's Firestore emulator on loopback: apt's google-cloud-cli-firestore-emulator, which needs Java."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EMULATOR = Path("/usr/lib/google-cloud-sdk/platform/cloud-firestore-emulator/cloud_firestore_emulator")
MISSING = "no Firestore emulator: apt-get install google-cloud-cli-firestore-emulator, and Java"


def installed() -> bool:
    return EMULATOR.exists() and shutil.which("java") is not None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=0.2).close()
    except OSError:
        return False
    return True


@contextmanager
def emulator_running(folder: Path) -> Iterator[str]:
    """An emulator on a free port; gives its address for FIRESTORE_EMULATOR_HOST."""
    port, log = _free_port(), folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(EMULATOR), "start", "--host=127.0.0.1", f"--port={port}"],
            stdout=out,
            stderr=out,
            start_new_session=True,
            env=os.environ | {"JAVA_TOOL_OPTIONS": "-Xmx512m"},
        )
    try:
        ends, pause = time.monotonic() + 60, threading.Event()
        while not _answers(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < ends, log.read_text()
            pause.wait(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
