"""What is put into the mailbox, what comes out, and what is told of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Annotated, Any
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType

from molecule_ai.kernel.db import Connection
from molecule_ai.server.activity.schemas import SourceKind as SourceKind

from .chain import Chain


class Priority(IntEnum):
    """Contract 05 §1.2."""

    CRITICAL = 100
    TASK = 50
    INFO = 10


class State(StrEnum):
    """Where a message is on its way; the last three are final."""

    QUEUED = "queued"
    DISPATCHED = "dispatched"
    COMPLETED = "completed"
    FAILED = "failed"
    DROPPED = "dropped"


class Post(Struct, frozen=True, kw_only=True):
    """A message for an agent, as somebody puts it into the mailbox."""

    target_id: UUID
    body: dict[str, Any]
    """An A2A JSON-RPC request; its messageId is the idempotency key unless it brings its own."""
    idempotency_key: str
    """At most one message of a target with this key waits or is under way."""
    priority: int = Priority.TASK
    not_before: datetime | None = None
    expires_at: datetime | None = None
    caller_id: UUID | None = None
    source_kind: SourceKind = SourceKind.SYSTEM
    source_label: str = ""
    reply_kind: str = "none"
    reply_id: str = ""
    chain: Chain | None = None
    """None: this message is the root of its own chain."""
    is_budget_fatal: bool = False
    """Whether a target over its budget fails the message instead of holding it."""
    timeout_seconds: int | None = None
    """How long the agent may work on it; None: half an hour. What takes longer has failed."""
    delivery_uncertain: bool = False
    """Whether an attempt was made already that the agent may have received."""


class Put(Struct, frozen=True):
    """The row of a message, and whether an equal one was there before."""

    id: UUID
    duplicate: bool


class Message(Struct, frozen=True, kw_only=True):
    """A claimed row: what its delivery needs."""

    id: UUID
    workspace_id: UUID
    caller_id: UUID | None
    source_kind: SourceKind
    source_label: str
    method: str
    body: dict[str, Any]
    idempotency_key: str
    reply_kind: str
    reply_id: str
    is_budget_fatal: bool
    timeout_seconds: int | None
    chain_id: UUID
    parent_id: str
    depth: int
    hops: int
    path: tuple[UUID, ...]
    attempts: int
    lease_owner: UUID | None
    enqueued_at: datetime

    @property
    def chain(self) -> Chain:
        return Chain(
            chain_id=self.chain_id,
            parent_id=self.parent_id,
            depth=self.depth,
            hops=self.hops,
            path=self.path,
        )


class Settled(Struct, frozen=True, kw_only=True):
    """How a message ended, for the room that asked for the reply."""

    message_id: UUID
    """The mailbox row."""
    status: State
    response: dict[str, Any] | None
    """The agent's JSON-RPC answer; for poll-mode targets the `queued` envelope."""
    error: str | None
    reply_id: str
    target_id: UUID
    duration_ms: int
    attempts: int
    chain_id: UUID


ReplyHandler = Callable[[Connection, Settled], Awaitable[None]]
DispatchHandler = Callable[[Connection, str], Awaitable[None]]


class QueueItem(Struct, kw_only=True):
    """A message in the mailbox, for its caller and its target."""

    queue_id: UUID
    workspace_id: UUID
    status: Annotated[State, Meta(description="queued, dispatched, completed, dropped or failed.")]
    priority: int
    attempts: int
    delivery_uncertain: Annotated[
        bool, Meta(description="An attempt was cut off after the agent may have received the message.")
    ]
    enqueued_at: datetime
    caller_id: UUID | UnsetType = UNSET
    last_error: str | UnsetType = UNSET
    dispatched_at: datetime | UnsetType = UNSET
    completed_at: datetime | UnsetType = UNSET
    expires_at: datetime | UnsetType = UNSET
    response_body: dict[str, Any] | UnsetType = UNSET


class Dropped(Struct):
    """How many messages were dropped."""

    dropped: int


class ChainStop(Struct, frozen=True):
    """Why a chain is stopped."""

    reason: Annotated[str, Meta(max_length=500, examples=["the two agents thank each other all day"])] = ""


class StoppedChain(Struct):
    """What stopping a chain did."""

    chain_id: UUID
    status: Annotated[str, Meta(examples=["stopped"])]
    cancelled: Annotated[int, Meta(description="Messages of the chain that waited and now are dropped.")]
    stopped_at: datetime
    in_flight: Annotated[
        list[UUID], Meta(description="Workspaces that still work on a message of the chain.")
    ]
