"""The sandbox on a thread of this process: real HTTP, over a company the caller holds."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from omni.errors import TransientError
from omni.sandbox.company import Company
from omni.sandbox.process import START_SECONDS, STOP_SECONDS, Sandbox
from omni.sandbox.serving import Options


@contextmanager
def serving(company: Company, options: Options) -> Iterator[Sandbox]:
    """Serve a company on a free port of the loopback interface for the length of a `with` block.

    Raises:
        TransientError: it does not answer in time.
    """
    import uvicorn

    from omni.sandbox.server import build_app

    # The protocol is named because asyncio sets TCP_NODELAY only then; without it each answer waits 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    server = uvicorn.Server(
        uvicorn.Config(
            build_app(company, options),
            log_config=None,
            log_level="critical",
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + START_SECONDS
        while not server.started:
            if time.monotonic() > deadline or not thread.is_alive():
                raise TransientError("The sandbox did not start; try again.")
            time.sleep(0.01)
        yield Sandbox(f"http://127.0.0.1:{listener.getsockname()[1]}", options.token)
    finally:
        server.should_exit = True
        thread.join(STOP_SECONDS)
        listener.close()
