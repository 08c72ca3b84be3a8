"""SQL of the viewports."""

from __future__ import annotations

from uuid import UUID

from msgspec import Struct

from molecule_ai.kernel.db import Connection, first

SHARED = UUID("00000000-0000-0000-0000-000000000001")


class Row(Struct, frozen=True):
    """A saved viewport."""

    x: float
    y: float
    zoom: float


# A person's own comes before the shared one.
FIND = """
    SELECT x, y, zoom FROM canvas_viewport WHERE id = $1 OR user_id = $2
     ORDER BY user_id IS NULL LIMIT 1"""


async def find(connection: Connection, user_id: str | None) -> Row | None:
    return await first(connection, Row, FIND, SHARED, user_id)


SAVE_SHARED = """
    INSERT INTO canvas_viewport (id, x, y, zoom) VALUES ($1, $2, $3, $4)
    ON CONFLICT (id) DO UPDATE SET x = $2, y = $3, zoom = $4, saved_at = now()"""
SAVE_OWN = """
    INSERT INTO canvas_viewport (user_id, x, y, zoom) VALUES ($1, $2, $3, $4)
    ON CONFLICT (user_id) DO UPDATE SET x = $2, y = $3, zoom = $4, saved_at = now()"""


async def save(tx: Connection, user_id: str | None, seen: Row) -> None:
    if user_id is None:
        await tx.execute(SAVE_SHARED, SHARED, seen.x, seen.y, seen.zoom)
    else:
        await tx.execute(SAVE_OWN, user_id, seen.x, seen.y, seen.zoom)
