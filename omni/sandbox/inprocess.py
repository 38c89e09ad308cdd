"""A sandbox served by a thread of this process, for looking into what it holds while it runs."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from omni.errors import TransientError
from omni.sandbox.company import Company
from omni.sandbox.process import Sandbox
from omni.sandbox.server import Options, build_app

START_SECONDS = 10.0


@contextmanager
def serving(company: Company, options: Options) -> Iterator[Sandbox]:
    """A sandbox of a company for the length of a `with` block, on a free port of the loopback interface.

    Raises:
        TransientError: it did not start in time.
    """
    import uvicorn

    # The protocol is named because asyncio sets TCP_NODELAY only then; without it each answer waits 40 ms.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        config = uvicorn.Config(
            build_app(company, options), log_config=None, access_log=False, timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            deadline = time.monotonic() + START_SECONDS
            while not server.started:
                if time.monotonic() > deadline or not thread.is_alive():
                    raise TransientError("The sandbox did not start in time; try again.")
                time.sleep(0.005)
            yield Sandbox(f"http://127.0.0.1:{listener.getsockname()[1]}", options.token)
        finally:
            server.should_exit = True
            thread.join(START_SECONDS)
