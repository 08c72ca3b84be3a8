"""A small platform that keeps the contract and records what it is asked, and real agent processes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web

from molecule_ai.runtime.credentials import Credentials
from molecule_ai.runtime.platform import Platform
from molecule_ai.runtime.settings import RuntimeSettings

TOKEN = "agent-token-0123456789abcdef"
START_SECONDS = 20.0

Call = dict[str, Any]
BODY = web.RequestKey("body", dict)


async def _wait_for(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError("the condition did not come true in time")
        await asyncio.sleep(0.02)
    return found


@pytest.fixture
def wait_for() -> Callable[..., Awaitable[Any]]:
    return _wait_for


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


@pytest.fixture
async def platform() -> AsyncIterator[StandInPlatform]:
    standin = StandInPlatform()
    await standin.start()
    yield standin
    await standin.stop()


@pytest.fixture
def config_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "configs"
    directory.mkdir()
    return directory


@pytest.fixture
def settings(platform: StandInPlatform, config_dir: Path, tmp_path: Path) -> RuntimeSettings:
    return RuntimeSettings(
        workspace_id=str(uuid.uuid4()),
        platform_url=platform.url,
        workspace_config_path=config_dir,
        workspace_dir=tmp_path / "workspace",
        molecule_workspace_token=TOKEN,
        approval_poll_interval=0.2,
    )


@pytest.fixture
async def client(settings: RuntimeSettings) -> AsyncIterator[Platform]:
    """The agent's own client, talking to the stand-in over a real socket."""
    credentials = Credentials(settings.workspace_config_path, settings.molecule_workspace_token)
    platform = Platform(settings, credentials)
    yield platform
    await platform.close()


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
        return await asyncio.wait_for(self.process.wait(), 10)

    async def close(self) -> None:
        await self.session.close()
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


def said(text: str, **fields: Any) -> dict[str, Any]:
    message_id = fields.pop("messageId", str(uuid.uuid4()))
    parts = [{"kind": "text", "text": text}]
    return {"role": "user", "kind": "message", "messageId": message_id, "parts": parts, **fields}


@pytest.fixture(name="said")
def _said() -> Callable[..., dict[str, Any]]:
    return said


@pytest.fixture(scope="module")
async def parrot(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[StandInPlatform, AgentProcess]]:
    """A platform and an echo agent for tests that only look, or only add."""
    platform = StandInPlatform()
    await platform.start()
    config_dir = tmp_path_factory.mktemp("parrot") / "configs"
    config_dir.mkdir()
    config = {"name": "Parrot", "role": "repeats things", "description": "A test bird", "runtime": "echo"}
    env = {"MOLECULE_ORG_ID": "org-1", "MOLECULE_INSTANCE_ID": "i-7", "STRIPE_API_KEY": "canary-value-9876"}
    async with _agent(
        platform.url, config_dir, {**config, "tools": ["search"]}, env, str(uuid.uuid4())
    ) as agent:
        await _wait_for(lambda: platform.of("/registry/heartbeat"), START_SECONDS)
        yield platform, agent
    await platform.stop()


StartAgent = Callable[..., Awaitable[AgentProcess]]


@asynccontextmanager
async def _agent(
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


@pytest.fixture
async def start_agent(platform: StandInPlatform, config_dir: Path) -> AsyncIterator[StartAgent]:
    """Start agents that end with the test; returns when the agent has registered, unless told not to wait."""
    async with AsyncExitStack() as stack:

        async def start(config: object, *, registers: bool = True, **env: str) -> AgentProcess:
            workspace_id = env.pop("WORKSPACE_ID", str(uuid.uuid4()))
            url = env.pop("PLATFORM_URL", platform.url)
            agent = await stack.enter_async_context(_agent(url, config_dir, config, env, workspace_id))
            if registers:
                await _wait_for(
                    lambda: (
                        agent.process.returncode is not None
                        or any(
                            call["body"]["id"] == workspace_id for call in platform.of("/registry/register")
                        )
                    ),
                    START_SECONDS,
                )
                assert agent.process.returncode is None, agent.log.read_text()
            return agent

        yield start


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
