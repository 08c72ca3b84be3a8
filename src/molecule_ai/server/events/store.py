"""SQL of the event log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from molecule_ai.kernel.db import Connection, first, many

from .schemas import RecordedEvent

# Written and announced in one statement, so that no writer can do one without the other.
APPEND = """
    WITH row AS (
        INSERT INTO structure_events (event_type, workspace_id, payload, actor, chain_id, agent_id, target_id)
        VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING seq)
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
) -> int:
    return int(
        await tx.fetchval(APPEND, event_type, workspace_id, payload, actor, chain_id, agent_id, target_id)
    )


APPEND_MANY = """
    WITH given AS (
        SELECT * FROM jsonb_to_recordset($1::jsonb)
            AS g(position int, event_type text, workspace_id uuid, payload jsonb, actor text)),
    rows AS (
        INSERT INTO structure_events (event_type, workspace_id, payload, actor)
        SELECT event_type, workspace_id, payload, actor FROM given ORDER BY position RETURNING seq)
    SELECT count(pg_notify('molecule_events', seq::text)) FROM rows"""


async def append_many(tx: Connection, rows: Sequence[dict[str, Any]]) -> None:
    await tx.execute(APPEND_MANY, [{"position": n, **row} for n, row in enumerate(rows)])


READ = """
    SELECT id, event_type, workspace_id, payload, created_at, seq, actor, chain_id
      FROM structure_events WHERE seq = ANY($1) ORDER BY seq"""


async def read(connection: Connection, seqs: Sequence[int]) -> list[RecordedEvent]:
    return await many(connection, RecordedEvent, READ, seqs)


LIST = """
    SELECT id, event_type, workspace_id, payload, created_at, seq, actor, chain_id FROM structure_events
     WHERE ($1::uuid IS NULL OR workspace_id = $1) AND ($2::text[] IS NULL OR event_type = ANY($2))
       AND ($3::timestamptz IS NULL OR created_at < $3)
     ORDER BY seq DESC LIMIT $4"""
LIST_OF_WORKSPACE = """
    SELECT id, event_type, workspace_id, payload, created_at, seq, actor, chain_id FROM structure_events
     WHERE workspace_id = $1 AND ($2::text[] IS NULL OR event_type = ANY($2))
       AND ($3::timestamptz IS NULL OR created_at < $3)
     ORDER BY seq DESC LIMIT $4"""
LIST_SINCE = """
    SELECT id, event_type, workspace_id, payload, created_at, seq, actor, chain_id FROM structure_events
     WHERE seq > $4 AND ($1::uuid IS NULL OR workspace_id = $1)
       AND ($2::text[] IS NULL OR event_type = ANY($2))
     ORDER BY seq LIMIT $3"""


async def list_newest(
    connection: Connection, workspace_id: UUID | None, types: Sequence[str] | None, before: Any, limit: int
) -> list[RecordedEvent]:
    if workspace_id is not None:
        return await many(connection, RecordedEvent, LIST_OF_WORKSPACE, workspace_id, types, before, limit)
    return await many(connection, RecordedEvent, LIST, None, types, before, limit)


async def list_since(
    connection: Connection, workspace_id: UUID | None, types: Sequence[str] | None, seq: int, limit: int
) -> list[RecordedEvent]:
    """Events after `seq`, oldest first."""
    return await many(connection, RecordedEvent, LIST_SINCE, workspace_id, types, limit, seq)


FIND = """
    SELECT id, event_type, workspace_id, payload, created_at, seq, actor, chain_id
      FROM structure_events WHERE id = $1"""


async def find(connection: Connection, event_id: UUID) -> RecordedEvent | None:
    return await first(connection, RecordedEvent, FIND, event_id)


LATEST = "SELECT COALESCE(max(seq), 0) FROM structure_events"


async def latest(connection: Connection) -> int:
    return int(await connection.fetchval(LATEST))


NOTIFY_FRAMES = "SELECT pg_notify('molecule_frames', payload) FROM unnest($1::text[]) payload"
STORE_FRAME = """
    WITH row AS (INSERT INTO event_frames (frame) VALUES ($1) RETURNING id)
    SELECT pg_notify('molecule_frames', '#' || id::text) FROM row"""
READ_FRAME = "SELECT frame FROM event_frames WHERE id = $1"


async def notify_frames(connection: Connection, payloads: Sequence[str]) -> None:
    """Send JSON arrays of broadcast-only frames to all processes."""
    await connection.execute(NOTIFY_FRAMES, payloads)


async def store_frame(connection: Connection, frame: str) -> None:
    """Send one frame that is too large for a notification: it waits in `event_frames`."""
    await connection.execute(STORE_FRAME, frame)


async def read_frame(connection: Connection, frame_id: int) -> str | None:
    text: str | None = await connection.fetchval(READ_FRAME, frame_id)
    return text


SWEEP_FRAMES = "DELETE FROM event_frames WHERE created_at < now() - interval '1 minute'"
SWEEP_EVENTS = """
    DELETE FROM structure_events WHERE seq IN (
        SELECT seq FROM structure_events
         WHERE created_at < now() - make_interval(days => $1)
           AND event_type ~ '^(CRON|DELEGATION|CHANNEL|REQUEST|APPROVAL|SCHEDULE)_' LIMIT $2)"""
