"""Real agents: the reconciler, the process provisioner and the runtime, two replicas at a time."""

from __future__ import annotations

import os
import signal
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest

from tests.conftest import ADMIN_TOKEN
from tests.support import Served, serve, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.serial]
UP_SECONDS = 40.0


class Org:
    """One served organization, as an operator sees it."""

    def __init__(self, served: Served, dsn: str) -> None:
        self.served = served
        self.dsn = dsn
        self.client = served.client(ADMIN_TOKEN)

    async def add(self, name: str, **values: Any) -> UUID:
        answer = await self.client.post("/workspaces", json={"name": name, "runtime": "echo"} | values)
        assert answer.status_code == 201, answer.text
        return UUID(answer.json()["id"])

    async def verb(self, workspace_id: UUID, verb: str, status: int = 200) -> dict[str, Any]:
        answer = await self.client.post(f"/workspaces/{workspace_id}/{verb}")
        assert answer.status_code == status, answer.text
        told: dict[str, Any] = answer.json()
        return told

    async def row(self, workspace_id: UUID) -> dict[str, Any]:
        connection = await asyncpg.connect(self.dsn)
        try:
            found = await connection.fetchrow(
                "SELECT *, handle::text AS handle FROM workspaces WHERE id = $1", workspace_id
            )
        finally:
            await connection.close()
        assert found is not None
        return dict(found)

    async def until(self, workspace_id: UUID, *statuses: str, timeout: float = UP_SECONDS) -> dict[str, Any]:
        async def there() -> dict[str, Any] | None:
            row = await self.row(workspace_id)
            return row if row["status"] in statuses else None

        try:
            return await wait_for(there, timeout, interval=0.05)  # type: ignore[return-value]
        except TimeoutError as late:
            row = await self.row(workspace_id)
            raise AssertionError(f"{row['status']}: {row}\n{self.served.log()[-3000:]}") from late


def agents(workspace_id: UUID) -> list[int]:
    """Processes that live for this workspace, found without asking the server."""
    found = []
    mark = f"WORKSPACE_ID={workspace_id}".encode()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/environ", "rb") as file:
                    if mark in file.read().split(b"\0"):
                        found.append(int(entry))
            except OSError:
                continue
    return found


async def test_an_agent_lives_its_whole_life(dsn: str) -> None:
    async with serve(dsn, workers=2, provisioner="process") as served:
        org = Org(served, dsn)
        workspace_id = await org.add("scout")
        row = await org.until(workspace_id, "online")
        assert row["url"].startswith("http://127.0.0.1:")
        assert len(agents(workspace_id)) == 1
        first = row["instance_id"]
        async with httpx.AsyncClient() as direct:
            assert (await direct.get(row["url"] + "/health")).status_code == 200

        for _ in range(10):
            await org.verb(workspace_id, "restart")
        await wait_for(lambda: _settled(org, workspace_id))
        row = await org.until(workspace_id, "online")
        assert row["instance_id"] != first
        assert len(agents(workspace_id)) == 1

        await org.verb(workspace_id, "pause")
        await wait_for(lambda: not agents(workspace_id))
        assert (await org.row(workspace_id))["url"] == ""
        await org.verb(workspace_id, "resume")
        await org.until(workspace_id, "online")

        await org.verb(workspace_id, "hibernate")
        await org.until(workspace_id, "hibernated")
        assert not agents(workspace_id)
        await org.verb(workspace_id, "wake", 202)
        await org.until(workspace_id, "online")

        os.kill(agents(workspace_id)[0], signal.SIGKILL)
        await org.until(workspace_id, "offline", "provisioning", timeout=15)
        await org.until(workspace_id, "online")
        assert len(agents(workspace_id)) == 1


async def _settled(org: Org, workspace_id: UUID) -> bool:
    row = await org.row(workspace_id)
    return bool(row["generation"] == row["observed_generation"])
