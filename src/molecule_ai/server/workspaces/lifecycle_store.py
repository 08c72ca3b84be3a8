"""SQL of the lifecycle: the guarded transition, and what the verbs ask of the tree."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID

from msgspec import Struct

from molecule_ai.kernel.db import Connection, many

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
    generation: int
    last_heartbeat_at: datetime | None


# What every target implies for the row is written here once: a stopped or starting agent has no URL and
# no tasks, and one that comes back to life starts its idle time and leaves its error behind.
MOVE = """
    WITH old AS (
        SELECT id, status FROM workspaces
         WHERE id = ANY($1) AND status = ANY($3::workspace_status[]) ORDER BY id FOR UPDATE)
    UPDATE workspaces w SET
        status = $2::workspace_status, status_reason = $4, status_changed_at = now(), updated_at = now(),
        desired = COALESCE($5, w.desired),
        generation = w.generation + $6::int,
        reconcile_after = CASE WHEN $6::int > 0 THEN now() ELSE w.reconcile_after END,
        last_sample_error = CASE WHEN $7::text IS NOT NULL THEN $7 WHEN t.revived THEN ''
                                 ELSE w.last_sample_error END,
        paused_by = $8,
        restart_cause = COALESCE($9, w.restart_cause),
        instance_id = CASE WHEN $10 THEN NULL ELSE w.instance_id END,
        handle = CASE WHEN $10 THEN NULL ELSE w.handle END,
        launched_at = CASE WHEN $10 OR t.stopped THEN NULL ELSE w.launched_at END,
        url = CASE WHEN t.stopped AND w.runtime <> 'external' THEN '' ELSE w.url END,
        active_tasks = CASE WHEN t.stopped THEN 0 ELSE w.active_tasks END,
        current_task = CASE WHEN t.stopped THEN '' ELSE w.current_task END,
        idle_since = CASE WHEN t.stopped THEN NULL
                          WHEN t.revived AND w.active_tasks = 0 THEN now() ELSE w.idle_since END,
        online_since = CASE WHEN t.revived THEN COALESCE(w.online_since, now())
                            WHEN $2 IN ('online', 'degraded', 'hibernating') THEN w.online_since END,
        removed_at = CASE WHEN $2 = 'removed' THEN now() END
      FROM old, LATERAL (SELECT
          $2 IN ('provisioning', 'failed', 'paused', 'hibernated', 'removed') AS stopped,
          $2 = 'online' AND old.status <> 'degraded' AS revived) t
     WHERE w.id = old.id
    RETURNING w.id, old.status AS was, w.name, w.tier, w.runtime, w.parent_id, w.generation,
              w.last_heartbeat_at"""


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


NOTIFY_EACH = "SELECT pg_notify($1, id::text) FROM unnest($2::uuid[]) AS id"


async def notify_each(tx: Connection, channel: str, workspace_ids: Sequence[UUID]) -> None:
    """One notification for each workspace, sent when `tx` commits."""
    await tx.execute(NOTIFY_EACH, channel, list(workspace_ids))
