"""What a reader of the log may ask, in the words of the query string (contract 03 §11.2)."""

from __future__ import annotations

import re
from datetime import datetime
from uuid import UUID

from msgspec import Struct

from . import errors
from .store import Filter

_DEFAULT_LIMIT = 100
_MAX_LIMIT = 500
_MAX_SINCE_SECONDS = 2_592_000
_UNESCAPED_ZONE = re.compile(r" (\d\d:\d\d)$")  # a plus sign in a query string reads as a space
_MAX_WAIT_SECONDS = 25
_SOURCES = frozenset({"canvas", "agent", "channel", "webhook", "scheduler"})


class Query(Struct, frozen=True, kw_only=True):
    """As it came; None where a parameter is absent."""

    type: str | None = None
    source: str | None = None
    limit: str | None = None
    since_secs: str | None = None
    since_id: str | None = None
    peer_id: str | None = None
    before_ts: str | None = None
    order: str | None = None
    wait_secs: str | None = None


def parse(query: Query) -> Filter:
    """Check every parameter but the cursor. Raises the error of the first one that is wrong."""
    if query.source and query.source not in _SOURCES:
        raise errors.UnknownSource
    if query.order and query.order not in ("asc", "desc"):
        raise errors.InvalidOrder
    return Filter(
        workspace_id=None,
        limit=_limit(query.limit),
        types=tuple(filter(None, (query.type or "").split(","))),
        source=query.source or None,
        peer_id=_peer(query.peer_id),
        before=_instant(query.before_ts),
        since_seconds=_since(query.since_secs),
        order="asc" if query.order == "asc" else "desc",
    )


def wait_seconds(query: Query) -> float:
    """How long an empty answer may wait for a row; 0 without a cursor."""
    if not query.wait_secs or query.since_id is None:
        return 0
    try:
        return max(0, min(int(query.wait_secs), _MAX_WAIT_SECONDS))
    except ValueError:
        return 0


def _limit(text: str | None) -> int:
    try:
        number = int(text or "")
    except ValueError:
        return _DEFAULT_LIMIT
    return min(number, _MAX_LIMIT) if number > 0 else _DEFAULT_LIMIT


def _peer(text: str | None) -> UUID | None:
    if not text:
        return None
    try:
        return UUID(text)
    except ValueError as problem:
        raise errors.InvalidPeer from problem


def _instant(text: str | None) -> datetime | None:
    if not text:
        return None
    try:
        instant = datetime.fromisoformat(_UNESCAPED_ZONE.sub(r"+\1", text))
    except ValueError as problem:
        raise errors.InvalidBefore from problem
    if instant.tzinfo is None:
        raise errors.InvalidBefore
    return instant


def _since(text: str | None) -> int | None:
    if not text:
        return None
    try:
        seconds = int(text)
    except ValueError as problem:
        raise errors.InvalidSince from problem
    if not 1 <= seconds <= _MAX_SINCE_SECONDS:
        raise errors.InvalidSince
    return seconds
