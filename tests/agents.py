"""Small A2A agents on loopback, and workspaces that point to them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

from aiohttp import web

from molecule_ai.server.app import Server
from tests.support import add_workspace

Answer = Callable[["Agent", dict[str, Any]], Awaitable[web.StreamResponse]]


def reply(request: dict[str, Any], text: str, **metadata: Any) -> web.Response:
    """What a well-behaved agent answers."""
    result: dict[str, Any] = {"kind": "message", "role": "agent", "parts": [{"kind": "text", "text": text}]}
    if metadata:
        result["metadata"] = metadata
    return web.json_response({"jsonrpc": "2.0", "id": request.get("id"), "result": result})


async def echo(agent: Agent, request: dict[str, Any]) -> web.StreamResponse:
    """Answer with the text of the message."""
    return reply(request, agent.texts[-1])


class Agent:
    """Keeps what it received. Acts once per messageId, like the stock runtime."""

    def __init__(self, answer: Answer = echo) -> None:
        self.answer = answer
        self.received: list[dict[str, Any]] = []
        self.requests: list[web.Request] = []
        self.headers: list[dict[str, str]] = []
        self.texts: list[str] = []
        self.effects: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.url = ""
        self.peak = 0
        self.busy = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        said = (body.get("params") or {}).get("message") or {}
        self.received.append(body)
        self.requests.append(request)
        self.headers.append(dict(request.headers))
        self.texts.append("".join(part.get("text", "") for part in said.get("parts", [])))
        message_id = str(said.get("messageId"))
        if message_id not in self.effects:
            self.effects.append(message_id)
        self.busy += 1
        self.peak = max(self.peak, self.busy)
        try:
            await self.gate.wait()
            return await self.answer(self, body)
        finally:
            self.busy -= 1

    def said(self, index: int = -1) -> dict[str, Any]:
        """The message of a request."""
        message: dict[str, Any] = self.received[index]["params"]["message"]
        return message

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Agent]:
        application = web.Application()
        application.router.add_post("/", self.handle)
        runner = web.AppRunner(application, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()


async def add_agent(server: Server, agent: Agent, name: str = "", **columns: Any) -> UUID:
    """An online workspace whose address our own provisioner assigned."""
    handle = {"instance_id": str(uuid4()), "url": agent.url, "node": "test"}
    return await add_workspace(server, name, **{"url": agent.url, "handle": handle, **columns})


def envelope(text: str, message_id: str = "", **params: Any) -> dict[str, Any]:
    """A `message/send` request."""
    message: dict[str, Any] = {"role": "user", "parts": [{"kind": "text", "text": text}]}
    if message_id:
        message["messageId"] = message_id
    return {"jsonrpc": "2.0", "id": "1", "method": "message/send", "params": {"message": message, **params}}
