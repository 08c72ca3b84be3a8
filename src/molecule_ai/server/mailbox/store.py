"""SQL of the mailbox."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from msgspec import Struct

from molecule_ai.kernel.db import Connection, affected, many, one, to_struct

from .chain import Chain
from .schemas import Message, Post, QueueItem, State

PUT = """
    WITH row AS (
        INSERT INTO mailbox_messages (id, workspace_id, caller_id, source_kind, source_label, priority,
            method, body, idempotency_key, not_before, expires_at, reply_kind, reply_id, is_budget_fatal,
            chain_id, parent_id, depth, hops, path,
            delivery_uncertain, timeout_seconds)
        SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, COALESCE($10, now()), $11, $12, $13, $14, $15, $16, $17,
               $18, $19, $20, $21 FROM workspaces WHERE id = $2
        ON CONFLICT (workspace_id, idempotency_key) WHERE status IN ('queued', 'dispatched') DO NOTHING
        RETURNING id, workspace_id)
    SELECT id, pg_notify('molecule_mailbox', workspace_id::text) FROM row"""


async def put(tx: Connection, message_id: UUID, post: Post, key: str, chain: Chain) -> bool:
    """Insert unless an equal message is active or the target is unknown; False then."""
    row = await tx.fetchrow(
        PUT,
        message_id,
        post.target_id,
        post.caller_id,
        post.source_kind.value,
        post.source_label,
        int(post.priority),
        str(post.body.get("method") or ""),
        post.body,
        key,
        post.not_before,
        post.expires_at,
        post.reply_kind,
        post.reply_id,
        post.is_budget_fatal,
        chain.chain_id,
        chain.parent_id,
        chain.depth,
        chain.hops,
        chain.path,
        post.delivery_uncertain,
        post.timeout_seconds,
    )
    return row is not None


PUT_ROOTS = """
    WITH rows AS (
        INSERT INTO mailbox_messages (id, workspace_id, source_kind, source_label, priority, method, body,
            idempotency_key, reply_kind, reply_id, is_budget_fatal, chain_id, timeout_seconds)
        SELECT p.id, p.target_id, p.source_kind, p.source_label, p.priority, p.method, p.body, p.key,
               p.reply_kind, p.reply_id, p.is_budget_fatal, p.chain_id, p.timeout_seconds
          FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::smallint[], $6::text[], $7::jsonb[],
                      $8::text[], $9::text[], $10::text[], $11::boolean[], $12::uuid[], $13::int[])
            AS p (id, target_id, source_kind, source_label, priority, method, body, key, reply_kind, reply_id,
                  is_budget_fatal, chain_id, timeout_seconds)
         WHERE EXISTS (SELECT 1 FROM workspaces w WHERE w.id = p.target_id)
        ON CONFLICT (workspace_id, idempotency_key) WHERE status IN ('queued', 'dispatched') DO NOTHING
        RETURNING workspace_id),
    told AS (
        SELECT pg_notify('molecule_mailbox', id::text) FROM (SELECT DISTINCT workspace_id AS id FROM rows) w)
    SELECT (SELECT count(*) FROM rows), (SELECT count(*) FROM told)"""


async def put_roots(tx: Connection, rows: Sequence[tuple[UUID, Post, str, UUID]]) -> int:
    """Insert messages that nothing caused, each as (id, post, key, chain id); returns how many are new."""
    stored = await tx.fetchval(
        PUT_ROOTS,
        [row_id for row_id, *_ in rows],
        [post.target_id for _, post, *_ in rows],
        [post.source_kind.value for _, post, *_ in rows],
        [post.source_label for _, post, *_ in rows],
        [int(post.priority) for _, post, *_ in rows],
        [str(post.body.get("method") or "") for _, post, *_ in rows],
        [post.body for _, post, *_ in rows],
        [key for _, _, key, _ in rows],
        [post.reply_kind for _, post, *_ in rows],
        [post.reply_id for _, post, *_ in rows],
        [post.is_budget_fatal for _, post, *_ in rows],
        [chain_id for *_, chain_id in rows],
        [post.timeout_seconds for _, post, *_ in rows],
    )
    return int(stored)


class Twin(Struct, frozen=True):
    """An active message with the same key, and whether the target exists at all."""

    id: UUID | None
    has_target: bool


FIND_TWIN = """
    SELECT (SELECT id FROM mailbox_messages
             WHERE workspace_id = $1 AND idempotency_key = $2 AND status IN ('queued', 'dispatched')) AS id,
           EXISTS (SELECT 1 FROM workspaces WHERE id = $1) AS has_target"""


async def find_twin(connection: Connection, target_id: UUID, key: str) -> Twin:
    return await one(connection, Twin, FIND_TWIN, target_id, key)


class Depth(Struct, frozen=True):
    """How many messages wait for a target, and how many of them from one caller."""

    of_target: int
    of_caller: int


DEPTH = """
    SELECT count(*) AS of_target, count(*) FILTER (WHERE caller_id IS NOT DISTINCT FROM $2) AS of_caller
      FROM mailbox_messages WHERE workspace_id = $1 AND status = 'queued'"""


async def depth(connection: Connection, target_id: UUID, caller_id: UUID | None) -> Depth:
    return await one(connection, Depth, DEPTH, target_id, caller_id)


# What may be delivered now: the best messages of each target, as many as it has free slots. Rows that
# another replica holds are passed over. Best first over all targets, in turns, so that none waits for all
# of another's.
PICK = """
    WITH ready AS (
        SELECT w.id, w.delivery_mode = 'poll' AS is_polling, LEAST(32, CASE
               WHEN w.delivery_mode = 'poll' THEN 32
               WHEN w.status IN ('online', 'degraded') THEN l.max_concurrent_tasks - l.load
               ELSE 0 END) AS room
          FROM workspaces w JOIN workspace_load l ON l.workspace_id = w.id
         WHERE w.status NOT IN ('removed', 'failed', 'paused') AND ($1::uuid[] IS NULL OR w.id = ANY($1))
           AND EXISTS (SELECT 1 FROM mailbox_messages q WHERE q.workspace_id = w.id AND q.status = 'queued'))
    SELECT m.* FROM ready CROSS JOIN LATERAL (
        SELECT m.id, m.workspace_id, m.caller_id, m.source_kind, m.source_label, m.method, m.body,
               m.idempotency_key, m.reply_kind, m.reply_id, m.is_budget_fatal, m.timeout_seconds,
               m.chain_id, m.parent_id, m.depth, m.hops, m.path, m.attempts, m.lease_owner, m.enqueued_at,
               m.priority, ready.is_polling,
               row_number() OVER (ORDER BY m.priority DESC, m.enqueued_at, m.id) AS turn
          FROM (SELECT * FROM mailbox_messages q
                 WHERE q.workspace_id = ready.id AND q.status = 'queued' AND q.not_before <= now()
                   AND (q.expires_at IS NULL OR q.expires_at > now())
                 ORDER BY q.priority DESC, q.enqueued_at, q.id LIMIT ready.room
                   FOR UPDATE SKIP LOCKED) m) m
     WHERE ready.room > 0 ORDER BY m.turn, m.priority DESC, m.enqueued_at LIMIT $2"""


class Picked(Message, frozen=True, kw_only=True):
    """A row that this transaction holds, not yet claimed."""

    is_polling: bool


async def pick(tx: Connection, targets: Sequence[UUID] | None, limit: int) -> list[Picked]:
    """Lock deliverable messages, at most `limit`, of `targets` or of all."""
    return await many(tx, Picked, PICK, targets, limit)


# A target that is full of work of this very chain waits for this message: behind its own task it would wait
# for ever.
PICK_AWAITED = """
    SELECT m.id, m.workspace_id, m.caller_id, m.source_kind, m.source_label, m.method, m.body,
           m.idempotency_key, m.reply_kind, m.reply_id, m.is_budget_fatal, m.timeout_seconds,
           m.chain_id, m.parent_id, m.depth, m.hops, m.path, m.attempts, m.lease_owner, m.enqueued_at,
           false AS is_polling
      FROM mailbox_messages m JOIN workspaces w ON w.id = m.workspace_id
     WHERE m.status = 'queued' AND m.not_before <= now() AND (m.expires_at IS NULL OR m.expires_at > now())
       AND m.source_kind = 'agent' AND w.status IN ('online', 'degraded') AND w.delivery_mode = 'push'
       AND ($1::uuid[] IS NULL OR m.workspace_id = ANY($1)) AND NOT m.id = ANY($2)
       AND EXISTS (SELECT 1 FROM workspace_slots s WHERE s.workspace_id = m.workspace_id
                      AND s.chain_id = m.chain_id AND s.until > now())
     ORDER BY m.enqueued_at LIMIT $3 FOR UPDATE OF m SKIP LOCKED"""


async def pick_awaited(
    tx: Connection, targets: Sequence[UUID] | None, without: Sequence[UUID], limit: int
) -> list[Picked]:
    """Lock messages that their busy target waits for."""
    return await many(tx, Picked, PICK_AWAITED, targets, without, limit)


CLAIM = """
    UPDATE mailbox_messages m
       SET status = 'dispatched', dispatched_at = now(), attempts = attempts + 1,
           lease_owner = mine.holder, lease_until = now() + $3::interval
      FROM unnest($1::uuid[], $2::uuid[]) AS mine (id, holder)
     WHERE m.id = mine.id AND m.status = 'queued'"""


async def claim(tx: Connection, holders: dict[UUID, UUID], lease: timedelta) -> None:
    """Mark picked messages as under way; `holders` names the lease of each."""
    await tx.execute(CLAIM, list(holders), list(holders.values()), lease)


RENEW = """
    UPDATE mailbox_messages m SET lease_until = now() + $3::interval
      FROM unnest($1::uuid[], $2::uuid[]) AS mine (id, holder)
     WHERE m.id = mine.id AND m.lease_owner = mine.holder AND m.status = 'dispatched'"""


async def renew(tx: Connection, holders: dict[UUID, UUID], lease: timedelta) -> None:
    await tx.execute(RENEW, list(holders), list(holders.values()), lease)


SETTLE = """
    UPDATE mailbox_messages SET status = $3, response_body = $4, last_error = $5, completed_at = now(),
           lease_owner = NULL, lease_until = NULL
     WHERE id = $1 AND status = 'dispatched' AND lease_owner = $2 RETURNING attempts"""


async def settle(
    tx: Connection, message_id: UUID, holder: UUID, state: State, response: Any, error: str | None
) -> int | None:
    """End a message that `holder` has under way; None when it no longer does, else its attempts."""
    attempts: int | None = await tx.fetchval(SETTLE, message_id, holder, state.value, response, error)
    return attempts


COMPLETE = """
    UPDATE mailbox_messages SET status = 'completed', response_body = $2, attempts = attempts + 1,
           dispatched_at = now(), completed_at = now()
     WHERE id = $1 AND status = 'queued'"""


async def complete(tx: Connection, message_id: UUID, response: Any) -> None:
    """End a message that this transaction picked."""
    await tx.execute(COMPLETE, message_id, response)


HAND_BACK = """
    UPDATE mailbox_messages SET status = 'queued', lease_owner = NULL, lease_until = NULL,
           not_before = now() + $3::interval, last_error = $4,
           attempts = attempts - CASE WHEN $5 THEN 0 ELSE 1 END,
           delivery_uncertain = delivery_uncertain OR $6
     WHERE id = $1 AND status = 'dispatched' AND lease_owner = $2"""


async def hand_back(
    tx: Connection,
    message_id: UUID,
    holder: UUID,
    *,
    delay: timedelta,
    error: str,
    counted: bool,
    uncertain: bool,
) -> bool:
    """Return a message to the queue; `counted` attempts bring it nearer to its end."""
    return affected(await tx.execute(HAND_BACK, message_id, holder, delay, error, counted, uncertain)) == 1


# A replica that died may have delivered: the same message goes out again under the same messageId.
RECOVER = """
    WITH lost AS (
        SELECT id FROM mailbox_messages WHERE status = 'dispatched' AND lease_until < now()
         LIMIT 100 FOR UPDATE SKIP LOCKED)
    UPDATE mailbox_messages m
       SET status = 'queued', lease_owner = NULL, lease_until = NULL, delivery_uncertain = true,
           not_before = now(), last_error = 'the replica that delivered it is gone'
      FROM lost WHERE m.id = lost.id RETURNING m.workspace_id"""


async def recover(tx: Connection) -> list[UUID]:
    """Requeue what a dead replica had under way; returns the targets."""
    return [row["workspace_id"] for row in await tx.fetch(RECOVER)]


RELEASE = """
    UPDATE mailbox_messages m SET lease_until = now() - interval '1 second'
      FROM unnest($1::uuid[], $2::uuid[]) AS mine (id, holder)
     WHERE m.id = mine.id AND m.lease_owner = mine.holder AND m.status = 'dispatched'"""


async def release(tx: Connection, holders: dict[UUID, UUID]) -> None:
    """End the leases of a replica that stops, so that another one need not wait for them."""
    await tx.execute(RELEASE, list(holders), list(holders.values()))


class Ended(Struct, frozen=True, kw_only=True):
    """A message that ended without being under way, for its reply handler."""

    id: UUID
    workspace_id: UUID
    caller_id: UUID | None
    reply_kind: str
    reply_id: str
    attempts: int
    chain_id: UUID
    enqueued_at: datetime
    status: State
    last_error: str | None


EXPIRE = """
    WITH late AS (
        SELECT id FROM mailbox_messages WHERE status = 'queued' AND expires_at <= now()
         ORDER BY expires_at LIMIT 100 FOR UPDATE SKIP LOCKED)
    UPDATE mailbox_messages m SET status = 'dropped', completed_at = now(),
           last_error = 'expired' || COALESCE('; ' || m.last_error, '')
      FROM late WHERE m.id = late.id
    RETURNING m.id, m.workspace_id, m.caller_id, m.reply_kind, m.reply_id, m.attempts, m.chain_id,
              m.enqueued_at, m.status, m.last_error"""


async def expire(tx: Connection) -> list[Ended]:
    """Drop what waited too long."""
    return await many(tx, Ended, EXPIRE)


# Five attempts are enough, and a target that is gone or broken for good takes nothing more.
GIVE_UP = """
    WITH hopeless AS (
        SELECT m.id, CASE WHEN m.attempts >= $1 THEN 'given up after ' || m.attempts || ' attempts'
                          ELSE 'workspace ' || w.status END AS reason
          FROM mailbox_messages m JOIN workspaces w ON w.id = m.workspace_id
         WHERE m.status = 'queued' AND ($2::uuid[] IS NULL OR m.workspace_id = ANY($2))
           AND (m.attempts >= $1 OR w.status IN ('removed', 'failed'))
         LIMIT 100 FOR UPDATE OF m SKIP LOCKED)
    UPDATE mailbox_messages m SET status = 'failed', completed_at = now(),
           last_error = h.reason || COALESCE(': ' || m.last_error, '')
      FROM hopeless h WHERE m.id = h.id
    RETURNING m.id, m.workspace_id, m.caller_id, m.reply_kind, m.reply_id, m.attempts, m.chain_id,
              m.enqueued_at, m.status, m.last_error"""


async def give_up(tx: Connection, targets: Sequence[UUID] | None, max_attempts: int) -> list[Ended]:
    """Turn hopeless messages into dead letters."""
    return await many(tx, Ended, GIVE_UP, max_attempts, targets)


_END = """
    UPDATE mailbox_messages m SET status = 'dropped', completed_at = now(),
           last_error = COALESCE(m.last_error || '; ', '') || """
_ENDED = """
    RETURNING m.id, m.workspace_id, m.caller_id, m.reply_kind, m.reply_id, m.attempts, m.chain_id,
              m.enqueued_at, m.status, m.last_error"""
CANCEL = _END + "$3 WHERE m.reply_kind = $1 AND m.reply_id = $2 AND m.status = 'queued'" + _ENDED
CANCEL_CHAIN = _END + "$2 WHERE m.chain_id = $1 AND m.status = 'queued'" + _ENDED
DROP_STALE = (
    _END
    + """'dropped by an operator: older than ' || $1::int || ' minutes'
     WHERE m.status = 'queued' AND m.enqueued_at < now() - make_interval(mins => $1::int)
       AND ($2::uuid IS NULL OR m.workspace_id = $2)"""
    + _ENDED
)


ABANDON = (
    """
    UPDATE mailbox_messages m SET status = 'failed', completed_at = now(), last_error = $2
     WHERE m.workspace_id = ANY($1) AND m.status = 'queued'"""  # noqa: S608
    + _ENDED
)


async def abandon(tx: Connection, target_ids: Sequence[UUID], reason: str) -> list[Ended]:
    """Fail what waits for these targets."""
    return await many(tx, Ended, ABANDON, target_ids, reason)


async def cancel(tx: Connection, reply_kind: str, reply_id: str, reason: str) -> list[Ended]:
    return await many(tx, Ended, CANCEL, reply_kind, reply_id, reason)


async def cancel_chain(tx: Connection, chain_id: UUID, reason: str) -> list[Ended]:
    return await many(tx, Ended, CANCEL_CHAIN, chain_id, reason)


async def drop_stale(tx: Connection, minutes: int, target_id: UUID | None) -> list[Ended]:
    return await many(tx, Ended, DROP_STALE, minutes, target_id)


ASLEEP = """
    SELECT w.id FROM workspaces w
     WHERE w.status = 'hibernated' AND w.delivery_mode = 'push' AND ($1::uuid[] IS NULL OR w.id = ANY($1))
       AND EXISTS (SELECT 1 FROM mailbox_messages m
                    WHERE m.workspace_id = w.id AND m.status = 'queued' AND m.not_before <= now())
     LIMIT 100"""


async def asleep(connection: Connection, targets: Sequence[UUID] | None) -> list[UUID]:
    """Hibernated targets that somebody waits for."""
    return [row["id"] for row in await connection.fetch(ASLEEP, targets)]


# Seconds until something becomes due, expires, or loses its lease.
NEAREST = """
    SELECT EXTRACT(EPOCH FROM LEAST(
        (SELECT min(not_before) FROM mailbox_messages WHERE status = 'queued' AND not_before > now()),
        (SELECT min(expires_at) FROM mailbox_messages WHERE status = 'queued' AND expires_at IS NOT NULL),
        (SELECT min(lease_until) FROM mailbox_messages WHERE status = 'dispatched')) - now())"""


async def nearest(connection: Connection) -> float | None:
    seconds = await connection.fetchval(NEAREST)
    return None if seconds is None else float(seconds)


FIND_ITEM = """
    SELECT id AS queue_id, workspace_id, caller_id, status, priority, attempts, delivery_uncertain,
           last_error, enqueued_at, dispatched_at, completed_at, expires_at, response_body
      FROM mailbox_messages WHERE id = $1 AND workspace_id = $2"""


async def find_item(connection: Connection, item_id: UUID, target_id: UUID) -> QueueItem | None:
    """A message of a target, without the fields that are null."""
    row = await connection.fetchrow(FIND_ITEM, item_id, target_id)
    if row is None:
        return None
    return to_struct(QueueItem, ((name, value) for name, value in row.items() if value is not None))


SWEEP = """
    DELETE FROM mailbox_messages WHERE id IN (
        SELECT id FROM mailbox_messages WHERE completed_at < now() - make_interval(days => $1) LIMIT 5000)"""


async def sweep(tx: Connection, days: int) -> int:
    """Forget what ended long ago, a batch at a time."""
    return affected(await tx.execute(SWEEP, days))
