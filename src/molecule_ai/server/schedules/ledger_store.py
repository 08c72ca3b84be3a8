"""SQL of the ledger: one row per due instant of a schedule, and one per run that somebody asked for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from msgspec import Struct

from molecule_ai.kernel.db import Connection, affected, first, many

from .schemas import Reason, RunStatus, Trigger


class NewRun(Struct, frozen=True, kw_only=True):
    """A row to write."""

    id: UUID
    schedule_id: UUID
    workspace_id: UUID
    trigger: Trigger
    scheduled_for: datetime
    status: RunStatus
    late_ms: int
    request: dict[str, Any]
    reason: Reason = Reason.NONE
    covers_since: datetime | None = None
    error_detail: str = ""


# A slot that has its row already keeps it; only what is returned may be acted upon.
INSERT = """
    INSERT INTO schedule_runs (id, schedule_id, workspace_id, trigger, scheduled_for, status, reason,
                               covers_since, late_ms, error_detail, request, claimed_by, recorded_at,
                               finished_at)
    SELECT r.id, r.schedule_id, r.workspace_id, r.trigger, r.scheduled_for, r.status, r.reason,
           r.covers_since, r.late_ms, r.error_detail, r.request, $12, $13,
           CASE WHEN r.status = 'queued' THEN NULL ELSE $13::timestamptz END
      FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::timestamptz[], $6::text[], $7::text[],
                  $8::timestamptz[], $9::bigint[], $10::text[], $11::jsonb[])
        AS r (id, schedule_id, workspace_id, trigger, scheduled_for, status, reason, covers_since, late_ms,
              error_detail, request)
    ON CONFLICT DO NOTHING RETURNING id"""


async def insert(tx: Connection, runs: Sequence[NewRun], *, claimed_by: str, now: datetime) -> set[UUID]:
    """Write the rows; return the ids of those that are new."""
    rows = await tx.fetch(
        INSERT,
        [run.id for run in runs],
        [run.schedule_id for run in runs],
        [run.workspace_id for run in runs],
        [run.trigger for run in runs],
        [run.scheduled_for for run in runs],
        [run.status for run in runs],
        [run.reason for run in runs],
        [run.covers_since for run in runs],
        [run.late_ms for run in runs],
        [run.error_detail for run in runs],
        [run.request for run in runs],
        claimed_by,
        now,
    )
    return {row["id"] for row in rows}


class OpenRun(Struct, frozen=True):
    """A run whose outcome is not known yet."""

    id: UUID
    schedule_id: UUID
    workspace_id: UUID
    trigger: Trigger
    request: dict[str, Any]


OPEN = """
    SELECT id, schedule_id, workspace_id, trigger, request FROM schedule_runs
     WHERE schedule_id = ANY($1) AND status IN ('queued', 'running') ORDER BY scheduled_for"""


async def list_open(connection: Connection, schedule_ids: Sequence[UUID]) -> list[OpenRun]:
    return await many(connection, OpenRun, OPEN, schedule_ids)


class Finished(Struct, frozen=True, kw_only=True):
    """The end of a run."""

    id: UUID
    status: RunStatus
    reason: Reason = Reason.NONE
    error_detail: str = ""
    output_preview: str = ""
    duration_ms: int | None = None
    attempts: int = 1


# A run ends once: whoever comes later changes nothing.
FINISH = """
    UPDATE schedule_runs
       SET status = $2, reason = $3, error_detail = $4, output_preview = $5, duration_ms = $6, attempt = $7,
           finished_at = $8, lease_until = NULL,
           started_at = COALESCE(started_at, $8::timestamptz - $6::int * interval '1 millisecond')
     WHERE id = $1 AND status IN ('queued', 'running')
    RETURNING id, schedule_id, workspace_id, trigger, request"""


async def finish(tx: Connection, end: Finished, now: datetime) -> OpenRun | None:
    """End an open run. None when it has ended already."""
    return await first(
        tx,
        OpenRun,
        FINISH,
        end.id,
        end.status,
        end.reason,
        end.error_detail,
        end.output_preview,
        end.duration_ms,
        end.attempts,
        now,
    )


class Run(Struct, frozen=True, kw_only=True):
    """A row of the ledger."""

    id: UUID
    trigger: Trigger
    scheduled_for: datetime
    status: RunStatus
    reason: Reason
    covers_since: datetime | None
    late_ms: int
    attempt: int
    recorded_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    duration_ms: int | None
    error_detail: str
    output_preview: str
    request: dict[str, Any]


_RUN = """
    SELECT id, trigger, scheduled_for, status, reason, covers_since, late_ms, attempt, recorded_at,
           started_at, finished_at, duration_ms, error_detail, output_preview, request
      FROM schedule_runs WHERE workspace_id = $1 AND schedule_id = $2"""
OUTCOMES = (
    _RUN
    + """ AND status IN ('ok', 'stale', 'error', 'skipped')
       AND ($3::timestamptz IS NULL OR scheduled_for < $3)
     ORDER BY scheduled_for DESC LIMIT $4"""
)
COVERING = (
    _RUN
    + """ AND trigger IN ('cron', 'catchup') AND scheduled_for > $3
       AND COALESCE(covers_since, scheduled_for) <= $4
     ORDER BY scheduled_for LIMIT 1"""
)
KNOWN = "SELECT EXISTS (SELECT 1 FROM schedule_runs WHERE workspace_id = $1 AND schedule_id = $2)"


async def list_outcomes(
    connection: Connection, workspace_id: UUID, schedule_id: UUID, *, before: datetime | None, limit: int
) -> list[Run]:
    """Outcomes, the newest slot first."""
    return await many(connection, Run, OUTCOMES, workspace_id, schedule_id, before, limit)


async def find_covering(
    connection: Connection, workspace_id: UUID, schedule_id: UUID, *, after: datetime, until: datetime
) -> Run | None:
    """The row of the slot in (after, until], or the one that stands for it."""
    return await first(connection, Run, COVERING, workspace_id, schedule_id, after, until)


async def is_known(connection: Connection, workspace_id: UUID, schedule_id: UUID) -> bool:
    """Whether the ledger remembers a schedule of this workspace, deleted or not."""
    return bool(await connection.fetchval(KNOWN, workspace_id, schedule_id))


# The canvas posts the prompt itself after asking for a run (contract 03 §2.8); this finds that run.
RECENT_MANUAL = """
    SELECT r.id FROM schedule_runs r JOIN workspace_schedules s ON s.id = r.schedule_id
     WHERE r.workspace_id = $1 AND s.workspace_id = $1 AND s.prompt = $2 AND r.trigger = 'manual'
       AND r.scheduled_for > $3::timestamptz - interval '120 seconds'
     ORDER BY r.scheduled_for DESC LIMIT 1"""


async def find_recent_manual(
    connection: Connection, workspace_id: UUID, prompt: str, now: datetime
) -> UUID | None:
    found: UUID | None = await connection.fetchval(RECENT_MANUAL, workspace_id, prompt, now)
    return found


# Locks go from the schedule to the run, never back: a claim holds the schedule when it ends a held run.
HOLD_EMPTY_RUNS = """
    SELECT s.consecutive_empty_runs FROM workspace_schedules s
     WHERE s.id = (SELECT schedule_id FROM schedule_runs WHERE id = $1) FOR UPDATE OF s"""


async def hold_empty_runs(tx: Connection, run_id: UUID) -> int:
    """Lock a run's schedule; return its empty runs in a row, 0 when it is gone."""
    return int(await tx.fetchval(HOLD_EMPTY_RUNS, run_id) or 0)


