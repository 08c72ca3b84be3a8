"""One workspace speaks to all others (contract 02 §6.4)."""

from __future__ import annotations

from uuid import UUID

from molecule_ai.kernel.db import Database
from molecule_ai.server.activity.schemas import Entry, SourceKind
from molecule_ai.server.activity.service import Activity
from molecule_ai.server.auth.principal import Principal
from molecule_ai.server.events.catalogue import Event
from molecule_ai.server.events.service import Events

from . import broadcasts_store as store
from .configuration_schemas import BroadcastSent
from .errors import MayNotBroadcast, TooManyBroadcasts, WorkspaceNotFound, WorkspaceRemoved
from .status import Status

MAX_PER_MINUTE = 10


class Broadcasts:
    """Rows in the log of everybody else, and a frame for each."""

    def __init__(self, db: Database, events: Events, activity: Activity) -> None:
        self._db = db
        self._events = events
        self._activity = activity

    async def send(self, caller: Principal, workspace_id: UUID, message: str) -> BroadcastSent:
        """Tell everybody, in one transaction. Raises `MayNotBroadcast` and `TooManyBroadcasts`."""
        async with self._db.transaction() as tx:
            sender = await store.find_sender(tx, workspace_id)
            if sender is None:
                raise WorkspaceNotFound
            if sender.status == Status.REMOVED:
                raise WorkspaceRemoved(id=workspace_id)
            if not sender.broadcast_enabled:
                raise MayNotBroadcast
            spoken = await store.count(tx, workspace_id)
            if spoken.messages > MAX_PER_MINUTE:
                raise TooManyBroadcasts(retry_after=spoken.seconds_left)
            others = await store.find_others(tx, workspace_id)
            entries = [
                Entry(
                    workspace_id=other,
                    activity_type="broadcast_receive",
                    source_kind=SourceKind.AGENT,
                    source_id=workspace_id,
                    target_id=other,
                    method="broadcast",
                    summary=f"{sender.name}: {message}",
                    request_body={"message": message},
                )
                for other in others
            ]
            await self._activity.record_many(tx, entries)
            told = {"message": message, "sender_id": workspace_id, "sender_name": sender.name}
            await self._events.broadcast_many(
                [(Event.BROADCAST_MESSAGE, other, dict(told)) for other in others], tx=tx
            )
            audit = {"delivered": len(others)}
            await self._events.append(tx, "workspace.broadcast", workspace_id, audit, actor=caller.label)
        return BroadcastSent(delivered=len(others))
