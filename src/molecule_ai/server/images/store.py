"""SQL of the images room."""

from __future__ import annotations

from collections.abc import Sequence

from molecule_ai.kernel.db import Connection, many

from .schemas import Resident

RESIDENTS = """
    SELECT id, runtime, handle, active_tasks FROM workspaces
     WHERE handle IS NOT NULL AND node = $1 AND runtime = ANY($2) AND desired = 'run'
       AND status IN ('provisioning', 'online', 'degraded')
     ORDER BY id FOR UPDATE"""


async def residents(tx: Connection, node: str, runtimes: Sequence[str]) -> list[Resident]:
    """The running agents of a node that are on images of these runtimes, locked against other wishes."""
    return await many(tx, Resident, RESIDENTS, node, runtimes)
