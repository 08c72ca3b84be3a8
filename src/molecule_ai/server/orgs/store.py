"""SQL of the orgs room: the lock of imports, their record, and who is there already."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from msgspec import Struct

from molecule_ai.kernel.db import Connection, many

_IMPORT = 0x494D504F  # one import at a time
TRY_LOCK = "SELECT pg_try_advisory_lock($1)"
UNLOCK = "SELECT pg_advisory_unlock($1)"


async def try_lock(connection: Connection) -> bool:
    """Become the only import. The lock belongs to the connection, so that a crash frees it."""
    return bool(await connection.fetchval(TRY_LOCK, _IMPORT))


async def unlock(connection: Connection) -> None:
    await connection.execute(UNLOCK, _IMPORT)


class Known(Struct, frozen=True, kw_only=True):
    """A workspace that stands where the document wants one."""

    position: int
    id: UUID
    tier: int


MATCH = """
    SELECT wanted.position::int AS position, w.id, w.tier
      FROM unnest($1::uuid[], $2::text[]) WITH ORDINALITY AS wanted(parent, name, position)
      JOIN workspaces w
        ON COALESCE(w.parent_id, '00000000-0000-0000-0000-000000000000')
         = COALESCE(wanted.parent, '00000000-0000-0000-0000-000000000000')
       AND w.name = wanted.name AND w.status <> 'removed'"""


async def match(connection: Connection, wanted: Sequence[tuple[UUID | None, str]]) -> dict[int, Known]:
    """By position in `wanted`, the live workspaces with that parent and name."""
    found = await many(
        connection, Known, MATCH, [parent for parent, _ in wanted], [name for _, name in wanted]
    )
    return {known.position - 1: known for known in found}


RIGHTMOST = "SELECT max(x) FROM canvas_layouts"


async def rightmost_x(connection: Connection) -> float | None:
    """Where the rightmost workspace stands; None on an empty canvas."""
    x: float | None = await connection.fetchval(RIGHTMOST)
    return x


# Whoever holds the lock knows that no other import runs, whatever the table says.
START = """
    WITH interrupted AS (
        UPDATE org_imports SET status = 'interrupted', finished_at = now() WHERE status = 'running')
    INSERT INTO org_imports (id, template, mode, actor) VALUES ($1, $2, $3, $4)"""
FINISH = """
    UPDATE org_imports SET status = CASE WHEN $4 = '' THEN 'completed' ELSE 'failed' END,
           created_count = $2, skipped_count = $3, error = $4, finished_at = now()
     WHERE id = $1
    RETURNING (EXTRACT(epoch FROM finished_at - started_at) * 1000)::int AS duration_ms"""


async def start(tx: Connection, import_id: UUID, template: str, mode: str, actor: str) -> None:
    await tx.execute(START, import_id, template, mode, actor)


async def finish(tx: Connection, import_id: UUID, created: int, skipped: int, error: str) -> int:
    """Close the record; returns how many milliseconds the import took."""
    return int(await tx.fetchval(FINISH, import_id, created, skipped, error))
