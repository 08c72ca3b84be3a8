"""The composition root: rooms, engines, routes and the edge become one server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from litestar.exceptions import HTTPException
from litestar.types import ASGIApp

from molecule_ai.kernel import log
from molecule_ai.kernel.clock import Clock, Ids
from molecule_ai.kernel.parent import end_with_parent
from molecule_ai.provisioners.base import Provisioner

from . import handlers
from .edge.cors import Cors
from .edge.facts import parse_networks
from .edge.front import Front
from .edge.limiter import Limiter
from .edge.proxies import Proxies
from .edge.tenant import TenantGuard
from .engines import start as start_engines
from .environment import read
from .events.sockets import SocketEndpoint, SocketsFirst
from .farewell import Farewell
from .registry.fast import FastBeats
from .rooms import Rooms
from .settings import Settings
from .tokens.bootstrap import bootstrap_token


class Server(Rooms):
    """One replica: everything built and connected. `start` before serving, `stop` after."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock | None = None,
        ids: Ids | None = None,
        provisioner: Provisioner | None = None,
    ) -> None:
        super().__init__(settings, clock=clock, ids=ids, provisioner=provisioner)
        self.litestar = handlers.litestar(self)
        self.recorder.template_of = self._template_of
        inner = FastBeats(self.litestar, self.identities, self.beats)
        proxies = Proxies(inner, self.control_plane, self.canvas_upstream, self.identities.is_credential)
        self.app: ASGIApp = self.front(SocketsFirst(self._socket_endpoint(), proxies))

    async def start(self, *, engines: bool = True) -> None:
        """Connect; with `engines` also start what runs in the background."""
        await self.db.open()
        await self.agents.open()
        await self.sessions.open()
        await self.control_plane.open()
        await self.canvas_upstream.open()
        self.identities.accept_bootstrap(bootstrap_token(self.settings))
        self.buckets.share(self.settings.home / "workers")
        if engines:
            start_engines(self)

    def leave(self) -> None:
        """Begin to go away: no longer ready, sockets and streams end. Safe to call twice."""
        self.operations.stopping = True
        self.hub.close_all()

    async def stop(self) -> None:
        """Stop engines, write what was deferred, disconnect."""
        self.leave()
        await self.supervisor.stop()
        await self.couriers.stop()
        await self.proxy.drain()
        await self.agents.close()
        await self.sessions.close()
        await self.control_plane.close()
        await self.canvas_upstream.close()
        await self.reconciler.stop()
        await self.provisioner.close()
        await self.identities.flush()
        await self.db.close()
        self.audit_log.stop()

    def front(self, app: ASGIApp) -> ASGIApp:
        """The edge around the application (contract 01 §1.1)."""
        settings = self.settings
        return Front(
            app,
            cors=Cors(settings.origins),
            limiter=Limiter(self.buckets, settings.requests_per_minute),
            tenant=TenantGuard(
                settings.molecule_org_id,
                settings.molecule_org_slug,
                has_canvas=bool(settings.canvas_proxy_url),
            ),
            recorder=self.recorder,
            proxies=parse_networks(settings.trusted_proxies),
        )

    def _template_of(self, path: str, method: str) -> str:
        """The pattern of the route that would have answered, "" when there is none."""
        try:
            return str(self.litestar.asgi_router.handle_routing(path, method)[4])
        except HTTPException:
            return ""

    def _socket_endpoint(self) -> SocketEndpoint:
        return SocketEndpoint(
            self.db,
            self.hub,
            self.relay,
            self.tree,
            self.gatekeeper,
            self.tickets,
            origins=self.settings.origins,
            limit=self.settings.websocket_limit,
            clock=self.clock,
        )


def create() -> ASGIApp:
    """The factory that each worker process calls."""
    end_with_parent()
    settings = read()
    log.configure(level=settings.log_level)
    server = Server(settings)
    Farewell(server.leave, server.hub.is_empty).install()
    return Lifespan(server)


class Lifespan:
    """Answers the ASGI lifespan with the server's start and stop; passes everything else on."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await self._server.app(scope, receive, send)
            return
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self._server.start()
                except Exception as error:
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    raise
                await send({"type": "lifespan.startup.complete"})
            else:
                await self._server.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return


@asynccontextmanager
async def running(server: Server, *, engines: bool) -> AsyncIterator[Server]:
    """A started server, stopped at the end: for tests and tools."""
    await server.start(engines=engines)
    try:
        yield server
    finally:
        await server.stop()
