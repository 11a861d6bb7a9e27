"""How connections end: the codes that clients are told, and closing that never waits for one that does not answer."""

import asyncio
from collections.abc import Sequence

from websockets.asyncio.server import ServerConnection

DONE, NOT_ALLOWED, TOO_LARGE, FAILED, RESTARTING, TRY_LATER = 1000, 1008, 1009, 1011, 1012, 1013  # RFC 6455, IANA
CLOSE_S = 3.0  # how long a closing handshake may take


async def close(connection: ServerConnection, code: int, reason: str) -> None:
    """Close, and cut off a client that does not even take the closing frame."""
    try:
        async with asyncio.timeout(CLOSE_S + 1):
            await connection.close(code, reason)
    except TimeoutError:
        connection.transport.abort()


async def see_off(connections: Sequence[ServerConnection], limit_s: float) -> None:
    """Wait until all of them are closed; who is not by then is cut off."""
    if not connections:
        return
    gone = [asyncio.ensure_future(connection.wait_closed()) for connection in connections]
    await asyncio.wait(gone, timeout=limit_s)
    for connection, waiting in zip(connections, gone, strict=True):
        if not waiting.done():
            connection.transport.abort()
    await asyncio.wait(gone, timeout=0.2)
