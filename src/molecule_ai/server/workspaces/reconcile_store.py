"""SQL of the reconciler: claims with a lease, intents, handles, and who should be running."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from msgspec import Struct

from molecule_ai.kernel.db import Connection, first, many

from .status import Desired, Status


class Claim(Struct, frozen=True, kw_only=True):
    """A workspace that one process drives until its lease ends; `lease` names this very claim."""

    id: UUID
    lease: UUID
    status: Status
    status_changed_at: datetime
    desired: Desired
    generation: int
    cause: str
    asked_at: datetime | None
    active_tasks: int
    instance_id: str | None
    handle: dict[str, Any] | None
    node: str | None
    purge: bool
    name: str
    role: str | None
    tier: int
    runtime: str
    model: str | None
    parent_id: UUID | None
    workspace_dir: str | None
    workspace_access: str
    launch_files: dict[str, str]
    launch_overwrite: bool
    reset_session: bool
    config_changes: dict[str, Any]
    max_concurrent_tasks: int
    hibernation_idle_minutes: int | None
    slept_from: Status | None
    now: datetime

    @property
    def is_live(self) -> bool:
        return self.status in (Status.ONLINE, Status.DEGRADED)


# Rows of another machine are its own replicas' business, unless none has been seen for a minute. An
# org-wide change of configuration concerns everybody at once: of those restarts so many are under way,
# from the claim until the agent is online, that people still get answers from the others.
CLAIM = """
    WITH changing AS (
        SELECT id FROM workspaces
         WHERE generation <> observed_generation AND restart_cause = 'config' AND lease_until > now()
        UNION
        SELECT id FROM workspaces
         WHERE status = 'provisioning' AND status_reason = 'config'
           AND launched_at > now() - interval '60 seconds'),
    may_change AS MATERIALIZED (
        SELECT id FROM workspaces
         WHERE generation <> observed_generation AND reconcile_after <= now() AND restart_cause = 'config'
           AND (lease_until IS NULL OR lease_until < now())
         ORDER BY reconcile_after, id LIMIT GREATEST(0, $4 - (SELECT count(*) FROM changing))),
    due AS MATERIALIZED (
        SELECT c.id FROM workspaces c
         WHERE c.generation <> c.observed_generation AND c.reconcile_after <= now()
           AND (c.lease_until IS NULL OR c.lease_until < now())
           AND (c.restart_cause <> 'config' OR c.desired <> 'run'
                OR c.id IN (SELECT id FROM may_change))
           AND (c.node IS NULL OR c.node = $1 OR NOT EXISTS (
                SELECT 1 FROM nodes n WHERE n.id = c.node AND n.seen_at > now() - interval '60 seconds'))
         ORDER BY c.reconcile_after LIMIT $2 FOR UPDATE SKIP LOCKED)
    UPDATE workspaces w SET lease_owner = gen_random_uuid(), lease_until = now() + $3
      FROM due WHERE w.id = due.id
    RETURNING w.id, w.lease_owner AS lease, w.status, w.status_changed_at, w.desired, w.generation,
              w.restart_cause AS cause, w.restart_asked_at AS asked_at, w.active_tasks, w.instance_id,
              w.handle, w.node, w.purge, w.name, w.role, w.tier, w.runtime, w.model, w.parent_id,
              w.workspace_dir, w.workspace_access, w.launch_files, w.launch_overwrite, w.reset_session,
              w.config_changes, w.max_concurrent_tasks, w.hibernation_idle_minutes, w.slept_from,
              now() AS now"""
MAX_CHANGING = 5  # contract 02 §21.13


async def claim(tx: Connection, node: str | None, limit: int, lease: timedelta) -> list[Claim]:
    """Lease rows whose wish is not yet true, longest due first; those that others hold are skipped."""
    return await many(tx, Claim, CLAIM, node or "", limit, lease, MAX_CHANGING)


RENEW = """
    UPDATE workspaces SET lease_until = now() + $3
     WHERE id = $1 AND lease_owner = $2 AND lease_until > now() RETURNING true"""


async def renew(tx: Connection, claim: Claim, lease: timedelta) -> bool:
    return bool(await tx.fetchval(RENEW, claim.id, claim.lease, lease))


class Held(Struct, frozen=True, kw_only=True):
    """The row as it is now, locked, and still ours."""

    status: Status
    desired: Desired
    generation: int
    last_error_rate: float
    last_sample_error: str


HOLD = """
    SELECT status, desired, generation, last_error_rate, last_sample_error FROM workspaces
     WHERE id = $1 AND lease_owner = $2 FOR UPDATE"""


async def hold(tx: Connection, claim: Claim) -> Held | None:
    """Lock the row for the rest of `tx`; None when somebody else has claimed it since."""
    return await first(tx, Held, HOLD, claim.id, claim.lease)


INTEND = """
    UPDATE workspaces SET instance_id = $2, node = $3, handle = NULL, url = '', launched_at = now(),
           registered_at = NULL, uptime_seconds = 0, updated_at = now()
     WHERE id = $1"""


async def intend(tx: Connection, workspace_id: UUID, instance_id: UUID, node: str | None) -> None:
    """Record the instance that is about to be started: from here on, it is the expected one."""
    await tx.execute(INTEND, workspace_id, str(instance_id), node)


RECORD = """
    UPDATE workspaces SET handle = $2, observed_generation = $3,
           config_changes = CASE WHEN config_changes = $5 THEN '{}' ELSE config_changes END,
           url = CASE WHEN status IN ('provisioning', 'online', 'degraded') THEN $4 ELSE url END,
           launch_overwrite = launch_overwrite AND generation <> $3,
           reset_session = reset_session AND generation <> $3,
           restart_cause = CASE WHEN generation = $3 THEN '' ELSE restart_cause END,
           restart_asked_at = CASE WHEN generation = $3 THEN NULL ELSE restart_asked_at END
     WHERE id = $1"""


async def record(tx: Connection, claim: Claim, handle: dict[str, Any], url: str) -> None:
    """Keep what identifies the agent that is about to live; the lease lasts until it does."""
    await tx.execute(RECORD, claim.id, handle, claim.generation, url, claim.config_changes)


ADOPT = """
    UPDATE workspaces SET runtime = $2, max_concurrent_tasks = $3, hibernation_idle_minutes = $4
     WHERE id = $1"""


async def adopt(tx: Connection, claim: Claim) -> None:
    """Write what the agent's own configuration says and the row did not."""
    await tx.execute(
        ADOPT, claim.id, claim.runtime, claim.max_concurrent_tasks, claim.hibernation_idle_minutes
    )


