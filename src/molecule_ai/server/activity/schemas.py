"""The activity log on the wire, and the entries that other rooms write."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType


class SourceKind(StrEnum):
    """Where a row came from."""

    CANVAS = "canvas"
    AGENT = "agent"
    SCHEDULER = "scheduler"
    CHANNEL = "channel"
    WEBHOOK = "webhook"
    SYSTEM = "system"


class Entry(Struct, frozen=True, kw_only=True):
    """One row to record. A `source_id` of null means: from a person, or from the platform itself."""

    workspace_id: UUID
    activity_type: str
    source_kind: SourceKind
    source_id: UUID | None = None
    source_label: str | None = None
    target_id: UUID | None = None
    method: str | None = None
    summary: str | None = None
    request_body: Any = None
    response_body: Any = None
    tool_trace: list[Any] | None = None
    metadata: Any = None
    duration_ms: int | None = None
    status: str = "ok"
    error_detail: str | None = None
    idempotency_key: str | None = None
    schedule_id: UUID | None = None
    chain_id: UUID | None = None
    chain_parent_id: UUID | None = None
    chain_depth: int | None = None


class Inbound(Struct, frozen=True):
    """What a poll-mode agent reads of an `a2a_receive` row (contract 05, "Poll-mode targets")."""

    source: Annotated[
        str,
        Meta(
            description="`canvas_user`, `peer_agent`, `scheduler`, `channel`, `webhook`, `system` or "
            "`agent_notify` (the agent's own message to the user)."
        ),
    ]
    source_id: UUID | None
    text: str
    peer_name: str | None
    peer_role: str | None
    agent_card_url: str | None


class ActivityRow(Struct, frozen=True, kw_only=True):
    """One row of the log. Bodies and the trace are absent when there are none."""

    id: UUID
    workspace_id: UUID
    seq: Annotated[int, Meta(description="Position in the log.")]
    activity_type: Annotated[str, Meta(examples=["a2a_receive"])]
    type: Annotated[str, Meta(description="The same as `activity_type`.")]
    source_id: Annotated[UUID | None, Meta(description="Null: from the user or the platform.")]
    source_kind: SourceKind
    source_label: str | None
    target_id: UUID | None
    method: str | None
    summary: str | None
    duration_ms: int | None
    status: str
    error_detail: str | None
    schedule_id: UUID | None
    chain_id: UUID | None
    created_at: datetime
    request_body: Any | UnsetType = UNSET
    response_body: Any | UnsetType = UNSET
    tool_trace: list[Any] | UnsetType = UNSET
    metadata: Any | UnsetType = UNSET
    data: Inbound | UnsetType = UNSET


class ActivityReport(Struct, frozen=True, kw_only=True):
    """What a workspace reports about itself."""

    activity_type: str = ""
    method: str | None = None
    summary: str | None = None
    source_id: Annotated[str | None, Meta(description="Only the workspace itself.")] = None
    target_id: str | None = None
    status: str | None = None
    duration_ms: int | None = None
    request_body: Any = None
    response_body: Any = None
    metadata: Annotated[Any, Meta(description="Also the request body when that is absent.")] = None
    error_detail: str | None = None
    tool_trace: list[Any] | None = None


class ActivityLogged(Struct, frozen=True):
    """The row is durable."""

    id: UUID
    status: str = "logged"


class Attachment(Struct, frozen=True, rename={"mime_type": "mimeType"}):
    """A file that goes with a message."""

    uri: Annotated[str, Meta(description="`workspace:` or `https:`.")] = ""
    name: str = ""
    mime_type: str | UnsetType = UNSET
    size: int | UnsetType = UNSET


class Notice(Struct, frozen=True):
    """A message to the user; or, with a `type` and no message, a signal without a chat bubble."""

    message: str = ""
    type: Annotated[str, Meta(examples=["delegation_result"])] = ""
    attachments: list[Attachment] | None = None


class NoticeSent(Struct, frozen=True, kw_only=True):
    """The user's clients have it."""

    status: str = "sent"
    id: UUID | None
    persisted: Annotated[bool, Meta(description="False: shown now, but missing in the history.")]
