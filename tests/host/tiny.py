"""Servers that do nothing, cannot start or do not want to end: `python -m tests.host.tiny PORT app`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from granian.constants import Interfaces

from molecule_ai.host.workers import Workers
from molecule_ai.kernel.parent import PARENT, end_with_parent
from molecule_ai.server.farewell import Farewell


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Tell which process answers."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})


def stubborn() -> Any:
    """An app that does not want to stop, made by a worker that is deaf at first."""
    signal.signal(signal.SIGTERM, lambda *_: None)
    end_with_parent()

    async def forever(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await asyncio.Event().wait()
        await app(scope, receive, send)

    return forever


def polite() -> Any:
    """An app that takes its time to start, and says goodbye."""
    Farewell(lambda: None, lambda: True).install()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await asyncio.sleep(0.5)
        await app(scope, receive, send)

    return slow


def broken() -> Any:
    """Fail before there is an app."""
    raise RuntimeError("this app cannot be made")


if __name__ == "__main__":
    os.environ[PARENT] = str(os.getpid())
    server = Workers(
        f"tests.host.tiny:{sys.argv[2]}",
        factory=sys.argv[2] != "app",
        port=int(sys.argv[1]),
        interface=Interfaces.ASGI,
        workers=2,
        workers_kill_timeout=5,
    )
    server.serve()
    sys.exit(3 if server.is_hopeless else 0)
