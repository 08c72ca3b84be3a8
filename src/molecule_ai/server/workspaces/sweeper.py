"""Compares what should run on this node with what does.

Phantoms are rows whose process is gone; orphans are processes that no row expects: what a killed server
left between two steps. Both are found whoever made them, so no other engine needs to remember.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import msgspec

from molecule_ai.kernel import log
from molecule_ai.kernel.db import Database
from molecule_ai.provisioners.base import Handle, Prepares, Provisioner
from molecule_ai.provisioners.errors import ProvisionError

from . import reconcile_store as store
from .losses import Losses
from .reconcile_store import Running

KEEP_FILES = timedelta(days=7)
MAX_FILES_PER_TICK = 20
MAX_WARM = 2  # runtimes; each keeps a preloaded process in memory


class HealthSweep:
    """Notes agents that ended although their rows say that they run."""

    name = "health-sweep"
    interval_seconds = 5.0  # contract 02 §13 asks for 15

    def __init__(self, db: Database, provisioner: Provisioner, losses: Losses) -> None:
        self._db = db
        self._provisioner = provisioner
        self._losses = losses
        self._node = provisioner.node or None
        self._log = log.get()

    async def tick(self) -> dict[str, int]:
        async with self._db.connection() as connection:
            rows = await store.running(connection, self._node)
        lost = 0
        for row in rows:
            if await self._is_gone(row) and await self._losses.lost(
                row.id, row.instance_id, reason="process ended"
            ):
                lost += 1
                self._log.info("agent_lost", workspace_id=str(row.id))
        return {"running": len(rows), "lost": lost}

    async def _is_gone(self, row: Running) -> bool:
        """An agent that cannot be judged counts as running: a false restart is worse than a late one."""
        try:
            return not await self._provisioner.is_running(msgspec.convert(row.handle, Handle))
        except (ProvisionError, msgspec.ValidationError):
            return False


class Warmth:
    """Keeps the node ready to start the runtimes that its sleepers will need."""

    name = "warm-starts"
    interval_seconds = 60.0

    def __init__(self, db: Database, provisioner: Provisioner) -> None:
        self._db = db
        self._provisioner = provisioner
        self._node = provisioner.node or None

    async def tick(self) -> dict[str, list[str]]:
        if not isinstance(self._provisioner, Prepares):
            return {"warm": []}
        async with self._db.connection() as connection:
            wanted = await store.likely_runtimes(connection, self._node, MAX_WARM)
        for runtime in wanted:
            await self._provisioner.warm(runtime)
        return {"warm": wanted}


class OrphanSweeper:
    """Ends what no row expects, and removes the files of workspaces that nobody asked back in time.

    Every replica runs it, because only a replica of a node sees the processes there.
    """

    name = "orphan-sweeper"
    interval_seconds = 4.0  # with the young age that provisioners spare, no orphan sees its tenth second

    def __init__(self, db: Database, provisioner: Provisioner) -> None:
        self._db = db
        self._provisioner = provisioner
        self._node = provisioner.node or None
        self._log = log.get()

    async def tick(self) -> dict[str, int]:
        if self._node is not None:
            async with self._db.transaction() as tx:
                await store.see_node(tx, self._node)
        return {"orphans": await self._end_orphans(), "files_removed": await self._remove_files()}

    async def _end_orphans(self) -> int:
        async with self._db.connection() as connection:
            expected = await store.expected(connection, self._node)
        orphans = await self._provisioner.find_orphans(expected)
        for orphan in orphans:
            self._log.warning(
                "orphan_ended", workspace_id=str(orphan.workspace_id), instance_id=str(orphan.instance_id)
            )
        await asyncio.gather(*(self._provisioner.kill_orphan(orphan) for orphan in orphans))
        return len(orphans)

    async def _remove_files(self) -> int:
        async with self._db.connection() as connection:
            ids = await store.stale_files(connection, self._node, MAX_FILES_PER_TICK, KEEP_FILES)
        for workspace_id in ids:
            await self._provisioner.remove(workspace_id, None, purge=True)
        if ids:
            async with self._db.transaction() as tx:
                await store.files_removed(tx, ids)
        return len(ids)
