"""Append and broadcast. Delivery to clients is the hub's work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol
from uuid import UUID

import msgspec

from molecule_ai.kernel.clock import Clock
from molecule_ai.kernel.db import Connection, Database, after_commit
from molecule_ai.server.auth import acts

from . import audit, store
from .catalogue import Event, is_audit
from .schemas import Frame

_encoder = msgspec.json.Encoder()
MAX_NOTIFICATION = 7900  # bytes; PostgreSQL takes 7,999


class Cleaner(Protocol):
    """Takes secrets of some workspaces out of what is about to be told."""

    async def clean(
        self, speakers: Sequence[UUID | None], value: Any, tx: Connection | None = None
    ) -> Any: ...

    async def prepare(self, speakers: Sequence[UUID | None], tx: Connection) -> None:
        """Read at once what `clean` will need for these."""
        ...


class Events:
    """What the other rooms use: `append` inside their transaction, `broadcast` for what needs no row."""

    def __init__(self, db: Database, clock: Clock, audit_log: audit.AuditLog) -> None:
        self._db = db
        self._clock = clock
        self._audit_log = audit_log
        self.cleaner: Cleaner | None = None

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
        told = await self._clean(workspace_id, payload or {}, tx)
        act = self._audit(tx, str(event), workspace_id, told, actor)
        return await store.append(
            tx, str(event), workspace_id, told, actor, chain_id, agent_id, target_id, act
        )

    async def append_many(
        self,
        tx: Connection,
        events: Sequence[tuple[Event | str, UUID | None, dict[str, Any]]],
        *,
        actor: str | None = None,
    ) -> None:
        """Record many events in their order as one statement: what an import of a whole tree needs."""
        if events:
            await self._prepare([workspace_id for _, workspace_id, _ in events], tx)
        rows = []
        for event, workspace_id, payload in events:
            told = await self._clean(workspace_id, payload, tx)
            rows.append(
                {
                    "event_type": str(event),
                    "workspace_id": workspace_id,
                    "payload": told,
                    "actor": actor,
                    "request": self._audit(tx, str(event), workspace_id, told, actor),
                }
            )
        if rows:
            await store.append_many(tx, rows)

    def _audit(
        self, tx: Connection, event: str, workspace_id: UUID | None, told: dict[str, Any], actor: str | None
    ) -> acts.Act | None:
        """The request that a row of the audit trail belongs to; its line is written when it is true."""
        if not is_audit(event):
            return None
        act = acts.of(actor)
        text = audit.line(self._clock.now(), event, workspace_id, told, actor, act)
        after_commit(tx, lambda: self._audit_log.put(text))
        return act

    async def broadcast(
        self,
        event: Event,
        workspace_id: UUID | None,
        payload: dict[str, Any],
        *,
        tx: Connection | None = None,
        beside: dict[str, Any] | None = None,
    ) -> None:
        """Send an event that has no row of its own to the clients of all processes.

        `beside` fills the fields of the frame that some clients look for next to the envelope's.
        """
        frame = Frame(
            event=event,
            workspace_id=workspace_id,
            timestamp=self._clock.now(),
            payload=payload,
            **(beside or {}),
        )
        await self.send(frame, tx=tx)

    async def broadcast_many(
        self, frames: Sequence[tuple[Event, UUID, dict[str, Any]]], *, tx: Connection
    ) -> None:
        """Send many such events of this instant."""
        now = self._clock.now()
        built = [
            Frame(event=event, workspace_id=workspace_id, timestamp=now, payload=payload)
            for event, workspace_id, payload in frames
        ]
        await self.send(*built, tx=tx)

    async def send(self, *frames: Frame, tx: Connection | None = None) -> None:
        """Send many such events at once: they travel together, as few notifications as fit them.

        With `tx` they leave when it commits.
        """
        if not frames:
            return
        await self._prepare([frame.workspace_id for frame in frames], tx)
        for frame in frames:
            frame.payload = await self._clean(frame.workspace_id, frame.payload, tx)
        if tx is not None:
            await _notify(tx, frames)
            return
        async with self._db.connection() as connection:
            await _notify(connection, frames)

    async def _prepare(self, speakers: Sequence[UUID | None], tx: Connection | None) -> None:
        if self.cleaner is not None and tx is not None and len(speakers) > 1:
            await self.cleaner.prepare(speakers, tx)

    async def _clean(
        self, workspace_id: UUID | None, payload: dict[str, Any], tx: Connection | None
    ) -> dict[str, Any]:
        if self.cleaner is None or workspace_id is None:
            return payload
        cleaned: dict[str, Any] = await self.cleaner.clean([workspace_id], payload, tx)
        return cleaned


async def _notify(connection: Connection, frames: Sequence[Frame]) -> None:
    small, large = pack([_encoder.encode(frame).decode() for frame in frames])
    if small:
        await store.notify_frames(connection, small)
    for text in large:
        await store.store_frame(connection, text)


def pack(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Join frames into JSON arrays that a notification can carry; and those too large for any."""
    arrays, large = [], []
    group: list[str] = []
    size = 2
    for text in texts:
        length = len(text.encode()) + 1
        if length > MAX_NOTIFICATION - 2:
            large.append(text)
            continue
        if size + length > MAX_NOTIFICATION:
            arrays.append(f"[{','.join(group)}]")
            group, size = [], 2
        group.append(text)
        size += length
    if group:
        arrays.append(f"[{','.join(group)}]")
    return arrays, large
