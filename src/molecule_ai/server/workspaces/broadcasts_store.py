"""SQL of broadcasts."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from msgspec import Struct

from molecule_ai.kernel.db import Connection, first, one


class Sender(Struct, frozen=True, kw_only=True):
    """Who wants to speak to everybody."""

    name: str
    status: str
    broadcast_enabled: bool


FIND_SENDER = "SELECT name, status::text AS status, broadcast_enabled FROM workspaces WHERE id = $1"


async def find_sender(connection: Connection, workspace_id: UUID) -> Sender | None:
    return await first(connection, Sender, FIND_SENDER, workspace_id)


class Spoken(Struct, frozen=True, kw_only=True):
    """The current minute of a workspace."""

    messages: int
    seconds_left: int


COUNT = """
    INSERT INTO workspace_broadcasts AS b (workspace_id, minute_at, messages)
    VALUES ($1, date_trunc('minute', now()), 1)
    ON CONFLICT (workspace_id) DO UPDATE
       SET messages = CASE WHEN b.minute_at = EXCLUDED.minute_at THEN b.messages + 1 ELSE 1 END,
           minute_at = EXCLUDED.minute_at
    RETURNING messages, 60 - EXTRACT(SECOND FROM now())::int AS seconds_left"""


async def count(tx: Connection, workspace_id: UUID) -> Spoken:
    """Count one more; two at once take turns."""
    return await one(tx, Spoken, COUNT, workspace_id)


FIND_OTHERS = "SELECT id FROM workspaces WHERE id <> $1 AND status <> 'removed' ORDER BY created_at, id"


async def find_others(connection: Connection, workspace_id: UUID) -> Sequence[UUID]:
    return [row["id"] for row in await connection.fetch(FIND_OTHERS, workspace_id)]
