"""The agent's HTTP side: A2A at `/`, the card, the transcript, health."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web

from molecule_ai.runtime.card import WELL_KNOWN_PATHS
from molecule_ai.runtime.credentials import Credentials
from molecule_ai.runtime.lean import load_module
from molecule_ai.runtime.runner import TaskRunner
from molecule_ai.runtime.settings import RuntimeSettings
from molecule_ai.runtime.snapshot import transcript_page
from molecule_ai.runtime.state import TRANSCRIPT_LINES, AgentState

PROTOCOL_MODULE = "molecule_ai.runtime.protocol"
RPC_PATHS = ("/", "/a2a")  # AGENTS.md and older peers name the second one
MAX_BODY_BYTES = 2 * 1024 * 1024  # twice what the platform's proxy lets through
NOT_CONFIGURED = {"code": -32603, "message": "agent not configured"}
BACKLOG = 128
WILDCARDS = frozenset({"0.0.0.0", "::"})
CLOSE_SECONDS = 0.5  # what connections get at the end; aiohttp waits twice


class AgentServer:
    """Serves from the first moment on, whether the agent is configured or not."""

    def __init__(
        self,
        settings: RuntimeSettings,
        credentials: Credentials,
        state: AgentState,
        *,
        card: Callable[[], dict[str, Any]],
        runtime: str,
    ) -> None:
        self._settings = settings
        self._credentials = credentials
        self._state = state
        self._card = card
        self._runtime = runtime
        self._protocol: Any = None
        self._opening = asyncio.Lock()
        self._web: web.AppRunner | None = None
        self.task_runner: TaskRunner | None = None
        self.failure: str | None = "starting"
        self.is_stopping = False

    async def start(self, listener: socket.socket) -> None:
        """Serve on a listening socket."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        for path in RPC_PATHS:
            app.router.add_post(path, self._rpc)
        for path in WELL_KNOWN_PATHS:
            app.router.add_get(path, self._agent_card)
        app.router.add_get("/transcript", self._transcript)
        app.router.add_get("/health", self._health)
        self._web = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=CLOSE_SECONDS)
        await self._web.setup()
        await web.SockSite(self._web, listener).start()

    async def close(self) -> None:
        """Cancel running tasks, then close the connections."""
        if self._protocol is not None:
            await self._protocol.close()
        if self._web is not None:
            await self._web.cleanup()

    async def _rpc(self, request: web.Request) -> web.StreamResponse:
        if self.is_stopping:
            return _json({"error": "agent is shutting down"}, status=503, headers={"Retry-After": "5"})
        if self._settings.a2a_require_inbound_secret and not self._is_known(request):
            return _unauthorized("this agent is called through the platform")
        body = await request.read()
        document = _parsed(body)
        if self.failure is not None or self.task_runner is None:
            return _json(_not_configured(document, self.failure or "starting"))
        if self._protocol is None:
            async with self._opening:
                self._protocol = self._protocol or await self._opened(self.task_runner)
        response: web.StreamResponse = await self._protocol.answer(request, body, document)
        return response

    async def _opened(self, runner: TaskRunner) -> Any:
        module = await load_module(PROTOCOL_MODULE)
        protocol = module.A2AProtocol(runner, self._card())
        await protocol.restore()
        return protocol

    async def _agent_card(self, request: web.Request) -> web.Response:
        return _json(self._card())

    async def _transcript(self, request: web.Request) -> web.Response:
        if not self._is_known(request):
            return _unauthorized("unauthorized")
        try:
            since = int(request.query.get("since", "0"))
            limit = int(request.query.get("limit", "100"))
        except ValueError:
            return _json({"error": "since and limit must be integers"}, status=400)
        bounded = max(1, min(limit, TRANSCRIPT_LINES))
        return _json(transcript_page(self._state, self._runtime, max(0, since), bounded))

    def _is_known(self, request: web.Request) -> bool:
        return self._credentials.accepts(request.headers.get("Authorization", ""))

    async def _health(self, request: web.Request) -> web.Response:
        return _json(
            {
                "status": "ok",
                "workspace_id": self._settings.workspace_id,
                "instance_id": self._settings.molecule_instance_id,
                "runtime": self._runtime,
                "configuration_status": "ready" if self.failure is None else "not_configured",
                "active_tasks": self._state.active_tasks,
                "uptime_seconds": self._state.uptime_seconds,
            }
        )


def open_listener(settings: RuntimeSettings, port: int) -> socket.socket:
    """Take over the inherited socket, or bind one."""
    if settings.agent_listen_fd is not None:
        listener = socket.socket(fileno=settings.agent_listen_fd)
    else:
        family = socket.AF_INET6 if ":" in settings.agent_host else socket.AF_INET
        listener = socket.create_server(
            (settings.agent_host, settings.agent_port or port), family=family, backlog=BACKLOG
        )
    listener.setblocking(False)
    listener.set_inheritable(False)  # a program that a task starts must not keep the port
    return listener


def public_url(settings: RuntimeSettings, listener: socket.socket) -> str:
    """Return the URL under which the platform reaches this agent."""
    if settings.agent_url:
        return settings.agent_url
    address, port = listener.getsockname()[:2]
    if address in WILDCARDS:
        address = settings.hostname or socket.gethostname()
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def _not_configured(document: Any, reason: str) -> dict[str, Any]:
    request_id = document.get("id") if isinstance(document, dict) else None
    error = {**NOT_CONFIGURED, "data": {"configuration_status": "not_configured", "reason": reason}}
    return {"jsonrpc": "2.0", "id": request_id, "error": error}


def _unauthorized(reason: str) -> web.Response:
    return _json({"error": reason}, status=401, headers={"WWW-Authenticate": "Bearer"})


def _parsed(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None


def _json(document: object, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(document), status=status, content_type="application/json", headers=headers
    )
