"""Deletes what nobody reads any more: old operational events, delivered frames, unused tickets."""

from __future__ import annotations

from molecule_ai.kernel.clock import Clock
from molecule_ai.kernel.db import Database

from . import store

_BATCH = 5000
_FIRST_AFTER_SECONDS = 60.0  # a start has more urgent work


class EventRetention:
    """Prunes the event log. Structural and audit events are kept for ever; 0 days keep all."""

    name = "event-retention"

    def __init__(self, db: Database, clock: Clock, *, days: int, interval_hours: int) -> None:
        self.interval_seconds = interval_hours * 3600.0
        self._db = db
        self._clock = clock
        self._days = days
        self._is_first = True

    async def tick(self) -> object:
        """Delete until nothing is left to delete, a batch a transaction."""
        if self._is_first:
            self._is_first = False
            await self._clock.sleep(_FIRST_AFTER_SECONDS)
        return {"events": await self.sweep()}

    async def sweep(self) -> int:
        """Delete what is too old now; returns how much that was."""
        total, deleted = 0, _BATCH if self._days else 0
        while deleted == _BATCH:
            async with self._db.transaction() as tx:
                deleted = await store.sweep_events(tx, self._days, _BATCH)
            total += deleted
        return total


class BusSweeper:
    """Empties the tables in which the bus keeps what lives for a minute."""

    name = "event-bus-sweeper"
    interval_seconds = 60.0

    def __init__(self, db: Database) -> None:
        self._db = db

    async def tick(self) -> object:
        async with self._db.transaction() as tx:
            frames = await store.sweep_frames(tx, _BATCH)
            tickets = await store.sweep_tickets(tx, _BATCH)
        return True if frames == _BATCH else {"frames": frames, "tickets": tickets}
