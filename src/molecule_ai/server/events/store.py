"""SQL of the event log."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from molecule_ai.kernel.db import Connection, affected, many
from molecule_ai.server.auth.acts import Act

from .schemas import RecordedEvent

# Written and announced in one statement, so that no writer can do one without the other.
APPEND = """
    WITH row AS (
        INSERT INTO structure_events (event_type, workspace_id, payload, actor, chain_id, agent_id, target_id,
                                      request)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING seq)
    SELECT seq, pg_notify('molecule_events', seq::text) FROM row"""


async def append(
    tx: Connection,
    event_type: str,
    workspace_id: UUID | None,
    payload: dict[str, Any],
    actor: str | None,
    chain_id: UUID | None,
    agent_id: UUID | None,
    target_id: UUID | None,
    request: Act | None,
) -> int:
    seq = await tx.fetchval(
        APPEND, event_type, workspace_id, payload, actor, chain_id, agent_id, target_id, request
    )
    return int(seq)


APPEND_MANY = """
    WITH given AS (
        SELECT * FROM jsonb_to_recordset($1::jsonb)
            AS g(position int, event_type text, workspace_id uuid, payload jsonb, actor text, request jsonb)),
    rows AS (
        INSERT INTO structure_events (event_type, workspace_id, payload, actor, request)
        SELECT event_type, workspace_id, payload, actor, request FROM given ORDER BY position RETURNING seq)
    SELECT count(pg_notify('molecule_events', seq::text)) FROM rows"""


async def append_many(tx: Connection, rows: Sequence[dict[str, Any]]) -> None:
    await tx.execute(APPEND_MANY, [{"position": n, **row} for n, row in enumerate(rows)])


_COLUMNS: LiteralString = """
    SELECT id, event_type, workspace_id, payload, created_at, seq, actor, chain_id, request
      FROM structure_events """
_WHERE: LiteralString = """
       ($2::text[] IS NULL OR event_type = ANY($2)) AND ($3::timestamptz IS NULL OR created_at < $3)
       AND ($4::bigint IS NULL OR seq > $4) AND ($5::bigint IS NULL OR seq <= $5) ORDER BY seq """
_OF_ALL: LiteralString = "WHERE $1::uuid IS NULL AND "
_OF_ONE: LiteralString = "WHERE workspace_id = $1 AND "
LISTS: dict[tuple[bool, bool], LiteralString] = {
    (True, False): _COLUMNS + _OF_ONE + _WHERE + "DESC LIMIT $6",
    (True, True): _COLUMNS + _OF_ONE + _WHERE + "ASC LIMIT $6",
    (False, False): _COLUMNS + _OF_ALL + _WHERE + "DESC LIMIT $6",
    (False, True): _COLUMNS + _OF_ALL + _WHERE + "ASC LIMIT $6",
}


async def list_events(
    connection: Connection,
    workspace_id: UUID | None,
    limit: int,
    *,
    types: Sequence[str] | None = None,
    before: datetime | None = None,
    after_seq: int | None = None,
    through_seq: int | None = None,
    ascending: bool = False,
) -> list[RecordedEvent]:
    """Events of one workspace or of all, in either order."""
    sql = LISTS[workspace_id is not None, ascending]
    return await many(
        connection, RecordedEvent, sql, workspace_id, types, before, after_seq, through_seq, limit
    )


SETTLED = "SELECT settled_through('structure_events_seq_seq', 1)"


async def settled(connection: Connection) -> int:
    """The position up to which no unfinished transaction can add an event any more."""
    return int(await connection.fetchval(SETTLED))


SEQ_OF = """
    SELECT seq FROM structure_events WHERE id = $1 AND ($2::uuid IS NULL OR workspace_id = $2)"""


async def seq_of(connection: Connection, event_id: str, workspace_id: UUID | None) -> int | None:
    """The position of an event, given by a client as text; None for anything that is no such event."""
    try:
        known = UUID(event_id)
    except ValueError:
        return None
    seq: int | None = await connection.fetchval(SEQ_OF, known, workspace_id)
    return seq


NOTIFY_FRAMES = "SELECT pg_notify('molecule_frames', payload) FROM unnest($1::text[]) payload"
STORE_FRAME = """
    WITH row AS (INSERT INTO event_frames (frame) VALUES ($1) RETURNING id)
    SELECT pg_notify('molecule_frames', '#' || id::text) FROM row"""
READ_FRAMES = "SELECT id, frame FROM event_frames WHERE id = ANY($1)"


async def notify_frames(connection: Connection, payloads: Sequence[str]) -> None:
    """Send JSON arrays of broadcast-only frames to all processes."""
    await connection.execute(NOTIFY_FRAMES, payloads)


async def store_frame(connection: Connection, frame: str) -> None:
    """Send one frame that is too large for a notification: it waits in `event_frames`."""
    await connection.execute(STORE_FRAME, frame)


async def read_frames(connection: Connection, frame_ids: Sequence[int]) -> dict[int, str]:
    return {row["id"]: row["frame"] for row in await connection.fetch(READ_FRAMES, frame_ids)}


INSERT_TICKET = """
    INSERT INTO ws_tickets (ticket_hash, principal, expires_at)
    VALUES ($1, $2, now() + make_interval(secs => $3)) RETURNING expires_at"""
TAKE_TICKET = "DELETE FROM ws_tickets WHERE ticket_hash = $1 AND expires_at > now() RETURNING principal"


async def insert_ticket(
    tx: Connection, ticket_hash: bytes, principal: dict[str, Any], seconds: int
) -> datetime:
    expires_at: datetime = await tx.fetchval(INSERT_TICKET, ticket_hash, principal, seconds)
    return expires_at


async def take_ticket(tx: Connection, ticket_hash: bytes) -> dict[str, Any] | None:
    """Whom the ticket stands for; it works once."""
    principal: dict[str, Any] | None = await tx.fetchval(TAKE_TICKET, ticket_hash)
    return principal


SWEEP_FRAMES = """
    DELETE FROM event_frames WHERE id IN (
        SELECT id FROM event_frames WHERE created_at < now() - interval '1 minute'
         ORDER BY created_at LIMIT $1 FOR UPDATE SKIP LOCKED)"""
SWEEP_TICKETS = """
    DELETE FROM ws_tickets WHERE ticket_hash IN (
        SELECT ticket_hash FROM ws_tickets WHERE expires_at < now() LIMIT $1 FOR UPDATE SKIP LOCKED)"""
# The condition on the type is that of a partial index: structural and audit events stay.
SWEEP_EVENTS = """
    DELETE FROM structure_events WHERE seq IN (
        SELECT seq FROM structure_events
         WHERE created_at < now() - make_interval(days => $1)
           AND event_type ~ '^(CRON|DELEGATION|CHANNEL|REQUEST|APPROVAL|SCHEDULE)_'
         ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED)"""


async def sweep_frames(tx: Connection, limit: int) -> int:
    """Delete frames that every process has read long ago."""
    return affected(await tx.execute(SWEEP_FRAMES, limit))


async def sweep_tickets(tx: Connection, limit: int) -> int:
    """Delete tickets that ran out unused."""
    return affected(await tx.execute(SWEEP_TICKETS, limit))


async def sweep_events(tx: Connection, days: int, limit: int) -> int:
    """Delete operational events older than so many days (contract 03 §7.2)."""
    return affected(await tx.execute(SWEEP_EVENTS, days, limit))
