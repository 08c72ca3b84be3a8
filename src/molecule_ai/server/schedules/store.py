"""SQL of schedules. The ledger's is in `ledger_store`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
from msgspec import Struct

from molecule_ai.kernel.db import Connection, affected, first, many

from .schemas import PeerHealth, Schedule

_COLUMNS = """
    s.id, s.workspace_id, s.name, s.cron_expr, s.cron_expr AS expression, s.timezone, s.prompt, s.enabled,
    s.last_run_at, s.next_run_at, s.run_count, s.last_status, s.last_error, s.source, s.created_at,
    s.updated_at, s.consecutive_empty_runs, s.last_success_at, s.last_duration_ms,
    EXISTS (SELECT 1 FROM schedule_runs r
             WHERE r.schedule_id = s.id AND r.status IN ('queued', 'running')) AS running"""

LIST = (
    "SELECT"
    + _COLUMNS
    + """
      FROM workspace_schedules s WHERE s.workspace_id = $1 ORDER BY s.created_at, s.id"""
)
FIND = "SELECT" + _COLUMNS + " FROM workspace_schedules s WHERE s.workspace_id = $1 AND s.id = $2"


async def list_for_workspace(connection: Connection, workspace_id: UUID) -> list[Schedule]:
    return await many(connection, Schedule, LIST, workspace_id)


async def find(connection: Connection, workspace_id: UUID, schedule_id: UUID) -> Schedule | None:
    return await first(connection, Schedule, FIND, workspace_id, schedule_id)


LIST_HEALTH = """
    SELECT id, name, enabled, last_run_at, next_run_at, run_count, last_status, last_error,
           consecutive_empty_runs, last_success_at
      FROM workspace_schedules WHERE workspace_id = $1 ORDER BY created_at, id"""


async def list_health(connection: Connection, workspace_id: UUID) -> list[PeerHealth]:
    return await many(connection, PeerHealth, LIST_HEALTH, workspace_id)


class Watched(Struct, frozen=True, kw_only=True):
    """A schedule with its workspace, for the operator's list."""

    id: UUID
    workspace_id: UUID
    workspace_name: str
    name: str
    cron_expr: str
    timezone: str
    enabled: bool
    source: str
    last_run_at: datetime | None
    next_run_at: datetime | None
    last_status: str
    last_success_at: datetime | None
    consecutive_empty_runs: int


LIST_WATCHED = """
    SELECT s.id, s.workspace_id, w.name AS workspace_name, s.name, s.cron_expr, s.timezone, s.enabled,
           s.source, s.last_run_at, s.next_run_at, s.last_status, s.last_success_at, s.consecutive_empty_runs
      FROM workspace_schedules s JOIN workspaces w ON w.id = s.workspace_id
     WHERE w.status <> 'removed' ORDER BY w.name, s.name, s.id"""


async def list_watched(connection: Connection) -> list[Watched]:
    return await many(connection, Watched, LIST_WATCHED)


# One writer at a time per workspace, so that the limit and the import see each other's rows.
HOLD_WORKSPACE = "SELECT pg_advisory_xact_lock(1396919116, hashtext($1::text))"
WORKSPACE_EXISTS = "SELECT EXISTS (SELECT 1 FROM workspaces WHERE id = $1 AND status <> 'removed')"
COUNT = "SELECT count(*) FROM workspace_schedules WHERE workspace_id = $1"


async def hold_workspace(tx: Connection, workspace_id: UUID) -> None:
    await tx.execute(HOLD_WORKSPACE, str(workspace_id))


async def workspace_exists(connection: Connection, workspace_id: UUID) -> bool:
    return bool(await connection.fetchval(WORKSPACE_EXISTS, workspace_id))


async def count(connection: Connection, workspace_id: UUID) -> int:
    return int(await connection.fetchval(COUNT, workspace_id))


class NewSchedule(Struct, frozen=True, kw_only=True):
    """A checked schedule, ready to be written."""

    id: UUID
    workspace_id: UUID
    name: str
    cron_expr: str
    timezone: str
    prompt: str
    enabled: bool
    source: str
    next_run_at: datetime
    now: datetime


