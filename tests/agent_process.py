"""A small platform that keeps the contract and records what it is asked, and real agent processes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

TOKEN = "agent-token-0123456789abcdef"
START_SECONDS = 20.0

Call = dict[str, Any]
BODY = web.RequestKey("body", dict)


class StandInPlatform:
    """The tenant server as an agent sees it: bearer checked, bodies recorded, answers scripted."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.tokens: set[str] = {TOKEN}
        self.mint_on_register = ""
        self.beat_status = "online"
        self.beat_http_status = 200
        self.peers: list[dict[str, Any]] = []
        self.answers: dict[str, str] = {}
        self.delegation_refusal: tuple[int, dict[str, Any]] | None = None
        self.delegations: list[dict[str, Any]] = []
        self.decision = "approved"
        self.approvals: dict[str, dict[str, Any]] = {}
        self.memories: list[dict[str, Any]] = []
        self.instructions = ""
        self.url = ""
        self._runner: web.AppRunner | None = None

    def of(self, path: str) -> list[Call]:
        """Return the recorded calls whose path ends like this."""
        return [call for call in self.calls if call["path"].endswith(path)]

    async def start(self, port: int = 0) -> None:
        app = web.Application(middlewares=[self._record])
        app.router.add_post("/registry/register", self._register)
        app.router.add_post("/registry/heartbeat", self._heartbeat)
        app.router.add_post("/registry/update-card", self._updated)
        app.router.add_get("/registry/{id}/peers", self._peers)
        app.router.add_get("/workspaces/{id}", self._workspace)
        app.router.add_post("/workspaces/{id}/delegate", self._delegate)
        app.router.add_get("/workspaces/{id}/delegations", self._delegations)
        app.router.add_post("/workspaces/{id}/approvals", self._create_approval)
        app.router.add_get("/workspaces/{id}/approvals/{approval}", self._approval)
        app.router.add_post("/workspaces/{id}/notify", self._sent)
        app.router.add_post("/workspaces/{id}/activity", self._sent)
        app.router.add_get("/workspaces/{id}/instructions/resolve", self._instructions)
        app.router.add_post("/workspaces/{id}/memories", self._commit)
        app.router.add_get("/workspaces/{id}/memories", self._recall)
        app.router.add_post("/workspaces/{id}/a2a", self._a2a)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @web.middleware
    async def _record(self, request: web.Request, handler: Any) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else None
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        call = {
            "method": request.method,
            "path": request.path,
            "query": dict(request.query),
            "body": body,
            "bearer": bearer,
            "workspace": request.headers.get("X-Workspace-ID"),
            "org": request.headers.get("X-Molecule-Org-Id"),
        }
        self.calls.append(call)
        if self.tokens and bearer not in self.tokens:
            return web.json_response({"error": "invalid workspace auth token"}, status=401)
        request[BODY] = body
        return await handler(request)

    async def _register(self, request: web.Request) -> web.Response:
        reply: dict[str, Any] = {"status": "registered", "heartbeat_interval_seconds": 30}
        if self.mint_on_register:
            reply["auth_token"] = self.mint_on_register
            self.tokens = {self.mint_on_register}
        return web.json_response(reply)

    async def _heartbeat(self, request: web.Request) -> web.Response:
        reply = {"status": "ok", "workspace_status": self.beat_status}
        return web.json_response(reply, status=self.beat_http_status)

    async def _updated(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "updated"})

    async def _peers(self, request: web.Request) -> web.Response:
        return web.json_response(self.peers)

    async def _workspace(self, request: web.Request) -> web.Response:
        return web.json_response({"id": request.match_info["id"], "name": "Self", "tier": 2, "secret": "no"})

    async def _delegate(self, request: web.Request) -> web.Response:
        if self.delegation_refusal is not None:
            status, body = self.delegation_refusal
            return web.json_response(body, status=status)
        body = request[BODY]
        row = {
            "delegation_id": str(uuid.uuid4()),
            "source_id": request.match_info["id"],
            "target_id": body["target_id"],
            "status": "completed",
            "result": self.answers.get(body["target_id"], "done"),
        }
        if row["result"].startswith("FAIL"):
            row |= {"status": "failed", "error": row.pop("result")}
        self.delegations.insert(0, {**row, "status": "pending", "result": ""})
        if row.get("result") != "NEVER":
            self.delegations.insert(0, row)
        reply = {"delegation_id": row["delegation_id"], "status": "delegated", "target_id": row["target_id"]}
        return web.json_response(reply, status=202)

    async def _delegations(self, request: web.Request) -> web.Response:
        wanted = request.query.get("delegation_id")
        return web.json_response([r for r in self.delegations if not wanted or r["delegation_id"] == wanted])

    async def _create_approval(self, request: web.Request) -> web.Response:
        approval_id = str(uuid.uuid4())
        self.approvals[approval_id] = {"id": approval_id, "status": "pending", "decided_by": None}
        return web.json_response({"approval_id": approval_id, "status": "pending"}, status=201)

    async def _approval(self, request: web.Request) -> web.Response:
        approval = self.approvals[request.match_info["approval"]]
        shown = dict(approval)
        if self.decision:
            approval |= {"status": self.decision, "decided_by": "dana"}
        return web.json_response(shown)

    async def _sent(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "sent"})

    async def _instructions(self, request: web.Request) -> web.Response:
        return web.json_response({"instructions": self.instructions})

    async def _commit(self, request: web.Request) -> web.Response:
        memory = {"id": str(uuid.uuid4()), **request[BODY]}
        self.memories.insert(0, memory)
        return web.json_response({"id": memory["id"], "scope": memory["scope"]}, status=201)

    async def _recall(self, request: web.Request) -> web.Response:
        query = request.query.get("q", "")
        return web.json_response([memory for memory in self.memories if query in memory["content"]])

    async def _a2a(self, request: web.Request) -> web.Response:
        message = {"kind": "message", "role": "agent", "messageId": "r", "parts": []}
        return web.json_response({"jsonrpc": "2.0", "id": "1", "result": message})


