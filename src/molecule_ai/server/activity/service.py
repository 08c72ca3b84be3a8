"""The log's rules: what is written at once and durably, and what a reader may ask."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from molecule_ai.kernel import failpoints, log
from molecule_ai.kernel.batch import Coalescer
from molecule_ai.kernel.clock import Clock, Ids
from molecule_ai.kernel.db import Connection, Database
from molecule_ai.kernel.errors import DatastoreUnavailable
from molecule_ai.server.auth.errors import WorkspaceNotFound
from molecule_ai.server.auth.principal import Kind, Principal
from molecule_ai.server.events.catalogue import Event
from molecule_ai.server.events.schemas import Frame
from molecule_ai.server.events.service import Cleaner, Events
from molecule_ai.server.events.streams import Streams

from . import errors, notices, store
from .inbound import present
from .query import Query, parse, wait_seconds
from .schemas import ActivityReport, ActivityRow, Entry, Notice, NoticeSent, SourceKind
from .store import Filter, Speaker

# The MCP tool offers some that the error text does not list (contract 03 §11.4).
_ACCEPTED = frozenset(errors.REPORTABLE) | {"tool_call", "task_complete", "hitl", "decision", "gate"}
_SAID = ("summary", "request_body", "response_body", "tool_trace", "metadata", "error_detail")
_MAX_SUMMARY = 256  # characters, contract 03 §11.4
_MAX_ERROR = 4096
_LONGEST_PAUSE = 1.0  # seconds; a row held back by another's open transaction arrives without a signal
_MAX_BATCH = 100  # rows in one statement: bodies may be a megabyte each


class Activity:
    """Writes and reads the activity log; speaks to users in the name of agents."""

    def __init__(
        self, db: Database, events: Events, clock: Clock, ids: Ids, streams: Streams, *, base_url: str
    ) -> None:
        self._db = db
        self._events = events
        self._clock = clock
        self._ids = ids
        self._streams = streams
        self._base_url = base_url
        self._pending: dict[UUID, Entry] = {}
        self._writer: Coalescer[UUID, UUID] = Coalescer(self._write, max_keys=_MAX_BATCH)
        self._log = log.get()
        self.cleaner: Cleaner | None = None

    async def record(self, entry: Entry, *, tx: Connection | None = None) -> UUID:
        """Write a row and tell the workspace's clients. Raises `WorkspaceNotFound`.

        With `tx` the row is part of that transaction. Without, rows that this process records at the
        same time share one statement, and each caller returns when its row is durable. A key that the
        workspace used already gives the id of its row.
        """
        entry = _capped(await self._cleaned(entry, tx))
        activity_id = self._ids.new()
        if tx is not None:
            return await self._insert_one(tx, activity_id, entry)
        self._pending[activity_id] = entry
        recorded = await self._writer.get(activity_id)
        if recorded is None:
            raise WorkspaceNotFound
        return recorded

    async def record_many(self, tx: Connection, entries: Sequence[Entry]) -> None:
        """Write many rows at once as part of `tx`; those of absent workspaces are left out."""
        if self.cleaner is not None:
            await self.cleaner.prepare(
                [speaker for entry in entries for speaker in (entry.workspace_id, entry.source_id)], tx
            )
        entries = [_capped(await self._cleaned(entry, tx)) for entry in entries]
        ids = [self._ids.new() for _ in entries]
        created = await store.insert(tx, ids, entries)
        frames = [
            _logged_frame(created[activity_id], activity_id, entry)
            for activity_id, entry in zip(ids, entries, strict=True)
            if activity_id in created
        ]
        await self._events.send(*frames, tx=tx)

    async def conclude(self, tx: Connection, entry: Entry) -> UUID:
        """Complete the row that was recorded under the entry's key when its message was queued.

        Without such a row the entry is recorded as it is. Raises `WorkspaceNotFound`.
        """
        found = await store.conclude(tx, entry := _capped(await self._cleaned(entry, tx)))
        if found is None:
            return await self.record(entry, tx=tx)
        activity_id, created_at = found
        await self._events.send(_logged_frame(created_at, activity_id, entry), tx=tx)
        return activity_id

    async def _cleaned(self, entry: Entry, tx: Connection | None) -> Entry:
        """The entry without the secrets of those whom it is about."""
        if self.cleaner is None:
            return entry
        speakers = (entry.workspace_id, entry.source_id, entry.target_id)
        said = {name: value for name in _SAID if (value := getattr(entry, name))}
        return msgspec.structs.replace(entry, **await self.cleaner.clean(speakers, said, tx))

    async def report(self, caller: Principal, workspace_id: UUID, told: ActivityReport) -> UUID:
        """Record what a workspace tells of itself (contract 03 §11.3)."""
        if not told.activity_type:
            raise errors.TypeRequired
        if told.activity_type not in _ACCEPTED:
            raise errors.UnknownType
        if told.source_id and told.source_id.lower() != str(workspace_id):
            self._log.warning("activity_source_forged", source_id=told.source_id[:64], caller=caller.label)
            raise errors.ForeignSource
        return await self.record(
            Entry(
                workspace_id=workspace_id,
                activity_type=told.activity_type,
                source_kind=SourceKind.AGENT,
                source_id=workspace_id,
                target_id=_uuid(told.target_id, errors.InvalidTarget) if told.target_id else None,
                method=told.method or None,
                summary=told.summary or None,
                request_body=told.metadata if told.request_body is None else told.request_body,
                response_body=told.response_body,
                metadata=told.metadata,
                tool_trace=told.tool_trace,
                duration_ms=told.duration_ms,
                status=told.status or "ok",
                error_detail=told.error_detail or None,
            )
        )

    async def page(self, caller: Principal, workspace_id: UUID | None, query: Query) -> list[ActivityRow]:
        """Rows of one workspace, or of all (contract 03 §11.2)."""
        asked = parse(query)
        wait = wait_seconds(query)
        rows = await self._rows(caller, workspace_id, asked, query)
        if rows or not wait or workspace_id is None:
            return rows
        return await self._rows_when_there(caller, workspace_id, asked, query, wait)

    async def _rows(
        self, caller: Principal, workspace_id: UUID | None, asked: Filter, query: Query
    ) -> list[ActivityRow]:
        async with self._db.connection() as connection:
            wanted = await self._filter(connection, caller, workspace_id, asked, query)
            rows = await store.list_rows(connection, wanted)
        if wanted.newest_ascending:
            rows.reverse()
        return [present(row, self._base_url) for row in rows]

    async def _rows_when_there(
        self, caller: Principal, workspace_id: UUID, asked: Filter, query: Query, wait: float
    ) -> list[ActivityRow]:
        """Look, and look again whenever the workspace's log has grown, until `wait` seconds are over."""
        ends_at = time.monotonic() + wait
        async with self._streams.listening(caller, workspace_id, Event.ACTIVITY_LOGGED) as arrival:
            while True:
                rows = await self._rows(caller, workspace_id, asked, query)
                left = ends_at - time.monotonic()
                if rows or left <= 0:
                    return rows
                await arrival(min(left, _LONGEST_PAUSE))

    async def notify(self, workspace_id: UUID, notice: Notice, body: dict[str, Any]) -> NoticeSent:
        """Bring an agent's message to its user (contract 03 §12).

        A message that cannot be stored is shown all the same. `body` is what was sent, for a signal
        with a type and no message.
        """
        attachments = notices.checked(notice)
        speaker = await self._speaker(workspace_id)
        if not notice.message:
            return await self._signal(workspace_id, notice.type, body)
        frame = notices.frame(self._clock.now(), workspace_id, speaker, notice, attachments)
        entry = notices.entry(workspace_id, notice.message, attachments)
        try:
            async with self._db.transaction() as tx:
                activity_id = await self.record(entry, tx=tx)
                await self._events.send(frame, tx=tx)
        except (DatastoreUnavailable, asyncpg.PostgresError) as lost:
            self._log.warning("notice_not_persisted", workspace_id=str(workspace_id), error=str(lost))
            await self._events.send(frame)
            return NoticeSent(id=None, persisted=False)
        return NoticeSent(id=activity_id, persisted=True)

    async def _signal(self, workspace_id: UUID, kind: str, body: dict[str, Any]) -> NoticeSent:
        entry = Entry(
            workspace_id=workspace_id,
            activity_type="agent_log",
            source_kind=SourceKind.AGENT,
            source_id=workspace_id,
            method="notify",
            summary=kind,
            request_body=body,
        )
        async with self._db.transaction() as tx:
            activity_id = await self.record(entry, tx=tx)
            await self._events.broadcast(Event.AGENT_NOTIFICATION, workspace_id, body, tx=tx)
        return NoticeSent(id=activity_id, persisted=True)

    async def _speaker(self, workspace_id: UUID) -> Speaker:
        async with self._db.connection() as connection:
            speaker = await store.find_speaker(connection, workspace_id)
        if speaker is None or speaker.removed:
            raise WorkspaceNotFound
        if not speaker.may_talk:
            raise errors.MayNotTalk
        return speaker

    async def _filter(
        self,
        connection: Connection,
        caller: Principal,
        workspace_id: UUID | None,
        asked: Filter,
        query: Query,
    ) -> Filter:
        if query.since_id is not None:
            after = await self._cursor(connection, query.since_id, workspace_id)
            return msgspec.structs.replace(
                asked,
                workspace_id=workspace_id,
                order="asc",
                after_seq=after,
                through_seq=await store.settled(connection),
                # What the agent itself said to its user is no news for it: it would answer itself.
                without_notices=True,
            )
        asked = msgspec.structs.replace(asked, workspace_id=workspace_id)
        if not (caller.kind is Kind.WORKSPACE and asked.types == ("a2a_receive",)):
            return asked
        # The last row of this page may become a cursor, so it must have nothing unseen before it.
        asked = msgspec.structs.replace(asked, through_seq=await store.settled(connection))
        if query.since_secs or query.source or query.order or workspace_id is None:
            return asked
        speaker = await store.find_speaker(connection, workspace_id)
        if speaker is None or not speaker.polls:
            return asked
        return msgspec.structs.replace(asked, newest_ascending=True)

    async def _cursor(self, connection: Connection, since_id: str, workspace_id: UUID | None) -> int:
        activity_id = _uuid(since_id, errors.CursorNotFound)
        seq = None
        if workspace_id is not None:
            seq = await store.cursor(connection, activity_id, workspace_id)
        if seq is None:
            raise errors.CursorNotFound
        return seq

    async def _write(self, ids: Sequence[UUID]) -> Mapping[UUID, UUID]:
        entries = [self._pending.pop(activity_id) for activity_id in ids]
        try:
            return await self._write_batch(ids, entries)
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError):
            # One row that PostgreSQL refuses must not cost the others theirs.
            return await self._write_singly(ids, entries)

    async def _write_batch(self, ids: Sequence[UUID], entries: Sequence[Entry]) -> dict[UUID, UUID]:
        async with self._db.transaction() as tx:
            created = await store.insert(tx, ids, entries)
            frames = [
                _logged_frame(created[activity_id], activity_id, entry)
                for activity_id, entry in zip(ids, entries, strict=True)
                if activity_id in created
            ]
            await self._events.send(*frames, tx=tx)
            failpoints.reach("activity.inserted")
            recorded = {activity_id: activity_id for activity_id in created}
            for activity_id, entry in zip(ids, entries, strict=True):
                if activity_id not in created and entry.idempotency_key is not None:
                    earlier = await store.find_key(tx, entry.workspace_id, entry.idempotency_key)
                    if earlier is not None:
                        recorded[activity_id] = earlier
        return recorded

    async def _write_singly(self, ids: Sequence[UUID], entries: Sequence[Entry]) -> dict[UUID, UUID]:
        recorded: dict[UUID, UUID] = {}
        for activity_id, entry in zip(ids, entries, strict=True):
            try:
                recorded |= await self._write_batch([activity_id], [entry])
            except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as refused:
                self._log.error("activity_refused", workspace_id=str(entry.workspace_id), error=str(refused))
        return recorded

    async def _insert_one(self, tx: Connection, activity_id: UUID, entry: Entry) -> UUID:
        created = await store.insert(tx, [activity_id], [entry])
        if activity_id in created:
            await self._events.send(_logged_frame(created[activity_id], activity_id, entry), tx=tx)
            return activity_id
        earlier = await store.find_key(tx, entry.workspace_id, entry.idempotency_key)
        if earlier is None:
            raise WorkspaceNotFound
        return earlier


