"""SQL of the activity log."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, LiteralString
from uuid import UUID

from msgspec import Struct

from molecule_ai.kernel.db import Connection, affected, encode_json, first, many

from .schemas import Entry, SourceKind

# One statement for any number of rows. A row of an absent workspace, or with a key that is there
# already, is left out and does not come back. JSON travels as text: an array of JSON arrays would be
# taken for one array of two dimensions.
INSERT = """
    INSERT INTO activity_logs (
        id, workspace_id, activity_type, source_kind, source_id, source_label, target_id, method, summary,
        request_body, response_body, tool_trace, metadata, duration_ms, status, error_detail,
        idempotency_key, schedule_id, chain_id, chain_parent_id, chain_depth)
    SELECT u.id, u.workspace_id, u.activity_type, u.source_kind, u.source_id, u.source_label, u.target_id,
           u.method, u.summary, u.request_body::jsonb, u.response_body::jsonb, u.tool_trace::jsonb,
           u.metadata::jsonb, u.duration_ms, u.status, u.error_detail, u.idempotency_key, u.schedule_id,
           u.chain_id, u.chain_parent_id, u.chain_depth
      FROM unnest(
        $1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::uuid[], $6::text[], $7::uuid[], $8::text[],
        $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::int[], $15::text[],
        $16::text[], $17::text[], $18::uuid[], $19::uuid[], $20::uuid[], $21::int[]) WITH ORDINALITY AS u (
        id, workspace_id, activity_type, source_kind, source_id, source_label, target_id, method, summary,
        request_body, response_body, tool_trace, metadata, duration_ms, status, error_detail,
        idempotency_key, schedule_id, chain_id, chain_parent_id, chain_depth, place)
      JOIN workspaces w ON w.id = u.workspace_id
     ORDER BY u.place
        ON CONFLICT (workspace_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
    RETURNING id, created_at"""
_JSON = frozenset({"request_body", "response_body", "tool_trace", "metadata"})
_COLUMNS = (
    "workspace_id",
    "activity_type",
    "source_kind",
    "source_id",
    "source_label",
    "target_id",
    "method",
    "summary",
    "request_body",
    "response_body",
    "tool_trace",
    "metadata",
    "duration_ms",
    "status",
    "error_detail",
    "idempotency_key",
    "schedule_id",
    "chain_id",
    "chain_parent_id",
    "chain_depth",
)


async def insert(tx: Connection, ids: Sequence[UUID], entries: Sequence[Entry]) -> dict[UUID, datetime]:
    """Insert rows; returns the instant of each row that was inserted."""
    columns = ([_value(entry, name) for entry in entries] for name in _COLUMNS)
    return {row["id"]: row["created_at"] for row in await tx.fetch(INSERT, ids, *columns)}


def _value(entry: Entry, name: str) -> Any:
    value = getattr(entry, name)
    return encode_json(value) if name in _JSON and value is not None else value


CONCLUDE = """
    UPDATE activity_logs SET response_body = $3, tool_trace = $4, duration_ms = $5, status = $6,
           error_detail = $7
     WHERE workspace_id = $1 AND idempotency_key = $2 RETURNING id, created_at"""


async def conclude(tx: Connection, entry: Entry) -> tuple[UUID, datetime] | None:
    """Write the end of what a row with this key began; None when there is no such row."""
    row = await tx.fetchrow(
        CONCLUDE,
        entry.workspace_id,
        entry.idempotency_key,
        entry.response_body,
        entry.tool_trace,
        entry.duration_ms,
        entry.status,
        entry.error_detail,
    )
    return None if row is None else (row["id"], row["created_at"])


FIND_KEY = "SELECT id FROM activity_logs WHERE workspace_id = $1 AND idempotency_key = $2"


async def find_key(connection: Connection, workspace_id: UUID, key: str | None) -> UUID | None:
    found: UUID | None = await connection.fetchval(FIND_KEY, workspace_id, key)
    return found


class Row(Struct, frozen=True):
    """A row of the log with what is known of its source."""

    id: UUID
    workspace_id: UUID
    seq: int
    activity_type: str
    source_id: UUID | None
    source_kind: SourceKind
    source_label: str | None
    target_id: UUID | None
    method: str | None
    summary: str | None
    request_body: Any
    response_body: Any
    tool_trace: Any
    metadata: Any
    duration_ms: int | None
    status: str
    error_detail: str | None
    schedule_id: UUID | None
    chain_id: UUID | None
    created_at: datetime
    peer_name: str | None
    peer_role: str | None


class Filter(Struct, frozen=True, kw_only=True):
    """Which rows of the log; all conditions hold together."""

    workspace_id: UUID | None
    limit: int
    types: tuple[str, ...] = ()
    source: str | None = None
    peer_id: UUID | None = None
    before: datetime | None = None
    since_seconds: int | None = None
    after_seq: int | None = None
    through_seq: int | None = None
    without_notices: bool = False
    order: Literal["asc", "desc"] = "desc"
    newest_ascending: bool = False  # the newest rows, the oldest of them first


_SELECT: LiteralString = """
    SELECT a.id, a.workspace_id, a.seq, a.activity_type, a.source_id, a.source_kind, a.source_label,
           a.target_id, a.method, a.summary, a.request_body, a.response_body, a.tool_trace, a.metadata,
           a.duration_ms, a.status, a.error_detail, a.schedule_id, a.chain_id, a.created_at,
           p.name AS peer_name, p.role AS peer_role
      FROM (SELECT * FROM activity_logs a WHERE """
_WHERE: LiteralString = """
         AND ($3::text IS NULL OR CASE $3
                WHEN 'canvas' THEN a.source_id IS NULL AND (a.method = 'notify' OR a.source_kind
                                   NOT IN ('scheduler', 'channel', 'webhook', 'system'))
                WHEN 'agent' THEN a.source_id IS NOT NULL
                ELSE a.source_kind = $3 END)
         AND ($4::uuid IS NULL OR a.source_id = $4 OR a.target_id = $4)
         AND ($5::timestamptz IS NULL OR a.created_at < $5)
         AND ($6::int IS NULL OR a.created_at >= now() - make_interval(secs => $6))
         AND ($7::bigint IS NULL OR a.seq > $7) AND ($8::bigint IS NULL OR a.seq <= $8)
         AND NOT ($9 AND a.method IS NOT DISTINCT FROM 'notify')
       ORDER BY a.seq """
_TAIL: LiteralString = " LIMIT $10) a LEFT JOIN workspaces p ON p.id = a.source_id ORDER BY a.seq "
# A single type is an equality, so that its index gives the order too.
_OF_TYPE: LiteralString = "a.workspace_id = $1 AND a.activity_type = $2"
_OF_TYPES: LiteralString = "a.workspace_id = $1 AND ($2::text[] IS NULL OR a.activity_type = ANY($2))"
_OF_ALL: LiteralString = "$1::uuid IS NULL AND ($2::text[] IS NULL OR a.activity_type = ANY($2))"

LISTS: dict[tuple[LiteralString, str], LiteralString] = {
    (scope, order): _SELECT + scope + _WHERE + direction + _TAIL + direction
    for scope in (_OF_TYPE, _OF_TYPES, _OF_ALL)
    for order, direction in (("asc", "ASC"), ("desc", "DESC"))
}


async def list_rows(connection: Connection, wanted: Filter) -> list[Row]:
    scope, types = _scope(wanted)
    return await many(
        connection,
        Row,
        LISTS[scope, wanted.order],
        wanted.workspace_id,
        types,
        wanted.source,
        wanted.peer_id,
        wanted.before,
        wanted.since_seconds,
        wanted.after_seq,
        wanted.through_seq,
        wanted.without_notices,
        wanted.limit,
    )


def _scope(wanted: Filter) -> tuple[LiteralString, str | list[str] | None]:
    if wanted.workspace_id is None:
        return _OF_ALL, list(wanted.types) or None
    if len(wanted.types) == 1:
        return _OF_TYPE, wanted.types[0]
    return _OF_TYPES, list(wanted.types) or None


CURSOR = "SELECT seq FROM activity_logs WHERE id = $1 AND workspace_id = $2"
SETTLED = "SELECT settled_through('activity_logs_seq_seq', 2)"


async def cursor(connection: Connection, activity_id: UUID, workspace_id: UUID) -> int | None:
    seq: int | None = await connection.fetchval(CURSOR, activity_id, workspace_id)
    return seq


async def settled(connection: Connection) -> int:
    """The position up to which no unfinished transaction can add a row any more."""
    return int(await connection.fetchval(SETTLED))


class Speaker(Struct, frozen=True):
    """What the log needs to know of a workspace."""

    name: str
    polls: bool
    removed: bool
    may_talk: bool


SPEAKER = """
    SELECT name, delivery_mode = 'poll' AS polls, status = 'removed' AS removed,
           talk_to_user_enabled AS may_talk
      FROM workspaces WHERE id = $1"""


async def find_speaker(connection: Connection, workspace_id: UUID) -> Speaker | None:
    return await first(connection, Speaker, SPEAKER, workspace_id)


_SWEEP: LiteralString = """
    DELETE FROM activity_logs WHERE id IN (
        SELECT id FROM activity_logs
         WHERE created_at < now() - make_interval(days => $1) AND """
_BATCH: LiteralString = " ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED)"
_CHAT: LiteralString = "activity_type = 'a2a_receive' AND source_id IS NULL"
# The conditions are those of the three partial indexes on `created_at`.
SWEEPS: dict[str, LiteralString] = {
    "chat": _SWEEP + _CHAT + _BATCH,
    "delegation": _SWEEP + "activity_type = 'delegation'" + _BATCH,
    "other": _SWEEP + "activity_type <> 'delegation' AND NOT (" + _CHAT + ")" + _BATCH,
}


async def sweep(tx: Connection, kind: str, days: int, limit: int) -> int:
    """Delete at most `limit` rows of one class that are older than `days`."""
    return affected(await tx.execute(SWEEPS[kind], days, limit))
