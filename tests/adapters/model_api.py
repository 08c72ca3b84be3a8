"""A model that does what the last message tells it, behind four real APIs on a local port.

Words between double brackets are its orders: `[[say TEXT]]`, `[[use TOOL {"json": …}]]`, `[[recall WORD]]`,
`[[fail STATUS]]`, `[[hang]]`. The last order of the last user message counts.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.adapters.wire import (
    Answer,
    Asked,
    ChatCompletions,
    GenerateContent,
    Json,
    Messages,
    Responses,
    Say,
    Use,
    Wire,
)

KEY = "model-key-canary-0123456789"
ORDER = re.compile(r"\[\[(say|use|recall|fail|hang)\b ?(.*?)\]\]", re.DOTALL)
IDLE = Say("nothing to do")


@dataclass
class Failing:
    status: int


@dataclass
class Hanging:
    pass


class ModelApi:
    """Start it, point a library at `url`, and read what was asked."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.hanging = 0
        self.released = 0
        self.url = ""
        self._runner: web.AppRunner | None = None
        self._calls = 0

    async def start(self) -> None:
        app = web.Application(client_max_size=16 * 1024 * 1024)
        for prefix in ("", "/v1"):
            app.router.add_post(f"{prefix}/chat/completions", self._answer_with(ChatCompletions()))
            app.router.add_post(f"{prefix}/responses", self._answer_with(Responses()))
        app.router.add_post("/v1/messages", self._answer_with(Messages()))
        app.router.add_post("/v1/messages/count_tokens", self._count)
        app.router.add_post("/{version}/models/{call}", self._answer_with(GenerateContent()))
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def _answer_with(self, wire: Wire) -> Any:
        async def answer(request: web.Request) -> web.StreamResponse:
            if _key(request) != KEY:
                return web.json_response(wire.error(401, "invalid key"), status=401)
            asked = wire.read({**await request.json(), **_from_path(request)})
            self.asked.append(asked)
            asked.number = len(self.asked)
            decided = self._decide(asked)
            if isinstance(decided, Failing):
                text = f"refused as ordered, with {KEY}"
                return web.json_response(wire.error(decided.status, text), status=decided.status)
            if isinstance(decided, Hanging):
                await self._hang()
            assert isinstance(decided, Say | Use)
            if not asked.stream:
                return web.json_response(wire.whole(asked, decided))
            return await _stream(request, wire, asked, decided)

        return answer

    async def _count(self, request: web.Request) -> web.Response:
        return web.json_response({"input_tokens": 812})

    async def _hang(self) -> None:
        self.hanging += 1
        try:
            await asyncio.sleep(600)
        finally:
            self.released += 1

    def _decide(self, asked: Asked) -> Answer | Failing | Hanging:
        place, order, rest = _order(asked)
        results = [text for role, text in asked.said[place + 1 :] if role == "tool"]
        if results:
            return Say(f"the tool said: {results[-1]}")
        match order:
            case "say":
                return Say(rest)
            case "use":
                tool, _, arguments = rest.partition(" ")
                self._calls += 1
                return Use(_offered(tool, asked), json.loads(arguments or "{}"), f"call{self._calls}")
            case "recall":
                words = [word for _, text in asked.said for word in re.findall(rf"{rest}-\w+", text)]
                return Say(f"I heard {' '.join(dict.fromkeys(words)) or 'nothing'}")
            case "fail":
                return Failing(int(rest))
            case "hang":
                return Hanging()
        return IDLE


def _order(asked: Asked) -> tuple[int, str, str]:
    """Return where the latest order stands, and what it is."""
    for place in range(len(asked.said) - 1, -1, -1):
        role, text = asked.said[place]
        if role == "user" and (found := ORDER.findall(text)):
            return place, *found[-1]
    return len(asked.said), "", ""


def _offered(tool: str, asked: Asked) -> str:
    """Return the name under which a library offers one of our tools."""
    return next((name for name in asked.tools if name == tool or name.endswith(f"__{tool}")), tool)


def _key(request: web.Request) -> str:
    bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
    headers = request.headers
    return headers.get("x-api-key") or headers.get("x-goog-api-key") or bearer or request.query.get("key", "")


def _from_path(request: web.Request) -> Json:
    call = request.match_info.get("call")
    if call is None:
        return {}
    model, _, method = call.partition(":")
    return {"model": model, "stream": method == "streamGenerateContent"}


async def _stream(request: web.Request, wire: Wire, asked: Asked, answer: Answer) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
    await response.prepare(request)
    for kind, body in wire.events(asked, answer):
        head = f"event: {kind}\n" if kind else ""
        text = body if isinstance(body, str) else json.dumps(body)
        await response.write(f"{head}data: {text}\n\n".encode())
    await response.write_eof()
    return response
