"""Each class of activity has a life of its own (contract 03 §11.5)."""

from __future__ import annotations

from molecule_ai.kernel.clock import Clock
from molecule_ai.kernel.db import Database

from . import store

_BATCH = 5000
_FIRST_AFTER_SECONDS = 60.0
_DELEGATION_DAYS = 30


class ActivityRetention:
    """Prunes the activity log; 0 days of chat keep it for ever."""

    name = "activity-retention"

    def __init__(
        self, db: Database, clock: Clock, *, chat_days: int, other_days: int, interval_hours: int
    ) -> None:
        self.interval_seconds = interval_hours * 3600.0
        self._db = db
        self._clock = clock
        self._days = {"chat": chat_days, "delegation": _DELEGATION_DAYS, "other": other_days}
        self._is_first = True

    async def tick(self) -> object:
        """Delete until nothing is left to delete, a batch a transaction."""
        if self._is_first:
            self._is_first = False
            await self._clock.sleep(_FIRST_AFTER_SECONDS)
        return await self.sweep()

    async def sweep(self) -> dict[str, int]:
        """Delete what is too old now; returns how much of each class that was."""
        return {kind: await self._sweep(kind, days) for kind, days in self._days.items() if days}

    async def _sweep(self, kind: str, days: int) -> int:
        total, deleted = 0, _BATCH
        while deleted == _BATCH:
            async with self._db.transaction() as tx:
                deleted = await store.sweep(tx, kind, days, _BATCH)
            total += deleted
        return total
