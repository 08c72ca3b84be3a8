"""Server-sent events of one workspace, over a real connection."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from molecule_ai.server.app import Server
from molecule_ai.server.events.catalogue import Event
from tests.conftest import ADMIN_TOKEN, MakeServer
from tests.support import Served, add_token, add_workspace, bearer, serve


@pytest.fixture
async def local(make_server: MakeServer) -> Server:
    return await make_server()


async def append(server: Server, event: str, workspace_id: UUID, **payload: Any) -> str:
    async with server.db.transaction() as tx:
        seq = await server.events.append(tx, event, workspace_id, payload)
        return str(await tx.fetchval("SELECT id FROM structure_events WHERE seq = $1", seq))


class Reader:
    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._chunks = response.aiter_text()
        self._text = ""

    async def next(self) -> str:
        """The next block, without the blank line that ends it."""
        while "\n\n" not in self._text:
            self._text += await asyncio.wait_for(anext(self._chunks), 10)
        block, _, self._text = self._text.partition("\n\n")
        return block

    async def event(self) -> tuple[str, dict[str, Any]]:
        """Id and data of the next event."""
        lines = dict(line.split(": ", 1) for line in (await self.next()).splitlines())
        return lines.get("id", ""), json.loads(lines["data"])

    async def ends(self) -> None:
        with pytest.raises(StopAsyncIteration):
            await self.next()


@asynccontextmanager
async def follow(
    served: Served, workspace_id: UUID, query: str = "", token: str = ADMIN_TOKEN, **headers: str
) -> AsyncIterator[Reader]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    path = f"/workspaces/{workspace_id}/events/stream{query}"
    async with served.client(token) as client, client.stream("GET", path, headers=named) as response:
        reader = Reader(response)
        assert response.status_code == 200
        assert await reader.next() == ": ping"
        yield reader


async def test_a_stream_tells_of_its_workspace_only_and_ends_with_it(local: Server, dsn: str) -> None:
    workspace_id, other = await add_workspace(local), await add_workspace(local)
    own = await add_token(local, workspace_id)
    async with serve(dsn) as served, follow(served, workspace_id, token=own) as reader:
        headers = reader.response.headers
        assert headers["content-type"].startswith("text/event-stream")
        assert headers["cache-control"] == "no-cache"
        assert headers["x-accel-buffering"] == "no"
        await append(local, Event.WORKSPACE_ONLINE, other)
        await append(local, "secret.set", workspace_id)
        event_id = await append(local, Event.WORKSPACE_ONLINE, workspace_id, url="http://a")
        await local.events.broadcast(Event.TASK_UPDATED, workspace_id, {"current_task": "t"})
        read_id, first = await reader.event()
        assert read_id == event_id
        assert (first["type"], first["data"]) == ("WORKSPACE_ONLINE", {"url": "http://a"})
        assert isinstance(first["timestamp"], int)
        no_id, second = await reader.event()
        assert (no_id, second["type"]) == ("", "TASK_UPDATED")
        await append(local, Event.WORKSPACE_REMOVED, workspace_id)
        assert (await reader.event())[1]["type"] == "WORKSPACE_REMOVED"
        await reader.ends()


async def test_a_stream_goes_on_where_the_last_one_ended(local: Server, dsn: str) -> None:
    workspace_id = await add_workspace(local)
    ids = [await append(local, Event.AGENT_ASSIGNED, workspace_id, n=n) for n in range(3)]
    async with serve(dsn, workers=1) as served:
        async with follow(served, workspace_id, last_event_id=ids[0]) as reader:
            assert [(await reader.event())[0] for _ in range(2)] == ids[1:]
        async with follow(served, workspace_id, f"?since_id={ids[1]}") as reader:
            assert (await reader.event())[0] == ids[2]
            live = await append(local, Event.WORKSPACE_PAUSED, workspace_id)
            assert (await reader.event())[0] == live
        async with follow(served, workspace_id, last_event_id=str(uuid4())) as reader:
            assert await reader.next() == "event: resync\ndata: {}"


async def test_a_stream_may_be_narrowed_to_some_events(local: Server, dsn: str) -> None:
    workspace_id = await add_workspace(local)
    async with (
        serve(dsn, workers=1) as served,
        follow(served, workspace_id, "?types=WORKSPACE_PAUSED,CRON_EXECUTED") as reader,
    ):
        await append(local, Event.WORKSPACE_ONLINE, workspace_id)
        await append(local, Event.WORKSPACE_PAUSED, workspace_id)
        assert (await reader.event())[1]["type"] == "WORKSPACE_PAUSED"


async def test_a_ticket_opens_one_stream(local: Server, dsn: str) -> None:
    workspace_id = await add_workspace(local)
    async with serve(dsn, workers=1) as served, served.client(ADMIN_TOKEN) as admin:
        ticket = (await admin.post("/ws/ticket")).json()["ticket"]
        async with follow(served, workspace_id, f"?token={ticket}", token=""):
            pass
        async with served.client() as client:
            path = f"/workspaces/{workspace_id}/events/stream"
            again = await client.get(path, params={"token": ticket})
            assert (again.status_code, again.json()["error"]) == (401, "invalid workspace auth token")
            # A ticket is no key for anything else.
            ticket = (await admin.post("/ws/ticket")).json()["ticket"]
            other = await client.get(f"/workspaces/{workspace_id}/activity", params={"token": ticket})
            assert other.status_code == 401


async def test_a_ticket_dies_with_the_key_it_was_issued_for(local: Server, dsn: str) -> None:
    workspace_id = await add_workspace(local)
    async with (
        serve(dsn, workers=1) as served,
        served.client(ADMIN_TOKEN) as admin,
        served.client() as client,
    ):
        key = (await admin.post("/org/tokens")).json()
        issued = await client.post("/ws/ticket", headers=bearer(key["auth_token"]))
        await admin.delete(f"/org/tokens/{key['id']}")
        path = f"/workspaces/{workspace_id}/events/stream"
        refused = await client.get(path, params={"token": issued.json()["ticket"]})
        assert refused.status_code == 401


async def test_who_may_follow(local: Server, dsn: str) -> None:
    workspace_id = await add_workspace(local)
    other = await add_token(local, await add_workspace(local))
    async with serve(dsn, workers=1) as served, served.client() as client:
        path = f"/workspaces/{workspace_id}/events/stream"
        assert (await client.get(path)).status_code == 401
        assert (await client.get(path, headers=bearer(other))).status_code == 401
        missing = await client.get(f"/workspaces/{uuid4()}/events/stream", headers=bearer(ADMIN_TOKEN))
        assert (missing.status_code, missing.json()["error"]) == (404, "workspace not found")


async def test_a_stream_ends_with_its_credential(local: Server, dsn: str) -> None:
    workspace_id = await add_workspace(local)
    own = await add_token(local, workspace_id)
    async with serve(dsn, workers=1) as served, follow(served, workspace_id, token=own) as reader:
        async with local.db.transaction() as tx:
            await local.tokens.revoke_all(tx, [workspace_id])
        assert await reader.next() == ": closed 4401"
        await reader.ends()
