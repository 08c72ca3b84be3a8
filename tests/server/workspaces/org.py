"""An organization with real agents, as an operator and as the machine see it."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID

import asyncpg

from tests.conftest import ADMIN_TOKEN
from tests.support import Served, serve, wait_for

UP_SECONDS = 60.0


class Org:
    """Calls one server; reads its database and the process table directly."""

    def __init__(self, served: Served, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self.served = served
        self.client = served.client(ADMIN_TOKEN)
        self._connection = connection

    async def add(self, name: str, **values: Any) -> UUID:
        answer = await self.client.post("/workspaces", json={"name": name, "runtime": "echo"} | values)
        assert answer.status_code == 201, answer.text
        return UUID(answer.json()["id"])

    async def verb(self, workspace_id: UUID, verb: str, status: int = 200) -> dict[str, Any]:
        answer = await self.client.post(f"/workspaces/{workspace_id}/{verb}")
        assert answer.status_code == status, answer.text
        told: dict[str, Any] = answer.json()
        return told

    async def put_to_sleep(self, workspace_id: UUID) -> None:
        """Hibernate, once the agent has done what it was told of its last restart."""

        async def is_accepted() -> bool:
            answer = await self.client.post(f"/workspaces/{workspace_id}/hibernate")
            assert answer.status_code in (200, 202, 409), answer.text
            return answer.status_code != 409

        await wait_for(is_accepted, UP_SECONDS, interval=0.2)
        await self.until(workspace_id, "hibernated")

    async def row(self, workspace_id: UUID) -> dict[str, Any]:
        found = await self._connection.fetchrow("SELECT * FROM workspaces WHERE id = $1", workspace_id)
        assert found is not None
        return dict(found)

    async def rows(self) -> list[dict[str, Any]]:
        return [dict(row) for row in await self._connection.fetch("SELECT * FROM workspaces ORDER BY id")]

    @asynccontextmanager
    async def nobody_reconciles(self, workspace_id: UUID) -> AsyncIterator[None]:
        """Hold the lease of a workspace that is at rest, as a slow replica would."""
        await self._connection.execute(
            "UPDATE workspaces SET lease_owner = gen_random_uuid(), lease_until = now() + interval '1 hour' "
            "WHERE id = $1",
            workspace_id,
        )
        yield
        await self.let_leases_end()

    async def let_leases_end(self) -> None:
        """What time does to the claims of a killed server; only while nobody else holds one."""
        await self._connection.execute("UPDATE workspaces SET lease_until = now() WHERE lease_until > now()")

    async def events(self, workspace_id: UUID, event: str) -> int:
        return int(
            await self._connection.fetchval(
                "SELECT count(*) FROM structure_events WHERE workspace_id = $1 AND event_type = $2",
                workspace_id,
                event,
            )
        )

    async def is_settled(self, workspace_id: UUID) -> bool:
        row = await self.row(workspace_id)
        return bool(row["generation"] == row["observed_generation"])

    async def until(self, workspace_id: UUID, *statuses: str, timeout: float = UP_SECONDS) -> dict[str, Any]:
        """The row once its wish is fulfilled and it has one of these statuses."""

        async def there() -> dict[str, Any] | None:
            row = await self.row(workspace_id)
            is_there = row["status"] in statuses and row["generation"] == row["observed_generation"]
            return row if is_there else None

        try:
            return await wait_for(there, timeout, interval=0.05)  # type: ignore[return-value]
        except TimeoutError as late:
            row = await self.row(workspace_id)
            raise AssertionError(f"{row['status']}: {row}\n{self.served.log()[-4000:]}") from late


@asynccontextmanager
async def organization(
    dsn: str, workers: int = 2, *, ends_agents: bool = True, **settings: Any
) -> AsyncIterator[Org]:
    """A served organization whose agents are local processes; they outlive it unless it `ends_agents`."""
    connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(dsn)
    try:
        async with serve(dsn, workers, **{"provisioner": "process", **settings}) as served:
            org = Org(served, connection)
            try:
                yield org
            finally:
                await org.client.aclose()
    finally:
        rows = await connection.fetch("SELECT id FROM workspaces") if ends_agents else []
        await connection.close()
        for pid in [pid for row in rows for pid in agents(row["id"])]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def agents(workspace_id: UUID) -> list[int]:
    """Agent processes of a workspace, found without asking the server."""
    mark = f"WORKSPACE_ID={workspace_id}".encode()
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and mark in environment(entry)]


def environment(pid: int | str) -> list[bytes]:
    """The environment that a process was started with; nothing when it is gone."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []


def has_one_agent(workspace_id: UUID) -> bool:
    return len(agents(workspace_id)) == 1
