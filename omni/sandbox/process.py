"""Running the sandbox: in this process until stopped, or as a child that ends with its parent."""

from __future__ import annotations

import gc
import json
import queue
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from typing import IO, TYPE_CHECKING

from omni.errors import ConfigError, TransientError
from omni.sandbox.company import Company, check_known, load_company

if TYPE_CHECKING:
    import uvicorn

    from omni.sandbox.server import Options

START_SECONDS = 60.0
"""How long a child may take until it serves."""
STOP_SECONDS = 5.0
CONFIG_EXIT = 2


@dataclass(frozen=True)
class Sandbox:
    """A sandbox that answers: its base address, and the token both vendors accept."""

    url: str
    token: str = field(repr=False)


def searches_for(per_10s: int) -> int:
    """HubSpot's searches a second in an account of this limit: 5 at 190, and in proportion above."""
    return max(5, per_10s * 5 // 190)


def serve(
    company: str,
    *,
    port: int = 0,
    faults: float = 0.0,
    seed: int = 0,
    until: date | None = None,
    plan: str = "enterprise",
    hubspot_per_10s: int = 190,
    token: str | None = None,
    end_with_input: bool = False,
) -> None:
    """Serve a company on the loopback interface until interrupted.

    Prints one line of JSON with `url` and `token` when it answers.

    Args:
        company: see `company.known_companies`.
        port: 0 picks a free one.
        faults: share of requests that fail at random.
        seed: of that choice.
        until: last day (UTC) that has happened.
        plan: Shopify plan, which sets the restore rate.
        hubspot_per_10s: HubSpot's limit in ten seconds; the search endpoint's follows from it.
        token: accepted by both vendors; made up when None.
        end_with_input: stop when standard input ends, as it does when the parent dies.

    Raises:
        ConfigError: unknown company or plan, absent data, port in use.
    """
    from omni.sandbox.server import Options

    token = token or f"sandbox-{secrets.token_urlsafe(18)}"
    options = Options(
        token=token,
        faults=faults,
        seed=seed,
        plan=plan,
        hubspot_per_10s=hubspot_per_10s,
        searches_per_second=searches_for(hubspot_per_10s),
    )
    loaded = load_company(company, until)
    with _listen(port) as listener:
        _run(loaded, options, listener, end_with_input=end_with_input)


def _run(company: Company, options: Options, listener: socket.socket, *, end_with_input: bool) -> None:
    """Serve on a socket that listens already, and say so."""
    import uvicorn
    from starlette.applications import Starlette

    from omni.sandbox.server import build_app

    ready = {"url": f"http://127.0.0.1:{listener.getsockname()[1]}", "token": options.token}

    @asynccontextmanager
    async def announce(_: Starlette) -> AsyncIterator[None]:
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        yield

    app = build_app(company, options, announce)
    gc.collect()
    gc.freeze()
    server = uvicorn.Server(
        uvicorn.Config(
            app, log_config=None, log_level="critical", access_log=False, timeout_graceful_shutdown=1
        )
    )
    if end_with_input:
        threading.Thread(target=_stop_at_end_of_input, args=(server,), daemon=True).start()
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listener])


def _listen(port: int) -> socket.socket:
    # The protocol is named because asyncio sets TCP_NODELAY only then; without it each answer waits 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        listener.close()
        raise ConfigError(f"Port {port} cannot be used ({error.strerror}); choose another or 0.") from None
    listener.listen(128)
    return listener


def _stop_at_end_of_input(server: uvicorn.Server) -> None:
    """Read standard input to its end, then ask the server to stop."""
    sys.stdin.buffer.read()
    server.should_exit = True


@contextmanager
def running(
    company: str,
    *,
    faults: float = 0.0,
    seed: int = 0,
    until: date | None = None,
    plan: str = "enterprise",
    hubspot_per_10s: int = 190,
) -> Iterator[Sandbox]:
    """A sandbox in a child process for the length of a `with` block (arguments as for `serve`).

    The child also ends when this process dies, however it dies.

    Raises:
        ConfigError: unknown company or plan, or the company's data are absent.
        TransientError: the child did not answer in time or died while starting.
    """
    check_known(company)
    command = [sys.executable, "-m", "omni.sandbox", "--company", company, "--end-with-input"]
    command += ["--faults", str(faults), "--seed", str(seed), "--plan", plan]
    command += ["--hubspot-per-10s", str(hubspot_per_10s)]
    if until is not None:
        command += ["--until", until.isoformat()]
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        )
        try:
            yield _wait_until_ready(child, errors)
        finally:
            _stop(child)


def _wait_until_ready(child: subprocess.Popen[bytes], errors: IO[bytes]) -> Sandbox:
    """The child's first line, which it writes once it listens."""
    lines: queue.Queue[bytes] = queue.Queue()
    output = child.stdout
    assert output is not None
    threading.Thread(target=lambda: lines.put(output.readline()), daemon=True).start()
    try:
        line = lines.get(timeout=START_SECONDS)
    except queue.Empty:
        raise TransientError(f"The sandbox did not answer within {START_SECONDS:.0f} s; try again.") from None
    if line:
        return Sandbox(**json.loads(line))
    status = child.wait(timeout=STOP_SECONDS)
    errors.seek(0)
    said = errors.read().decode(errors="replace").strip()
    if status == CONFIG_EXIT:
        raise ConfigError(said)
    raise TransientError(f"The sandbox ended with status {status} while starting: {said[-500:]}")


def _stop(child: subprocess.Popen[bytes]) -> None:
    """End the child: close its input, then ask, then insist."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.close()
    for insist in (None, child.terminate, child.kill):
        if insist is not None:
            insist()
        try:
            child.wait(timeout=STOP_SECONDS)
            break
        except subprocess.TimeoutExpired:
            continue
    child.stdout.close()
