"""SQL of the delegations ledger."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from msgspec import UNSET, Struct

from molecule_ai.kernel.db import Connection, affected, first, many

from .schemas import DelegationRow, DelegationStatus, Ledger

FREE_KEY = """
    UPDATE delegations SET idempotency_key = NULL
     WHERE caller_id = $1 AND idempotency_key = $2
       AND (status = 'failed' OR (status = 'completed' AND completed_at < now() - $3::interval))"""


async def free_key(tx: Connection, caller_id: UUID, key: str, window: timedelta) -> None:
    """Let go of a key whose delegation failed or ended long enough ago."""
    await tx.execute(FREE_KEY, caller_id, key, window)


# The unique index on the key lets one of two repeats win.
INSERT = """
    INSERT INTO delegations (delegation_id, caller_id, callee_id, request_id, task, task_preview, status,
                             was_queued, is_recorded, chain_id, idempotency_key)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $7 = 'queued', $8, $9, $10)
        ON CONFLICT DO NOTHING RETURNING request_id"""


async def insert(tx: Connection, new: Ledger, preview: str, key: str | None) -> bool:
    """Store a delegation; False when its id or its key is taken."""
    found = await tx.fetchval(
        INSERT,
        new.delegation_id,
        new.caller_id,
        new.callee_id,
        new.request_id,
        new.task,
        preview,
        new.status.value,
        new.is_recorded,
        new.chain_id,
        key,
    )
    return found is not None


_COLUMNS = """
    SELECT delegation_id, caller_id, callee_id, request_id, task, status, was_queued, is_recorded, chain_id
      FROM delegations WHERE """
FIND_BY_KEY = _COLUMNS + "caller_id = $1 AND idempotency_key = $2"
FIND = _COLUMNS + "caller_id = $1 AND delegation_id = $2 FOR UPDATE"
FIND_BY_REQUEST = _COLUMNS + "request_id = $1 FOR UPDATE"
FIND_OPEN = (
    _COLUMNS
    + """caller_id = $1 AND callee_id = $2 AND delegation_id = $3
       AND status NOT IN ('completed', 'failed') FOR UPDATE"""
)


async def find_by_key(connection: Connection, caller_id: UUID, key: str) -> Ledger | None:
    return await first(connection, Ledger, FIND_BY_KEY, caller_id, key)


async def find(tx: Connection, caller_id: UUID, delegation_id: str) -> Ledger | None:
    """A delegation, locked."""
    return await first(tx, Ledger, FIND, caller_id, delegation_id)


async def find_by_request(tx: Connection, request_id: UUID) -> Ledger | None:
    """A delegation by the reply id of its message, locked."""
    return await first(tx, Ledger, FIND_BY_REQUEST, request_id)


async def find_open(tx: Connection, caller_id: UUID, callee_id: UUID, delegation_id: str) -> Ledger | None:
    """A delegation that its callee may still answer, locked."""
    return await first(tx, Ledger, FIND_OPEN, caller_id, callee_id, delegation_id)


PROGRESS = """
    UPDATE delegations SET status = $2, was_queued = was_queued OR $2 = 'queued', updated_at = now(),
           last_heartbeat = CASE WHEN $2 = 'in_progress' THEN now() ELSE last_heartbeat END
     WHERE request_id = $1 AND status NOT IN ('completed', 'failed')"""


async def progress(tx: Connection, request_id: UUID, status: DelegationStatus) -> bool:
    """Move an open delegation; a final one stays as it is."""
    return affected(await tx.execute(PROGRESS, request_id, status.value)) == 1


# A final state never changes; the same one told again may bring what was missing.
FINISH = """
    UPDATE delegations SET status = $2, updated_at = now(), completed_at = COALESCE(completed_at, now()),
           result = COALESCE(result, $3), result_preview = COALESCE(result_preview, $4),
           error_detail = COALESCE(error_detail, $5)
     WHERE request_id = $1 AND (status = $2 OR status NOT IN ('completed', 'failed'))"""


async def finish(
    tx: Connection,
    request_id: UUID,
    status: DelegationStatus,
    *,
    result: str | None,
    preview: str | None,
    error: str | None,
) -> bool:
    return affected(await tx.execute(FINISH, request_id, status.value, result, preview, error)) == 1


class Filter(Struct, frozen=True, kw_only=True):
    """Which rows are wanted."""

    delegation_id: str | None = None
    status: str | None = None
    limit: int = 50
    before: datetime | None = None


# One row for the request and, once there is something to tell, one for the result, freshest first; texts
# are read only for the rows that are shown.
LIST = """
    WITH shown AS (
        SELECT d.caller_id, d.delegation_id, r.is_result, r.at
          FROM delegations d CROSS JOIN LATERAL (VALUES
               (false, d.created_at),
               (true, CASE WHEN d.status IN ('completed', 'failed') THEN d.completed_at
                           WHEN d.status = 'queued' THEN d.updated_at END)) AS r (is_result, at)
         WHERE d.caller_id = $1 AND r.at IS NOT NULL
           AND ($2::text IS NULL OR d.delegation_id = $2) AND ($3::text IS NULL OR d.status = $3)
           AND ($4::timestamptz IS NULL OR r.at < $4)
         ORDER BY r.at DESC, r.is_result DESC, d.delegation_id LIMIT $5)
    SELECT CASE WHEN s.is_result THEN d.result_id ELSE d.request_id END AS id, s.is_result,
           s.at AS created_at, d.delegation_id, d.caller_id AS source_id, d.callee_id AS target_id, d.status,
           d.error_detail,
           CASE WHEN s.is_result THEN d.result END AS result,
           CASE WHEN s.is_result THEN d.result_preview END AS result_preview
      FROM shown s JOIN delegations d ON d.caller_id = s.caller_id AND d.delegation_id = s.delegation_id
     ORDER BY s.at DESC, s.is_result DESC, d.delegation_id"""


async def list_rows(connection: Connection, caller_id: UUID, wanted: Filter) -> list[DelegationRow]:
    rows = await connection.fetch(
        LIST, caller_id, wanted.delegation_id, wanted.status, wanted.before, wanted.limit
    )
    return [_row(dict(row)) for row in rows]


def _row(found: dict[str, Any]) -> DelegationRow:
    result, preview = found["result"], found["result_preview"]
    return DelegationRow(
        id=found["id"],
        type="delegation",
        method="delegate_result" if found["is_result"] else "delegate",
        source_id=found["source_id"],
        target_id=found["target_id"],
        summary=_summary(found["is_result"], found["status"], found["target_id"], result or preview or ""),
        status=DelegationStatus(found["status"]),
        created_at=found["created_at"],
        delegation_id=found["delegation_id"],
        error=found["error_detail"] or UNSET,
        response_preview=preview or UNSET,
        result=result or UNSET,
    )


def _summary(is_result: bool, status: str, target_id: UUID, text: str) -> str:
    if not is_result:
        return f"Delegating to {target_id}"
    match status:
        case "completed":
            return f"Delegation completed ({text[:80]})"
        case "queued":
            return "Delegation queued — target at capacity"
        case _:
            return "Delegation failed"


STUCK = """
    UPDATE delegations SET status = 'stuck', updated_at = now()
     WHERE status = 'in_progress' AND last_heartbeat < now() - interval '10 minutes'"""


async def mark_stuck(tx: Connection) -> int:
    return affected(await tx.execute(STUCK))


OVERDUE = _COLUMNS + (
    "status NOT IN ('completed', 'failed') AND deadline < now()"
    " ORDER BY deadline LIMIT 100 FOR UPDATE SKIP LOCKED"
)


async def overdue(tx: Connection) -> list[Ledger]:
    """Open delegations whose time is over, locked."""
    return await many(tx, Ledger, OVERDUE)


SWEEP = """
    DELETE FROM delegations WHERE request_id IN (
        SELECT request_id FROM delegations
         WHERE completed_at < now() - make_interval(days => $1) LIMIT 5000)"""


async def sweep(tx: Connection, days: int) -> int:
    return affected(await tx.execute(SWEEP, days))
