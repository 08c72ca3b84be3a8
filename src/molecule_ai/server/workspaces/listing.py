"""A thousand rows as one answer: encoded without a struct for each."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
from msgspec import Raw, Struct

from molecule_ai.server.auth.presented import parse_uuid

from .errors import InvalidFilter
from .status import Status
from .store import Filter

MAX_LIMIT = 1000
_encoder = msgspec.json.Encoder()
_NULL = Raw("null")


class Page(Struct, frozen=True, kw_only=True):
    """The body of the list, its validator, and where the next page starts."""

    body: bytes
    etag: str
    next_cursor: str | None


def encode(rows: Sequence[asyncpg.Record], limit: int | None, timeouts: Mapping[str, int]) -> Page:
    """Encode rows of `store.list_rows`; a full page names the next one's cursor.

    `timeouts` are the seconds that a start may take, by runtime, where one is declared.
    """
    body = _encoder.encode([_entry(row, timeouts) for row in rows])
    full = limit is not None and len(rows) == limit and limit > 0
    return Page(
        body=body,
        etag=f'"{hashlib.blake2b(body, digest_size=16).hexdigest()}"',
        next_cursor=_cursor(rows[-1]["created_at"], rows[-1]["id"]) if full else None,
    )


def _entry(row: asyncpg.Record, timeouts: Mapping[str, int]) -> dict[str, Any]:
    entry: dict[str, Any] = dict(row)
    x, y = Raw(entry["x"]), Raw(entry["y"])
    entry["x"], entry["y"], entry["canvas"] = x, y, {"x": x, "y": y}
    entry["last_error_rate"] = Raw(entry["last_error_rate"])
    card = entry["agent_card"]
    entry["agent_card"] = _NULL if card is None else Raw(card)
    timeout = timeouts.get(entry["runtime"])
    if timeout is not None:
        entry["provision_timeout_ms"] = timeout * 1000
    return entry


def wanted(
    *,
    status: str | None,
    parent_id: str | None,
    runtime: str | None,
    kind: str | None,
    q: str | None,
    limit: str | None,
    cursor: str | None,
) -> Filter:
    """The query string as a filter. Raises `InvalidFilter` naming the parameter."""
    if status and status not in list(Status):
        raise InvalidFilter("invalid status")
    parent = parse_uuid(parent_id) if parent_id and parent_id != "null" else None
    if parent_id and parent_id != "null" and parent is None:
        raise InvalidFilter("invalid parent_id")
    return Filter(
        status=status or None,
        parent_id=parent,
        roots=parent_id == "null",
        runtime=runtime or None,
        kind=kind or None,
        q=_pattern(q) if q else None,
        limit=_limit(limit, MAX_LIMIT if cursor else None),
        after=_position(cursor) if cursor else None,
    )


def _pattern(text: str) -> str:
    """A text that occurs anywhere; the wildcards of the database are plain characters to the caller."""
    escaped = text[:255].replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def _limit(text: str | None, default: int | None) -> int | None:
    if not text:
        return default
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text[:9]) <= MAX_LIMIT:
        raise InvalidFilter(f"limit must be a number from 1 to {MAX_LIMIT}")
    return int(text)


def _cursor(created_at: datetime, workspace_id: UUID) -> str:
    return base64.urlsafe_b64encode(f"{created_at.isoformat()}|{workspace_id}".encode()).decode().rstrip("=")


def _position(cursor: str) -> tuple[datetime, UUID]:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        when, _, workspace_id = text.partition("|")
        position = datetime.fromisoformat(when), UUID(workspace_id)
    except (ValueError, binascii.Error) as problem:
        raise InvalidFilter("invalid cursor") from problem
    if position[0].tzinfo is None:
        raise InvalidFilter("invalid cursor")
    return position
