"""Asking, deciding and taking back, as clients see it (contract 03 §4)."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import httpx
import pytest

from molecule_ai.server.app import Server
from tests.support import add_token, add_workspace, bearer

ASKED = {"action": "publish the post", "reason": "it is ready", "context": {"post": 7}}


@pytest.fixture
async def boss(server: Server) -> UUID:
    return await add_workspace(server, "Boss")


@pytest.fixture
async def workspace_id(server: Server, boss: UUID) -> UUID:
    return await add_workspace(server, "Writer", parent_id=boss)


async def ask(client: httpx.AsyncClient, workspace_id: UUID, **fields: Any) -> dict[str, Any]:
    answer = await client.post(f"/workspaces/{workspace_id}/approvals", json=ASKED | fields)
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


def decide_path(workspace_id: UUID, approval_id: str) -> str:
    return f"/workspaces/{workspace_id}/approvals/{approval_id}/decide"


async def events_of(server: Server, workspace_id: UUID) -> list[tuple[str, dict[str, Any]]]:
    async with server.db.connection() as connection:
        rows = await connection.fetch(
            "SELECT event_type, payload FROM structure_events WHERE workspace_id = $1 ORDER BY seq",
            workspace_id,
        )
    return [(row["event_type"], row["payload"]) for row in rows]


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]


async def test_a_request_waits_and_is_told_to_the_parent(
    server: Server, admin: httpx.AsyncClient, boss: UUID, workspace_id: UUID
) -> None:
    body = await ask(admin, workspace_id, task_id="t-1")

    assert body["status"] == "pending"
    assert body["id"] == body["approval_id"]
    assert body["expires_at"] is not None
    assert len(body["request_hash"]) == 64
    asked = {
        "approval_id": body["id"],
        "action": ASKED["action"],
        "reason": ASKED["reason"],
        "task_id": "t-1",
    }
    assert await events_of(server, workspace_id) == [("APPROVAL_REQUESTED", asked)]
    [(event, told)] = await events_of(server, boss)
    assert (event, told["approval_id"], told["level"]) == ("APPROVAL_ESCALATED", body["id"], 1)
    assert told["from_workspace_id"] == str(workspace_id)


async def test_the_list_form_has_every_field(admin: httpx.AsyncClient, workspace_id: UUID) -> None:
    body = await ask(
        admin, workspace_id, options=["now", {"id": "later", "label": "Tomorrow"}], metadata={"a": 1}
    )
    [row] = (await admin.get(f"/workspaces/{workspace_id}/approvals")).json()

    assert row == (await admin.get(f"/workspaces/{workspace_id}/approvals/{body['id']}")).json()
    assert (row["id"], row["status"], row["decided_by"], row["decided_at"]) == (
        body["id"],
        "pending",
        None,
        None,
    )
    assert row["options"] == ["now", {"id": "later", "label": "Tomorrow"}]
    assert (row["context"], row["metadata"], row["task_id"]) == ({"post": 7}, {"a": 1}, "")


async def test_the_same_key_asks_once(server: Server, admin: httpx.AsyncClient, workspace_id: UUID) -> None:
    first = await ask(admin, workspace_id, idempotency_key="k")
    again = await admin.post(f"/workspaces/{workspace_id}/approvals", json=ASKED | {"idempotency_key": "k"})

    assert again.status_code == 200
    assert (again.json()["approval_id"], again.json()["idempotent_hit"]) == (first["id"], True)
    assert "idempotent_hit" not in first
    assert len(await events_of(server, workspace_id)) == 1


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "invalid request body"),
        ({"action": "  "}, "invalid request body"),
        ({"action": 7}, "invalid request body"),
        ({"action": "x", "context": []}, "invalid request body"),
        ({"action": "x" * 2001}, "action exceeds 2000 characters"),
        ({"action": "x", "reason": "ä" * 4097}, "reason exceeds 8192 bytes"),
        ({"action": "x", "context": {"a": "x" * 65_536}}, "context exceeds 65536 bytes"),
    ],
)
async def test_bad_requests_say_why(
    admin: httpx.AsyncClient, workspace_id: UUID, body: dict[str, Any], text: str
) -> None:
    assert refusal(await admin.post(f"/workspaces/{workspace_id}/approvals", json=body)) == (400, text)


@pytest.mark.parametrize("alias", ["action_description", "description"])
async def test_older_names_of_the_action(admin: httpx.AsyncClient, workspace_id: UUID, alias: str) -> None:
    answer = await admin.post(f"/workspaces/{workspace_id}/approvals", json={alias: "clean up"})
    [row] = (await admin.get(f"/workspaces/{workspace_id}/approvals")).json()
    assert (answer.status_code, row["action"]) == (201, "clean up")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"decision": "approved"}, "approved"),
        ({"decision": "Approve"}, "approved"),
        ({"decision": "allow"}, "approved"),
        ({"approved": True}, "approved"),
        ({"decision": "denied"}, "denied"),
        ({"decision": "reject"}, "denied"),
        ({"decision": " NO "}, "denied"),
        ({"approved": False}, "denied"),
        ({"decision": "denied", "approved": True}, "denied"),
    ],
)
async def test_every_client_has_its_word_for_a_decision(
    server: Server, admin: httpx.AsyncClient, workspace_id: UUID, body: dict[str, Any], status: str
) -> None:
    asked = await ask(admin, workspace_id)
    answer = await admin.post(decide_path(workspace_id, asked["id"]), json=body)

    told = answer.json()
    assert answer.status_code == 200
    assert f'"status":"{status}"' in answer.text
    assert (told["approval_id"], told["decision"], told["approved"]) == (
        asked["id"],
        status,
        status == "approved",
    )
    assert told["decided_by"] == "human"
    recorded = [event for event, _ in await events_of(server, workspace_id)]
    assert recorded == ["APPROVAL_REQUESTED", f"APPROVAL_{status.upper()}", "approval.decide"]


async def test_bad_decisions_say_why(admin: httpx.AsyncClient, workspace_id: UUID) -> None:
    asked = await ask(admin, workspace_id, options=["a"])
    path = decide_path(workspace_id, asked["id"])
    assert refusal(await admin.post(path, json={})) == (400, "invalid request body")
    assert refusal(await admin.post(path, content=b"{")) == (400, "invalid request body")
    assert refusal(await admin.post(path, json={"decision": "maybe"})) == (
        400,
        "decision must be 'approved' or 'denied'",
    )
    refused = await admin.post(path, json={"decision": "approved", "option": "b"})
    assert refusal(refused) == (400, "option is not one of the request's options")
    assert (await admin.post(path, json={"decision": "approved", "option": "a"})).status_code == 200


async def test_a_decided_request_tells_by_whom(admin: httpx.AsyncClient, workspace_id: UUID) -> None:
    asked = await ask(admin, workspace_id)
    path = decide_path(workspace_id, asked["id"])
    first = (await admin.post(path, json={"decision": "approved", "decided_by": "mcp-client"})).json()

    again = await admin.post(path, json={"decision": "approved"})
    assert (again.status_code, again.json()["already"]) == (200, True)
    assert (again.json()["decided_by"], again.json()["decided_at"]) == ("mcp-client", first["decided_at"])
    other = await admin.post(path, json={"decision": "denied"})
    assert refusal(other) == (404, "approval not found or already decided")
    assert other.json()["current_status"] == "approved"
    assert other.json()["decided_by"] == "mcp-client"


@pytest.mark.parametrize("approval_id", ["6f1c9a52-0d6b-4b7e-9a53-1f2d3c4b5a69", "nonsense"])
async def test_unknown_requests(admin: httpx.AsyncClient, workspace_id: UUID, approval_id: str) -> None:
    base = f"/workspaces/{workspace_id}/approvals/{approval_id}"
    undecidable = (404, "approval not found or already decided")
    assert refusal(await admin.get(base)) == (404, "approval not found")
    assert refusal(await admin.post(f"{base}/decide", json={"decision": "approved"})) == undecidable
    assert refusal(await admin.post(f"{base}/approve")) == undecidable
    assert refusal(await admin.post(f"{base}/withdraw")) == (404, "approval not found")


async def test_another_workspace_reaches_nothing(
    server: Server, admin: httpx.AsyncClient, anonymous: httpx.AsyncClient, workspace_id: UUID
) -> None:
    other = await add_workspace(server)
    token = bearer(await add_token(server, other))
    asked = await ask(admin, workspace_id)
    base = f"/workspaces/{workspace_id}/approvals"

    for method, path in [
        ("GET", base),
        ("POST", base),
        ("GET", f"{base}/{asked['id']}"),
        ("POST", f"{base}/{asked['id']}/decide"),
        ("POST", f"{base}/{asked['id']}/approve"),
        ("POST", f"{base}/{asked['id']}/withdraw"),
        ("GET", f"/workspaces/{workspace_id}/approval-rules"),
    ]:
        nothing = await anonymous.request(method, path, json={})
        assert refusal(nothing) == (401, "missing workspace auth token")
        foreign = await anonymous.request(method, path, json={}, headers=token)
        assert refusal(foreign) == (401, "invalid workspace auth token")
    own_path = await anonymous.post(decide_path(other, asked["id"]), json={"approved": True}, headers=token)
    assert refusal(own_path) == (404, "approval not found or already decided")
    assert refusal(await anonymous.get("/approvals/pending")) == (401, "admin auth required")
    assert refusal(await admin.get("/workspaces/nonsense/approvals")) == (400, "invalid workspace ID")


async def test_nobody_decides_its_own_request(
    server: Server, anonymous: httpx.AsyncClient, workspace_id: UUID
) -> None:
    token = bearer(await add_token(server, workspace_id))
    created = await anonymous.post(f"/workspaces/{workspace_id}/approvals", json=ASKED, headers=token)
    path = decide_path(workspace_id, created.json()["id"])
    refused = await anonymous.post(path, json={"decision": "approved"}, headers=token)
    assert refusal(refused) == (403, "a workspace cannot decide its own approval")


@pytest.mark.settings(approvals_allow_self_decide=True)
async def test_an_operator_may_allow_it(
    server: Server, anonymous: httpx.AsyncClient, workspace_id: UUID
) -> None:
    token = bearer(await add_token(server, workspace_id))
    created = await anonymous.post(f"/workspaces/{workspace_id}/approvals", json=ASKED, headers=token)
    path = decide_path(workspace_id, created.json()["id"])
    assert (await anonymous.post(path, json={"approved": True}, headers=token)).status_code == 200


@pytest.mark.settings(admin_token="")
async def test_the_only_key_there_is_opens(
    server: Server, anonymous: httpx.AsyncClient, workspace_id: UUID
) -> None:
    token = bearer(await add_token(server, workspace_id))
    created = await anonymous.post(f"/workspaces/{workspace_id}/approvals", json=ASKED, headers=token)
    path = decide_path(workspace_id, created.json()["id"])
    assert (await anonymous.post(path, json={"approved": True}, headers=token)).status_code == 200


async def test_an_ancestor_decides_through_its_own_path(
    server: Server, admin: httpx.AsyncClient, anonymous: httpx.AsyncClient, boss: UUID, workspace_id: UUID
) -> None:
    token = bearer(await add_token(server, boss))
    asked = await ask(admin, workspace_id)
    answer = await anonymous.post(
        decide_path(boss, asked["id"]), json={"decision": "approved"}, headers=token
    )
    assert answer.status_code == 200
    async with server.db.connection() as connection:
        who = await connection.fetchval("SELECT decided_principal FROM approval_requests")
    assert (who["kind"], who["workspace_id"]) == ("workspace", str(boss))


async def test_a_child_does_not_decide_for_its_parent(
    server: Server, admin: httpx.AsyncClient, anonymous: httpx.AsyncClient, boss: UUID, workspace_id: UUID
) -> None:
    token = bearer(await add_token(server, workspace_id))
    asked = await ask(admin, boss)
    answer = await anonymous.post(
        decide_path(workspace_id, asked["id"]), json={"approved": True}, headers=token
    )
    assert refusal(answer) == (404, "approval not found or already decided")


async def test_a_gate_needs_a_human(server: Server, admin: httpx.AsyncClient, workspace_id: UUID) -> None:
    asked = await ask(admin, workspace_id)
    async with server.db.transaction() as tx:
        await tx.execute("UPDATE approval_requests SET gate_workspace_id = $1", workspace_id)
    path = decide_path(workspace_id, asked["id"])
    refused = await admin.post(path, json={"approved": True})
    assert refusal(refused) == (403, "gate approvals need a human decision")
    from_browser = await admin.post(
        path, json={"approved": True}, headers={"origin": "http://localhost:3000"}
    )
    assert from_browser.status_code == 200


async def test_aliases_need_no_body(admin: httpx.AsyncClient, workspace_id: UUID) -> None:
    for verb, status in [("approve", "approved"), ("deny", "denied")]:
        for request in ({}, {"content": b"", "headers": {"content-type": "application/json"}}, {"json": {}}):
            asked = await ask(admin, workspace_id)
            path = f"/workspaces/{workspace_id}/approvals/{asked['id']}/{verb}"
            answer = await admin.post(path, **request)  # type: ignore[arg-type]
            assert (answer.status_code, answer.json()["status"]) == (200, status)


async def test_links_lead_to_the_canvas_and_change_nothing(
    admin: httpx.AsyncClient, anonymous: httpx.AsyncClient, workspace_id: UUID
) -> None:
    asked = await ask(admin, workspace_id)
    for approval_id in (asked["id"], "pending"):
        for verb in ("approve", "deny"):
            answer = await anonymous.get(f"/workspaces/{workspace_id}/approvals/{approval_id}/{verb}")
            assert answer.status_code == 302
            assert answer.headers["location"] == f"/?workspace={workspace_id}&approval={approval_id}"
    assert (await admin.get(f"/workspaces/{workspace_id}/approvals")).json()[0]["status"] == "pending"


async def test_withdrawing_is_for_the_requester(
    server: Server, admin: httpx.AsyncClient, anonymous: httpx.AsyncClient, boss: UUID, workspace_id: UUID
) -> None:
    token = bearer(await add_token(server, workspace_id))
    asked = await ask(admin, workspace_id)
    foreign = await admin.post(f"/workspaces/{boss}/approvals/{asked['id']}/withdraw")
    assert refusal(foreign) == (403, "only the requesting workspace can withdraw this approval")

    path = f"/workspaces/{workspace_id}/approvals/{asked['id']}/withdraw"
    answer = await anonymous.post(path, headers=token)
    assert answer.json() == {"status": "withdrawn", "approval_id": asked["id"], "decided_by": "requester"}
    again = await anonymous.post(path, headers=token)
    assert refusal(again) == (409, "approval is no longer pending")
    assert again.json()["status"] == "withdrawn"
    recorded = await events_of(server, workspace_id)
    assert recorded[-2] == (
        "APPROVAL_WITHDRAWN",
        {"approval_id": asked["id"], "decision": "withdrawn", "decided_by": "requester"},
    )


async def test_pending_lists_the_newest_of_all_workspaces(
    server: Server, admin: httpx.AsyncClient, boss: UUID, workspace_id: UUID
) -> None:
    first, second = await ask(admin, workspace_id), await ask(admin, boss)
    done = await ask(admin, boss)
    await admin.post(decide_path(boss, done["id"]), json={"approved": False})

    listed = (await admin.get("/approvals/pending")).json()
    assert [row["id"] for row in listed] == [second["id"], first["id"]]
    assert listed[0]["workspace_name"] == "Boss"
    assert set(listed[0]) >= {
        "workspace_id",
        "action",
        "reason",
        "status",
        "created_at",
        "expires_at",
        "context",
    }


async def test_lists_are_bounded_and_forgiving(admin: httpx.AsyncClient, workspace_id: UUID) -> None:
    for _ in range(3):
        await ask(admin, workspace_id)
    path = f"/workspaces/{workspace_id}/approvals"
    assert len((await admin.get(path, params={"limit": "2"})).json()) == 2
    assert len((await admin.get(path, params={"limit": "many"})).json()) == 3
    assert (await admin.get(path, params={"status": "denied"})).json() == []


async def test_a_removed_workspace_asks_no_more(server: Server, admin: httpx.AsyncClient) -> None:
    gone = await add_workspace(server, status="removed")
    answer = await admin.post(f"/workspaces/{gone}/approvals", json=ASKED)
    assert refusal(answer) == (404, "workspace not found")


async def test_the_requests_of_a_removed_workspace_are_withdrawn(
    server: Server, admin: httpx.AsyncClient
) -> None:
    workspace_id = await add_workspace(server, "leaving")
    asked = await ask(admin, workspace_id)
    gone = await admin.delete(f"/workspaces/{workspace_id}", headers={"x-confirm-name": "leaving"})
    assert gone.status_code == 200
    async with server.db.connection() as connection:
        row = await connection.fetchrow(
            "SELECT status::text, decided_by FROM approval_requests WHERE id = $1", asked["approval_id"]
        )
        told = await connection.fetchval(
            "SELECT count(*) FROM structure_events WHERE workspace_id = $1 AND event_type = $2",
            workspace_id,
            "APPROVAL_WITHDRAWN",
        )
    assert (dict(row or {}), told) == ({"status": "withdrawn", "decided_by": "workspace removed"}, 1)
