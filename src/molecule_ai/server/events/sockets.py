"""`GET /ws`: the handshake and the life of one socket (contract 03 §8).

Plain ASGI rather than a framework's socket object: what is sent here is sent to every client.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any
from urllib.parse import parse_qs
from uuid import UUID

import msgspec
from litestar.connection import ASGIConnection

from molecule_ai.kernel import log
from molecule_ai.kernel.db import Database
from molecule_ai.kernel.errors import ApiError
from molecule_ai.server.auth.errors import InvalidAdminToken, OriginNotAllowed
from molecule_ai.server.auth.gatekeeper import Gatekeeper
from molecule_ai.server.auth.principal import Principal
from molecule_ai.server.auth.tiers import Tier
from molecule_ai.server.workspaces.tree import Tree

from . import store
from .delivery import Bundle, Delivery, from_row, resync
from .errors import InvalidSince, NotListening, TooManySockets
from .hub import TOO_LARGE, TOO_SLOW, Hub
from .outbox import Outbox
from .relay import Relay
from .tickets import Tickets

_PER_AGENT = 20
_REPLAY = 1000  # events; further back a client fetches afresh
_MAX_INBOUND = 65_536  # bytes
_WRITE_SECONDS = 10.0
_LISTEN_SECONDS = 5.0
_SETTLE_SECONDS = 0.25
_BATCHED = "molecule.batch.v1"  # each message is an array of events
_SINGLE = "molecule.v1"


class Socket:
    """One client: its queue, and the task that empties it into the connection."""

    def __init__(self, principal: Principal, agent_of: UUID | None, send: Any, *, batched: bool) -> None:
        self.principal = principal
        self.agent_of = agent_of
        self.outbox = Outbox()
        self.skip_through = 0
        self._send = send
        self._batched = batched
        self._close_code: int | None = None
        self._sending_since: float | None = None
        self.writer: asyncio.Task[None] | None = None

    def offer(self, bundle: Bundle) -> None:
        if self.skip_through:
            bundle = self._unseen(bundle)
        if bundle.deliveries and not self.outbox.put_all(bundle):
            self.close(TOO_SLOW)

    def _unseen(self, bundle: Bundle) -> Bundle:
        unseen = [d for d in bundle.deliveries if d.seq is None or d.seq > self.skip_through]
        return bundle if len(unseen) == len(bundle.deliveries) else Bundle(unseen)

    def close(self, code: int) -> None:
        if self._close_code is None:
            self._close_code = code
            self.outbox.wake()

    def watch(self) -> None:
        """Drop a connection whose peer has taken nothing for ten seconds."""
        since = self._sending_since
        if since is not None and time.monotonic() - since > _WRITE_SECONDS and self.writer is not None:
            self.writer.cancel()

    async def write(self, replay: list[Delivery]) -> None:
        """Send what was missed, then whatever comes, until the connection ends."""
        for delivery in replay:
            if self._close_code is None:
                await self._transmit(f"[{delivery.text}]" if self._batched else delivery.text)
        items = self.outbox
        while self._close_code is None:
            await items.wait()
            while items.items and self._close_code is None:
                if self._batched:
                    await self._transmit(items.take_all())
                else:
                    await self._transmit(items.items.popleft().text)

    async def goodbye(self) -> None:
        """Tell the client why it was closed, if it was."""
        if self._close_code is not None:
            # The HTTP server transmits no close while somebody waits to receive, and notices a moment
            # later than we do that nobody waits any more.
            await asyncio.sleep(_SETTLE_SECONDS)
            # The peer may be gone, or not reading: then nobody is there to be told.
            with contextlib.suppress(OSError, RuntimeError):
                async with asyncio.timeout(_WRITE_SECONDS):
                    await self._send({"type": "websocket.close", "code": self._close_code})

    async def _transmit(self, text: str) -> None:
        self._sending_since = time.monotonic()
        await self._send({"type": "websocket.send", "text": text})
        self._sending_since = None

    async def read(self, receive: Any) -> None:
        """Discard what the client sends, until it leaves or sends too much at once."""
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            if len(message.get("text") or message.get("bytes") or "") > _MAX_INBOUND:
                self.close(TOO_LARGE)


class SocketEndpoint:
    """Admits clients to the hub and serves them."""

    def __init__(
        self,
        db: Database,
        hub: Hub,
        relay: Relay,
        tree: Tree,
        gatekeeper: Gatekeeper,
        tickets: Tickets,
        *,
        origins: tuple[str, ...],
        limit: int,
        clock: Any,
    ) -> None:
        self._db = db
        self._hub = hub
        self._relay = relay
        self._tree = tree
        self._gatekeeper = gatekeeper
        self._tickets = tickets
        self._origins = frozenset(origin.lower() for origin in origins)
        self._limit = limit
        self._clock = clock
        self._log = log.get()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        try:
            client, since = await self._admit(scope, send)
        except ApiError as refused:
            await _refuse(scope, send, refused)
            return
        protocol = _protocol(scope)
        await send({"type": "websocket.accept", **({"subprotocol": protocol} if protocol else {})})
        self._hub.join(client, client.agent_of)
        try:
            await self._serve(client, receive, since)
        finally:
            self._hub.leave(client, client.agent_of)

    async def _serve(self, client: Socket, receive: Any, since: int | None) -> None:
        replay = await self._replay(client, since)
        client.writer = asyncio.ensure_future(client.write(replay))
        reader = asyncio.ensure_future(client.read(receive))
        try:
            await asyncio.wait((client.writer, reader), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (client.writer, reader):
                task.cancel()
            results = await asyncio.gather(client.writer, reader, return_exceptions=True)
            for result in results:
                if isinstance(result, Exception):
                    self._log.debug("socket_lost", error=str(result))
        await client.goodbye()

    async def _admit(self, scope: Any, send: Any) -> tuple[Socket, int | None]:
        connection: ASGIConnection[Any, Any, Any, Any] = ASGIConnection(scope)
        self._check_origin(connection)
        query = parse_qs(scope["query_string"].decode("latin-1"))
        principal = await self._principal(connection, query.get("token", [""])[0])
        agent_of = principal.acting_for
        if self._hub.sockets >= self._limit:
            raise TooManySockets
        if agent_of is not None and self._hub.sockets_of(agent_of) >= _PER_AGENT:
            raise TooManySockets
        since = _since(query.get("since_seq", [""])[0])
        try:
            async with asyncio.timeout(_LISTEN_SECONDS):
                await self._relay.ready.wait()
        except TimeoutError as late:
            raise NotListening from late
        if agent_of is not None:
            await self._tree.load()
        return Socket(principal, agent_of, send, batched=_protocol(scope) == _BATCHED), since

    async def _principal(self, connection: ASGIConnection[Any, Any, Any, Any], ticket: str) -> Principal:
        if ticket:
            principal = await self._tickets.redeem(ticket)
            if principal is None:
                raise InvalidAdminToken
            return principal
        return await self._gatekeeper.admit(connection, Tier.SOCKET)

    def _check_origin(self, connection: ASGIConnection[Any, Any, Any, Any]) -> None:
        origin = connection.headers.get("origin", "").lower()
        own = connection.headers.get("host", "").lower()
        if origin and origin not in self._origins and origin.partition("://")[2] != own:
            raise OriginNotAllowed

    async def _replay(self, client: Socket, since: int | None) -> list[Delivery]:
        """The events between `since` and the moment the client joined the hub."""
        position = self._relay.position or 0
        if since is None:
            return []
        # Another process may have been ahead of this one: what the client has, it does not get twice.
        client.skip_through = since
        if since >= position:
            return []
        async with self._db.connection() as connection:
            rows = await store.list_events(
                connection, None, _REPLAY + 1, after_seq=since, through_seq=position, ascending=True
            )
        if len(rows) > _REPLAY:
            return [resync("too far behind", self._clock.now())]
        missed = [from_row(row) for row in rows]
        return [delivery for delivery in missed if self._hub.visible(delivery, client.agent_of)]


class SocketsFirst:
    """Sends WebSocket requests of `/ws` to their endpoint and everything else on."""

    def __init__(self, endpoint: SocketEndpoint, app: Any) -> None:
        self._endpoint = endpoint
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket" and scope["path"].rstrip("/") == "/ws":
            await self._endpoint(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _since(text: str) -> int | None:
    if not text:
        return None
    if not text.isdecimal() or len(text) > 18:
        raise InvalidSince
    return int(text)


def _protocol(scope: Any) -> str:
    offered = scope.get("subprotocols") or ()
    if _BATCHED in offered:
        return _BATCHED
    is_ours = any(name == _SINGLE or name.startswith("molecule.bearer.") for name in offered)
    return _SINGLE if is_ours else ""


async def _refuse(scope: Any, send: Any, refused: ApiError) -> None:
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 1008})
        return
    body = refused.body()
    if request_id := scope.get("request_id"):
        body["request_id"] = request_id
    headers = [(b"content-type", b"application/json")]
    headers += [(name.lower().encode(), value.encode()) for name, value in refused.headers.items()]
    await send({"type": "websocket.http.response.start", "status": refused.status, "headers": headers})
    with contextlib.suppress(OSError):
        await send({"type": "websocket.http.response.body", "body": msgspec.json.encode(body)})
