"""Real sockets on real workers: who gets in, who gets what, in which order."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import pytest

from molecule_ai.server.app import Server
from molecule_ai.server.events.catalogue import Event
from tests.conftest import ADMIN_TOKEN, MakeServer
from tests.support import Served, add_token, add_workspace, bearer, serve, wait_for


class Listener:
    """A client that keeps what it receives."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.frames: list[dict[str, Any]] = []
        self._task = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        async for message in self.socket:
            body = message.json()
            self.frames += body if isinstance(body, list) else [body]

    @property
    def names(self) -> list[str]:
        return [frame["event"] for frame in self.frames]

    @property
    def seqs(self) -> list[int]:
        """Numbers of the recorded events."""
        return [frame["seq"] for frame in self.frames if "seq" in frame]

    @property
    def recorded(self) -> list[str]:
        """Names of the recorded events, in the order of arrival."""
        return [frame["event"] for frame in self.frames if "seq" in frame]

    @property
    def passing(self) -> list[str]:
        """Names of what was only broadcast, sorted."""
        return sorted(frame["event"] for frame in self.frames if "seq" not in frame)

    async def until(self, name: str) -> dict[str, Any]:
        await wait_for(lambda: name in self.names)
        return next(frame for frame in self.frames if frame["event"] == name)

    async def closed(self) -> int:
        await asyncio.wait_for(self._task, 20)
        return self.socket.close_code or 0


@asynccontextmanager
async def listen(
    served: Served, query: str = "", protocols: tuple[str, ...] = (), **headers: str
) -> AsyncIterator[Listener]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{served.url}/ws{query}", headers=named, protocols=protocols) as socket,
    ):
        yield Listener(socket)


async def refusal(served: Served, query: str = "", **headers: str) -> tuple[int, str]:
    """How an upgrade was refused: status and error text."""
    named = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    async with served.client() as client:
        answer = await client.get(f"/ws{query}", headers=named)
        return answer.status_code, answer.json()["error"]


@pytest.fixture
async def local(make_server: MakeServer) -> Server:
    """A replica in this process that writes what the served ones deliver."""
    return await make_server()


async def append(server: Server, event: str, workspace_id: UUID | None, **payload: Any) -> int:
    async with server.db.transaction() as tx:
        return await server.events.append(tx, event, workspace_id, payload)


async def test_everybody_hears_what_concerns_them(local: Server, dsn: str) -> None:
    parent = await add_workspace(local)
    child = await add_workspace(local, parent_id=parent)
    sibling = await add_workspace(local, parent_id=parent)
    cousin = await add_workspace(local, parent_id=await add_workspace(local, parent_id=sibling))
    own = {"x_workspace_id": str(child), **bearer(await add_token(local, child))}
    async with serve(dsn) as served, listen(served) as canvas, listen(served, **own) as agent:
        await append(local, Event.WORKSPACE_ONLINE, sibling, url="http://x")
        await append(local, Event.WORKSPACE_ONLINE, cousin)
        await append(local, Event.DELEGATION_SENT, sibling, task_preview="secret")
        await append(local, Event.DELEGATION_SENT, child, task_preview="mine")
        await append(local, "secret.set", child, key="K")
        await local.events.broadcast(Event.TASK_UPDATED, sibling, {"current_task": "private"})
        await local.events.broadcast(Event.APPROVAL_DECIDED, child, {"status": "approved"})
        large = "x" * 20_000
        await local.events.broadcast(Event.AGENT_MESSAGE, child, {"message": large})
        await append(local, Event.WORKSPACE_UPDATED, parent)

        for listener, passing in (
            (agent, ["AGENT_MESSAGE", "APPROVAL_DECIDED"]),
            (canvas, ["AGENT_MESSAGE", "TASK_UPDATED"]),
        ):
            await listener.until("WORKSPACE_UPDATED")
            # What is only broadcast reaches the other worker at its own time.
            await wait_for(lambda listener=listener, passing=passing: listener.passing == passing)
        assert canvas.recorded == [
            "WORKSPACE_ONLINE",
            "WORKSPACE_ONLINE",
            "DELEGATION_SENT",
            "DELEGATION_SENT",
            "WORKSPACE_UPDATED",
        ]
        assert agent.recorded == ["WORKSPACE_ONLINE", "DELEGATION_SENT", "WORKSPACE_UPDATED"]
        first = canvas.frames[0]
        assert set(first) == {"event", "workspace_id", "timestamp", "payload", "id", "seq"}
        assert first["payload"] == {"url": "http://x"}
        assert first["workspace_id"] == str(sibling)
        assert (await canvas.until("AGENT_MESSAGE"))["payload"]["message"] == large


