import uuid

import httpx
import pytest

from molecule_ai.server.app import Server
from tests.conftest import ADMIN_TOKEN, MakeServer, connect
from tests.server.workspaces.test_routes import create, events_of, refusal, token_of


@pytest.fixture
async def server(make_server: MakeServer) -> Server:
    """Agents would be started here, but no engine runs."""
    return await make_server(provisioner="process")


async def test_without_a_back_end_the_config_holds_what_would_run(make_server: MakeServer) -> None:
    server = await make_server(provisioner="none")
    async with connect(server, ADMIN_TOKEN) as admin:
        made = await create(admin, "Scout", tier=2)
        outside = await create(admin, "Outside", external=True)
        data = (await admin.get(f"/workspaces/{made['id']}/config")).json()["data"]
        assert data == {"name": "Scout", "runtime": "langgraph", "tier": 2, "template": None}
        assert (await admin.get(f"/workspaces/{outside['id']}/config")).json() == {"data": {}}


async def test_config_is_merged_key_by_key(admin: httpx.AsyncClient, server: Server) -> None:
    made = await create(admin)
    path = f"/workspaces/{made['id']}/config"
    assert (await admin.get(path)).content == b'{"data":{}}'
    assert (await admin.patch(path, json={"a": {"x": 1}, "b": 1})).json() == {"status": "updated"}
    await admin.patch(path, json={"a": {"y": 2}, "b": None})
    assert (await admin.get(path)).json() == {"data": {"a": {"y": 2}, "b": None}}
    assert ("CONFIG_UPDATED", {"keys": ["a", "b"]}) in await events_of(server, made["id"])


@pytest.mark.parametrize(
    ("content", "status", "error"),
    [
        (b"{", 400, "invalid JSON"),
        (b"", 400, "invalid JSON"),
        (b"[1]", 400, "config must be a JSON object"),
        (b'{"a":"' + b"x" * 262_144 + b'"}', 413, "body too large or unreadable"),
    ],
)
async def test_configs_that_are_refused(
    admin: httpx.AsyncClient, content: bytes, status: int, error: str
) -> None:
    made = await create(admin)
    answer = await admin.patch(f"/workspaces/{made['id']}/config", content=content)
    assert refusal(answer) == (status, error)


async def test_the_stored_config_stays_below_a_megabyte(admin: httpx.AsyncClient) -> None:
    made = await create(admin)
    path = f"/workspaces/{made['id']}/config"
    for number in range(4):
        assert (await admin.patch(path, json={f"k{number}": "x" * 250_000})).status_code == 200
    refused = await admin.patch(path, json={"k4": "x" * 250_000})
    assert (refused.status_code, refused.json()["code"]) == (413, "config_too_large")
    assert "k4" not in (await admin.get(path)).json()["data"]


async def test_config_belongs_to_its_workspace(admin: httpx.AsyncClient, server: Server) -> None:
    one, other = await create(admin, "One"), await create(admin, "Other")
    for token in ("", "nonsense", await token_of(admin, other["id"])):
        async with connect(server, token) as client:
            assert (await client.get(f"/workspaces/{one['id']}/config")).status_code == 401
    assert refusal(await admin.patch(f"/workspaces/{uuid.uuid4()}/config", json={})) == (
        404,
        "workspace not found",
    )


async def test_abilities_are_for_administrators(admin: httpx.AsyncClient, server: Server) -> None:
    made = await create(admin)
    path = f"/workspaces/{made['id']}/abilities"
    updated = await admin.patch(path, json={"broadcast_enabled": True})
    assert updated.json() == {"status": "updated", "broadcast_enabled": True, "talk_to_user_enabled": True}
    assert (await admin.patch(path, json={})).status_code == 400
    assert (
        await admin.patch(f"/workspaces/{uuid.uuid4()}/abilities", json={"broadcast_enabled": True})
    ).status_code == 404
    async with connect(server, await token_of(admin, made["id"])) as agent:
        assert (await agent.patch(path, json={"broadcast_enabled": True})).status_code == 401


async def test_rotating_ends_the_old_token_at_once(admin: httpx.AsyncClient, server: Server) -> None:
    made = await create(admin, "Far", external=True)
    old = made["connection"]["auth_token"]
    path = f"/workspaces/{made['id']}/external"
    shown = (await admin.get(f"{path}/connection")).json()["connection"]
    assert shown["auth_token"] == ""
    async with connect(server, old) as agent:
        new = (await agent.post(f"{path}/rotate")).json()["connection"]["auth_token"]
        assert (await agent.get(f"/workspaces/{made['id']}/state")).status_code == 401
    async with connect(server, new) as agent:
        assert (await agent.get(f"/workspaces/{made['id']}/state")).status_code == 200
    assert ("WORKSPACE_CREDENTIALS_ROTATED", {}) in await events_of(server, made["id"])


async def test_managed_workspaces_have_no_connection(admin: httpx.AsyncClient) -> None:
    made = await create(admin)
    for answer in (
        await admin.get(f"/workspaces/{made['id']}/external/connection"),
        await admin.post(f"/workspaces/{made['id']}/external/rotate"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (400, "NOT_EXTERNAL")


async def test_one_speaks_to_all_others(admin: httpx.AsyncClient, server: Server) -> None:
    speaker, one, other = [await create(admin, name) for name in ("Speaker", "One", "Other")]
    path = f"/workspaces/{speaker['id']}/broadcast"
    refused = await admin.post(path, json={"message": "hello"})
    assert (refused.status_code, refused.json()["code"]) == (403, "BROADCAST_DISABLED")
    await admin.patch(f"/workspaces/{speaker['id']}/abilities", json={"broadcast_enabled": True})
    sent = await admin.post(path, json={"message": "hello"})
    assert (sent.status_code, sent.json()) == (200, {"status": "sent", "delivered": 2})
    for listener in (one, other):
        rows = (await admin.get(f"/workspaces/{listener['id']}/activity")).json()
        [heard] = [row for row in rows if row["activity_type"] == "broadcast_receive"]
        assert (heard["source_id"], heard["request_body"]) == (speaker["id"], {"message": "hello"})
    assert not (await admin.get(f"/workspaces/{speaker['id']}/activity")).json()
    assert ("workspace.broadcast", {"delivered": 2}) in await events_of(server, speaker["id"])


@pytest.mark.parametrize("body", [{}, {"message": ""}, {"message": 5}, {"message": "x" * 16_001}])
async def test_broadcasts_that_are_refused(admin: httpx.AsyncClient, body: dict[str, object]) -> None:
    made = await create(admin)
    answer = await admin.post(f"/workspaces/{made['id']}/broadcast", json=body)
    assert refusal(answer) == (400, "invalid request body")


async def test_broadcasts_are_ten_a_minute(admin: httpx.AsyncClient, server: Server) -> None:
    made = await create(admin)
    path = f"/workspaces/{made['id']}/broadcast"
    await admin.patch(f"/workspaces/{made['id']}/abilities", json={"broadcast_enabled": True})
    answers = [await admin.post(path, json={"message": "again"}) for _ in range(21)]  # at most two minutes
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert [answer.status_code for answer in answers[:10]] == [200] * 10
    assert 0 < int(refused.headers["retry-after"]) <= 60


async def test_shared_context_is_gone_and_says_what_to_use(admin: httpx.AsyncClient) -> None:
    made = await create(admin)
    answer = await admin.get(f"/workspaces/{made['id']}/shared-context")
    assert refusal(answer) == (410, "shared-context was removed; use team memory")
