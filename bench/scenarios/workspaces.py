"""Reading workspaces: the list of 1,000 and one with its own token."""

from __future__ import annotations

import asyncio
from typing import Any

from bench.load import wrk
from bench.target import Target


async def external(target: Target, count: int, prefix: str) -> list[tuple[str, str]]:
    """Create `count` external workspaces; their ids and tokens."""
    gate = asyncio.Semaphore(32)

    async def create(number: int) -> tuple[str, str]:
        async with gate:
            body = {"name": f"{prefix}-{number}", "external": True}
            made = await target.call("POST", "/workspaces", body)
            return made["id"], made["connection"]["auth_token"]

    return list(await asyncio.gather(*(create(number) for number in range(count))))


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
