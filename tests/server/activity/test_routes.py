from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from molecule_ai.server.activity.schemas import Entry, SourceKind
from molecule_ai.server.app import Server
from tests.support import add_token, add_workspace, bearer


@pytest.fixture
async def workspace_id(server: Server) -> UUID:
    return await add_workspace(server, "Writer")


async def _record(server: Server, workspace_id: UUID, **fields: Any) -> UUID:
    values: dict[str, Any] = {"activity_type": "agent_log", "source_kind": SourceKind.AGENT} | fields
    return await server.activity.record(Entry(workspace_id=workspace_id, **values))


async def _said(server: Server, workspace_id: UUID, text: str, **fields: Any) -> UUID:
    body = {"params": {"message": {"parts": [{"kind": "text", "text": text}]}}}
    values = {"source_kind": SourceKind.CANVAS, "method": "message/send", "request_body": body} | fields
    return await _record(server, workspace_id, activity_type="a2a_receive", **values)


async def test_a_report_comes_back_newest_first(admin: httpx.AsyncClient, workspace_id: UUID) -> None:
    path = f"/workspaces/{workspace_id}/activity"
    first = await admin.post(
        path, json={"activity_type": "agent_log", "summary": "one", "metadata": {"k": 1}}
    )
    assert (first.status_code, first.json()["status"]) == (200, "logged")
    both = {"activity_type": "skill_promotion", "request_body": [1], "metadata": {"m": 2}, "duration_ms": 7}
    second = await admin.post(path, json=both)

    rows = (await admin.get(path)).json()
    assert [row["id"] for row in rows] == [second.json()["id"], first.json()["id"]]
    assert (rows[0]["request_body"], rows[0]["metadata"], rows[0]["duration_ms"]) == ([1], {"m": 2}, 7)
    assert (rows[1]["request_body"], rows[1]["status"], rows[1]["type"]) == ({"k": 1}, "ok", "agent_log")
    assert rows[1]["source_id"] == str(workspace_id)
    assert "response_body" not in rows[1]
    assert "tool_trace" not in rows[1]


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"{", 400, "invalid request body: ActivityType (activity_type) is required"),
        (b"{}", 400, "invalid request body: ActivityType (activity_type) is required"),
        (
            b'{"activity_type":"nonsense"}',
            400,
            "invalid activity_type, must be one of: a2a_send, a2a_receive, task_update, agent_log, "
            "skill_promotion, memory_write, error",
        ),
        (
            b'{"activity_type":"error","source_id":"5f0c1a2e-7f0b-4d3a-9a61-0e6d1b1f7c11"}',
            403,
            "source_id must match authenticated workspace",
        ),
        (b'{"activity_type":"error","target_id":"nobody"}', 400, "target_id must be a UUID"),
    ],
)
async def test_a_wrong_report_is_refused(
    admin: httpx.AsyncClient, workspace_id: UUID, body: bytes, status: int, text: str
) -> None:
    answer = await admin.post(f"/workspaces/{workspace_id}/activity", content=body)
    assert (answer.status_code, answer.json()["error"]) == (status, text)
    assert (await admin.get(f"/workspaces/{workspace_id}/activity")).text == "[]"


async def test_long_texts_are_cut_and_nul_is_dropped(admin: httpx.AsyncClient, workspace_id: UUID) -> None:
    body = {"activity_type": "error", "summary": "s\0" * 300, "error_detail": "e" * 5000}
    body |= {"request_body": {"a": "x\0y"}}
    await admin.post(f"/workspaces/{workspace_id}/activity", json=body)
    row = (await admin.get(f"/workspaces/{workspace_id}/activity")).json()[0]
    assert (row["summary"], len(row["error_detail"])) == ("s" * 256, 4096)
    assert row["request_body"] == {"a": "xy"}


@pytest.mark.parametrize("path", ["activity", "notify"])
async def test_only_the_workspace_itself_and_admins_write(
    server: Server, anonymous: httpx.AsyncClient, admin: httpx.AsyncClient, workspace_id: UUID, path: str
) -> None:
    own = await add_token(server, workspace_id)
    other = await add_token(server, await add_workspace(server))
    url, body = f"/workspaces/{workspace_id}/{path}", {"activity_type": "agent_log", "message": "hi"}
    assert (await anonymous.post(url, json=body)).json()["error"] == "missing workspace auth token"
    for wrong in ("nonsense", other):
        refused = await anonymous.post(url, json=body, headers=bearer(wrong))
        assert (refused.status_code, refused.json()["error"]) == (401, "invalid workspace auth token")
    assert (await anonymous.post(url, json=body, headers=bearer(own))).status_code == 200
    missing = await admin.post(f"/workspaces/{uuid4()}/{path}", json=body)
    assert (missing.status_code, missing.json()["error"]) == (404, "workspace not found")
    assert (await anonymous.get(f"/workspaces/{workspace_id}/activity")).status_code == 401


