"""SQL of the free configuration object."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from molecule_ai.kernel.db import Connection

READ = "SELECT data FROM workspace_config WHERE workspace_id = $1"


async def read(connection: Connection, workspace_id: UUID) -> dict[str, Any]:
    data: dict[str, Any] | None = await connection.fetchval(READ, workspace_id)
    return data or {}


MERGE = """
    INSERT INTO workspace_config (workspace_id, data)
    SELECT id, $2::jsonb FROM workspaces WHERE id = $1 AND status <> 'removed'
    ON CONFLICT (workspace_id) DO UPDATE
       SET data = workspace_config.data || EXCLUDED.data, updated_at = now()
    RETURNING octet_length(data::text)"""


async def merge(tx: Connection, workspace_id: UUID, data: dict[str, Any]) -> int | None:
    """Replace top-level keys; the size of the whole afterwards, None without a live workspace."""
    size: int | None = await tx.fetchval(MERGE, workspace_id, data)
    return size
