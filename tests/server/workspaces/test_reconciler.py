"""The reconciler on a machine that exists in memory only, with PostgreSQL as it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest

from molecule_ai.kernel.clock import SystemClock
from molecule_ai.server.app import Server, running
from molecule_ai.server.registry.schemas import Beat
from molecule_ai.server.settings import Settings
from tests.conftest import ADMIN_TOKEN, connect
from tests.support import add_workspace, wait_for

from .machine import Machine, MachineProvisioner


class Stage:
    """One server with its machine."""

    def __init__(self, server: Server, machine: Machine, hands: MachineProvisioner) -> None:
        self.server, self.machine, self.hands = server, machine, hands

    async def row(self, workspace_id: UUID) -> dict[str, Any]:
        async with self.server.db.connection() as connection:
            found = await connection.fetchrow("SELECT * FROM workspaces WHERE id = $1", workspace_id)
        assert found is not None
        return dict(found)

    async def round(self) -> None:
        """One tick of the reconciler, with what it began."""
        reconciler = self.server.reconciler
        await reconciler.tick()
        await asyncio.gather(*tuple(reconciler._running))

    async def agent(self, name: str = "", **columns: Any) -> UUID:
        """A workspace whose agent runs and is idle."""
        workspace_id = await add_workspace(
            self.server, name, status="provisioning", observed_generation=0, **columns
        )
        await self.round()
        await self.server.beats.put(Beat(workspace_id=workspace_id, active_tasks=0))
        assert self.machine.of(workspace_id)
        return workspace_id


@pytest.fixture
async def stage(dsn: str, tmp_path: Path) -> AsyncIterator[Stage]:
    machine = Machine()
    hands = MachineProvisioner(machine)
    values = {
        "database_url": dsn,
        "molecule_home": str(tmp_path),
        "admin_token": ADMIN_TOKEN,
        "provisioner": "process",
        "provision_concurrency": 50,
    }
    server = Server(msgspec.convert(values, Settings), provisioner=hands, clock=SystemClock())
    async with running(server, engines=False):
        yield Stage(server, machine, hands)


@pytest.fixture
async def admin(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    async with connect(stage.server, ADMIN_TOKEN) as client:
        yield client


async def test_a_hibernation_answers_when_the_agent_has_ended(stage: Stage, admin: httpx.AsyncClient) -> None:
    workspace_id = await stage.agent()
    call = asyncio.create_task(admin.post(f"/workspaces/{workspace_id}/hibernate"))
    await wait_for(lambda: _is(stage, workspace_id, "hibernating"))
    assert not call.done()
    await stage.round()
    answer = await call
    assert (answer.status_code, answer.json()) == (200, {"status": "hibernated"})
    assert not stage.machine.of(workspace_id)


async def test_who_prefers_not_to_wait_is_answered_at_once(stage: Stage, admin: httpx.AsyncClient) -> None:
    workspace_id = await stage.agent()
    answer = await admin.post(f"/workspaces/{workspace_id}/hibernate", headers={"prefer": "respond-async"})
    assert (answer.status_code, answer.json()) == (202, {"status": "hibernating"})


@pytest.mark.parametrize("before", ["online", "degraded"])
async def test_an_agent_that_does_not_stop_goes_back_to_what_it_was(
    stage: Stage, admin: httpx.AsyncClient, before: str
) -> None:
    workspace_id = await stage.agent()
    if before == "degraded":
        await stage.server.beats.put(Beat(workspace_id=workspace_id, error_rate=0.9, sample_error="broken"))
    stage.hands.refuses_to_stop = True
    call = asyncio.create_task(admin.post(f"/workspaces/{workspace_id}/hibernate"))
    await wait_for(lambda: _is(stage, workspace_id, "hibernating"))
    await stage.round()
    answer = await call
    assert (answer.status_code, answer.json()["code"]) == (502, "STOP_FAILED")
    assert "the engine does not answer" in answer.json()["detail"]
    row = await stage.row(workspace_id)
    assert (row["status"], row["desired"]) == (before, "run")
    assert row["generation"] == row["observed_generation"]
    assert stage.machine.of(workspace_id) == [UUID(row["instance_id"])]


async def test_an_agent_that_nobody_wants_any_more_is_never_let_live(
    stage: Stage, admin: httpx.AsyncClient
) -> None:
    workspace_id = await add_workspace(stage.server, status="provisioning", observed_generation=0)
    stage.hands.may_go_on.clear()
    starting = asyncio.create_task(stage.round())
    await wait_for(lambda: _is_launched(stage, workspace_id))
    assert (await admin.post(f"/workspaces/{workspace_id}/pause")).status_code == 200
    stage.hands.may_go_on.set()
    await starting
    assert stage.hands.starts == 0
    await stage.round()
    row = await stage.row(workspace_id)
    assert (row["status"], row["generation"]) == ("paused", row["observed_generation"])


async def test_an_org_wide_change_restarts_five_at_a_time(stage: Stage, admin: httpx.AsyncClient) -> None:
    team = [await stage.agent(f"w{n}") for n in range(12)]
    first = {workspace_id: stage.machine.of(workspace_id) for workspace_id in team}
    answer = await admin.put("/settings/secrets", json={"key": "SHARED_NAME", "value": "a new value"})
    assert answer.status_code == 200
    rounds = 0
    while changed := [w for w in team if stage.machine.of(w) == first[w]]:
        await _hasten(stage)
        await stage.round()
        now = [w for w in changed if stage.machine.of(w) != first[w]]
        assert 0 < len(now) <= 5
        for workspace_id in now:
            await stage.server.beats.put(Beat(workspace_id=workspace_id, active_tasks=0))
        rounds += 1
    assert rounds == 3


async def test_an_edited_name_reaches_the_agents_own_file_and_leaves_the_rest(
    stage: Stage, admin: httpx.AsyncClient
) -> None:
    workspace_id = await stage.agent("old name")
    stage.hands.put(
        workspace_id, "config.yaml", b"name: old name\nruntime: langgraph\nmine: {kept: [1, 2]}\n"
    )
    await admin.patch(f"/workspaces/{workspace_id}", json={"name": "new name", "role": "keeps bees"})
    assert b"old name" in stage.hands.read(workspace_id, "config.yaml")
    await admin.post(f"/workspaces/{workspace_id}/restart")
    await stage.round()
    written = stage.hands.read(workspace_id, "config.yaml").decode()
    assert "name: new name" in written
    assert "role: keeps bees" in written
    assert "kept:" in written
    assert (await stage.row(workspace_id))["config_changes"] == {}


async def test_what_a_user_wrote_into_the_file_counts_at_the_next_start(
    stage: Stage, admin: httpx.AsyncClient
) -> None:
    workspace_id = await stage.agent()
    edited = b"runtime: echo\nmax_concurrent_tasks: 4\nhibernation_idle_minutes: 30\n"
    stage.hands.put(workspace_id, "config.yaml", edited)
    await admin.post(f"/workspaces/{workspace_id}/restart")
    await stage.round()
    row = await stage.row(workspace_id)
    assert (row["runtime"], row["max_concurrent_tasks"], row["hibernation_idle_minutes"]) == ("echo", 4, 30)
    assert stage.hands.read(workspace_id, "config.yaml") == edited


async def test_what_was_chosen_for_the_row_wins_over_the_file(stage: Stage, admin: httpx.AsyncClient) -> None:
    workspace_id = await stage.agent(runtime="echo", max_concurrent_tasks=2, hibernation_idle_minutes=5)
    stage.hands.put(workspace_id, "config.yaml", b"runtime: nonsense\nmax_concurrent_tasks: 9\n")
    await admin.patch(f"/workspaces/{workspace_id}", json={"hibernation_idle_minutes": 0})
    await admin.post(f"/workspaces/{workspace_id}/restart")
    await stage.round()
    row = await stage.row(workspace_id)
    assert (row["runtime"], row["max_concurrent_tasks"], row["hibernation_idle_minutes"]) == ("echo", 2, None)


async def _is(stage: Stage, workspace_id: UUID, status: str) -> bool:
    return bool((await stage.row(workspace_id))["status"] == status)


async def _is_launched(stage: Stage, workspace_id: UUID) -> bool:
    return (await stage.row(workspace_id))["launched_at"] is not None


async def _hasten(stage: Stage) -> None:
    async with stage.server.db.transaction() as tx:
        await tx.execute("UPDATE workspaces SET reconcile_after = now()")
