"""Reading a request's body no further than its cap, whatever its headers say of it."""

from __future__ import annotations

import asyncio

from starlette.requests import Request

SECONDS = 10.0
"""How long a body may take to arrive."""


class TooLarge(Exception):
    """The body is over its cap."""


async def read(request: Request, most: int) -> bytes:
    """The raw body.

    Args:
        request: unread.
        most: bytes.

    Raises:
        TooLarge: it has more, as announced or as counted.
        TimeoutError: it did not arrive within `SECONDS`.
        ClientDisconnect: it was cut.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > most:
        raise TooLarge
    parts, size = [], 0
    async with asyncio.timeout(SECONDS):
        async for part in request.stream():
            size += len(part)
            if size > most:
                raise TooLarge
            parts.append(part)
    return b"".join(parts)
