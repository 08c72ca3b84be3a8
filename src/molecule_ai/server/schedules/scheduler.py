"""The clock of schedules: claims what is due, within about a second of its slot, on every replica."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import asdict

from molecule_ai.kernel import failpoints
from molecule_ai.kernel.cron import InvalidCron, UnknownZone, parse, zone
from molecule_ai.kernel.db import Database

from . import ledger_store, store
from .ledger import Claimed, Ledger
from .service import Now

BATCH = 500  # schedules in one transaction: about 100 ms of work, lost at most once by a crash
MAX_BATCHES = 20  # then a breath, so that liveness sees progress
HELD_ELSEWHERE_SECONDS = 0.5  # another replica is claiming; look again in case it dies
REAP_BATCH = 200
SWEEP_BATCH = 1000


class Scheduler:
    """The engine `scheduler`. It never waits for an agent: the mailbox does."""

    name = "scheduler"

    def __init__(self, db: Database, ledger: Ledger, *, now: Now) -> None:
        self._db = db
        self._ledger = ledger
        self._now = now
        self._has_replanned = False
        self._poll_seconds = ledger.rules.poll.total_seconds()
        self.interval_seconds = self._poll_seconds

    async def tick(self) -> object:
        """Claim everything that is due; sleep until the nearest slot, at most one poll interval."""
        if not self._has_replanned:
            await self._replan()
            self._has_replanned = True
        claimed = Claimed()
        for _ in range(MAX_BATCHES):
            batch = await self._claim()
            claimed = claimed.plus(batch)
            if batch.schedules < BATCH:
                return await self._report(claimed)
        return True

    async def _claim(self) -> Claimed:
        async with self._db.transaction() as tx:
            now = await self._now(tx)
            dues = await store.claim_due(tx, now, BATCH)
            claimed = await self._ledger.claim(tx, dues, now)
            if dues:
                failpoints.reach("schedules.claimed")
        if dues:
            failpoints.reach("schedules.committed")
        return claimed

    async def _report(self, claimed: Claimed) -> dict[str, Any]:
        async with self._db.connection() as connection:
            now = await self._now(connection)
            nearest = await store.nearest(connection)
            backlog = await store.backlog(connection, now)
        self.interval_seconds = self._pause(now, nearest)
        oldest = max(0.0, (now - nearest).total_seconds()) if nearest else 0.0
        return {**asdict(claimed), **asdict(backlog), "oldest_due_seconds": round(oldest, 3)}

    def _pause(self, now: datetime, nearest: datetime | None) -> float:
        if nearest is None:
            return self._poll_seconds
        ahead = (nearest - now).total_seconds()
        return min(self._poll_seconds, ahead if ahead > 0 else HELD_ELSEWHERE_SECONDS)

    async def _replan(self) -> None:
        """Schedules without a next run that can have one again: a repaired row, newer zone data."""
        async with self._db.transaction() as tx:
            now = await self._now(tx)
            for row in await store.list_unplanned(tx, BATCH):
                try:
                    await store.plan(tx, row.id, parse(row.cron_expr).after(now, zone(row.timezone)))
                except (InvalidCron, UnknownZone):
                    continue


class RunReaper:
    """The engine `run-reaper`: open runs past their lease, and rows past their time."""

    name = "run-reaper"

    def __init__(
        self,
        db: Database,
        ledger: Ledger,
        *,
        now: Now,
        retention: timedelta | None,
        interval_seconds: float = 30.0,
    ) -> None:
        self._db = db
        self._ledger = ledger
        self._now = now
        self._retention = retention
        self.interval_seconds = interval_seconds

    async def tick(self) -> object:
        """End runs past their time limit and runs nobody will answer; forget old rows."""
        async with self._db.transaction() as tx:
            now = await self._now(tx)
            expired = await ledger_store.list_expired(tx, now, REAP_BATCH)
            orphans = await ledger_store.end_orphans(tx, now)
        for run in expired:
            async with self._db.transaction() as tx:
                await self._ledger.time_out(tx, run, now)
        return {"timed_out": len(expired), "orphans": orphans, "swept": await self._sweep(now)}

    async def _sweep(self, now: datetime) -> int:
        if self._retention is None:
            return 0
        async with self._db.transaction() as tx:
            return await ledger_store.sweep(tx, now - self._retention, SWEEP_BATCH)
