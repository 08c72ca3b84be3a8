"""Messages of agents to their users: what is acceptable, what is shown, what is kept (contract 03 §12)."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import UNSET

from molecule_ai.server.events.catalogue import Event
from molecule_ai.server.events.schemas import Frame

from . import errors
from .schemas import Attachment, Entry, Notice, SourceKind
from .store import Speaker

_MAX_MESSAGE = 65_536  # bytes
_MAX_ATTACHMENTS = 20
_PREVIEW = 80  # code points


def checked(notice: Notice) -> list[dict[str, Any]]:
    """The attachments as they are stored and shown."""
    if not (notice.message or notice.type):
        raise errors.MessageRequired
    if len(notice.message.encode()) > _MAX_MESSAGE:
        raise errors.MessageTooLong
    attachments = notice.attachments or []
    if len(attachments) > _MAX_ATTACHMENTS:
        raise errors.TooManyAttachments
    for index, attachment in enumerate(attachments):
        if not (attachment.uri and attachment.name):
            raise errors.BadAttachment(f"attachment[{index}]: uri and name are required")
        if not attachment.uri.startswith(("workspace:", "https:")):
            raise errors.BadAttachment(f"attachment[{index}]: uri must be workspace: or https:")
    return [_file(attachment) for attachment in attachments]


def _file(attachment: Attachment) -> dict[str, Any]:
    file: dict[str, Any] = {"uri": attachment.uri, "name": attachment.name}
    if attachment.mime_type is not UNSET:
        file["mimeType"] = attachment.mime_type
    if attachment.size is not UNSET:
        file["size"] = attachment.size
    return file


def frame(
    now: datetime, workspace_id: UUID, speaker: Speaker, notice: Notice, attachments: list[dict[str, Any]]
) -> Frame:
    payload: dict[str, Any] = {
        "message": notice.message,
        "workspace_id": workspace_id,
        "name": speaker.name,
    }
    if attachments:
        payload["attachments"] = attachments
    if notice.type:
        payload["type"] = notice.type
    return Frame(event=Event.AGENT_MESSAGE, workspace_id=workspace_id, timestamp=now, payload=payload)


def entry(workspace_id: UUID, message: str, attachments: list[dict[str, Any]]) -> Entry:
    response: dict[str, Any] = {"result": message}
    if attachments:
        response["parts"] = [{"kind": "file", "file": file} for file in attachments]
    preview = message[:_PREVIEW] + ("…" if len(message) > _PREVIEW else "")
    return Entry(
        workspace_id=workspace_id,
        activity_type="a2a_receive",
        source_kind=SourceKind.AGENT,
        method="notify",
        summary=f"Agent message: {preview}",
        response_body=response,
    )
