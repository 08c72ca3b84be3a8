"""SQL of the lifecycle: the guarded transition, wishes, and what the verbs ask of the tree."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from msgspec import Struct

from molecule_ai.kernel.db import Connection, first, many, one

from .status import Desired, Status


class Change(Struct, frozen=True, kw_only=True):
    """What a transition writes besides the status; None leaves a column as it is."""

    desired: Desired | None = None
    is_new_wish: bool = False
    """Raises the generation, so that the reconciler acts."""
    error: str | None = None
    """Becomes `last_sample_error`, where clients look for the reason of `failed`."""
    paused_by: UUID | None = None
    cause: str | None = None
    """Becomes `restart_cause`."""
    forgets_instance: bool = False
    """Whatever runs for the workspace is no longer expected, and the orphan sweep ends it."""


class Moved(Struct, frozen=True, kw_only=True):
    """A workspace right after a transition."""

    id: UUID
    was: Status
    name: str
    tier: int
    runtime: str
    parent_id: UUID | None
    desired: Desired
    generation: int
    last_heartbeat_at: datetime | None
    was_online_since: datetime | None
    restart_times: list[datetime]
    restart_attempts: int
    restart_context: dict[str, Any] | None
    at: datetime


# What every target implies for the row is written here once: a stopped or starting agent has no URL and
# no tasks, and one that comes back to life starts its idle time and leaves its error behind. Nobody but
# its owner runs an external agent, so its wish never changes.
MOVE = """
    WITH old AS (
        SELECT id, status, online_since FROM workspaces
         WHERE id = ANY($1) AND status = ANY($3::workspace_status[]) ORDER BY id FOR UPDATE)
    UPDATE workspaces w SET
        status = $2::workspace_status, status_reason = $4, status_changed_at = now(), updated_at = now(),
        desired = CASE WHEN w.desired = 'none' AND $5 <> 'remove' THEN w.desired
                       ELSE COALESCE($5, w.desired) END,
        generation = w.generation + $6::int,
        reconcile_after = CASE WHEN $6::int > 0 THEN now() ELSE w.reconcile_after END,
        last_sample_error = CASE WHEN $7::text IS NOT NULL THEN $7 WHEN t.revived THEN ''
                                 ELSE w.last_sample_error END,
        paused_by = $8,
        restart_cause = COALESCE($9, w.restart_cause),
        instance_id = CASE WHEN $10 THEN NULL ELSE w.instance_id END,
        handle = CASE WHEN $10 THEN NULL ELSE w.handle END,
        launched_at = CASE WHEN $10 OR t.stopped THEN NULL ELSE w.launched_at END,
        url = CASE WHEN t.stopped THEN '' ELSE w.url END,
        active_tasks = CASE WHEN t.stopped THEN 0 ELSE w.active_tasks END,
        current_task = CASE WHEN t.stopped THEN '' ELSE w.current_task END,
        idle_since = CASE WHEN t.stopped THEN NULL
                          WHEN t.revived AND w.active_tasks = 0 THEN now() ELSE w.idle_since END,
        online_since = CASE WHEN t.revived THEN COALESCE(w.online_since, now())
                            WHEN $2 IN ('online', 'degraded', 'hibernating') THEN w.online_since END,
        removed_at = CASE WHEN $2 = 'removed' THEN now() END,
        slept_from = CASE WHEN $2 = 'hibernating' THEN old.status END
      FROM old, LATERAL (SELECT
          $2 IN ('provisioning', 'failed', 'paused', 'hibernated', 'removed') AS stopped,
          $2 = 'online' AND old.status <> 'degraded' AS revived) t
     WHERE w.id = old.id
    RETURNING w.id, old.status AS was, w.name, w.tier, w.runtime, w.parent_id, w.desired, w.generation,
              w.last_heartbeat_at, old.online_since AS was_online_since, w.restart_times,
              w.restart_attempts, w.restart_context, now() AS at"""


async def move(
    tx: Connection,
    workspace_ids: Sequence[UUID],
    to: Status,
    only_from: Collection[Status],
    reason: str,
    change: Change,
) -> list[Moved]:
    """Change the status of those that are in one of `only_from`."""
    return await many(
        tx,
        Moved,
        MOVE,
        list(workspace_ids),
        to,
        list(only_from),
        reason,
        change.desired,
        int(change.is_new_wish),
        change.error,
        change.paused_by,
        change.cause,
        change.forgets_instance,
    )


class Subject(Struct, frozen=True, kw_only=True):
    """What the verbs ask of the workspace that they are about."""

    id: UUID
    name: str
    role: str | None
    tier: int
    runtime: str
    model: str | None
    parent_id: UUID | None
    max_concurrent_tasks: int
    status: Status
    status_reason: str
    desired: Desired
    active_tasks: int
    instance_id: str | None
    handle: dict[str, Any] | None
    node: str | None
    launch_files: dict[str, str]
    last_heartbeat_at: datetime | None
    removed_at: datetime | None

    @property
    def is_external(self) -> bool:
        return self.desired is Desired.NONE or self.runtime == "external"


LOCK = """
    SELECT id, name, role, tier, runtime, model, parent_id, max_concurrent_tasks, status, status_reason,
           desired, active_tasks, instance_id, handle, node, launch_files, last_heartbeat_at, removed_at
      FROM workspaces WHERE id = $1 FOR UPDATE"""
FIND = """
    SELECT id, name, role, tier, runtime, model, parent_id, max_concurrent_tasks, status, status_reason,
           desired, active_tasks, instance_id, handle, node, launch_files, last_heartbeat_at, removed_at
      FROM workspaces WHERE id = $1"""


LOAD = "SELECT load FROM workspace_load WHERE workspace_id = $1"


async def load(connection: Connection, workspace_id: UUID) -> int:
    """How many tasks an agent has: messages under way, and what it reports besides."""
    return int(await connection.fetchval(LOAD, workspace_id) or 0)


async def lock(tx: Connection, workspace_id: UUID) -> Subject | None:
    return await first(tx, Subject, LOCK, workspace_id)


async def find(connection: Connection, workspace_id: UUID) -> Subject | None:
    return await first(connection, Subject, FIND, workspace_id)


PAUSED_ANCESTOR = """
    WITH RECURSIVE up AS (
        SELECT parent_id, 0 AS n FROM workspaces WHERE id = $1
        UNION ALL
        SELECT w.parent_id, up.n + 1 FROM up JOIN workspaces w ON w.id = up.parent_id WHERE up.n < 32)
    SELECT w.name FROM up JOIN workspaces w ON w.id = up.parent_id
     WHERE w.status = 'paused' ORDER BY up.n LIMIT 1"""


async def paused_ancestor(tx: Connection, workspace_id: UUID) -> str | None:
    """The name of the nearest paused workspace above this one."""
    name: str | None = await tx.fetchval(PAUSED_ANCESTOR, workspace_id)
    return name


DESCENDANTS = """
    WITH RECURSIVE down AS (
        SELECT id, 0 AS n FROM workspaces WHERE parent_id = $1 AND status <> 'removed'
        UNION ALL
        SELECT w.id, down.n + 1 FROM down JOIN workspaces w ON w.parent_id = down.id
         WHERE w.status <> 'removed' AND down.n < 32)
    SELECT id FROM down ORDER BY n, id"""


async def descendants(tx: Connection, workspace_id: UUID) -> list[UUID]:
    """Everybody below who is not removed, nearest first."""
    return [row["id"] for row in await tx.fetch(DESCENDANTS, workspace_id)]


PAUSED_HERE = """
    SELECT id, desired = 'none' OR runtime = 'external' AS external FROM workspaces
     WHERE id = ANY($1) AND status = 'paused' AND ($3 OR id = $2 OR paused_by = $2) ORDER BY id"""


async def paused_here(
    tx: Connection, ids: Sequence[UUID], root: UUID, *, everybody: bool
) -> list[tuple[UUID, bool]]:
    """Who among these was paused by a pause of `root`, and whether it is external."""
    rows = await tx.fetch(PAUSED_HERE, ids, root, everybody)
    return [(row["id"], row["external"]) for row in rows]


# One more run of the reconciler; a start under way is one that nobody waits for any more.
WISH = """
    UPDATE workspaces SET generation = generation + 1, desired = $2, restart_cause = $3,
           reconcile_after = now(), updated_at = now(),
           launched_at = CASE WHEN status = 'provisioning' THEN NULL ELSE launched_at END
     WHERE id = $1 AND status = ANY($4::workspace_status[]) AND ($5::text IS NULL OR desired = $5)
    RETURNING true"""


async def wish(
    tx: Connection,
    workspace_id: UUID,
    desired: Desired,
    cause: str,
    *,
    only_from: Collection[Status],
    instead_of: Desired | None = None,
) -> bool:
    """Ask for a run without a change of status; False when the row is not in one of `only_from`."""
    return bool(await tx.fetchval(WISH, workspace_id, desired, cause, list(only_from), instead_of))


FRESH_START = """
    UPDATE workspaces SET restart_times = '{}', restart_attempts = 0,
           restart_asked_at = COALESCE(restart_asked_at, now()),
           restart_context = COALESCE(restart_context,
               jsonb_build_object('at', now(), 'previous', last_heartbeat_at)),
           launch_files = COALESCE($2, launch_files), launch_overwrite = launch_overwrite OR $2 IS NOT NULL,
           reset_session = reset_session OR $3
     WHERE id = $1"""


async def prepare_restart(
    tx: Connection,
    workspace_id: UUID,
    files: dict[str, str] | None,
    *,
    reset: bool,
) -> None:
    """Write what the next start of a hand-made restart does; it begins with a clean record."""
    await tx.execute(FRESH_START, workspace_id, files, reset)


# A restart that nobody asked for by hand: coalesced in the generation, refused by the states that
# contract 02 §5.3 names, held back while a start is young.
REQUEST_RESTART = """
    WITH RECURSIVE
    up AS (
        SELECT id AS start, parent_id, 0 AS n FROM workspaces WHERE id = ANY($1)
        UNION ALL
        SELECT up.start, w.parent_id, up.n + 1 FROM up JOIN workspaces w ON w.id = up.parent_id
         WHERE up.n < 32),
    blocked AS (SELECT up.start FROM up JOIN workspaces w ON w.id = up.parent_id WHERE w.status = 'paused'),
    target AS (
        SELECT id FROM workspaces
         WHERE id = ANY($1) AND status NOT IN ('removed', 'paused', 'hibernating', 'hibernated')
           AND desired = 'run' AND id NOT IN (SELECT start FROM blocked)
         ORDER BY id FOR UPDATE)
    UPDATE workspaces w SET generation = w.generation + 1, restart_cause = $3, status_reason = $2,
           restart_asked_at = COALESCE(w.restart_asked_at, now()),
           restart_context = COALESCE(w.restart_context,
               jsonb_build_object('at', now(), 'previous', w.last_heartbeat_at)),
           reconcile_after = CASE
               WHEN w.generation <> w.observed_generation AND w.restart_cause IN ('user', 'wake')
                   THEN w.reconcile_after
               WHEN w.status = 'provisioning'
                   THEN GREATEST(now() + $4, w.status_changed_at + interval '10 seconds')
               ELSE now() + $4 END
      FROM target WHERE w.id = target.id RETURNING w.id"""


async def request_restart(
    tx: Connection, workspace_ids: Sequence[UUID], reason: str, cause: str, delay: timedelta
) -> list[UUID]:
    rows = await tx.fetch(REQUEST_RESTART, list(workspace_ids), reason, cause, delay)
    return [row["id"] for row in rows]


SCHEDULE_REVIVAL = """
    UPDATE workspaces SET generation = generation + 1, restart_cause = 'detector',
           restart_times = $2, restart_attempts = $3, reconcile_after = now() + $4,
           restart_asked_at = COALESCE(restart_asked_at, now()),
           restart_context = COALESCE(restart_context,
               jsonb_build_object('at', now(), 'previous', last_heartbeat_at))
     WHERE id = $1"""


async def schedule_revival(
    tx: Connection, workspace_id: UUID, times: Sequence[datetime], attempts: int, delay: timedelta
) -> None:
    """Start a lost agent again after `delay`."""
    await tx.execute(SCHEDULE_REVIVAL, workspace_id, list(times), attempts, delay)


MARK_PURGE = "UPDATE workspaces SET purge = true WHERE id = ANY($1)"
DELETE_LAYOUTS = "DELETE FROM canvas_layouts WHERE workspace_id = ANY($1)"
CHILDREN = """
    SELECT id, name FROM workspaces WHERE parent_id = $1 AND status <> 'removed' ORDER BY created_at, id"""


async def mark_purge(tx: Connection, ids: Sequence[UUID]) -> None:
    await tx.execute(MARK_PURGE, ids)


async def delete_layouts(tx: Connection, ids: Sequence[UUID]) -> None:
    await tx.execute(DELETE_LAYOUTS, ids)


async def children(tx: Connection, workspace_id: UUID) -> list[dict[str, Any]]:
    return [dict(row) for row in await tx.fetch(CHILDREN, workspace_id)]


NOTIFY_EACH = "SELECT pg_notify($1, id::text) FROM unnest($2::uuid[]) AS id"


async def notify_each(tx: Connection, channel: str, workspace_ids: Sequence[UUID]) -> None:
    """One notification for each workspace, sent when `tx` commits."""
    await tx.execute(NOTIFY_EACH, channel, list(workspace_ids))


class RestartRecord(Struct, frozen=True, kw_only=True):
    """How often a workspace was started again of late."""

    restart_times: list[datetime]
    restart_attempts: int
    now: datetime


RESTART_RECORD = "SELECT restart_times, restart_attempts, now() AS now FROM workspaces WHERE id = $1"


async def restart_record(tx: Connection, workspace_id: UUID) -> RestartRecord:
    return await one(tx, RestartRecord, RESTART_RECORD, workspace_id)


DROP_RESTART_CONTEXT = "UPDATE workspaces SET restart_context = NULL WHERE id = $1"


async def drop_restart_context(tx: Connection, workspace_id: UUID) -> None:
    await tx.execute(DROP_RESTART_CONTEXT, workspace_id)


READ_INBOUND = "SELECT platform_inbound_secret FROM workspaces WHERE id = $1"
FIND_INBOUND = READ_INBOUND + " FOR UPDATE"
KEEP_INBOUND = "UPDATE workspaces SET platform_inbound_secret = $2 WHERE id = $1"


async def read_inbound_secret(connection: Connection, workspace_id: UUID) -> bytes | None:
    """The sealed secret; None where there is none yet."""
    blob: bytes | None = await connection.fetchval(READ_INBOUND, workspace_id)
    return blob


async def inbound_secret(tx: Connection, workspace_id: UUID) -> bytes | None:
    """The sealed secret, its row held so that two callers make one."""
    blob: bytes | None = await tx.fetchval(FIND_INBOUND, workspace_id)
    return blob


async def keep_inbound_secret(tx: Connection, workspace_id: UUID, blob: bytes) -> None:
    await tx.execute(KEEP_INBOUND, workspace_id, blob)
