"""A2A messages from a client's side: make one, read a reply."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any


def envelope(text: str, *, message_id: str | None = None) -> dict[str, Any]:
    """A `message/send` request with one text part."""
    message = {
        "role": "user",
        "messageId": message_id or str(uuid.uuid4()),
        "parts": [{"kind": "text", "text": text}],
    }
    return {
        "jsonrpc": "2.0",
        "id": str(uuid.uuid4()),
        "method": "message/send",
        "params": {"message": message},
    }


def reply_text(answer: dict[str, Any]) -> str:
    """All text of a JSON-RPC answer, wherever the agent put it (contract 05 section 2); "" when none."""
    result = answer.get("result")
    if isinstance(result, str):
        return result
    return "\n".join(_texts(result)) if isinstance(result, dict) else ""


def _texts(result: dict[str, Any]) -> Iterator[str]:
    message = result.get("message")
    status = result.get("status")
    holders = [
        result,
        message,
        status.get("message") if isinstance(status, dict) else None,
        *(result.get("artifacts") or []),
    ]
    for holder in holders:
        for part in (holder.get("parts") or []) if isinstance(holder, dict) else []:
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                yield part["text"]