INSERT = """
    INSERT INTO workspace_schedules (id, workspace_id, name, cron_expr, timezone, prompt, enabled, source,
                                     next_run_at, disabled_since, created_at, updated_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, CASE WHEN $7 THEN NULL ELSE $10::timestamptz END, $10, $10)
    ON CONFLICT (workspace_id, name) WHERE name <> '' DO NOTHING RETURNING id"""


async def insert(tx: Connection, new: NewSchedule) -> bool:
    """False when the name is taken."""
    row = await tx.fetchval(
        INSERT,
        new.id,
        new.workspace_id,
        new.name,
        new.cron_expr,
        new.timezone,
        new.prompt,
        new.enabled,
        new.source,
        new.next_run_at,
        new.now,
    )
    return row is not None


class Due(Struct, frozen=True, kw_only=True):
    """A locked schedule with what its workspace can take."""

    id: UUID
    workspace_id: UUID
    name: str
    cron_expr: str
    timezone: str
    prompt: str
    enabled: bool
    source: str
    user_modified: list[str]
    next_run_at: datetime | None
    disabled_since: datetime | None
    timeout_seconds: int | None
    lost_slots: int
    workspace_status: str
    active_tasks: int
    max_concurrent_tasks: int
    keeps_own_clock: bool


_DUE = """
    SELECT s.id, s.workspace_id, s.name, s.cron_expr, s.timezone, s.prompt, s.enabled, s.source,
           s.user_modified, s.next_run_at, s.disabled_since, s.timeout_seconds, s.lost_slots,
           w.status::text AS workspace_status, w.active_tasks, w.max_concurrent_tasks,
           COALESCE(w.capabilities -> 'scheduler' = 'true', false) AS keeps_own_clock
      FROM workspace_schedules s JOIN workspaces w ON w.id = s.workspace_id"""
# Rows that another process holds are skipped: no schedule is claimed twice, and nobody waits.
CLAIM_DUE = (
    _DUE
    + """
     WHERE s.enabled AND s.next_run_at <= $1 ORDER BY s.next_run_at LIMIT $2 FOR UPDATE OF s SKIP LOCKED"""
)
HOLD = _DUE + " WHERE s.workspace_id = $1 AND s.id = $2 FOR UPDATE OF s"
HOLD_ALL = _DUE + " WHERE s.workspace_id = $1 ORDER BY s.id FOR UPDATE OF s"


async def claim_due(tx: Connection, now: datetime, limit: int) -> list[Due]:
    """Lock due schedules, oldest first, until `tx` ends."""
    return await many(tx, Due, CLAIM_DUE, now, limit)


async def hold(tx: Connection, workspace_id: UUID, schedule_id: UUID) -> Due | None:
    """Lock one schedule until `tx` ends."""
    return await first(tx, Due, HOLD, workspace_id, schedule_id)


async def hold_all(tx: Connection, workspace_id: UUID) -> list[Due]:
    """Lock every schedule of a workspace until `tx` ends."""
    return await many(tx, Due, HOLD_ALL, workspace_id)


UPDATE = """
    UPDATE workspace_schedules
       SET name = $2, cron_expr = $3, timezone = $4, prompt = $5, enabled = $6, next_run_at = $7,
           disabled_since = $8, user_modified = $9, updated_at = $10, version = version + 1,
           last_status = CASE WHEN last_error = 'invalid cron expression' THEN '' ELSE last_status END,
           last_error = CASE WHEN last_error = 'invalid cron expression' THEN '' ELSE last_error END
     WHERE id = $1"""


async def update(
    tx: Connection,
    due: Due,
    *,
    next_run_at: datetime | None,
    disabled_since: datetime | None,
    user_modified: Sequence[str],
    now: datetime,
) -> bool:
    """Write the changed `due`. False when its new name is taken."""
    try:
        await tx.execute(
            UPDATE,
            due.id,
            due.name,
            due.cron_expr,
            due.timezone,
            due.prompt,
            due.enabled,
            next_run_at,
            disabled_since,
            user_modified,
            now,
        )
    except asyncpg.UniqueViolationError:
        return False
    return True


DELETE = "DELETE FROM workspace_schedules WHERE id = $1"
# A slot that was due but not claimed belongs to the time in which the schedule is off.
DISABLE_FOR = """
    UPDATE workspace_schedules
       SET enabled = false, updated_at = $2,
           disabled_since = LEAST($2, next_run_at - interval '1 microsecond')
     WHERE workspace_id = ANY($1) AND enabled"""


