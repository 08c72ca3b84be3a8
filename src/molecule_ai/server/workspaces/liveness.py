"""Engines that watch the clock: silent agents, starts that take too long, agents that nobody needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from uuid import UUID

from molecule_ai.kernel import log
from molecule_ai.kernel.clock import Clock
from molecule_ai.kernel.db import Database

from . import lifecycle_store
from . import liveness_store as store
from .lifecycle import Lifecycle
from .losses import Losses
from .status import Status
from .timeouts import DEFAULT, Timeouts

MAX_PER_TICK = 500
SWEEP = "provision-timeout-sweep"
SOURCE = "provision_timeout_sweep"  # in the event, as contract 02 §13 writes it


class Liveness:
    """Notices agents whose heartbeats stopped.

    Nobody can beat while no server listens, so silence counts only from when this process has been
    listening: after a start, after a sleep of the machine, after an outage of the database.
    """

    name = "liveness-monitor"
    interval_seconds = 5.0

    def __init__(
        self, db: Database, losses: Losses, clock: Clock, *, managed: timedelta, external: timedelta
    ) -> None:
        self._db = db
        self._losses = losses
        self._clock = clock
        self._managed = managed
        self._external = external
        self._listening_since: datetime | None = None
        self._ticked_at: datetime | None = None

    async def tick(self) -> dict[str, int]:
        async with self._db.connection() as connection:
            silent = await store.silent(connection, self._managed, self._external, MAX_PER_TICK)
        listened = self._listened()
        lost = 0
        for workspace in silent if listened >= min(self._managed, self._external) else ():
            lost += await self._lose(workspace.id, listened)
        return {"silent": len(silent), "lost": lost}

    def _listened(self) -> timedelta:
        now = self._clock.now()
        gap = timedelta(seconds=6 * self.interval_seconds)
        if self._listening_since is None or self._ticked_at is None or now - self._ticked_at > gap:
            self._listening_since = now
        self._ticked_at = now
        return now - self._listening_since

    async def _lose(self, workspace_id: UUID, listened: timedelta) -> bool:
        async with self._db.transaction() as tx:
            subject = await lifecycle_store.lock(tx, workspace_id)
            if subject is None or listened < (self._external if subject.is_external else self._managed):
                return False
            if not await store.still_silent(tx, workspace_id, self._managed, self._external):
                return False
            return await self._losses.lost_in(tx, subject, reason="no heartbeat")


class ProvisionTimeouts:
    """Gives up on starts from which no agent came; the orphan sweep ends what is left of them."""

    name = SWEEP
    interval_seconds = 10.0

    def __init__(
        self,
        db: Database,
        losses: Losses,
        tail: Callable[[UUID], Awaitable[str]],
        timeouts: Timeouts,
        *,
        override: timedelta,
    ) -> None:
        self._db = db
        self._losses = losses
        self._tail = tail
        self._timeouts = timeouts
        self._override = override
        self._log = log.get()

    async def tick(self) -> dict[str, int]:
        declared = {name: timedelta(seconds=s) for name, s in (await self._timeouts.declared()).items()}
        at_least = self._override or min([DEFAULT, *declared.values()])
        async with self._db.connection() as connection:
            starting = await store.starting(connection, at_least, MAX_PER_TICK)
        failed = 0
        for start in starting:
            limit = self._override or declared.get(start.runtime, DEFAULT)
            if start.seconds >= limit.total_seconds():
                failed += await self._fail(start.id, start.runtime, int(limit.total_seconds()))
        return {"failed": failed}

    async def _fail(self, workspace_id: UUID, runtime: str, seconds: int) -> bool:
        tail = await self._tail(workspace_id)
        async with self._db.transaction() as tx:
            failed = await self._losses.fail(
                tx,
                workspace_id,
                "TIMEOUT",
                f"no agent registered within {seconds} s",
                tail,
                only_from=Status.PROVISIONING,
                timeout_secs=seconds,
                runtime=runtime,
                source=SOURCE,
            )
        if failed:
            self._log.warning("provision_timeout", workspace_id=str(workspace_id), seconds=seconds)
        return failed


class HibernationMonitor:
    """Puts agents to sleep that nobody needed for as long as they are configured to wait."""

    name = "hibernation-monitor"

    def __init__(self, db: Database, lifecycle: Lifecycle, *, interval_seconds: float) -> None:
        self._db = db
        self._lifecycle = lifecycle
        self.interval_seconds = interval_seconds

    async def tick(self) -> dict[str, int]:
        async with self._db.connection() as connection:
            idle = await store.idle(connection, MAX_PER_TICK)
        hibernated = 0
        for workspace_id in idle:
            async with self._db.transaction() as tx:
                await lifecycle_store.lock(tx, workspace_id)
                if await store.idle(tx, 1, workspace_id):  # a task may have begun since
                    hibernated += await self._lifecycle.put_to_sleep(tx, workspace_id, reason="idle")
        return {"hibernated": hibernated}
