import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from molecule_ai.server.app import Server
from molecule_ai.server.events.catalogue import Event
from tests.support import add_token, add_workspace, bearer, wait_for


async def append(server: Server, event: str, workspace_id: UUID | None = None, **payload: Any) -> None:
    async with server.db.transaction() as tx:
        await server.events.append(tx, event, workspace_id, payload, actor="test")


async def test_the_log_is_newest_first(server: Server, admin: httpx.AsyncClient) -> None:
    workspace_id = await add_workspace(server)
    await append(server, Event.WORKSPACE_ONLINE, workspace_id, url="http://a")
    await append(server, "org.import", None, count=3)
    rows = (await admin.get("/events")).json()
    assert [row["event_type"] for row in rows] == ["org.import", "WORKSPACE_ONLINE"]
    assert rows[0]["workspace_id"] is None
    assert rows[1]["payload"] == {"url": "http://a"}
    assert rows[1]["actor"] == "test"
    own = (await admin.get(f"/events/{workspace_id}")).json()
    assert [row["id"] for row in own] == [rows[1]["id"]]


async def test_pages_filters_and_cursors(server: Server, admin: httpx.AsyncClient) -> None:
    one, two = await add_workspace(server), await add_workspace(server)
    for event, workspace_id in ((Event.WORKSPACE_ONLINE, one), (Event.WORKSPACE_PAUSED, two)):
        await append(server, event, workspace_id)
    first, second = (await admin.get("/events")).json()[::-1]

    async def names(path: str = "/events", **query: Any) -> list[str]:
        answer = await admin.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return [row["event_type"] for row in answer.json()]

    assert await names(type="WORKSPACE_PAUSED,WORKSPACE_REMOVED") == ["WORKSPACE_PAUSED"]
    assert await names(limit=1) == ["WORKSPACE_PAUSED"]
    assert len(await names(limit="many")) == 2
    assert await names(since_id=first["id"]) == ["WORKSPACE_PAUSED"]
    assert await names(since_id=second["id"]) == []
    assert await names(before_ts=(datetime.now(UTC) - timedelta(hours=1)).isoformat()) == []
    assert await names(f"/events/{uuid4()}") == []
    for cursor in (str(uuid4()), "nonsense"):
        gone = await admin.get("/events", params={"since_id": cursor})
        assert (gone.status_code, gone.json()["error"]) == (410, "cursor not found")
    foreign = await admin.get(f"/events/{two}", params={"since_id": first["id"]})
    assert foreign.status_code == 410
    bad = await admin.get("/events", params={"before_ts": "yesterday"})
    assert (bad.status_code, bad.json()["error"]) == (400, "before_ts must be an RFC 3339 timestamp")
    malformed = await admin.get("/events/nonsense")
    assert (malformed.status_code, malformed.json()["error"]) == (400, "invalid workspace ID")


@pytest.mark.parametrize("path", ["/events", "/events/5f0c1a2e-7f0b-4d3a-9a61-0e6d1b1f7c11", "/ws/ticket"])
async def test_the_log_is_the_operators(server: Server, anonymous: httpx.AsyncClient, path: str) -> None:
    own = await add_token(server, await add_workspace(server))
    method = "POST" if path == "/ws/ticket" else "GET"
    for headers in ({}, bearer("nonsense"), bearer(own)):
        assert (await anonymous.request(method, path, headers=headers)).status_code == 401


async def test_an_agent_may_wait_for_its_next_message(make_server: Any) -> None:
    from tests.conftest import ADMIN_TOKEN, connect

    one, two = await make_server(engines=True), await make_server(engines=True)
    await asyncio.gather(one.relay.ready.wait(), two.relay.ready.wait())
    workspace_id = await add_workspace(one)
    path, report = f"/workspaces/{workspace_id}/activity", {"activity_type": "agent_log", "summary": "s"}
    async with connect(one, ADMIN_TOKEN) as writer, connect(two, ADMIN_TOKEN) as reader:
        first = (await writer.post(path, json=report)).json()["id"]
        query = {"since_id": first, "wait_secs": "20"}
        waiting = asyncio.ensure_future(reader.get(path, params=query))
        await wait_for(lambda: two.hub.streams)  # the reader has begun to wait
        assert not waiting.done()
        second = (await writer.post(path, json=report)).json()["id"]
        answer = await asyncio.wait_for(waiting, 5)
        assert [row["id"] for row in answer.json()] == [second]
        nothing = await reader.get(path, params={"since_id": second, "wait_secs": "1"})
        assert nothing.json() == []
