"""What the proxy is asked and what it answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any
from uuid import UUID

from msgspec import Meta, Struct, field

from molecule_ai.server.activity.schemas import SourceKind
from molecule_ai.server.mailbox.chain import Chain
from molecule_ai.server.traffic.schemas import Slot, Target

from .envelope import Draft
from .log import Subject


class Wish(Struct, frozen=True, kw_only=True):
    """What the headers of a request ask for."""

    timeout_seconds: int | None = None
    """X-Timeout: how long the caller waits."""
    wants_stream: bool = False
    """Accept names event streams."""
    prefers_async: bool = False
    """`Prefer: respond-async`: a place in the mailbox is as good as an answer."""
    passed_on: Mapping[str, str] = field(default_factory=dict)
    """Headers of the protocol, for the agent."""


class Reply(Struct, frozen=True, kw_only=True):
    """An answer over HTTP: JSON of ours, bytes of the agent's, or its event stream."""

    status: int = 200
    content: dict[str, Any] | bytes | AsyncIterator[bytes] = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Exchange(Struct, frozen=True, kw_only=True):
    """One message on its way through the proxy."""

    target: Target
    draft: Draft
    chain: Chain
    caller_id: UUID | None
    slot: Slot | None
    wish: Wish

    @property
    def source_kind(self) -> SourceKind:
        return SourceKind.CANVAS if self.caller_id is None else SourceKind.AGENT

    @property
    def streams(self) -> bool:
        methods = {"message/stream", "message/sendSubscribe", "tasks/resubscribe"}
        capitals = {"SendStreamingMessage", "SubscribeToTask"}
        return self.draft.method in methods | capitals or self.wish.wants_stream

    def subject(self, key: str | None = None) -> Subject:
        return Subject(
            self.target,
            self.draft.value,
            caller_id=self.caller_id,
            source_kind=self.source_kind,
            chain=self.chain,
            key=key,
        )


class Transcript(Struct, kw_only=True):
    """A page of an agent's transcript."""

    supported: bool = True
    runtime: str = ""
    lines: list[Any] = []
    source: Annotated[str, Meta(description="Where the agent has it from.", examples=["memory"])] = ""
    cursor: Annotated[int, Meta(description="Ask with `since` of this for what comes next.")] = 0
    more: bool = False
    reason: Annotated[str, Meta(description="Why there is none.", examples=["poll"])] = ""
