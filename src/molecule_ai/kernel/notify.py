"""LISTEN on one connection per process, with reconnection; NOTIFY inside the writer's transaction."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from . import log
from .db import AWAY, Connection, Database

Listener = Callable[[str], None]
_RETRY_SECONDS = 0.5


class Notifications:
    """Hands each payload of a channel to its listeners, in order, on the event loop.

    After a lost connection every channel's `on_gap` listeners are called, because what was
    notified meanwhile is gone: whoever keeps a cache drops it then.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._listeners: dict[str, list[Listener]] = {}
        self._gap_listeners: list[Callable[[], None]] = []
        self._log = log.get()
        self.ready = asyncio.Event()

    def on(self, channel: str, listener: Listener) -> None:
        """Call `listener(payload)` for each notification on `channel`; register before `run`."""
        self._listeners.setdefault(channel, []).append(listener)

    def on_gap(self, listener: Callable[[], None]) -> None:
        """Call `listener()` whenever notifications may have been missed, the first connection included."""
        self._gap_listeners.append(listener)

    async def run(self) -> None:
        """Listen until cancelled."""
        while True:
            try:
                await self._listen_until_lost()
            except AWAY as away:
                self._log.warning("listen_connection_lost", error=str(away))
            await asyncio.sleep(_RETRY_SECONDS)

    async def _listen_until_lost(self) -> None:
        connection = await self._db.connect()
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        try:
            for channel in self._listeners:
                await connection.add_listener(channel, self._receive)
            for gap in self._gap_listeners:
                gap()
            self.ready.set()
            await lost.wait()
        finally:
            self.ready.clear()
            with contextlib.suppress(*AWAY):
                await connection.close(timeout=1)

    def _receive(self, _connection: Any, _pid: int, channel: str, payload: object) -> None:
        for listener in self._listeners.get(channel, ()):
            listener(str(payload))


async def notify(tx: Connection, channel: str, payload: str = "") -> None:
    """Notify all processes when `tx` commits. `payload` holds at most 7,999 bytes."""
    await tx.execute("SELECT pg_notify($1, $2)", channel, payload)