async def test_filters_hold_together(server: Server, admin: httpx.AsyncClient, workspace_id: UUID) -> None:
    peer = await add_workspace(server)
    said = await _said(server, workspace_id, "hi")
    cron = await _said(server, workspace_id, "tick", source_kind=SourceKind.SCHEDULER, schedule_id=uuid4())
    asked = await _said(server, workspace_id, "ask", source_kind=SourceKind.AGENT, source_id=peer)
    sent = await _record(server, workspace_id, source_id=workspace_id, target_id=peer)

    async def ids(**query: Any) -> list[str]:
        answer = await admin.get(f"/workspaces/{workspace_id}/activity", params=query)
        assert answer.status_code == 200, answer.text
        return [row["id"] for row in answer.json()]

    assert await ids() == [str(i) for i in (sent, asked, cron, said)]
    assert await ids(order="asc") == [str(i) for i in (said, cron, asked, sent)]
    assert await ids(type="agent_log") == [str(sent)]
    assert await ids(type="agent_log,a2a_receive", limit=2) == [str(sent), str(asked)]
    assert await ids(source="canvas") == [str(said)]
    assert await ids(source="scheduler") == [str(cron)]
    assert await ids(source="agent") == [str(sent), str(asked)]
    assert await ids(peer_id=str(peer)) == [str(sent), str(asked)]
    assert await ids(peer_id=str(peer), type="a2a_receive") == [str(asked)]
    assert await ids(since_secs=60, limit=1) == [str(sent)]
    assert len(await ids(limit=0)) == 4
    async with server.db.transaction() as tx:
        await tx.execute("UPDATE activity_logs SET created_at = now() - interval '1 day' WHERE id = $1", said)
    assert str(said) not in await ids(since_secs=60)
    assert await ids(before_ts=(datetime.now(UTC) - timedelta(hours=1)).isoformat()) == [str(said)]


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({"source": "nobody"}, "source must be 'canvas' or 'agent'"),
        ({"peer_id": "x"}, "peer_id must be a UUID"),
        ({"before_ts": "yesterday"}, "before_ts must be an RFC 3339 timestamp"),
        ({"before_ts": "2026-01-01"}, "before_ts must be an RFC 3339 timestamp"),
        ({"since_secs": "0"}, "since_secs must be between 1 and 2592000"),
        ({"since_secs": "x"}, "since_secs must be between 1 and 2592000"),
        ({"order": "up"}, "order must be 'asc' or 'desc'"),
    ],
)
async def test_a_wrong_question_is_refused(
    admin: httpx.AsyncClient, workspace_id: UUID, query: dict[str, str], text: str
) -> None:
    for path in (f"/workspaces/{workspace_id}/activity", "/activity"):
        answer = await admin.get(path, params=query)
        assert (answer.status_code, answer.json()["error"]) == (400, text)


async def test_a_cursor_gives_what_came_after_it_without_the_agent_s_own_words(
    server: Server, admin: httpx.AsyncClient, workspace_id: UUID
) -> None:
    ids = [await _said(server, workspace_id, str(n)) for n in range(4)]
    await admin.post(f"/workspaces/{workspace_id}/notify", json={"message": "my answer"})
    path = f"/workspaces/{workspace_id}/activity"
    after = (await admin.get(path, params={"since_id": str(ids[1]), "type": "a2a_receive"})).json()
    assert [row["id"] for row in after] == [str(ids[2]), str(ids[3])]
    assert [row["data"]["text"] for row in after] == ["2", "3"]

    foreign = await _said(server, await add_workspace(server), "elsewhere")
    for cursor in (str(uuid4()), str(foreign), "nonsense"):
        lost = await admin.get(path, params={"since_id": cursor})
        assert (lost.status_code, lost.json()["error"]) == (410, "cursor not found")


async def test_a_polling_agent_s_first_look_is_oldest_first(
    server: Server, admin: httpx.AsyncClient, anonymous: httpx.AsyncClient
) -> None:
    workspace_id = await add_workspace(server, delivery_mode="poll")
    own = bearer(await add_token(server, workspace_id))
    ids = [str(await _said(server, workspace_id, str(n))) for n in range(3)]
    path, query = f"/workspaces/{workspace_id}/activity", {"type": "a2a_receive", "limit": "2"}

    async def look(client: httpx.AsyncClient, **more: Any) -> list[str]:
        return [row["id"] for row in (await client.get(path, params=query | more)).json()]

    anonymous.headers.update(own)
    assert await look(anonymous) == ids[1:]
    assert await look(anonymous, source="canvas") == ids[:0:-1]
    assert await look(admin) == ids[:0:-1]


