"""A server of another process that a test talks through: it tells what it was asked."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import free_port, wait_for

MEMBERS = {"owner-cookie": "owner", "admin-cookie": "admin", "member-cookie": "member", "old-cookie": None}


@dataclass
class Upstream:
    """A control plane or a canvas, as far as a tenant sees it."""

    url: str
    log: Path
    process: asyncio.subprocess.Process

    def asked(self, path: str = "") -> list[dict[str, Any]]:
        """The requests that it got, in their order; with `path` only those that begin with it."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        requests = [json.loads(line) for line in lines]
        return [request for request in requests if request["path"].startswith(path)]

    async def stop(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


@asynccontextmanager
async def upstream(folder: Path) -> AsyncIterator[Upstream]:
    """Start one; it ends with the block."""
    port, log = free_port(), folder / "upstream.jsonl"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.upstream", str(port), str(log)),
        cwd=Path(__file__).parents[1],
        env={"PATH": os.environ["PATH"]},
    )
    started = Upstream(f"http://127.0.0.1:{port}", log, process)
    try:
        await wait_for(lambda: _listens(port), 30, interval=0.05)
        yield started
    finally:
        await started.stop()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def main(port: int, log: Path) -> None:
    """Serve until killed."""
    from aiohttp import WSMsgType, web

    def note(request: web.Request, body: bytes) -> None:
        headers = {name.lower(): value for name, value in request.headers.items()}
        line = {
            "method": request.method,
            "path": request.raw_path,
            "headers": headers,
            "body": body.decode(errors="replace"),
        }
        with log.open("a") as file:
            file.write(json.dumps(line) + "\n")

    async def member(request: web.Request) -> web.Response:
        note(request, b"")
        session = request.cookies.get("mcp_session", "")
        if session == "broken-cookie":
            return web.Response(text="no json", content_type="application/json")
        if session not in MEMBERS or request.query.get("slug") != "acme":
            return web.json_response({"error": "unauthenticated"}, status=401)
        role = MEMBERS[session]
        answer = {"member": True, "user_id": f"user_{session}"} | ({"role": role} if role else {})
        return web.json_response(answer)

    async def socket(request: web.Request) -> web.WebSocketResponse:
        note(request, b"")
        connection = web.WebSocketResponse(protocols=("hmr",))
        await connection.prepare(request)
        async for message in connection:
            if message.type is WSMsgType.TEXT:
                await connection.send_str(f"echo {message.data}")
            elif message.type is WSMsgType.BINARY:
                await connection.send_bytes(message.data)
        return connection

    async def stream(request: web.Request) -> web.StreamResponse:
        note(request, b"")
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: one\n\n")
        await asyncio.sleep(3600)
        return response

    async def anything(request: web.Request) -> web.Response:
        body = await request.read()
        note(request, body)
        if request.path.startswith("/cp/"):
            answer = web.json_response({"path": request.raw_path, "body": body.decode()}, status=201)
            answer.headers.add("Set-Cookie", "a=1; Path=/")
            answer.headers.add("Set-Cookie", "b=2; Path=/")
            answer.headers["Access-Control-Allow-Origin"] = "*"
            return answer
        policy = {"content-security-policy": "script-src 'nonce-x'"} if request.path == "/nonce" else {}
        return web.Response(text="<html>canvas</html>", content_type="text/html", headers=policy)

    app = web.Application()
    app.router.add_get("/cp/auth/tenant-member", member)
    app.router.add_get("/_next/hmr", socket)
    app.router.add_get("/stream", stream)
    app.router.add_route("*", "/{anything:.*}", anything)
    web.run_app(app, host="127.0.0.1", port=port, print=None)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
