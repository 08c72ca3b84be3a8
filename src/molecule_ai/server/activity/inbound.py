"""Rows of the log as clients read them."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET

from .schemas import ActivityRow, Inbound, SourceKind
from .store import Row


def present(row: Row, base_url: str) -> ActivityRow:
    """One row; for `a2a_receive` also who said what, which the Python SDK parses."""
    return ActivityRow(
        id=row.id,
        workspace_id=row.workspace_id,
        seq=row.seq,
        activity_type=row.activity_type,
        type=row.activity_type,
        source_id=row.source_id,
        source_kind=row.source_kind,
        source_label=row.source_label,
        target_id=row.target_id,
        method=row.method,
        summary=row.summary,
        duration_ms=row.duration_ms,
        status=row.status,
        error_detail=row.error_detail,
        schedule_id=row.schedule_id,
        chain_id=row.chain_id,
        created_at=row.created_at,
        request_body=_or_absent(row.request_body),
        response_body=_or_absent(row.response_body),
        tool_trace=_or_absent(row.tool_trace),
        metadata=_or_absent(row.metadata),
        data=_inbound(row, base_url) if row.activity_type == "a2a_receive" else UNSET,
    )


def _or_absent(value: Any) -> Any:
    return UNSET if value is None else value


def _inbound(row: Row, base_url: str) -> Inbound:
    return Inbound(
        source=_source(row),
        source_id=row.source_id,
        text=_text(row),
        peer_name=row.peer_name,
        peer_role=row.peer_role,
        agent_card_url=f"{base_url}/registry/discover/{row.source_id}" if row.source_id else None,
    )


def _source(row: Row) -> str:
    if row.method == "notify":
        return "agent_notify"
    if row.source_id is not None:
        return "peer_agent"
    if row.source_kind in (SourceKind.CANVAS, SourceKind.AGENT):
        return "canvas_user"
    return row.source_kind.value


def _text(row: Row) -> str:
    said = message_text(row.request_body)
    if said:
        return said
    answered = row.response_body.get("result") if isinstance(row.response_body, dict) else None
    return answered if isinstance(answered, str) else row.summary or ""


def message_text(body: Any) -> str:
    """The text of an A2A request, of protocol 0.3 or 1.0; "" when there is none."""
    params = body.get("params") if isinstance(body, dict) else None
    message = params.get("message") if isinstance(params, dict) else None
    parts = message.get("parts") if isinstance(message, dict) else None
    texts = (part.get("text") for part in parts or () if isinstance(part, dict))
    return "\n".join(text for text in texts if isinstance(text, str))
