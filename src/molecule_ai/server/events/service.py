"""Append and broadcast. Delivery to clients is the hub's work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from molecule_ai.kernel.clock import Clock
from molecule_ai.kernel.db import Connection, Database

from . import store
from .catalogue import Event
from .schemas import Frame

_encoder = msgspec.json.Encoder()


class Events:
    """What the other rooms use: `append` inside their transaction, `broadcast` for what needs no row."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def append(
        self,
        tx: Connection,
        event: Event | str,
        workspace_id: UUID | None,
        payload: dict[str, Any] | None = None,
        *,
        actor: str | None = None,
        chain_id: UUID | None = None,
        agent_id: UUID | None = None,
        target_id: UUID | None = None,
    ) -> int:
        """Record an event with the change it tells of; all processes deliver it once `tx` commits.

        Returns its sequence number.
        """
        return await store.append(
            tx, str(event), workspace_id, payload or {}, actor, chain_id, agent_id, target_id
        )

    async def broadcast(
        self,
        event: Event,
        workspace_id: UUID | None,
        payload: dict[str, Any],
        *,
        tx: Connection | None = None,
    ) -> None:
        """Send an event that has no row of its own to the clients of all processes."""
        frame = Frame(event=event, workspace_id=workspace_id, timestamp=self._clock.now(), payload=payload)
        text = _encoder.encode(frame).decode()
        if tx is not None:
            await store.notify_frame(tx, text)
            return
        async with self._db.connection() as connection:
            await store.notify_frame(connection, text)

    async def broadcast_many(
        self, frames: Sequence[tuple[Event, UUID, dict[str, Any]]], *, tx: Connection
    ) -> None:
        """Send many small events that have no row of their own, in one statement."""
        now = self._clock.now()
        built = [
            Frame(event=event, workspace_id=workspace_id, timestamp=now, payload=payload)
            for event, workspace_id, payload in frames
        ]
        await store.notify_frames(tx, [_encoder.encode(frame).decode() for frame in built])
