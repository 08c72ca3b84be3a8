"""Events on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType


class Frame(Struct, kw_only=True):
    """One WebSocket message (contract 03 §8.2). `id` and `seq` only when the event is recorded."""

    event: str
    workspace_id: UUID | None
    timestamp: datetime
    payload: dict[str, Any]
    id: UUID | UnsetType = UNSET
    seq: int | UnsetType = UNSET
    # An agent that waits for a decision looks for these next to the envelope (contract 03 §4.8).
    approval_id: str | UnsetType = UNSET
    status: str | UnsetType = UNSET
    decided_by: str | UnsetType | None = UNSET


class RecordedEvent(Struct, kw_only=True):
    """One row of the event log."""

    id: UUID
    event_type: Annotated[str, Meta(examples=["WORKSPACE_ONLINE"])]
    workspace_id: UUID | None
    payload: dict[str, Any]
    created_at: datetime
    seq: int
    actor: str | None
    chain_id: UUID | None
    request: Annotated[
        dict[str, Any] | None,
        Meta(description="Of an audit row: the request that made the change. Null elsewhere."),
    ] = None


class Ticket(Struct, frozen=True):
    """Good for one connection, as `?token=`."""

    ticket: str
    expires_at: datetime

    def __repr__(self) -> str:
        return f"Ticket(ticket='***', expires_at={self.expires_at!r})"