async def delete(tx: Connection, schedule_id: UUID) -> None:
    await tx.execute(DELETE, schedule_id)


async def disable_for(tx: Connection, workspace_ids: Sequence[UUID], now: datetime) -> int:
    return affected(await tx.execute(DISABLE_FOR, workspace_ids, now))


class Advance(Struct, frozen=True, kw_only=True):
    """What a claim changes in a schedule row. A null `last_status` leaves the outcome fields alone."""

    id: UUID
    next_run_at: datetime | None
    last_status: str | None
    last_error: str
    outcomes: int
    lost_slots: int


ADVANCE = """
    UPDATE workspace_schedules s
       SET next_run_at = a.next_run_at, lost_slots = a.lost_slots, run_count = s.run_count + a.outcomes,
           last_status = COALESCE(a.last_status, s.last_status),
           last_error = CASE WHEN a.last_status IS NULL THEN s.last_error ELSE a.last_error END,
           last_run_at = CASE WHEN a.outcomes > 0 THEN $7 ELSE s.last_run_at END
      FROM unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::text[], $5::int[], $6::int[])
        AS a (id, next_run_at, last_status, last_error, outcomes, lost_slots)
     WHERE s.id = a.id"""


async def advance(tx: Connection, rows: Sequence[Advance], now: datetime) -> None:
    await tx.execute(
        ADVANCE,
        [row.id for row in rows],
        [row.next_run_at for row in rows],
        [row.last_status for row in rows],
        [row.last_error for row in rows],
        [row.outcomes for row in rows],
        [row.lost_slots for row in rows],
        now,
    )


class Outcome(Struct, frozen=True, kw_only=True):
    """How a run ended, for its schedule's row."""

    status: str
    error: str
    empty_runs: int
    duration_ms: int | None
    is_success: bool


RECORD_OUTCOME = """
    UPDATE workspace_schedules
       SET last_run_at = $2, run_count = run_count + 1, last_status = $3, last_error = $4,
           consecutive_empty_runs = $5, last_duration_ms = COALESCE($6, last_duration_ms),
           last_success_at = CASE WHEN $7 THEN $2 ELSE last_success_at END,
           lost_slots = CASE WHEN $3 = 'skipped' THEN lost_slots ELSE 0 END
     WHERE id = $1"""


async def record_outcome(tx: Connection, schedule_id: UUID, outcome: Outcome, now: datetime) -> None:
    await tx.execute(
        RECORD_OUTCOME,
        schedule_id,
        now,
        outcome.status,
        outcome.error,
        outcome.empty_runs,
        outcome.duration_ms,
        outcome.is_success,
    )


NEAREST = "SELECT min(next_run_at) FROM workspace_schedules WHERE enabled"
UNPLANNED = (
    "SELECT id, cron_expr, timezone FROM workspace_schedules WHERE enabled AND next_run_at IS NULL LIMIT $1"
)
PLAN = "UPDATE workspace_schedules SET next_run_at = $2 WHERE id = $1 AND next_run_at IS NULL"


async def nearest(connection: Connection) -> datetime | None:
    """When the next schedule is due; in the past while another process is claiming it."""
    found: datetime | None = await connection.fetchval(NEAREST)
    return found


class Unplanned(Struct, frozen=True):
    """An enabled schedule that nothing would ever fire."""

    id: UUID
    cron_expr: str
    timezone: str


async def list_unplanned(connection: Connection, limit: int) -> list[Unplanned]:
    return await many(connection, Unplanned, UNPLANNED, limit)


async def plan(tx: Connection, schedule_id: UUID, next_run_at: datetime) -> None:
    await tx.execute(PLAN, schedule_id, next_run_at)


BACKLOG = """
    SELECT (SELECT count(*) FROM workspace_schedules WHERE enabled AND next_run_at <= $1) AS due,
           (SELECT count(*) FROM schedule_runs WHERE status = 'queued') AS queued,
           (SELECT count(*) FROM schedule_runs WHERE status = 'running') AS running"""


class Backlog(Struct, frozen=True):
    """What waits, for the liveness page."""

    due: int
    queued: int
    running: int


async def backlog(connection: Connection, now: datetime) -> Backlog:
    found = await first(connection, Backlog, BACKLOG, now)
    return found or Backlog(0, 0, 0)