async def test_an_agent_sees_a_new_peer_and_the_end_of_one(local: Server, dsn: str) -> None:
    parent = await add_workspace(local)
    agent_id = await add_workspace(local, parent_id=parent)
    own = {"x_workspace_id": str(agent_id), **bearer(await add_token(local, agent_id))}
    async with serve(dsn, workers=1) as served, listen(served, **own) as agent:
        peer = await add_workspace(local, parent_id=parent)
        await append(local, Event.WORKSPACE_PROVISIONING, peer, name="new")
        await agent.until("WORKSPACE_PROVISIONING")
        async with local.db.transaction() as tx:
            await tx.execute("UPDATE workspaces SET status = 'removed' WHERE id = $1", peer)
            await local.events.append(tx, Event.WORKSPACE_REMOVED, peer, {})
        await agent.until("WORKSPACE_REMOVED")


async def test_events_arrive_in_order_even_when_they_commit_out_of_order(local: Server, dsn: str) -> None:
    """A number drawn early and committed late is neither skipped nor delivered after its successor."""
    workspace_id = await add_workspace(local)
    async with serve(dsn) as served, listen(served) as live:
        begin = await append(local, Event.WORKSPACE_ONLINE, workspace_id)
        await live.until("WORKSPACE_ONLINE")
        async with local.db.transaction() as slow:
            early = await local.events.append(slow, Event.AGENT_ASSIGNED, workspace_id, {})
            late = await append(local, Event.AGENT_REMOVED, workspace_id)
            assert early < late
            # The bus is alive, yet the later event waits for the earlier one.
            await local.events.broadcast(Event.TASK_UPDATED, workspace_id, {})
            await live.until("TASK_UPDATED")
            assert "AGENT_REMOVED" not in live.names
            async with listen(served, f"?since_seq={begin}") as resumed:
                await local.events.broadcast(Event.A2A_RESPONSE, workspace_id, {})
                await resumed.until("A2A_RESPONSE")
                # What is only broadcast reaches the other worker at its own time.
                assert resumed.seqs == []
        await live.until("AGENT_REMOVED")
        assert live.seqs == [begin, early, late]
        async with listen(served, f"?since_seq={begin}") as resumed:
            await resumed.until("AGENT_REMOVED")
            assert resumed.seqs == [early, late]

        async with local.db.connection() as doomed:
            transaction = doomed.transaction()
            await transaction.start()
            await local.events.append(doomed, Event.AGENT_MOVED, workspace_id, {})
            await append(local, Event.WORKSPACE_PAUSED, workspace_id)
            await transaction.rollback()
        await live.until("WORKSPACE_PAUSED")
        assert "AGENT_MOVED" not in live.names


async def test_many_writers_lose_nothing_and_every_client_sees_one_order(local: Server, dsn: str) -> None:
    workspace_id = await add_workspace(local)

    async def write(number: int) -> None:
        async with local.db.transaction() as tx:
            await local.events.append(tx, Event.AGENT_ASSIGNED, workspace_id, {"n": number})
            if number % 3 == 0:
                await tx.execute("SELECT pg_sleep(0.002)")

    async with (
        serve(dsn) as served,
        listen(served) as one,
        listen(served) as two,
        listen(served, protocols=("molecule.batch.v1",)) as batched,
    ):
        await asyncio.gather(*(write(number) for number in range(200)))
        for client in (one, two, batched):
            await wait_for(lambda client=client: len(client.frames) == 200)
        assert batched.socket.protocol == "molecule.batch.v1"
        seqs = one.seqs
        assert seqs == sorted(seqs)
        assert two.seqs == seqs
        assert batched.seqs == seqs
        middle = seqs[100]
        async with listen(served, f"?since_seq={middle}") as resumed:
            await wait_for(lambda: len(resumed.frames) == 99)
            assert resumed.seqs == seqs[101:]


async def test_who_is_too_far_behind_is_told_to_fetch_afresh(local: Server, dsn: str) -> None:
    workspace_id = await add_workspace(local)
    async with local.db.transaction() as tx:
        first = await local.events.append(tx, Event.WORKSPACE_ONLINE, workspace_id, {})
        await tx.execute(
            "INSERT INTO structure_events (event_type, workspace_id)"
            " SELECT 'AGENT_ASSIGNED', $1 FROM generate_series(1, 1001)",
            workspace_id,
        )
    async with serve(dsn, workers=1) as served, listen(served, f"?since_seq={first}") as client:
        await client.until("RESYNC")
        assert client.names == ["RESYNC"]
        assert await refusal(served, "?since_seq=x") == (400, "since_seq must be a number")


async def test_who_gets_in(local: Server, dsn: str) -> None:
    workspace_id = await add_workspace(local)
    named = {"x_workspace_id": str(workspace_id)}
    async with serve(dsn, workers=1, cors_origins="https://canvas.example") as served:
        async with listen(served, **named):  # no token on file yet
            pass
        token = await add_token(local, workspace_id)
        other = await add_token(local, await add_workspace(local))
        assert await refusal(served, **named) == (401, "missing workspace auth token")
        for wrong in ("nonsense", other):
            assert await refusal(served, **named, **bearer(wrong)) == (401, "invalid workspace auth token")
        assert await refusal(served, origin="https://evil.example") == (403, "origin not allowed")
        async with listen(served, origin="https://canvas.EXAMPLE"):
            pass
        async with listen(served, origin=f"http://127.0.0.1:{served.port}"):
            pass
        async with listen(served, **named, **bearer(token)):
            pass
        async with served.client() as client:
            answer = await client.get("/ws")
            assert (answer.status_code, answer.json()["error"]) == (400, "websocket upgrade required")


