"""What happens when an agent comes to life or gets free, whoever noticed it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

from molecule_ai.kernel.db import Connection

from . import lifecycle_store as store
from .transitions import Moved

Listener = Callable[[Connection, Moved], Awaitable[None]]


class Arrivals:
    """Rooms add what they do for an agent that came online, inside the transaction that says so."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def on_online(self, listener: Listener) -> None:
        self._listeners.append(listener)

    async def announce(self, tx: Connection, moved: Moved) -> None:
        """An agent is online: wake its mailbox, and whoever else waits for it."""
        for listener in self._listeners:
            await listener(tx, moved)
        await self.wake_mailbox(tx, [moved.id])

    async def wake_mailbox(self, tx: Connection, workspace_ids: Sequence[UUID]) -> None:
        """These can take work; the mailbox engines hear of it when `tx` commits."""
        if workspace_ids:
            await store.notify_each(tx, "molecule_mailbox", workspace_ids)
