"""A schedule, the mailbox and a real agent: from the slot to the history."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest

from molecule_ai.server.app import Server
from molecule_ai.server.auth.principal import SYSTEM
from molecule_ai.server.schedules.schemas import ScheduleCreate
from molecule_ai.server.schedules.service import CHANNEL
from tests.agents import Agent, add_agent
from tests.conftest import ADMIN_TOKEN, MakeServer, connect
from tests.support import wait_for


@pytest.fixture
async def agent() -> AsyncIterator[Agent]:
    async with Agent().serving() as running:
        yield running


@pytest.fixture
async def live(make_server: MakeServer) -> Server:
    """A replica with its engines running."""
    return await make_server(engines=True)


@pytest.fixture
async def client(live: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with connect(live, ADMIN_TOKEN) as connected:
        yield connected


async def add(live: Server, workspace_id: UUID, **fields: Any) -> UUID:
    data = ScheduleCreate(cron_expr="0 0 1 1 *", **{"prompt": "How are you?", **fields})
    return (await live.schedules.create(SYSTEM, workspace_id, data)).id


async def history(client: httpx.AsyncClient, workspace_id: UUID, schedule_id: UUID) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (
        await client.get(f"/workspaces/{workspace_id}/schedules/{schedule_id}/history")
    ).json()
    return found


async def test_a_slot_reaches_the_agent_within_a_second(
    live: Server, client: httpx.AsyncClient, agent: Agent
) -> None:
    workspace_id = await add_agent(live, agent)
    schedule_id = await add(live, workspace_id, name="Pulse")
    async with live.db.transaction() as tx:
        await tx.execute("UPDATE workspace_schedules SET next_run_at = now() + interval '700 milliseconds'")
        await tx.execute("SELECT pg_notify($1, '')", CHANNEL)

    [entry] = await wait_for(lambda: history(client, workspace_id, schedule_id))
    assert (entry["status"], entry["trigger"]) == ("success", "cron")
    assert entry["output_preview"] == "How are you?"
    assert entry["started_at"] >= entry["scheduled_for"]
    assert entry["duration_ms"] is not None
    async with live.db.connection() as connection:
        late_ms = await connection.fetchval("SELECT late_ms FROM schedule_runs")
    assert late_ms < 5000  # far from the 30 s of the poll, on the busiest machine
    assert agent.said()["parts"][0]["text"] == "How are you?"
    schedule = await live.schedules.get(workspace_id, schedule_id)
    assert (schedule.last_status, schedule.run_count, schedule.running) == ("ok", 1, False)


async def test_a_busy_agent_gets_its_tick_when_it_is_free(
    live: Server, client: httpx.AsyncClient, agent: Agent
) -> None:
    agent.gate.clear()
    workspace_id = await add_agent(live, agent)
    first, second = await add(live, workspace_id, name="a"), await add(live, workspace_id, name="b")
    await live.schedules.run(SYSTEM, workspace_id, first)
    await wait_for(lambda: agent.busy == 1)
    await live.schedules.run(SYSTEM, workspace_id, second)

    async def statuses() -> list[str]:
        async with live.db.connection() as connection:
            rows = await connection.fetch("SELECT status FROM schedule_runs ORDER BY recorded_at")
        return [row["status"] for row in rows]

    assert await statuses() == ["running", "queued"]
    agent.gate.set()
    await wait_for(lambda: history(client, workspace_id, second))
    assert await statuses() == ["ok", "ok"]
    assert agent.peak == 1


async def test_a_canvas_that_posts_the_prompt_itself_joins_the_run(
    live: Server, client: httpx.AsyncClient, agent: Agent
) -> None:
    workspace_id = await add_agent(live, agent)
    schedule_id = await add(live, workspace_id)
    fired = (await client.post(f"/workspaces/{workspace_id}/schedules/{schedule_id}/run", json={})).json()

    def message(text: str) -> dict[str, Any]:
        said = {
            "role": "user",
            "messageId": f"manual-cron-{int(time.time() * 1000)}",
            "parts": [{"kind": "text", "text": text}],
        }
        return {"jsonrpc": "2.0", "id": "1", "method": "message/send", "params": {"message": said}}

    joined = await client.post(f"/workspaces/{workspace_id}/a2a", json=message("How are you?"))
    assert (joined.status_code, joined.json()) == (202, {"queued": True, "run_id": fired["run_id"]})
    await wait_for(lambda: history(client, workspace_id, schedule_id))
    other = await client.post(f"/workspaces/{workspace_id}/a2a", json=message("Something else"))
    assert other.status_code == 200
    assert len(agent.received) == 2


async def test_removing_a_workspace_switches_its_schedules_off(
    live: Server, client: httpx.AsyncClient, agent: Agent
) -> None:
    workspace_id = await add_agent(live, agent)
    schedule_id = await add(live, workspace_id)
    headers = {"x-confirm-name": (await client.get(f"/workspaces/{workspace_id}")).json()["name"]}
    gone = await client.delete(f"/workspaces/{workspace_id}", params={"confirm": "true"}, headers=headers)
    assert gone.status_code == 200, gone.text
    assert not (await live.schedules.get(workspace_id, schedule_id)).enabled


async def test_liveness_shows_what_the_clock_does(live: Server, client: httpx.AsyncClient) -> None:
    async def report() -> dict[str, Any] | None:
        shown: dict[str, Any] = (await client.get("/admin/liveness")).json()["subsystems"]
        ticked = all(shown[name]["last_tick_at"] for name in ("scheduler", "run-reaper", "approval-expiry"))
        return shown if ticked else None

    shown = await wait_for(report)
    assert set(shown["scheduler"]["last_result"]) >= {"due", "running", "queued", "oldest_due_seconds"}
    assert timedelta(seconds=shown["scheduler"]["interval_seconds"]) == timedelta(seconds=30)
