"""A server that does nothing, and one that cannot start: `python -m tests.host.tiny PORT app`."""

from __future__ import annotations

import os
import sys
from typing import Any

from granian.constants import Interfaces

from molecule_ai.host.workers import Workers


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


def broken() -> Any:
    """Fail before there is an app."""
    raise RuntimeError("this app cannot be made")


if __name__ == "__main__":
    server = Workers(
        f"tests.host.tiny:{sys.argv[2]}",
        factory=sys.argv[2] == "broken",
        port=int(sys.argv[1]),
        interface=Interfaces.ASGI,
        workers=2,
        workers_kill_timeout=5,
    )
    server.serve()
    sys.exit(3 if server.is_hopeless else 0)
