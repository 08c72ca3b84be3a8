"""SQL of the registry. The rows are those of the workspaces; heartbeats write many of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import Struct

from molecule_ai.kernel.db import Connection, first, many
from molecule_ai.server.workspaces.status import Desired, Status

from .schemas import Peer


class Known(Struct, frozen=True, kw_only=True):
    """What a registration asks of its workspace."""

    id: UUID
    status: Status
    desired: Desired
    runtime: str
    kind: str
    delivery_mode: str
    url: str
    agent_card: dict[str, Any] | None
    is_launched: bool
    has_provisioner_url: bool
    has_live_token: bool
    registered_just_now: bool


_KNOWN = """
    SELECT w.id, w.status, w.desired, w.runtime, w.kind, w.delivery_mode, w.url, w.agent_card,
           w.launched_at IS NOT NULL AS is_launched,
           w.handle IS NOT NULL OR w.launched_at IS NOT NULL AS has_provisioner_url,
           EXISTS (SELECT 1 FROM workspace_auth_tokens t WHERE t.workspace_id = w.id AND t.revoked_at IS NULL
                      AND (t.expires_at IS NULL OR t.expires_at > now())) AS has_live_token,
           COALESCE(w.registered_at > now() - interval '60 seconds', false) AS registered_just_now
      FROM workspaces w WHERE w.id = $1"""
FIND = _KNOWN
LOCK = _KNOWN + " FOR UPDATE OF w"


async def find(connection: Connection, workspace_id: UUID) -> Known | None:
    return await first(connection, Known, FIND, workspace_id)


async def lock(tx: Connection, workspace_id: UUID) -> Known | None:
    """The row, held until `tx` ends, so that two registrations take turns."""
    return await first(tx, Known, LOCK, workspace_id)


INSERT = """
    INSERT INTO workspaces
           (id, name, kind, status, runtime, desired, observed_generation, awareness_namespace)
    VALUES ($1, $2, $3, 'awaiting_agent', 'external', 'none', 1, 'workspace:' || $2)
    ON CONFLICT DO NOTHING"""


async def insert_unknown(tx: Connection, workspace_id: UUID, kind: str) -> None:
    """A workspace that exists because an agent said so (contract 02 §11.1, the open state)."""
    await tx.execute(INSERT, workspace_id, str(workspace_id), kind)


REGISTER = """
    UPDATE workspaces SET url = COALESCE($2, url), agent_card = $3, delivery_mode = $4, kind = $5,
           registered_at = now(), last_heartbeat_at = now(), updated_at = now(),
           idle_since = CASE WHEN active_tasks = 0 THEN COALESCE(idle_since, now()) END
     WHERE id = $1 RETURNING now()"""


async def register(
    tx: Connection, workspace_id: UUID, url: str | None, card: dict[str, Any], delivery_mode: str, kind: str
) -> datetime:
    """Write what the agent announced; a `url` of None keeps the stored one."""
    at: datetime = await tx.fetchval(REGISTER, workspace_id, url, card, delivery_mode, kind)
    return at


OTHER_PLATFORM = """
    SELECT EXISTS (SELECT 1 FROM workspaces WHERE kind = 'platform' AND status <> 'removed' AND id <> $1)
        OR EXISTS (SELECT 1 FROM workspaces WHERE id = $1 AND parent_id IS NOT NULL)"""


async def cannot_be_platform(tx: Connection, workspace_id: UUID) -> bool:
    return bool(await tx.fetchval(OTHER_PLATFORM, workspace_id))


UPDATE_CARD = """
    UPDATE workspaces SET agent_card = $2, updated_at = now()
     WHERE id = $1 AND status <> 'removed' RETURNING id"""


async def update_card(tx: Connection, workspace_id: UUID, card: dict[str, Any]) -> bool:
    return await tx.fetchval(UPDATE_CARD, workspace_id, card) is not None


STATUSES = "SELECT id, status FROM workspaces WHERE id = ANY($1)"


async def statuses(connection: Connection, ids: Sequence[UUID]) -> dict[UUID, Status]:
    return {row["id"]: Status(row["status"]) for row in await connection.fetch(STATUSES, ids)}


class Pulse(Struct, frozen=True, kw_only=True):
    """One row of a batch of heartbeats: before, after, and what decides about a transition."""

    id: UUID
    status: Status
    is_push: bool
    tasks_before: int
    task_before: str
    active_tasks: int
    current_task: str
    uptime_seconds: int
    sample_error: str
    has_native_status: bool
    is_reachable: bool
    is_managed: bool
    is_launched: bool
    is_noted: bool
    at: datetime
    token_hash: bytes | None
    token_id: UUID | None
    rotates: bool


# The shipped runtimes tell the start and end of a task in a beat filled with zeros; such a beat, seen
# from a workspace that was up before, is about the task alone (contract 02 §11.2). A beat that carries the
# digest of a token counts only while that is a live one of its workspace; of two at once with different
# tokens one counts, and the other comes again. What a crash of PostgreSQL loses the next beat repeats, so
# that the commit need not wait for the disk.
BEAT = """
    WITH haste AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true)),
    old AS (
        SELECT b.*, w.status, w.active_tasks AS tasks_before, w.current_task AS task_before,
               COALESCE(b.uptime_seconds, 0) = 0 AND NOT b.has_metadata AND w.uptime_seconds > 0 AS is_push,
               t.id AS token_id, COALESCE(t.kind = 'agent' AND t.last_used_at IS NULL, false) AS rotates
          FROM haste, unnest($1::uuid[], $2::float8[], $3::text[], $4::int[], $5::text[], $6::int[],
                             $7::bigint[], $8::bool[], $9::text[], $10::int[], $11::bytea[])
            AS b (id, error_rate, sample_error, active_tasks, current_task, uptime_seconds, monthly_spend,
                  has_metadata, capabilities, idle_timeout_seconds, token_hash)
          JOIN workspaces w ON w.id = b.id
          LEFT JOIN workspace_auth_tokens t
            ON t.token_hash = b.token_hash AND t.workspace_id = w.id AND t.revoked_at IS NULL
           AND t.scopes IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())
         WHERE w.status <> 'removed' AND (b.token_hash IS NULL OR t.id IS NOT NULL)
         ORDER BY w.id FOR UPDATE OF w)
    UPDATE workspaces w SET
        last_heartbeat_at = now(),
        active_tasks = COALESCE(o.active_tasks, w.active_tasks),
        current_task = COALESCE(o.current_task, w.current_task),
        idle_since = CASE WHEN COALESCE(o.active_tasks, w.active_tasks) > 0 THEN NULL
                          WHEN w.active_tasks > 0 THEN now() ELSE COALESCE(w.idle_since, now()) END,
        last_error_rate = CASE WHEN o.is_push THEN w.last_error_rate
                               ELSE COALESCE(o.error_rate, w.last_error_rate) END,
        last_sample_error = CASE WHEN o.is_push OR (w.status = 'failed' AND o.sample_error = '')
                                 THEN w.last_sample_error
                                 ELSE COALESCE(o.sample_error, w.last_sample_error) END,
        uptime_seconds = CASE WHEN o.is_push THEN w.uptime_seconds
                              ELSE COALESCE(o.uptime_seconds, w.uptime_seconds) END,
        monthly_spend = COALESCE(NULLIF(o.monthly_spend, 0), w.monthly_spend),
        capabilities = COALESCE(o.capabilities::jsonb, w.capabilities),
        idle_timeout_seconds = CASE WHEN o.has_metadata THEN o.idle_timeout_seconds
                                    ELSE w.idle_timeout_seconds END
      FROM old o WHERE w.id = o.id
    RETURNING w.id, o.status, o.is_push, o.tasks_before, o.task_before, w.active_tasks, w.current_task,
              w.uptime_seconds, w.last_sample_error AS sample_error,
              COALESCE((w.capabilities ->> 'status_mgmt')::bool, false) AS has_native_status,
              w.url <> '' OR w.delivery_mode = 'poll' OR w.registered_at IS NOT NULL AS is_reachable,
              w.desired <> 'none' AS is_managed, w.launched_at IS NOT NULL AS is_launched,
              w.status_reason IS NOT DISTINCT FROM 'not_registered' AS is_noted, now() AS at,
              o.token_hash, o.token_id, o.rotates"""


async def beat(connection: Connection, columns: Sequence[Sequence[Any]]) -> list[Pulse]:
    """Write a batch of heartbeats; those of absent or removed workspaces or without proof are left out."""
    return [Pulse(**dict(row)) for row in await connection.fetch(BEAT, *columns)]


NOT_REGISTERED = "UPDATE workspaces SET status_reason = 'not_registered' WHERE id = ANY($1)"


async def note_unregistered(tx: Connection, ids: Sequence[UUID]) -> None:
    """Say why agents that beat do not go online: nobody knows where they answer."""
    if ids:
        await tx.execute(NOT_REGISTERED, ids)


class Address(Struct, frozen=True, kw_only=True):
    """Where a workspace answers."""

    id: UUID
    name: str
    status: Status
    runtime: str
    delivery_mode: str
    url: str
    has_provisioner_url: bool
    forwarded_to: UUID | None


ADDRESS = """
    WITH RECURSIVE hop AS (
        SELECT id, forwarded_to, 0 AS n FROM workspaces WHERE id = $1
        UNION ALL
        SELECT w.id, w.forwarded_to, hop.n + 1 FROM hop JOIN workspaces w ON w.id = hop.forwarded_to
         WHERE hop.n < 5)
    SELECT w.id, w.name, w.status, w.runtime, w.delivery_mode, w.url, w.forwarded_to,
           w.handle IS NOT NULL AS has_provisioner_url
      FROM workspaces w JOIN hop USING (id) WHERE w.status <> 'removed' ORDER BY hop.n DESC LIMIT 1"""


async def find_address(connection: Connection, workspace_id: UUID) -> Address | None:
    """Follows `forwarded_to` up to five times."""
    return await first(connection, Address, ADDRESS, workspace_id)


# Siblings, children, parent: direct relations in the order of contract 02 §11.5, each group by name;
# with $4 everybody whom §12 lets this workspace talk to.
PEERS = """
    WITH RECURSIVE
    up AS (
        SELECT id, parent_id, 0 AS n FROM workspaces WHERE id = $1
        UNION ALL
        SELECT w.id, w.parent_id, up.n + 1 FROM up JOIN workspaces w ON w.id = up.parent_id WHERE up.n < 32),
    down AS (
        SELECT id, 0 AS n FROM workspaces WHERE id = $1
        UNION ALL
        SELECT w.id, down.n + 1 FROM down JOIN workspaces w ON w.parent_id = down.id WHERE down.n < 32)
    SELECT w.id, w.name, w.role, w.agent_card ->> 'description' AS description, w.tier, w.status,
           CASE WHEN w.runtime = 'external' AND NOT $3 THEN '' ELSE w.url END AS url, w.parent_id,
           w.active_tasks, w.agent_card, w.kind, w.runtime, w.delivery_mode
      FROM workspaces me, workspaces w
     WHERE me.id = $1 AND w.id <> me.id AND w.status <> 'removed'
       AND ($2 = '' OR strpos(lower(w.name), lower($2)) > 0
            OR strpos(lower(COALESCE(w.role, '')), lower($2)) > 0)
       AND (w.parent_id IS NOT DISTINCT FROM me.parent_id OR w.parent_id = me.id OR w.id = me.parent_id
            OR $4 AND ('platform' IN (me.kind, w.kind)
                       OR w.id IN (SELECT id FROM up) OR w.id IN (SELECT id FROM down)))
     ORDER BY CASE WHEN w.parent_id IS NOT DISTINCT FROM me.parent_id THEN 0 WHEN w.parent_id = me.id THEN 1
                   WHEN w.id = me.parent_id THEN 2 ELSE 3 END, w.name, w.id"""


async def peers(
    connection: Connection, workspace_id: UUID, q: str, *, shows_external_urls: bool, reachable: bool
) -> list[Peer]:
    return await many(connection, Peer, PEERS, workspace_id, q, shows_external_urls, reachable)


EXISTS = "SELECT true FROM workspaces WHERE id = $1 AND status <> 'removed'"


async def exists(connection: Connection, workspace_id: UUID) -> bool:
    return bool(await connection.fetchval(EXISTS, workspace_id))
