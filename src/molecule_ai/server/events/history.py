"""Reading the event log (contract 03 §7.1)."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from molecule_ai.kernel.db import Database

from . import store
from .errors import CursorNotFound, InvalidBefore
from .schemas import RecordedEvent

_DEFAULT_LIMIT = 100
_MAX_LIMIT = 500


class History:
    """Pages of the log, for operators."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def page(
        self,
        workspace_id: UUID | None,
        limit: str | None,
        types: str | None,
        before_ts: str | None,
        since_id: str | None,
    ) -> list[RecordedEvent]:
        """Newest first; after a cursor oldest first. Raises `CursorNotFound`, `InvalidBefore`."""
        wanted = list(filter(None, (types or "").split(","))) or None
        before = _instant(before_ts)
        async with self._db.connection() as connection:
            after = through = None
            if since_id is not None:
                after = await store.seq_of(connection, since_id, workspace_id)
                if after is None:
                    raise CursorNotFound
                through = await store.settled(connection)
            return await store.list_events(
                connection,
                workspace_id,
                _limit(limit),
                types=wanted,
                before=before,
                after_seq=after,
                through_seq=through,
                ascending=since_id is not None,
            )


def _limit(text: str | None) -> int:
    try:
        number = int(text or "")
    except ValueError:
        return _DEFAULT_LIMIT
    return min(number, _MAX_LIMIT) if number > 0 else _DEFAULT_LIMIT


def _instant(text: str | None) -> datetime | None:
    if not text:
        return None
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as problem:
        raise InvalidBefore from problem
    if instant.tzinfo is None:
        raise InvalidBefore
    return instant
