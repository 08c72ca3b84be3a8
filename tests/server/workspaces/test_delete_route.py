import uuid
from urllib.parse import quote

import httpx
import pytest

from molecule_ai.server.app import Server
from tests.conftest import connect
from tests.server.workspaces.test_routes import create, events_of, refusal, token_of


async def test_deleting_takes_the_name_and_revokes_at_once(admin: httpx.AsyncClient, server: Server) -> None:
    made = await create(admin, "Scout")
    token = await token_of(admin, made["id"])
    path = f"/workspaces/{made['id']}"
    missing = await admin.delete(path)
    assert (missing.status_code, missing.json()["code"]) == (400, "CONFIRM_NAME_REQUIRED")
    wrong = await admin.delete(path, headers={"x-confirm-name": "scout"})
    assert (wrong.status_code, wrong.json()["code"]) == (400, "CONFIRM_NAME_MISMATCH")
    assert "Scout" not in wrong.text
    done = await admin.delete(path, headers={"x-confirm-name": "Scout"})
    assert (done.status_code, done.json()) == (200, {"status": "removed", "cascade_deleted": 0})
    assert (await admin.get(path)).status_code == 410
    async with connect(server, token) as agent:
        assert (await agent.get(f"{path}/model")).status_code == 401
        told = await agent.get(f"{path}/state")
        assert (told.status_code, told.json()["status"], told.json()["deleted"]) == (404, "removed", True)
    async with connect(server, "nonsense") as stranger:
        assert (await stranger.get(f"{path}/state")).status_code == 401
    again = await admin.delete(path, headers={"x-confirm-name": "Scout"})
    assert again.status_code == 200


async def test_a_subtree_asks_for_confirmation(admin: httpx.AsyncClient, server: Server) -> None:
    lead = await create(admin, "Lead")
    child = await create(admin, "Child", parent_id=lead["id"])
    grandchild = await create(admin, "Grandchild", parent_id=child["id"])
    path, headers = f"/workspaces/{lead['id']}", {"x-confirm-name": "Lead"}
    asked = await admin.delete(path, headers=headers)
    assert asked.status_code == 409
    body = asked.json()
    assert (body["status"], body["children_count"]) == ("confirmation_required", 1)
    assert body["children"] == [{"id": child["id"], "name": "Child"}]
    done = await admin.delete(path, headers=headers, params={"confirm": "true"})
    assert done.json() == {"status": "removed", "cascade_deleted": 2}
    assert (await admin.get("/workspaces")).content == b"[]"
    assert ("WORKSPACE_REMOVED", {}) in await events_of(server, grandchild["id"])
    late = await admin.post("/workspaces", json={"name": "Late", "parent_id": child["id"]})
    assert late.json()["code"] == "PARENT_NOT_FOUND"


async def test_a_name_beyond_ascii_is_sent_encoded(admin: httpx.AsyncClient) -> None:
    made = await create(admin, "Späher")
    headers = {"x-confirm-name": quote("Späher")}
    assert (await admin.delete(f"/workspaces/{made['id']}", headers=headers)).status_code == 200


@pytest.mark.settings(workspace_delete_confirm="if-present")
async def test_older_clients_send_no_name(admin: httpx.AsyncClient) -> None:
    made = await create(admin)
    path = f"/workspaces/{made['id']}"
    assert (await admin.delete(path, headers={"x-confirm-name": "x"})).status_code == 400
    assert (await admin.delete(path, params={"purge": "true"})).json()["status"] == "purged"


async def test_who_may_delete_what(admin: httpx.AsyncClient, server: Server) -> None:
    made = await create(admin)
    path = f"/workspaces/{made['id']}"
    for token in ("", "nonsense", await token_of(admin, made["id"])):
        async with connect(server, token) as client:
            assert (await client.delete(path, headers={"x-confirm-name": "Scout"})).status_code == 401
    assert refusal(await admin.delete("/workspaces/nonsense")) == (400, "invalid workspace ID")
    assert refusal(await admin.delete(f"/workspaces/{uuid.uuid4()}")) == (404, "workspace not found")
