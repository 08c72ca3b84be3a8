import uuid

import httpx
import pytest

from molecule_ai.server.app import Server
from tests.conftest import connect
from tests.server.workspaces.test_routes import create, events_of, refusal, token_of


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