# A message that was handed back and goes out again starts its run anew.
START = """
    UPDATE schedule_runs r
       SET status = 'running', started_at = $2, lease_until = $2::timestamptz + COALESCE(
               (SELECT s.timeout_seconds * interval '1 second'
                  FROM workspace_schedules s WHERE s.id = r.schedule_id), $3::interval)
     WHERE r.id = $1 AND r.status IN ('queued', 'running')"""


async def start(tx: Connection, run_id: UUID, now: datetime, timeout: timedelta) -> None:
    """Mark a run as under way, with the time until which it may be."""
    await tx.execute(START, run_id, now, timeout)


class ExpiredRun(Struct, frozen=True):
    """A run under way past its time limit."""

    id: UUID
    started_at: datetime
    timeout_seconds: int | None


EXPIRED = """
    SELECT r.id, r.started_at, s.timeout_seconds
      FROM schedule_runs r LEFT JOIN workspace_schedules s ON s.id = r.schedule_id
     WHERE r.status = 'running' AND r.lease_until <= $1 ORDER BY r.lease_until LIMIT $2"""
# A purge deletes the message with the workspace: nobody will answer.
END_ORPHANS = """
    UPDATE schedule_runs r
       SET status = 'skipped', reason = 'gone', error_detail = 'skipped: workspace purged', finished_at = $1
     WHERE r.status IN ('queued', 'running') AND r.recorded_at < $1::timestamptz - interval '1 minute'
       AND NOT EXISTS (SELECT 1 FROM workspaces w WHERE w.id = r.workspace_id)"""


async def list_expired(connection: Connection, now: datetime, limit: int) -> list[ExpiredRun]:
    return await many(connection, ExpiredRun, EXPIRED, now, limit)


async def end_orphans(tx: Connection, now: datetime) -> int:
    """End the runs of workspaces that do not exist any more."""
    return affected(await tx.execute(END_ORPHANS, now))


SWEEP = """
    DELETE FROM schedule_runs WHERE id IN (
        SELECT id FROM schedule_runs
         WHERE recorded_at < $1 AND status NOT IN ('queued', 'running') ORDER BY recorded_at LIMIT $2)"""


async def sweep(tx: Connection, before: datetime, limit: int) -> int:
    return affected(await tx.execute(SWEEP, before, limit))
