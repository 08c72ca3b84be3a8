from uuid import uuid4

import httpx
import pytest

from molecule_ai.server.app import Server
from tests.conftest import connect
from tests.server.mailbox.test_service import post, put
from tests.support import add_token, add_workspace


async def test_caller_and_target_may_look_at_a_queued_message(
    server: Server, admin: httpx.AsyncClient
) -> None:
    caller, target, other = [await add_workspace(server) for _ in range(3)]
    item = await put(server, post(target, caller_id=caller))
    path = f"/workspaces/{target}/a2a/queue/{item.id}"
    for who in (caller, target):
        async with connect(server, await add_token(server, who)) as client:
            answer = await client.get(path)
        assert answer.status_code == 200
        assert answer.json()["status"] == "queued"
        assert answer.json()["caller_id"] == str(caller)
        assert "response_body" not in answer.json()
    assert (await admin.get(path)).status_code == 200
    async with connect(server, await add_token(server, other)) as client:
        assert (await client.get(path)).status_code == 403
        missing = await client.get(f"/workspaces/{target}/a2a/queue/{uuid4()}")
        assert (missing.status_code, missing.json()["error"]) == (404, "queue item not found")
        assert missing.json()["retryable"] is True


async def test_a_queued_message_is_hidden_from_strangers(
    server: Server, anonymous: httpx.AsyncClient
) -> None:
    target = await add_workspace(server)
    item = await put(server, post(target))
    path = f"/workspaces/{target}/a2a/queue/{item.id}"
    assert (await anonymous.get(path)).status_code == 401
    wrong = await anonymous.get(path, headers={"authorization": "Bearer nonsense"})
    assert wrong.status_code == 401
    bad = await anonymous.get(
        f"/workspaces/{target}/a2a/queue/7", headers={"authorization": "Bearer nonsense"}
    )
    assert bad.status_code == 401


async def test_a_malformed_queue_id_is_not_found(server: Server, admin: httpx.AsyncClient) -> None:
    target = await add_workspace(server)
    assert (await admin.get(f"/workspaces/{target}/a2a/queue/7")).status_code == 404


async def test_stale_messages_are_dropped(server: Server, admin: httpx.AsyncClient) -> None:
    target = await add_workspace(server)
    item = await put(server, post(target))
    async with server.db.transaction() as tx:
        await tx.execute("UPDATE mailbox_messages SET enqueued_at = now() - interval '2 hours'")
    elsewhere = await admin.post(f"/admin/a2a-queue/drop-stale?workspace_id={uuid4()}")
    assert elsewhere.json() == {"dropped": 0}
    assert (await admin.post("/admin/a2a-queue/drop-stale?max_age_minutes=180")).json() == {"dropped": 0}
    assert (await admin.post("/admin/a2a-queue/drop-stale")).json() == {"dropped": 1}
    answer = (await admin.get(f"/workspaces/{target}/a2a/queue/{item.id}")).json()
    assert (answer["status"], answer["last_error"]) == (
        "dropped",
        "dropped by an operator: older than 60 minutes",
    )


@pytest.mark.parametrize("age", ["0", "-1", "x", "1.5", "99999999999"])
async def test_a_bad_age_is_refused(admin: httpx.AsyncClient, age: str) -> None:
    answer = await admin.post(f"/admin/a2a-queue/drop-stale?max_age_minutes={age}")
    assert (answer.status_code, answer.json()["error"]) == (400, "max_age_minutes must be a positive integer")


async def test_a_bad_workspace_is_refused(admin: httpx.AsyncClient) -> None:
    answer = await admin.post("/admin/a2a-queue/drop-stale?workspace_id=x")
    assert answer.status_code == 400


@pytest.mark.parametrize("path", ["/admin/a2a-queue/drop-stale", f"/chains/{uuid4()}/stop"])
async def test_operators_routes_need_an_admin(
    server: Server, anonymous: httpx.AsyncClient, path: str
) -> None:
    assert (await anonymous.post(path)).status_code == 401
    async with connect(server, await add_token(server, await add_workspace(server))) as client:
        assert (await client.post(path)).status_code == 401


async def test_a_malformed_chain_is_not_found(admin: httpx.AsyncClient) -> None:
    assert (await admin.post("/chains/x/stop")).status_code == 404


async def test_a_stop_without_a_body_or_with_an_empty_one_is_fine(admin: httpx.AsyncClient) -> None:
    assert (await admin.post(f"/chains/{uuid4()}/stop")).status_code == 200
    empty = await admin.post(
        f"/chains/{uuid4()}/stop", content=b"", headers={"content-type": "application/json"}
    )
    assert empty.status_code == 200
    assert (await admin.post(f"/chains/{uuid4()}/stop", json={"reason": 7})).status_code == 400
