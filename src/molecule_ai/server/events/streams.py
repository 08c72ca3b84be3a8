"""The events of one workspace as server-sent events (contract 03 §10)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import UUID

from molecule_ai.kernel.db import Database
from molecule_ai.server.auth.principal import Principal

from . import store
from .catalogue import AGENTS_ONLY, Event, is_audit
from .delivery import Bundle, Delivery, from_row
from .errors import NotListening
from .hub import GOING_AWAY, Hub
from .outbox import Outbox
from .relay import Relay

KEEP_ALIVE_SECONDS = 15.0
_REPLAY = 1000
_LISTEN_SECONDS = 5.0
_PING = b": ping\n\n"
_RESYNC = b"event: resync\ndata: {}\n\n"


class Follower:
    """One reader of a workspace's events."""

    def __init__(self, principal: Principal, types: frozenset[str]) -> None:
        self.principal = principal
        self.outbox = Outbox()
        self.end: bytes | None = None
        self._types = types

    def offer(self, bundle: Bundle) -> None:
        for delivery in bundle.deliveries:
            if self.wants(delivery) and not self.outbox.put(delivery):
                self.finish(_RESYNC)

    def wants(self, delivery: Delivery) -> bool:
        """Whether this reader asked for events of the kind; the end of the workspace concerns all."""
        event = delivery.event
        if is_audit(event) or event in AGENTS_ONLY:
            return False
        return not self._types or event in self._types or event == Event.WORKSPACE_REMOVED

    def close(self, code: int) -> None:
        self.finish(b": server is going away\n\n" if code == GOING_AWAY else b": closed %d\n\n" % code)

    def finish(self, last: bytes) -> None:
        """End the stream with these bytes; what is queued is not sent any more."""
        if self.end is None:
            self.end = last
            self.outbox.wake()

    def watch(self) -> None:
        """A reader that takes nothing fills its queue, which ends the stream."""


class Streams:
    """Opens streams."""

    def __init__(self, db: Database, hub: Hub, relay: Relay) -> None:
        self._db = db
        self._hub = hub
        self._relay = relay

    async def open(
        self, principal: Principal, workspace_id: UUID, types: frozenset[str], last_id: str
    ) -> AsyncIterator[bytes]:
        """The stream, from after `last_id` if that is a recorded event of this workspace.

        It ends after the workspace was removed, or when the reader is too slow.
        """
        try:
            async with asyncio.timeout(_LISTEN_SECONDS):
                await self._relay.ready.wait()
        except TimeoutError as late:
            raise NotListening from late
        return self._follow(Follower(principal, types), workspace_id, last_id)

    @contextlib.asynccontextmanager
    async def listening(
        self, principal: Principal, workspace_id: UUID, event: Event
    ) -> AsyncIterator[Callable[[float], Awaitable[None]]]:
        """Notice every such event of the workspace from now on.

        Yields a function that returns at the next one, at the latest after so many seconds.
        """
        follower = Follower(principal, frozenset({event}))

        async def arrival(seconds: float) -> None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await follower.outbox.wait()
            follower.outbox.items.clear()

        self._hub.join_stream(follower, workspace_id)
        try:
            yield arrival
        finally:
            self._hub.leave_stream(follower, workspace_id)

    async def _follow(self, follower: Follower, workspace_id: UUID, last_id: str) -> AsyncIterator[bytes]:
        self._hub.join_stream(follower, workspace_id)
        try:
            yield _PING
            for chunk in await self._missed(follower, workspace_id, last_id):
                yield chunk
            async for chunk in _live(follower):
                yield chunk
        finally:
            self._hub.leave_stream(follower, workspace_id)

    async def _missed(self, follower: Follower, workspace_id: UUID, last_id: str) -> list[bytes]:
        position = self._relay.position or 0
        if not last_id:
            return []
        async with self._db.connection() as connection:
            seq = await store.seq_of(connection, last_id, workspace_id)
            if seq is None:
                return [_RESYNC]
            rows = await store.list_events(
                connection, workspace_id, _REPLAY + 1, after_seq=seq, through_seq=position, ascending=True
            )
        if len(rows) > _REPLAY:
            return [_RESYNC]
        return [delivery.stream_bytes for delivery in map(from_row, rows) if follower.wants(delivery)]


async def _live(follower: Follower) -> AsyncIterator[bytes]:
    outbox = follower.outbox
    while follower.end is None:
        try:
            async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                await outbox.wait()
        except TimeoutError:
            yield _PING
        while outbox.items and follower.end is None:
            delivery = outbox.items.popleft()
            yield delivery.stream_bytes
            if delivery.event == Event.WORKSPACE_REMOVED:
                return
    yield follower.end
