"""SQL of the liveness engines: who has been silent, idle or starting for too long."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from msgspec import Struct

from molecule_ai.kernel.db import Connection, many


class Silent(Struct, frozen=True):
    """A workspace that said nothing for too long."""

    id: UUID
    instance_id: str | None


# A workspace that came online without a beat has been silent since then.
SILENT = """
    SELECT id, instance_id FROM workspaces
     WHERE status IN ('online', 'degraded') AND (generation = observed_generation OR desired = 'none')
       AND GREATEST(last_heartbeat_at, online_since, status_changed_at)
           < now() - CASE WHEN desired = 'none' OR runtime = 'external' THEN $2::interval
                          ELSE $1::interval END
     ORDER BY last_heartbeat_at LIMIT $3"""


async def silent(connection: Connection, managed: timedelta, external: timedelta, limit: int) -> list[Silent]:
    return await many(connection, Silent, SILENT, managed, external, limit)


STILL_SILENT = """
    SELECT true FROM workspaces WHERE id = $1
       AND GREATEST(last_heartbeat_at, online_since, status_changed_at)
           < now() - CASE WHEN desired = 'none' OR runtime = 'external' THEN $3::interval
                          ELSE $2::interval END"""


async def still_silent(tx: Connection, workspace_id: UUID, managed: timedelta, external: timedelta) -> bool:
    """Ask again under the row's lock: a beat may have arrived since the list was read."""
    return bool(await tx.fetchval(STILL_SILENT, workspace_id, managed, external))


IDLE = """
    SELECT id FROM workspaces
     WHERE hibernation_idle_minutes > 0 AND status IN ('online', 'degraded') AND active_tasks = 0
       AND desired = 'run' AND runtime <> 'external' AND generation = observed_generation
       AND idle_since < now() - make_interval(mins => hibernation_idle_minutes)
       AND NOT EXISTS (SELECT 1 FROM workspace_load l WHERE l.workspace_id = workspaces.id AND l.load > 0)
       AND COALESCE(last_outbound_at, '-infinity') < now() - make_interval(mins => hibernation_idle_minutes)
       AND ($2::uuid IS NULL OR id = $2) LIMIT $1"""


async def idle(connection: Connection, limit: int, only: UUID | None = None) -> list[UUID]:
    """Managed workspaces that nobody needed for as long as they are configured to wait."""
    return [row["id"] for row in await connection.fetch(IDLE, limit, only)]


class Starting(Struct, frozen=True):
    """A workspace whose agent has not been heard of."""

    id: UUID
    runtime: str
    seconds: float


STARTING = """
    SELECT id, runtime, EXTRACT(EPOCH FROM now() - status_changed_at)::float8 AS seconds FROM workspaces
     WHERE status = 'provisioning' AND status_changed_at < now() - $1::interval
       AND desired = 'run' AND (lease_until IS NULL OR lease_until < now())
     ORDER BY status_changed_at LIMIT $2"""


async def starting(connection: Connection, at_least: timedelta, limit: int) -> list[Starting]:
    return await many(connection, Starting, STARTING, at_least, limit)