def _uuid(text: str, otherwise: type[Exception]) -> UUID:
    try:
        return UUID(text)
    except ValueError as problem:
        raise otherwise from problem


def _capped(entry: Entry) -> Entry:
    return msgspec.structs.replace(
        entry,
        summary=_text(entry.summary, _MAX_SUMMARY),
        error_detail=_text(entry.error_detail, _MAX_ERROR),
    )


def _text(text: str | None, limit: int) -> str | None:
    """At most `limit` characters, none of them NUL: PostgreSQL refuses it in text."""
    return None if text is None else text.replace("\0", "")[:limit]


def _logged_frame(created_at: datetime, activity_id: UUID, entry: Entry) -> Frame:
    payload: dict[str, Any] = {
        "id": activity_id,
        "created_at": created_at,
        "activity_type": entry.activity_type,
        "method": entry.method,
        "summary": entry.summary,
        "status": entry.status,
        "source_id": entry.source_id,
        "source_kind": entry.source_kind,
        "target_id": entry.target_id,
        "duration_ms": entry.duration_ms,
    }
    if entry.tool_trace:
        payload["tool_trace"] = entry.tool_trace
    if entry.error_detail:
        payload["error_detail"] = entry.error_detail
    return Frame(
        event=Event.ACTIVITY_LOGGED, workspace_id=entry.workspace_id, timestamp=created_at, payload=payload
    )