SETTLE = """
    UPDATE workspaces SET observed_generation = $2, lease_owner = NULL, lease_until = NULL,
           restart_cause = CASE WHEN generation = $2 THEN '' ELSE restart_cause END,
           restart_asked_at = CASE WHEN generation = $2 THEN NULL ELSE restart_asked_at END,
           instance_id = CASE WHEN $3 THEN NULL ELSE instance_id END,
           handle = CASE WHEN $3 THEN NULL ELSE handle END
     WHERE id = $1"""


async def settle(tx: Connection, workspace_id: UUID, generation: int, *, stopped: bool) -> None:
    """The wish of `generation` is fulfilled; with `stopped` nothing runs any more.

    The node stays: the files are there, and the next start belongs beside them.
    """
    await tx.execute(SETTLE, workspace_id, generation, stopped)


RELEASE = """
    UPDATE workspaces SET lease_owner = NULL, lease_until = NULL, reconcile_after = now() + $3,
           status_reason = CASE WHEN $4 <> '' THEN $4 ELSE status_reason END
     WHERE id = $1 AND lease_owner = $2"""


async def release(tx: Connection, claim: Claim, retry_after: timedelta, reason: str = "") -> None:
    """Give the row back, to be claimed again after a while."""
    await tx.execute(RELEASE, claim.id, claim.lease, retry_after, reason)


FORGET = "UPDATE workspaces SET parent_id = NULL WHERE parent_id = $1"
FORGET_FORWARD = "UPDATE workspaces SET forwarded_to = NULL WHERE forwarded_to = $1"
DELETE = "DELETE FROM workspaces WHERE id = $1 AND status = 'removed' AND purge"


async def purge(tx: Connection, workspace_id: UUID) -> None:
    """Delete the row of a removed workspace; what refers to it by key goes with it."""
    await tx.execute(FORGET, workspace_id)
    await tx.execute(FORGET_FORWARD, workspace_id)
    await tx.execute(DELETE, workspace_id)


SEE_NODE = """
    INSERT INTO nodes (id) VALUES ($1) ON CONFLICT (id) DO UPDATE SET seen_at = now()"""


async def see_node(tx: Connection, node: str) -> None:
    """Tell the others that this machine has a live replica."""
    await tx.execute(SEE_NODE, node)


# A row with work pending keeps its instance until the reconciler has stopped it in good order.
EXPECTED = """
    SELECT id, instance_id FROM workspaces
     WHERE instance_id IS NOT NULL AND node IS NOT DISTINCT FROM $1
       AND (generation <> observed_generation
            OR desired = 'run' AND status IN ('provisioning', 'online', 'degraded', 'offline'))"""


async def expected(connection: Connection, node: str | None) -> dict[UUID, UUID]:
    """The instance of every workspace that should be running on this node."""
    return {row["id"]: UUID(row["instance_id"]) for row in await connection.fetch(EXPECTED, node)}


LIKELY_RUNTIMES = """
    SELECT runtime FROM workspaces
     WHERE desired IN ('run', 'hibernate') AND status NOT IN ('removed', 'failed', 'paused')
       AND (node IS NULL OR node = $1)
     GROUP BY runtime ORDER BY count(*) DESC, runtime LIMIT $2"""


async def likely_runtimes(connection: Connection, node: str | None, limit: int) -> list[str]:
    """The runtimes of most of the agents that may be started on this node."""
    return [row["runtime"] for row in await connection.fetch(LIKELY_RUNTIMES, node, limit)]


class Running(Struct, frozen=True, kw_only=True):
    """A workspace that is said to run here."""

    id: UUID
    instance_id: str
    handle: dict[str, Any]


RUNNING = """
    SELECT id, instance_id, handle FROM workspaces
     WHERE handle IS NOT NULL AND instance_id IS NOT NULL AND node IS NOT DISTINCT FROM $1
       AND generation = observed_generation AND status IN ('provisioning', 'online', 'degraded')"""


async def running(connection: Connection, node: str | None) -> list[Running]:
    return await many(connection, Running, RUNNING, node)


STALE_FILES = """
    SELECT id FROM workspaces
     WHERE status = 'removed' AND files_removed_at IS NULL AND removed_at < now() - $2::interval
       AND generation = observed_generation AND (node IS NULL OR node = $3)
     ORDER BY removed_at LIMIT $1"""
FILES_REMOVED = "UPDATE workspaces SET files_removed_at = now() WHERE id = ANY($1)"


async def stale_files(connection: Connection, node: str | None, limit: int, age: timedelta) -> Sequence[UUID]:
    """Removed workspaces of this node whose files nobody asked back in time."""
    return [row["id"] for row in await connection.fetch(STALE_FILES, limit, age, node)]


async def files_removed(tx: Connection, ids: Sequence[UUID]) -> None:
    await tx.execute(FILES_REMOVED, ids)
