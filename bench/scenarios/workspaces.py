"""Reading workspaces: the list of 1,000 and one with its own token."""

from __future__ import annotations

import asyncio
import hashlib
import os
from typing import Any
from uuid import uuid4

from bench.load import wrk
from bench.target import Target

_PLANT = """
    WITH w AS (
        INSERT INTO workspaces (id, name, status, runtime, delivery_mode, desired, observed_generation,
                                registered_at, agent_card)
        SELECT id, name, 'online', 'external', 'poll', 'none', 1, now(), jsonb_build_object('name', name)
          FROM unnest($1::uuid[], $2::text[]) AS given (id, name))
    INSERT INTO workspace_auth_tokens (workspace_id, token_hash, prefix, kind)
    SELECT id, token_hash, 'bench', 'external'
      FROM unnest($1::uuid[], $3::bytea[]) AS given (id, token_hash)"""


async def external(target: Target, count: int, prefix: str) -> list[tuple[str, str]]:
    """Create `count` external workspaces; their ids and tokens."""
    gate = asyncio.Semaphore(32)

    async def create(number: int) -> tuple[str, str]:
        async with gate:
            body = {"name": f"{prefix}-{number}", "external": True}
            made = await target.call("POST", "/workspaces", body)
            return made["id"], made["connection"]["auth_token"]

    return list(await asyncio.gather(*(create(number) for number in range(count))))


async def registered(target: Target, count: int, prefix: str) -> list[tuple[str, str]]:
    """`count` registered workspaces, as rows: through the API ten thousand of them take minutes."""
    agents = [(uuid4(), f"{prefix}-{number}", os.urandom(16).hex()) for number in range(count)]
    hashes = [hashlib.sha256(token.encode()).digest() for _, _, token in agents]
    connection = await target.database()
    await connection.execute(_PLANT, [i for i, _, _ in agents], [name for _, name, _ in agents], hashes)
    await connection.execute("ANALYZE workspaces, workspace_auth_tokens")
    await connection.close()
    return [(str(workspace_id), token) for workspace_id, _, token in agents]


async def run_list(target: Target) -> dict[str, Any]:
    """`GET /workspaces` with 1,000 rows."""
    await external(target, 1000, "list")
    return await wrk(
        target.url + "/workspaces", connections=8, headers={"Authorization": f"Bearer {target.token}"}
    )


async def run_read(target: Target) -> dict[str, Any]:
    """`GET /workspaces/:id` with the workspace's own token: one indexed row and one token lookup."""
    ((workspace_id, token),) = await external(target, 1, "read")
    url = f"{target.url}/workspaces/{workspace_id}"
    return await wrk(url, headers={"Authorization": f"Bearer {token}"})