async def test_strict_mode_wants_a_credential(local: Server, dsn: str) -> None:
    async with serve(dsn, workers=1, molecule_strict_auth="1") as served, served.client(ADMIN_TOKEN) as admin:
        assert await refusal(served) == (401, "websocket credentials required")
        assert (await refusal(served, **bearer("nonsense")))[0] == 401
        async with listen(served, **bearer(ADMIN_TOKEN)):
            pass
        async with listen(served, protocols=("molecule.v1", f"molecule.bearer.{ADMIN_TOKEN}")) as client:
            assert client.socket.protocol == "molecule.v1"
        issued = await admin.post("/ws/ticket")
        assert issued.status_code == 201
        async with listen(served, f"?token={issued.json()['ticket']}"):
            pass
        assert (await refusal(served, f"?token={issued.json()['ticket']}"))[0] == 401
        async with served.client() as anonymous:
            assert (await anonymous.post("/ws/ticket")).status_code == 401


async def test_a_socket_ends_with_its_credential_and_with_its_workspace(local: Server, dsn: str) -> None:
    one, two, three = [await add_workspace(local) for _ in range(3)]
    tokens = {w: await add_token(local, w) for w in (one, two, three)}
    headers = {w: {"x_workspace_id": str(w), **bearer(tokens[w])} for w in tokens}
    async with (
        serve(dsn) as served,
        served.client(ADMIN_TOKEN) as admin,
        listen(served, **headers[one]) as revoked,
        listen(served, **headers[two]) as removed,
        listen(served, **headers[three]) as stays,
    ):
        key = (await admin.post("/org/tokens")).json()
        async with listen(served, **bearer(key["auth_token"])) as canvas:
            token_id = (await admin.get(f"/workspaces/{one}/tokens")).json()["tokens"][0]["id"]
            await admin.delete(f"/workspaces/{one}/tokens/{token_id}")
            assert await revoked.closed() == 4401
            async with local.db.transaction() as tx:
                await tx.execute("UPDATE workspaces SET status = 'removed' WHERE id = $1", two)
                await local.events.append(tx, Event.WORKSPACE_REMOVED, two, {})
            assert await removed.closed() == 4404
            await admin.delete(f"/org/tokens/{key['id']}")
            assert await canvas.closed() == 4401
        await append(local, Event.WORKSPACE_ONLINE, three)
        await stays.until("WORKSPACE_ONLINE")


async def test_limits_of_connections_and_of_what_a_client_may_send(local: Server, dsn: str) -> None:
    async with serve(dsn, workers=1, websocket_limit=2) as served:
        async with listen(served), listen(served) as second:
            assert await refusal(served) == (503, "too many connections")
            await second.socket.send_str("ignored")
            await second.socket.send_str("x" * 70_000)
            assert await second.closed() == 1009
        await wait_for(lambda: _admitted(served))


async def _admitted(served: Served) -> bool:
    try:
        async with listen(served):
            return True
    except aiohttp.WSServerHandshakeError:
        return False


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_server_that_leaves_says_so_and_leaves_soon(local: Server, dsn: str, workers: int) -> None:
    workspace_id = await add_workspace(local)
    path = f"/workspaces/{workspace_id}/events/stream"
    async with (
        serve(dsn, workers=workers) as served,
        listen(served) as client,
        served.client(ADMIN_TOKEN) as admin,
        admin.stream("GET", path) as stream,
    ):
        chunks = stream.aiter_bytes()
        assert await anext(chunks) == b": ping\n\n"
        assert await asyncio.wait_for(served.stop(signal.SIGTERM), 40) == 0
        assert await client.closed() == 1001


async def test_a_process_that_lost_its_database_catches_up(local: Server, dsn: str) -> None:
    workspace_id = await add_workspace(local)
    async with serve(dsn, workers=1) as served, listen(served) as client:
        await append(local, Event.WORKSPACE_ONLINE, workspace_id)
        await client.until("WORKSPACE_ONLINE")
        async with local.db.transaction() as tx:
            await tx.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'molecule-listen' AND datname = current_database()"
            )
            await local.events.append(tx, Event.WORKSPACE_PAUSED, workspace_id, {})
        await client.until("WORKSPACE_PAUSED")
        await client.until("RESYNC")
        await append(local, Event.WORKSPACE_OFFLINE, workspace_id)
        await client.until("WORKSPACE_OFFLINE")
        assert client.names.count("WORKSPACE_PAUSED") == 1


async def test_an_unknown_agent_is_refused(local: Server, dsn: str) -> None:
    async with serve(dsn, workers=1) as served:
        assert (await refusal(served, x_workspace_id=str(uuid4())))[0] == 401
        assert (await refusal(served, x_workspace_id="nonsense"))[0] == 401
