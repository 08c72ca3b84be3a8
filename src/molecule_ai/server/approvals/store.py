"""SQL of approvals."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from msgspec import Struct

from molecule_ai.kernel.db import Connection, first, many

from .schemas import Approval, ApprovalRule, ApprovalStatus, Approver, PendingApproval


class Creator(Struct, frozen=True):
    """The workspace that asks."""

    parent_id: UUID | None


FIND_CREATOR = "SELECT parent_id FROM workspaces WHERE id = $1 AND status <> 'removed'"


async def find_creator(connection: Connection, workspace_id: UUID) -> Creator | None:
    return await first(connection, Creator, FIND_CREATOR, workspace_id)


class NewApproval(Struct, frozen=True, kw_only=True):
    """A checked request, ready to be written."""

    id: UUID
    workspace_id: UUID
    task_id: str
    action: str
    reason: str
    context: dict[str, Any]
    metadata: dict[str, Any]
    options: list[Any]
    approver: Approver
    request_hash: str
    raised_by: str
    ttl: timedelta | None
    parent_id: UUID | None
    idempotency_key: str | None


_COLUMNS = """
    id, workspace_id, gate_workspace_id, task_id, action, reason, status, decided_by, decided_at, comment,
    chosen_option, context, metadata, options, approver, request_hash, consumed_at, expires_at, escalated_to,
    created_at"""
# Without a lifetime nothing expires, and nothing escalates a second time.
INSERT = """
    INSERT INTO approval_requests (id, workspace_id, task_id, action, reason, context, metadata, options,
                                   approver, request_hash, raised_by, idempotency_key, expires_at,
                                   escalate_at, escalated_to)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, now() + $13::interval,
            CASE WHEN $14::uuid IS NOT NULL THEN now() + $13::interval / 2 END,
            CASE WHEN $14::uuid IS NULL THEN '{}'::uuid[] ELSE ARRAY[$14::uuid] END)
    ON CONFLICT (workspace_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
    RETURNING id"""
FIND_BY_KEY = "SELECT" + _COLUMNS + " FROM approval_requests WHERE workspace_id = $1 AND idempotency_key = $2"


async def insert(tx: Connection, new: NewApproval) -> Approval | None:
    """None when the idempotency key was used before."""
    is_new = await tx.fetchval(
        INSERT,
        new.id,
        new.workspace_id,
        new.task_id,
        new.action,
        new.reason,
        new.context,
        new.metadata,
        new.options,
        new.approver,
        new.request_hash,
        new.raised_by,
        new.idempotency_key,
        new.ttl,
        new.parent_id,
    )
    return await find(tx, new.id) if is_new else None


async def find_by_key(connection: Connection, workspace_id: UUID, key: str) -> Approval | None:
    return await first(connection, Approval, FIND_BY_KEY, workspace_id, key)


FIND = "SELECT" + _COLUMNS + " FROM approval_requests WHERE id = $1"
LIST = (
    "SELECT"
    + _COLUMNS
    + """
      FROM approval_requests
     WHERE (workspace_id = $1 OR gate_workspace_id = $1) AND ($2::text IS NULL OR status = $2)
     ORDER BY created_at DESC, id LIMIT $3"""
)
LIST_PENDING = """
    SELECT a.id, a.workspace_id, w.name AS workspace_name, a.action, a.reason, a.status, a.created_at,
           a.expires_at, a.options, a.context, a.gate_workspace_id
      FROM approval_requests a JOIN workspaces w ON w.id = a.workspace_id
     WHERE a.status IN ('pending', 'escalated') AND w.status <> 'removed'
     ORDER BY a.created_at DESC, a.id LIMIT $1"""


async def find(connection: Connection, approval_id: UUID) -> Approval | None:
    return await first(connection, Approval, FIND, approval_id)


async def list_for_workspace(
    connection: Connection, workspace_id: UUID, *, status: str | None, limit: int
) -> list[Approval]:
    """Requests that a workspace raised or guards, newest first."""
    return await many(connection, Approval, LIST, workspace_id, status, limit)


async def list_pending(connection: Connection, limit: int) -> list[PendingApproval]:
    """Open requests of every workspace, newest first."""
    return await many(connection, PendingApproval, LIST_PENDING, limit)


# The race of two decisions, of a decision and a withdrawal, of either and the expiry ends here. A request
# past its time belongs to the expiry, even before the sweeper comes.
SETTLE = """
    UPDATE approval_requests
       SET status = $2, decided_by = $3, decided_at = now(), decided_principal = $4, comment = $5,
           chosen_option = $6, escalate_at = NULL
     WHERE id = $1 AND status IN ('pending', 'escalated') AND (expires_at IS NULL OR expires_at > now())
    RETURNING id"""


async def settle(
    tx: Connection,
    approval_id: UUID,
    status: ApprovalStatus,
    *,
    by: str,
    principal: dict[str, Any],
    comment: str = "",
    option: str = "",
) -> Approval | None:
    """End an open request. None when it is not open any more."""
    ended = await tx.fetchval(SETTLE, approval_id, status, by, principal, comment, option)
    return await find(tx, approval_id) if ended else None


WITHDRAW_ALL = """
    UPDATE approval_requests
       SET status = 'withdrawn', decided_by = $2, decided_at = now(), escalate_at = NULL
     WHERE workspace_id = ANY($1) AND status IN ('pending', 'escalated') RETURNING id"""


async def withdraw_all(tx: Connection, workspace_ids: Sequence[UUID], *, by: str) -> list[Approval]:
    """End every open request of these workspaces."""
    ended = [row["id"] for row in await tx.fetch(WITHDRAW_ALL, list(workspace_ids), by)]
    return await many(tx, Approval, FIND_ALL, ended) if ended else []


EXPIRE = """
    UPDATE approval_requests
       SET status = 'denied', decided_by = 'auto-expired', decided_at = now(), escalate_at = NULL
     WHERE id IN (SELECT id FROM approval_requests
                   WHERE status IN ('pending', 'escalated') AND expires_at <= now()
                   ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED)
    RETURNING id"""
FIND_ALL = "SELECT" + _COLUMNS + " FROM approval_requests WHERE id = ANY($1) ORDER BY expires_at"
# The next workspace above the last one that was told, if there is one.
ESCALATE = """
    WITH due AS (
        SELECT id, escalated_to FROM approval_requests
         WHERE status IN ('pending', 'escalated') AND escalate_at <= now()
         ORDER BY escalate_at LIMIT $1 FOR UPDATE SKIP LOCKED),
    above AS (
        SELECT due.id, next.id AS next_id
          FROM due LEFT JOIN workspaces told ON told.id = due.escalated_to[cardinality(due.escalated_to)]
          LEFT JOIN workspaces next ON next.id = told.parent_id AND next.status <> 'removed')
    UPDATE approval_requests a
       SET escalate_at = NULL,
           escalated_to = CASE WHEN above.next_id IS NULL THEN a.escalated_to
                               ELSE a.escalated_to || above.next_id END
      FROM above WHERE a.id = above.id
    RETURNING a.id, a.workspace_id, a.action, a.reason, above.next_id, cardinality(a.escalated_to) AS level"""


async def expire(tx: Connection, limit: int) -> list[Approval]:
    """Deny what waited too long."""
    ids = [row["id"] for row in await tx.fetch(EXPIRE, limit)]
    return await many(tx, Approval, FIND_ALL, ids) if ids else []


class Escalation(Struct, frozen=True, kw_only=True):
    """A request at half its life, and who is told next; null: nobody is left."""

    id: UUID
    workspace_id: UUID
    action: str
    reason: str
    next_id: UUID | None
    level: int


async def escalate(tx: Connection, limit: int) -> list[Escalation]:
    return await many(tx, Escalation, ESCALATE, limit)


# One use, and of two users at once one.
CONSUME = """
    UPDATE approval_requests SET consumed_at = now()
     WHERE id = (SELECT id FROM approval_requests
                  WHERE workspace_id = $1 AND request_hash = $2 AND status = 'approved'
                    AND consumed_at IS NULL
                  ORDER BY decided_at LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING id"""


async def consume(tx: Connection, workspace_id: UUID, request_hash: str) -> UUID | None:
    found: UUID | None = await tx.fetchval(CONSUME, workspace_id, request_hash)
    return found


LIST_RULES = """
    SELECT action, approver, ttl_seconds, reason FROM approval_rules
     WHERE workspace_id = $1 ORDER BY position"""
CLEAR_RULES = "DELETE FROM approval_rules WHERE workspace_id = $1"
ADD_RULES = """
    INSERT INTO approval_rules (workspace_id, position, action, approver, ttl_seconds, reason)
    SELECT $1, r.position, r.action, r.approver, r.ttl_seconds, r.reason
      FROM unnest($2::text[], $3::text[], $4::int[], $5::text[])
           WITH ORDINALITY AS r (action, approver, ttl_seconds, reason, position)"""


async def list_rules(connection: Connection, workspace_id: UUID) -> list[ApprovalRule]:
    return await many(connection, ApprovalRule, LIST_RULES, workspace_id)


async def replace_rules(tx: Connection, workspace_id: UUID, rules: Sequence[ApprovalRule]) -> None:
    await tx.execute(CLEAR_RULES, workspace_id)
    await tx.execute(
        ADD_RULES,
        workspace_id,
        [rule.action for rule in rules],
        [rule.approver for rule in rules],
        [rule.ttl_seconds for rule in rules],
        [rule.reason for rule in rules],
    )
