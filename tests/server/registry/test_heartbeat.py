import asyncio
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from molecule_ai.server.app import Server
from tests.support import add_token, add_workspace, bearer

from .test_register import events, row


async def beat(client: httpx.AsyncClient, workspace_id: UUID, **values: Any) -> dict[str, Any]:
    answer = await client.post("/registry/heartbeat", json={"workspace_id": str(workspace_id)} | values)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def test_a_beat_is_stored_and_answered_with_the_status(
    server: Server, admin: httpx.AsyncClient
) -> None:
    workspace_id = await add_workspace(server)
    metadata = {"capabilities": {"scheduler": True, "novelty": 1}, "idle_timeout_seconds": 900}
    told = await beat(
        admin,
        workspace_id,
        error_rate=0.2,
        sample_error="slow",
        active_tasks=2,
        current_task="writing",
        uptime_seconds=61,
        monthly_spend=120,
        runtime_metadata=metadata,
    )
    assert (told["status"], told["workspace_status"]) == ("ok", "online")
    assert told["server_time"].endswith("Z")
    stored = await row(server, workspace_id)
    assert (stored["active_tasks"], stored["current_task"], stored["uptime_seconds"]) == (2, "writing", 61)
    assert (stored["last_error_rate"], stored["last_sample_error"]) == (0.2, "slow")
    assert (stored["monthly_spend"], stored["idle_timeout_seconds"]) == (120, 900)
    assert stored["capabilities"]["scheduler"] is True
    assert stored["idle_since"] is None
    assert stored["last_heartbeat_at"] is not None

    await beat(admin, workspace_id, active_tasks=0, monthly_spend=0)
    stored = await row(server, workspace_id)
    assert stored["idle_since"] is not None
    assert (stored["monthly_spend"], stored["uptime_seconds"], stored["last_sample_error"]) == (
        120,
        61,
        "slow",
    )


async def test_a_zero_filled_task_push_changes_the_task_alone(
    server: Server, admin: httpx.AsyncClient
) -> None:
    workspace_id = await add_workspace(
        server,
        status="degraded",
        uptime_seconds=500,
        last_error_rate=0.7,
        last_sample_error="boom",
        idle_timeout_seconds=1200,
    )
    push = {"error_rate": 0, "sample_error": "", "uptime_seconds": 0, "active_tasks": 1, "current_task": "t"}
    assert (await beat(admin, workspace_id, **push))["workspace_status"] == "degraded"
    stored = await row(server, workspace_id)
    assert (stored["active_tasks"], stored["current_task"]) == (1, "t")
    assert (stored["uptime_seconds"], stored["last_error_rate"], stored["last_sample_error"]) == (
        500,
        0.7,
        "boom",
    )
    assert stored["idle_timeout_seconds"] == 1200


@pytest.mark.parametrize(
    ("before", "values", "after"),
    [
        ("online", {"runtime_state": "wedged", "sample_error": "stuck"}, "degraded"),
        ("online", {"error_rate": 0.5}, "degraded"),
        ("online", {"error_rate": 0.49}, "online"),
        ("degraded", {"error_rate": 0.05, "runtime_state": "ok"}, "online"),
        ("degraded", {"error_rate": 0.05, "runtime_state": ""}, "online"),
        ("degraded", {"error_rate": 0.05, "runtime_state": "wedged"}, "degraded"),
        ("degraded", {"error_rate": 0.1}, "degraded"),
        ("degraded", {}, "degraded"),
        ("offline", {}, "online"),
        ("failed", {}, "online"),
        ("awaiting_agent", {}, "online"),
        ("provisioning", {}, "online"),
    ],
)
async def test_what_a_beat_means_for_the_status(
    server: Server, admin: httpx.AsyncClient, before: str, values: dict[str, Any], after: str
) -> None:
    workspace_id = await add_workspace(server, status=before, url="http://localhost:1")
    told = await beat(admin, workspace_id, uptime_seconds=9, **values)
    assert told["workspace_status"] == after
    assert (await row(server, workspace_id))["status"] == after
    recorded = await events(server, workspace_id)
    assert recorded == ([] if before == after else [f"WORKSPACE_{after.upper()}"])


async def test_a_runtime_that_manages_its_status_is_not_judged_by_its_errors(
    server: Server, admin: httpx.AsyncClient
) -> None:
    workspace_id = await add_workspace(server)
    metadata = {"capabilities": {"status_mgmt": True}}
    told = await beat(admin, workspace_id, error_rate=0.9, uptime_seconds=1, runtime_metadata=metadata)
    assert told["workspace_status"] == "online"


async def test_who_never_registered_is_alive_but_not_online(server: Server, admin: httpx.AsyncClient) -> None:
    workspace_id = await add_workspace(server, status="awaiting_agent", desired="none")
    assert (await beat(admin, workspace_id))["workspace_status"] == "awaiting_agent"
    assert (await row(server, workspace_id))["status_reason"] == "not_registered"


async def test_a_hundred_beats_at_once_all_count(server: Server, admin: httpx.AsyncClient) -> None:
    ids = [await add_workspace(server) for _ in range(25)]
    told = await asyncio.gather(*(beat(admin, ids[n % 25], active_tasks=n // 25) for n in range(100)))
    assert {answer["status"] for answer in told} == {"ok"}
    for workspace_id in ids:
        assert (await row(server, workspace_id))["active_tasks"] == 3


async def test_one_bad_beat_in_a_batch_harms_no_other(server: Server, admin: httpx.AsyncClient) -> None:
    good, unknown = await add_workspace(server), uuid4()
    answers = await asyncio.gather(
        *(admin.post("/registry/heartbeat", json={"workspace_id": str(i)}) for i in (good, unknown))
    )
    assert [answer.status_code for answer in answers] == [200, 404]


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"workspace_id": "x"},
        {"workspace_id": 5},
        {"workspace_id": str(uuid4()), "active_tasks": "many"},
        {"workspace_id": str(uuid4()), "runtime_metadata": []},
    ],
)
async def test_what_is_no_heartbeat_is_refused(admin: httpx.AsyncClient, data: dict[str, Any]) -> None:
    answer = await admin.post("/registry/heartbeat", json=data)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid request body")


async def test_numbers_out_of_range_are_clamped(server: Server, admin: httpx.AsyncClient) -> None:
    workspace_id = await add_workspace(server)
    await beat(
        admin, workspace_id, error_rate=-3, active_tasks=-1, uptime_seconds=10**15, monthly_spend=10**15
    )
    stored = await row(server, workspace_id)
    assert (stored["last_error_rate"], stored["active_tasks"]) == (0, 0)
    assert (stored["uptime_seconds"], stored["monthly_spend"]) == (2**31 - 1, 10**12)


async def test_a_beat_needs_the_workspaces_own_token(server: Server, anonymous: httpx.AsyncClient) -> None:
    workspace_id, other = await add_workspace(server), await add_workspace(server)
    token, foreign = await add_token(server, workspace_id), await add_token(server, other)
    data = {"workspace_id": str(workspace_id)}
    nothing = await anonymous.post("/registry/heartbeat", json=data)
    assert (nothing.status_code, nothing.json()["error"]) == (401, "missing workspace auth token")
    for wrong in (foreign, "nonsense"):
        refused = await anonymous.post("/registry/heartbeat", json=data, headers=bearer(wrong))
        assert (refused.status_code, refused.json()["error"]) == (401, "invalid workspace auth token")
    assert (await anonymous.post("/registry/heartbeat", json=data, headers=bearer(token))).status_code == 200