async def test_the_data_of_inbound_rows_says_who_spoke(
    server: Server, admin: httpx.AsyncClient, workspace_id: UUID
) -> None:
    peer = await add_workspace(server, "Editor", role="edits")
    await _said(server, workspace_id, "from the user")
    await _said(server, workspace_id, "from a peer", source_kind=SourceKind.AGENT, source_id=peer)
    await _said(server, workspace_id, "from a schedule", source_kind=SourceKind.SCHEDULER)
    await _said(server, workspace_id, "from a chat", source_kind=SourceKind.CHANNEL, source_label="channel:x")
    await admin.post(f"/workspaces/{workspace_id}/notify", json={"message": "done"})
    rows = (await admin.get(f"/workspaces/{workspace_id}/activity", params={"order": "asc"})).json()
    data = [row["data"] for row in rows]
    assert [(d["source"], d["text"]) for d in data] == [
        ("canvas_user", "from the user"),
        ("peer_agent", "from a peer"),
        ("scheduler", "from a schedule"),
        ("channel", "from a chat"),
        ("agent_notify", "done"),
    ]
    assert (data[1]["peer_name"], data[1]["peer_role"], data[1]["source_id"]) == (
        "Editor",
        "edits",
        str(peer),
    )
    assert data[1]["agent_card_url"].endswith(f"/registry/discover/{peer}")
    assert data[0]["peer_name"] is None


async def test_operators_see_the_activity_of_all(
    server: Server, admin: httpx.AsyncClient, anonymous: httpx.AsyncClient, workspace_id: UUID
) -> None:
    other = await add_workspace(server)
    ids = [str(await _record(server, w)) for w in (workspace_id, other)]
    assert [row["id"] for row in (await admin.get("/activity")).json()] == ids[::-1]
    one = await admin.get("/activity", params={"workspace_id": str(other)})
    assert [row["id"] for row in one.json()] == [ids[1]]
    assert (await anonymous.get("/activity")).status_code == 401
    own = await add_token(server, workspace_id)
    assert (await anonymous.get("/activity", headers=bearer(own))).status_code == 401


async def test_a_notice_becomes_a_chat_row(
    server: Server, admin: httpx.AsyncClient, workspace_id: UUID
) -> None:
    file = {"uri": "workspace:/report.pdf", "name": "report.pdf", "mimeType": "application/pdf", "size": 12}
    path = f"/workspaces/{workspace_id}/notify"
    sent = await admin.post(path, json={"message": "é" * 90, "attachments": [file]})
    assert sent.status_code == 200
    assert (sent.json()["status"], sent.json()["persisted"]) == ("sent", True)
    await admin.post(path, json={"message": "plain", "attachments": []})
    plain, rich = (await admin.get(f"/workspaces/{workspace_id}/activity")).json()
    assert rich["id"] == sent.json()["id"]
    assert rich["summary"] == f"Agent message: {'é' * 80}…"
    assert rich["response_body"] == {"result": "é" * 90, "parts": [{"kind": "file", "file": file}]}
    assert (rich["method"], rich["source_id"], rich["status"]) == ("notify", None, "ok")
    assert "request_body" not in rich
    assert plain["response_body"] == {"result": "plain"}
    canvas = await admin.get(f"/workspaces/{workspace_id}/activity", params={"source": "canvas"})
    assert len(canvas.json()) == 2


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"{", "message is required"),
        (b"{}", "message is required"),
        (b'{"message":""}', "message is required"),
        (b'{"message":5}', "message is required"),
        (
            b'{"message":"m","attachments":[{"uri":"https://a/b","name":"b"},{"uri":"https://a/c"}]}',
            "attachment[1]: uri and name are required",
        ),
        (
            b'{"message":"m","attachments":[{"uri":"file:///etc/passwd","name":"b"}]}',
            "attachment[0]: uri must be workspace: or https:",
        ),
        (b'{"message":"' + b"m" * 65537 + b'"}', "message too long (max 65536 bytes)"),
    ],
)
async def test_a_wrong_notice_is_refused(
    admin: httpx.AsyncClient, workspace_id: UUID, body: bytes, text: str
) -> None:
    answer = await admin.post(f"/workspaces/{workspace_id}/notify", content=body)
    assert (answer.status_code, answer.json()["error"]) == (400, text)
    assert (await admin.get(f"/workspaces/{workspace_id}/activity")).json() == []


async def test_a_signal_without_message_leaves_no_chat_bubble(
    admin: httpx.AsyncClient, workspace_id: UUID
) -> None:
    body = {"type": "delegation_complete", "task_id": "t1", "status": "completed"}
    sent = await admin.post(f"/workspaces/{workspace_id}/notify", json=body)
    assert (sent.status_code, sent.json()["status"]) == (200, "sent")
    row = (await admin.get(f"/workspaces/{workspace_id}/activity")).json()[0]
    assert (row["activity_type"], row["request_body"]) == ("agent_log", body)


async def test_who_may_not_talk_to_the_user(server: Server, admin: httpx.AsyncClient) -> None:
    muted = await add_workspace(server, talk_to_user_enabled=False)
    removed = await add_workspace(server, status="removed")
    assert (await admin.post(f"/workspaces/{muted}/notify", json={"message": "m"})).status_code == 403
    gone = await admin.post(f"/workspaces/{removed}/notify", json={"message": "m"})
    assert (gone.status_code, gone.json()["error"]) == (404, "workspace not found")
