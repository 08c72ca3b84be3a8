"""The transcript of an agent, and the bearer by which an agent knows the platform."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import httpx
from aiohttp import web

from molecule_ai.server.app import Server
from tests.agents import Agent, add_agent, envelope
from tests.support import add_token, add_workspace, bearer, free_port

PAGE = {"supported": True, "runtime": "echo", "lines": [{"index": 3}], "cursor": 4, "more": False}


class Diarist(Agent):
    """Has a transcript, and keeps who asked for it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[web.Request] = []
        self.page: web.Response = web.json_response(PAGE)

    async def transcript(self, request: web.Request) -> web.Response:
        self.asked.append(request)
        return self.page

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Diarist]:
        application = web.Application()
        application.router.add_post("/", self.handle)
        application.router.add_get("/transcript", self.transcript)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()


async def secret_of(server: Server, workspace_id: UUID) -> str:
    async with server.db.transaction() as tx:
        return await server.inbound.ensure(tx, workspace_id)


async def ask(client: httpx.AsyncClient, workspace_id: Any, query: str = "") -> httpx.Response:
    return await client.get(f"/workspaces/{workspace_id}/transcript{query}")


async def test_a_page_of_the_agents_own_words(server: Server, admin: httpx.AsyncClient) -> None:
    async with Diarist().serving() as agent:
        target = await add_agent(server, agent)
        secret = await secret_of(server, target)
        answer = await ask(admin, target, "?since=3&limit=5")
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert {name: told[name] for name in PAGE} == PAGE
        (asked,) = agent.asked
        assert dict(asked.query) == {"since": "3", "limit": "5"}
        assert asked.headers["authorization"] == f"Bearer {secret}"


async def test_messages_carry_the_same_bearer(server: Server, admin: httpx.AsyncClient) -> None:
    async with Diarist().serving() as agent:
        target, stranger = await add_agent(server, agent), await add_agent(server, agent)
        secret = await secret_of(server, target)
        for _ in range(2):
            await admin.post(f"/workspaces/{target}/a2a", json=envelope("hello"))
        await admin.post(f"/workspaces/{stranger}/a2a", json=envelope("hello"))
        given = [headers.get("Authorization") for headers in agent.headers]
        assert given == [f"Bearer {secret}", f"Bearer {secret}", None]


async def test_who_may_read_a_transcript(server: Server, anonymous: httpx.AsyncClient) -> None:
    async with Diarist().serving() as agent:
        target, other = await add_agent(server, agent), await add_workspace(server)
        own, foreign = await add_token(server, target), await add_token(server, other)
        path = f"/workspaces/{target}/transcript"
        assert (await anonymous.get(path)).status_code == 401
        for wrong in ("nonsense", foreign):
            assert (await anonymous.get(path, headers=bearer(wrong))).status_code == 401
        assert (await anonymous.get(path, headers=bearer(own))).status_code == 200


async def test_what_has_no_transcript_says_why(server: Server, admin: httpx.AsyncClient) -> None:
    polling = await add_workspace(server, delivery_mode="poll", runtime="external")
    told = await ask(admin, polling)
    assert (told.status_code, told.json()["supported"], told.json()["reason"]) == (200, False, "poll")
    async with Agent().serving() as plain:  # serves messages and nothing else
        told = await ask(admin, await add_agent(server, plain))
        assert (told.status_code, told.json()["supported"]) == (200, False)
    silent = await ask(admin, await add_workspace(server, url=""))
    assert (silent.status_code, silent.json()["error"]) == (
        503,
        "workspace not registered (no URL on file)",
    )


async def test_what_cannot_be_read_is_a_4xx_or_a_502(server: Server, admin: httpx.AsyncClient) -> None:
    assert (await ask(admin, uuid4())).status_code == 404
    assert (await ask(admin, "nope")).status_code == 400
    metadata = await add_workspace(server, url="http://169.254.169.254/latest")
    refused = await ask(admin, metadata)
    assert (refused.status_code, refused.json()["error"]) == (400, "workspace URL not allowed")
    async with Diarist().serving() as agent:
        target = await add_agent(server, agent)
        for query in ("?since=x", "?limit=x"):
            assert (await ask(admin, target, query)).status_code == 400
        agent.page = web.Response(text="<html>")
        assert (await ask(admin, target)).status_code == 502
        agent.page = web.Response(body=b" " * 1_100_000)
        assert (await ask(admin, target)).status_code == 502
    gone = Agent()
    gone.url = f"http://127.0.0.1:{free_port()}"
    nobody = await ask(admin, await add_agent(server, gone))
    assert (nobody.status_code, nobody.json()["error"]) == (502, "workspace unreachable")