class AgentProcess:
    """`python -m molecule_ai.runtime` with an inherited socket, as the process provisioner starts it."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, workspace_id: str, log: Path) -> None:
        self.process = process
        self.url = url
        self.workspace_id = workspace_id
        self.log = log
        self.session = aiohttp.ClientSession(base_url=url)

    @property
    def pid(self) -> int:
        return self.process.pid

    async def get(self, path: str, token: str = "") -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with self.session.get(path, headers=headers) as response:
            return response.status, await response.json()

    async def rpc(self, method: str, params: Any, headers: dict[str, str] | None = None) -> dict[str, Any]:
        body = {"jsonrpc": "2.0", "id": "7", "method": method, "params": params}
        async with self.session.post("/", json=body, headers=headers) as response:
            assert response.status == 200, await response.text()
            reply: dict[str, Any] = await response.json()
            return reply

    async def say(self, text: str, **message: Any) -> str:
        """Send a message the way the platform's proxy does, and return the text of the reply."""
        reply = await self.rpc("message/send", {"message": said(text, **message)})
        assert "result" in reply, reply
        return "\n".join(part["text"] for part in reply["result"]["parts"])

    async def stop(self, signum: int = signal.SIGTERM) -> int:
        if self.process.returncode is None:
            self.process.send_signal(signum)
        return await asyncio.wait_for(self.process.wait(), 40)

    async def close(self) -> None:
        await self.session.close()
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


def said(text: str, **fields: Any) -> dict[str, Any]:
    message_id = fields.pop("messageId", str(uuid.uuid4()))
    parts = [{"kind": "text", "text": text}]
    return {"role": "user", "kind": "message", "messageId": message_id, "parts": parts, **fields}


@asynccontextmanager
async def agent_process(
    platform_url: str, config_dir: Path, config: object, env: dict[str, str], workspace_id: str
) -> AsyncIterator[AgentProcess]:
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    if config is not None:
        text = config if isinstance(config, str) else yaml.safe_dump(config)
        (config_dir / "config.yaml").write_text(text)
    environ = {
        "PATH": os.environ["PATH"],
        "WORKSPACE_ID": workspace_id,
        "PLATFORM_URL": platform_url,
        "WORKSPACE_CONFIG_PATH": str(config_dir),
        "WORKSPACE_DIR": str(config_dir.parent / "workspace"),
        "MOLECULE_WORKSPACE_TOKEN": TOKEN,
        "AGENT_LISTEN_FD": str(listener.fileno()),
        "AGENT_URL": url,
        **env,
    }
    log = config_dir.parent / "agent.log"
    with log.open("ab") as stream:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "molecule_ai.runtime"),
            env=environ,
            pass_fds=(listener.fileno(),),
            stdout=stream,
            stderr=stream,
        )
    listener.close()
    agent = AgentProcess(process, url, workspace_id, log)
    try:
        yield agent
    finally:
        await agent.close()
