"""SQL of traffic: one look before a message, one statement to enter a workspace, one to leave it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from molecule_ai.kernel.db import Connection, affected, many, one, to_struct
from molecule_ai.server.mailbox.chain import Chain, Task
from molecule_ai.server.workspaces.tree import CAN_COMMUNICATE

from .schemas import Entrance, Entry, Situation, Slot, Target

_TARGET = """
    SELECT w.id, w.name, w.status::text AS status, w.url, w.handle, w.delivery_mode, w.runtime,
           w.max_concurrent_tasks,
           w.capabilities, w.idle_timeout_seconds, l.load,
           w.budget_limit IS NOT NULL AND w.monthly_spend >= w.budget_limit AS is_over_budget,
           COALESCE((SELECT array_agg(s.chain_id) FROM workspace_slots s
                      WHERE s.workspace_id = w.id AND s.until > now()), '{}') AS target_chains
      FROM workspaces w JOIN workspace_load l ON l.workspace_id = w.id WHERE w.id = """
LOOK = _TARGET + "$1"
_TASKS = """(SELECT jsonb_agg(to_jsonb(s) ORDER BY s.since) FROM workspace_slots s
              WHERE s.workspace_id = $1 AND s.until > now()) AS tasks"""
LOOK_FOR_CALLER = (
    # All parts are constants.
    "SELECT p.is_allowed, target.*, "  # noqa: S608
    + _TASKS
    + " FROM (SELECT ("
    + CAN_COMMUNICATE
    + ") AS is_allowed) AS p LEFT JOIN ("
    + _TARGET
    + "$2) AS target ON true"
)


async def look(connection: Connection, caller: UUID | None, target: UUID) -> Situation:
    """Everything about a message that the database knows, in one round trip; no caller means no hierarchy."""
    if caller is None:
        row = await connection.fetchrow(LOOK, target)
    else:
        row = await connection.fetchrow(LOOK_FOR_CALLER, caller, target)
    if row is None:
        return Situation(target=None, is_allowed=True)
    found = dict(row)
    is_allowed, tasks = found.pop("is_allowed", True), found.pop("tasks", None)
    chains = found.pop("target_chains") or ()
    return Situation(
        target=None if found["id"] is None else to_struct(Target, found.items()),
        is_allowed=is_allowed,
        tasks=msgspec.convert(tasks or [], tuple[Task, ...]),
        target_chains=tuple(chains),
    )


# One statement decides everything that two messages can race for. A slot is free when its lease is over;
# the primary key lets one of two takers win, and the loser comes again. Slots beyond max_concurrent_tasks
# are for messages that the target itself waits for.
ENTER = """
    WITH stop AS (SELECT 1 FROM message_chains WHERE chain_id = $4 AND stopped_at IS NOT NULL),
    twin AS (SELECT id FROM mailbox_messages
              WHERE workspace_id = $1 AND idempotency_key = $3 AND status IN ('queued', 'dispatched')),
    pair AS (
        INSERT INTO message_pairs AS p (caller_id, target_id, minute_at, messages)
        SELECT $8::uuid, $1, date_trunc('minute', now()), 1 WHERE $8::uuid IS NOT NULL
        ON CONFLICT (caller_id, target_id) DO UPDATE
           SET messages = CASE WHEN p.minute_at = EXCLUDED.minute_at THEN p.messages + 1 ELSE 1 END,
               minute_at = EXCLUDED.minute_at
        RETURNING messages),
    child AS (UPDATE workspace_slots SET children = children + 1
               WHERE workspace_id = $8 AND holder = $10 RETURNING 1),
    free AS (
        SELECT n FROM workspace_load l, generate_series(1, l.max_concurrent_tasks + $11::int) n
         WHERE l.workspace_id = $1 AND l.load < l.max_concurrent_tasks + $11
           AND NOT EXISTS (SELECT 1 FROM workspace_slots s
                            WHERE s.workspace_id = $1 AND s.slot = n AND s.until > now())
         ORDER BY n LIMIT 1),
    taken AS (
        INSERT INTO workspace_slots AS s (workspace_id, slot, holder, message_id, chain_id, depth, hops, path,
                                          since, until)
        SELECT $1, n, $2, $3, $4, $5, $6, $7, now(), now() + $12::interval FROM free
         WHERE NOT EXISTS (SELECT 1 FROM stop) AND NOT EXISTS (SELECT 1 FROM twin)
           AND COALESCE((SELECT messages FROM pair), 0) <= $9
            ON CONFLICT (workspace_id, slot) DO UPDATE
           SET holder = EXCLUDED.holder, message_id = EXCLUDED.message_id, chain_id = EXCLUDED.chain_id,
               depth = EXCLUDED.depth, hops = EXCLUDED.hops, path = EXCLUDED.path, children = 0,
               -- A slot that covers the last report goes on covering it: that task was one of ours.
               since = COALESCE((SELECT s.since FROM workspaces w
                                  WHERE w.id = s.workspace_id AND s.since <= w.last_heartbeat_at
                                    AND s.until >= w.last_heartbeat_at - interval '2 seconds'),
                                EXCLUDED.since),
               until = EXCLUDED.until
         WHERE s.until <= now() RETURNING slot)
    SELECT (SELECT slot FROM taken) AS slot, EXISTS (SELECT 1 FROM stop) AS is_stopped,
           COALESCE((SELECT messages FROM pair), 0) AS pair_messages, (SELECT id FROM twin) AS twin_id"""


async def enter(
    connection: Connection,
    entry: Entry,
    holder: UUID,
    *,
    counted: bool,
    pair_limit: int,
    overflow: int,
    lease: timedelta,
) -> Entrance:
    """Try to take a slot; `counted` says whether the message counts for the pair of caller and target."""
    chain = entry.chain
    return await one(
        connection,
        Entrance,
        ENTER,
        entry.target.id,
        holder,
        entry.message_id,
        chain.chain_id,
        chain.depth,
        chain.hops,
        chain.path,
        entry.caller_id if counted else None,
        pair_limit,
        entry.cause.holder if entry.cause and counted else None,
        overflow,
        lease,
    )


COUNT = """
    WITH child AS (UPDATE workspace_slots SET children = children + 1 WHERE workspace_id = $1 AND holder = $3)
    INSERT INTO message_pairs AS p (caller_id, target_id, minute_at, messages)
    VALUES ($1, $2, date_trunc('minute', now()), 1)
        ON CONFLICT (caller_id, target_id) DO UPDATE
       SET messages = CASE WHEN p.minute_at = EXCLUDED.minute_at THEN p.messages + 1 ELSE 1 END,
           minute_at = EXCLUDED.minute_at
    RETURNING messages"""


async def count(tx: Connection, caller_id: UUID, target_id: UUID, cause: UUID | None) -> int:
    """Count a message that takes no slot; returns how many the pair had this minute."""
    return int(await tx.fetchval(COUNT, caller_id, target_id, cause))


# Messages from the mailbox that were picked for their target's free slots. What finds its slot taken by
# another replica in between stays queued.
ENTER_MANY = """
    WITH wanted AS (
        SELECT *, row_number() OVER (PARTITION BY workspace_id ORDER BY place) AS nth
          FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::int[], $6::int[])
               WITH ORDINALITY AS m (workspace_id, holder, message_id, chain_id, depth, hops, place)),
    free AS (
        SELECT w.id, n, row_number() OVER (PARTITION BY w.id ORDER BY n) AS nth
          FROM workspaces w, generate_series(1, w.max_concurrent_tasks + $9::int) n
         WHERE w.id = ANY($1) AND NOT EXISTS (
               SELECT 1 FROM workspace_slots s
                WHERE s.workspace_id = w.id AND s.slot = n AND s.until > now()))
    INSERT INTO workspace_slots AS s (workspace_id, slot, holder, message_id, chain_id, depth, hops, path,
                                      since, until)
    SELECT m.workspace_id, f.n, m.holder, m.message_id, m.chain_id, m.depth, m.hops,
           ARRAY(SELECT step::uuid FROM jsonb_array_elements_text($7::jsonb -> (m.place - 1)::int) step),
           now(), now() + $8::interval
      FROM wanted m JOIN free f ON f.id = m.workspace_id AND f.nth = m.nth
     ORDER BY m.workspace_id, f.n
        ON CONFLICT (workspace_id, slot) DO UPDATE
       SET holder = EXCLUDED.holder, message_id = EXCLUDED.message_id, chain_id = EXCLUDED.chain_id,
           depth = EXCLUDED.depth, hops = EXCLUDED.hops, path = EXCLUDED.path, children = 0,
           since = COALESCE((SELECT s.since FROM workspaces w
                              WHERE w.id = s.workspace_id AND s.since <= w.last_heartbeat_at
                                AND s.until >= w.last_heartbeat_at - interval '2 seconds'), EXCLUDED.since),
           until = EXCLUDED.until
     WHERE s.until <= now()
    RETURNING workspace_id, slot, holder"""


async def enter_many(
    tx: Connection, wanted: Sequence[tuple[UUID, UUID, str, Chain]], lease: timedelta, overflow: int
) -> list[Slot]:
    """Take slots for (workspace, holder, message id, chain), best first; returns what could be taken."""
    chains = [chain for _, _, _, chain in wanted]
    return await many(
        tx,
        Slot,
        ENTER_MANY,
        [workspace_id for workspace_id, _, _, _ in wanted],
        [holder for _, holder, _, _ in wanted],
        [message_id for _, _, message_id, _ in wanted],
        [chain.chain_id for chain in chains],
        [chain.depth for chain in chains],
        [chain.hops for chain in chains],
        [chain.path for chain in chains],
        lease,
        overflow,
    )


# Whoever waits in the mailbox for one of these workspaces is told that there is room.
LEAVE = """
    WITH mine AS (SELECT * FROM unnest($1::uuid[], $2::int[], $3::uuid[]) AS m (workspace_id, slot, holder)),
    gone AS (
        UPDATE workspace_slots s SET until = now() FROM mine
         WHERE s.workspace_id = mine.workspace_id AND s.slot = mine.slot AND s.holder = mine.holder
           AND s.until > now())
    SELECT pg_notify('molecule_mailbox', workspace_id::text) FROM (SELECT DISTINCT workspace_id FROM mine) w
     WHERE EXISTS (SELECT 1 FROM mailbox_messages m
                    WHERE m.workspace_id = w.workspace_id AND m.status = 'queued')"""


async def leave(connection: Connection, slots: Sequence[Slot]) -> None:
    await connection.execute(
        LEAVE,
        [slot.workspace_id for slot in slots],
        [slot.slot for slot in slots],
        [slot.holder for slot in slots],
    )


ROOM = """
    SELECT pg_notify('molecule_mailbox', target::text) FROM unnest($1::uuid[]) AS target
     WHERE EXISTS (SELECT 1 FROM mailbox_messages m WHERE m.workspace_id = target AND m.status = 'queued')"""


async def tell_of_room(connection: Connection, workspace_ids: Sequence[UUID]) -> None:
    """Tell the mailbox of workspaces that got free, if something waits for them."""
    await connection.execute(ROOM, workspace_ids)


RENEW = """
    UPDATE workspace_slots s SET until = now() + $4::interval
      FROM unnest($1::uuid[], $2::int[], $3::uuid[]) AS mine (workspace_id, slot, holder)
     WHERE s.workspace_id = mine.workspace_id AND s.slot = mine.slot AND s.holder = mine.holder
       AND s.until > now()"""


async def renew(connection: Connection, slots: Sequence[Slot], lease: timedelta) -> None:
    await connection.execute(
        RENEW,
        [slot.workspace_id for slot in slots],
        [slot.slot for slot in slots],
        [slot.holder for slot in slots],
        lease,
    )


NOTICE = """
    INSERT INTO message_chains (chain_id, reason) VALUES ($1, $2)
        ON CONFLICT (chain_id) DO NOTHING RETURNING chain_id"""


async def notice(tx: Connection, chain_id: UUID, reason: str) -> bool:
    """Remember that a chain was refused something; False when that is known."""
    return await tx.fetchval(NOTICE, chain_id, reason) is not None


STOP = """
    INSERT INTO message_chains AS c (chain_id, reason, stopped_at, stopped_by) VALUES ($1, $2, now(), $3)
        ON CONFLICT (chain_id) DO UPDATE
       SET reason = CASE WHEN c.stopped_at IS NULL THEN EXCLUDED.reason ELSE c.reason END,
           stopped_at = COALESCE(c.stopped_at, EXCLUDED.stopped_at),
           stopped_by = COALESCE(c.stopped_by, EXCLUDED.stopped_by)
    RETURNING stopped_at, stopped_at = now() AS is_new"""


async def stop(tx: Connection, chain_id: UUID, reason: str, by: str) -> tuple[datetime, bool]:
    """Stop a chain; returns since when it is stopped and whether this call did it."""
    row = await tx.fetchrow(STOP, chain_id, reason, by)
    if row is None:
        raise LookupError("the statement returned no row")
    return row["stopped_at"], row["is_new"]


IS_STOPPED = "SELECT EXISTS (SELECT 1 FROM message_chains WHERE chain_id = $1 AND stopped_at IS NOT NULL)"


async def is_stopped(connection: Connection, chain_id: UUID) -> bool:
    return bool(await connection.fetchval(IS_STOPPED, chain_id))


IN_FLIGHT = "SELECT DISTINCT workspace_id FROM workspace_slots WHERE chain_id = $1 AND until > now()"


async def in_flight(connection: Connection, chain_id: UUID) -> list[UUID]:
    """Workspaces that work on a message of the chain."""
    return [row["workspace_id"] for row in await connection.fetch(IN_FLIGHT, chain_id)]


QUIET = """
    SELECT EXTRACT(EPOCH FROM now() - GREATEST(w.last_heartbeat_at, (
               SELECT e.created_at FROM structure_events e WHERE e.workspace_id = w.id
                ORDER BY e.seq DESC LIMIT 1)))::float
      FROM workspaces w WHERE w.id = $1"""


async def quiet_seconds(connection: Connection, workspace_id: UUID) -> float | None:
    """How long ago the last sign of life of a workspace is; None when there never was one."""
    seconds: float | None = await connection.fetchval(QUIET, workspace_id)
    return seconds


IS_HELD_DOWN = """
    WITH RECURSIVE up(id, parent_id, status, level) AS (
        SELECT w.id, w.parent_id, w.status, 0 FROM workspaces w WHERE w.id = $1
        UNION ALL
        SELECT w.id, w.parent_id, w.status, up.level + 1
          FROM up JOIN workspaces w ON w.id = up.parent_id WHERE up.level < 32)
    SELECT EXISTS (SELECT 1 FROM up WHERE level > 0 AND status = 'paused')"""


async def is_held_down(connection: Connection, workspace_id: UUID) -> bool:
    """Whether somebody above is paused."""
    return bool(await connection.fetchval(IS_HELD_DOWN, workspace_id))


IS_POLLING = "SELECT EXISTS (SELECT 1 FROM workspaces WHERE id = $1 AND delivery_mode = 'poll')"


async def is_polling(connection: Connection, workspace_id: UUID) -> bool:
    return bool(await connection.fetchval(IS_POLLING, workspace_id))


SPOKE = """
    UPDATE workspaces SET last_outbound_at = now()
     WHERE id IN (SELECT id FROM workspaces WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE)"""


async def spoke(connection: Connection, workspace_ids: Sequence[UUID]) -> None:
    """Note that these workspaces sent something just now."""
    await connection.execute(SPOKE, workspace_ids)


SWEEP = """
    WITH slots AS (DELETE FROM workspace_slots WHERE until < now() - interval '1 day'),
    pairs AS (DELETE FROM message_pairs WHERE minute_at < now() - interval '1 day')
    DELETE FROM message_chains WHERE noticed_at < now() - interval '30 days'"""


async def sweep(tx: Connection) -> int:
    """Forget what nobody can ask for any more."""
    return affected(await tx.execute(SWEEP))
