"""One event on its way to clients: read once, encoded once, the same text for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Raw, Struct

from .catalogue import Event
from .schemas import Frame, RecordedEvent

_encoder = msgspec.json.Encoder()
_array = msgspec.json.Decoder(list[Raw])


class _Head(Struct):
    event: str
    workspace_id: UUID | None
    timestamp: datetime
    payload: Raw


_head = msgspec.json.Decoder(_Head)


class Delivery:
    """An event, its text for sockets and, once somebody needs it, its bytes for event streams."""

    __slots__ = ("_stream_bytes", "event", "id", "payload", "seq", "text", "timestamp", "workspace_id")

    def __init__(
        self,
        event: str,
        workspace_id: UUID | None,
        timestamp: datetime,
        payload: Any,
        text: str,
        *,
        seq: int | None = None,
        event_id: UUID | None = None,
    ) -> None:
        self.event = event
        self.workspace_id = workspace_id
        self.timestamp = timestamp
        self.payload = payload
        self.text = text
        self.seq = seq
        self.id = event_id
        self._stream_bytes: bytes | None = None

    @property
    def stream_bytes(self) -> bytes:
        """As a server-sent event (contract 03 §10)."""
        if self._stream_bytes is None:
            body = {
                "type": self.event,
                "timestamp": int(self.timestamp.timestamp() * 1000),
                "data": self.payload,
            }
            mark = b"" if self.id is None else b"id: %s\n" % str(self.id).encode()
            self._stream_bytes = mark + b"data: " + _encoder.encode(body) + b"\n\n"
        return self._stream_bytes


def from_row(row: RecordedEvent) -> Delivery:
    """A recorded event."""
    frame = Frame(
        event=row.event_type,
        workspace_id=row.workspace_id,
        timestamp=row.created_at,
        payload=row.payload,
        id=row.id,
        seq=row.seq,
    )
    return Delivery(
        row.event_type,
        row.workspace_id,
        row.created_at,
        row.payload,
        _encoder.encode(frame).decode(),
        seq=row.seq,
        event_id=row.id,
    )


def from_notification(text: str) -> list[Delivery]:
    """Events without a row: one frame, or a JSON array of them. Raises `msgspec.DecodeError`."""
    if not text.startswith("["):
        return [_from_frame(text)]
    return [_from_frame(bytes(raw).decode()) for raw in _array.decode(text)]


def _from_frame(text: str) -> Delivery:
    head = _head.decode(text)
    return Delivery(head.event, head.workspace_id, head.timestamp, head.payload, text)


def resync(reason: str, now: datetime, workspace_id: UUID | None = None) -> Delivery:
    """Tells a client that it missed something and has to fetch afresh."""
    payload = {"reason": reason}
    frame = Frame(event=Event.RESYNC, workspace_id=workspace_id, timestamp=now, payload=payload)
    return Delivery(Event.RESYNC, workspace_id, now, payload, _encoder.encode(frame).decode())


def array_of(deliveries: Iterable[Delivery]) -> str:
    """Several events as one message, for clients that asked for it."""
    return "[" + ",".join([delivery.text for delivery in deliveries]) + "]"


class Bundle:
    """Events that reach some clients at once, and their message, which is made for all of them together."""

    __slots__ = ("_array", "deliveries")

    def __init__(self, deliveries: Sequence[Delivery]) -> None:
        self.deliveries = deliveries
        self._array = ""

    @property
    def array(self) -> str:
        if not self._array:
            self._array = array_of(self.deliveries)
        return self._array
