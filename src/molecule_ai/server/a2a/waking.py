"""Waking a sleeping target: whoever needs it, it wakes once."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from molecule_ai.kernel.db import Connection, Database
from molecule_ai.server.traffic.service import Traffic


class Waker(Protocol):
    """The lifecycle, as far as messages need it."""

    async def wake(self, tx: Connection, workspace_id: UUID, *, reason: str) -> bool: ...


class Sleepers:
    """Wakes hibernated workspaces because of messages."""

    def __init__(self, db: Database, traffic: Traffic, lifecycle: Waker) -> None:
        self._db = db
        self._traffic = traffic
        self._lifecycle = lifecycle

    async def wake(self, workspace_id: UUID) -> bool:
        """Whether it is on its way up now; a paused ancestor keeps it asleep."""
        async with self._db.transaction() as tx:
            if await self._traffic.is_held_down(tx, workspace_id):
                return False
            await self._lifecycle.wake(tx, workspace_id, reason="message")
        return True
