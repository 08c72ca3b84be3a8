"""The mailbox for the other rooms: put a message, cancel one, stop a chain, look at an entry."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import msgspec

from molecule_ai.kernel import failpoints
from molecule_ai.kernel.clock import Clock, Ids
from molecule_ai.kernel.db import Connection, Database
from molecule_ai.server.a2a import envelope
from molecule_ai.server.activity.schemas import Entry
from molecule_ai.server.activity.service import Activity
from molecule_ai.server.auth.errors import WorkspaceNotFound
from molecule_ai.server.auth.principal import Principal
from molecule_ai.server.events.service import Events
from molecule_ai.server.traffic.service import Traffic

from . import chain as chains
from . import store
from .errors import MailboxFull, QueueCredentialRequired, QueueItemHidden, QueueItemNotFound
from .schemas import (
    DispatchHandler,
    Dropped,
    Message,
    Post,
    Put,
    QueueItem,
    ReplyHandler,
    Settled,
    State,
    StoppedChain,
)
from .store import Ended

MAX_OF_TARGET = 200
MAX_OF_CALLER = 50
_LONGEST_KEY = 200  # an index entry holds no more than a third of a page


class Mailbox:
    """What makes an agent act is put here, in the transaction of whatever made it necessary."""

    def __init__(
        self, db: Database, events: Events, traffic: Traffic, activity: Activity, clock: Clock, ids: Ids
    ) -> None:
        self._db = db
        self._events = events
        self._traffic = traffic
        self._activity = activity
        self._clock = clock
        self._ids = ids
        self.replies: dict[str, ReplyHandler] = {}
        """By reply kind: called in the transaction that settles a message."""
        self.dispatches: dict[str, DispatchHandler] = {}
        """By reply kind: called with the reply id in the transaction that claims a message."""

    async def put(self, tx: Connection, post: Post, *, is_bounded: bool = False) -> Put:
        """Store a message; it is delivered once `tx` is committed and the target can take it.

        An equal active message is returned instead of a second one. Raises `WorkspaceNotFound`,
        `ChainLimit` when the chain was stopped, and with `is_bounded` `MailboxFull`.
        """
        key = clamped(post.idempotency_key)
        chain = post.chain or chains.root(self._ids.new())
        await self._traffic.require_running(tx, chain.chain_id)
        if is_bounded:
            await self._require_room(tx, post)
        body = envelope.stamped(post.body, chain, message_id=post.idempotency_key)
        stored = msgspec.structs.replace(post, body=body)
        while True:
            message_id = self._ids.new()
            if await store.put(tx, message_id, stored, key, chain):
                failpoints.reach("mailbox.put")
                return Put(message_id, duplicate=False)
            twin = await store.find_twin(tx, post.target_id, key)
            if not twin.has_target:
                raise WorkspaceNotFound
            if twin.id is not None:  # else it was settled between the two statements
                return Put(twin.id, duplicate=True)

    async def put_roots(self, tx: Connection, posts: Sequence[Post]) -> int:
        """Store many messages that nothing caused, in one statement; returns how many are new.

        For the clock, which wakes a whole org at once: only what such a message needs is stored.
        """
        rows = []
        for post in posts:
            chain = chains.root(self._ids.new())
            body = envelope.stamped(post.body, chain, message_id=post.idempotency_key)
            stored = msgspec.structs.replace(post, body=body)
            rows.append((self._ids.new(), stored, clamped(post.idempotency_key), chain.chain_id))
        stored_rows = await store.put_roots(tx, rows) if rows else 0
        failpoints.reach("mailbox.put")
        return stored_rows

    async def cancel(self, tx: Connection, *, reply_kind: str, reply_id: str, reason: str) -> int:
        """Drop what waits for a reply of this id; its handler is not called, because its room asks."""
        return len(await store.cancel(tx, reply_kind, reply_id, reason))

    async def target_removed(self, tx: Connection, workspace_ids: Sequence[UUID], actor: str) -> None:
        """Fail what waits for workspaces that are being removed, in the transaction that removes them."""
        await self.tell(tx, await store.abandon(tx, workspace_ids, f"workspace removed by {actor}"))

    async def depth(self, target_id: UUID) -> int:
        """How many messages wait for a target."""
        async with self._db.connection() as connection:
            return (await store.depth(connection, target_id, None)).of_target

    async def stop_chain(self, caller: Principal, chain_id: UUID, reason: str) -> StoppedChain:
        """Drop what waits of a chain and refuse what would follow; stopping twice is stopping once."""
        async with self._db.transaction() as tx:
            stopped_at = await self._traffic.stop(tx, chain_id, reason=reason, by=caller.label)
            ended = await store.cancel_chain(tx, chain_id, "chain stopped")
            await self.tell(tx, ended)
            in_flight = await self._traffic.in_flight(tx, chain_id)
            told = {"chain_id": chain_id, "dropped": len(ended)}
            await self._events.append(tx, "chain.stop", None, told, actor=caller.label, chain_id=chain_id)
        return StoppedChain(chain_id, "stopped", len(ended), stopped_at, in_flight)

    async def drop_stale(self, caller: Principal, minutes: int, target_id: UUID | None) -> Dropped:
        """Drop what has waited longer than `minutes`."""
        async with self._db.transaction() as tx:
            ended = await store.drop_stale(tx, minutes, target_id)
            await self.tell(tx, ended)
            told = {"dropped": len(ended), "max_age_minutes": minutes}
            await self._events.append(tx, "mailbox.drop_stale", target_id, told, actor=caller.label)
        return Dropped(len(ended))

    async def item(self, caller: Principal, target_id: UUID, item_id: UUID) -> QueueItem:
        """An entry for its caller, its target or an admin (contract 05 §1, queue lookup)."""
        who = caller.acting_for or caller.workspace_id
        if not caller.is_admin and who is None:
            raise QueueCredentialRequired
        async with self._db.connection() as connection:
            found = await store.find_item(connection, item_id, target_id)
        if found is None:
            raise QueueItemNotFound(retryable=True)
        if not caller.is_admin and who not in (found.workspace_id, found.caller_id):
            raise QueueItemHidden
        return found

    async def dispatched(self, tx: Connection, message: Message) -> None:
        """Tell the room that asked that its message goes out."""
        if (handler := self.dispatches.get(message.reply_kind)) is not None:
            await handler(tx, message.reply_id)

    async def settled(
        self,
        tx: Connection,
        message: Message,
        state: State,
        response: dict[str, Any] | None,
        error: str | None,
        *,
        duration_ms: int,
        attempts: int,
    ) -> None:
        """Tell the room that asked how its message ended."""
        if (handler := self.replies.get(message.reply_kind)) is None:
            return
        settled = Settled(
            message_id=message.id,
            status=state,
            response=response,
            error=error,
            reply_id=message.reply_id,
            target_id=message.workspace_id,
            duration_ms=duration_ms,
            attempts=attempts,
            chain_id=message.chain_id,
        )
        await handler(tx, settled)

    async def leave_in_log(self, tx: Connection, message: Message, response: dict[str, Any]) -> None:
        """Deliver to a target that fetches its messages: the row of its log is the delivery."""
        entry = Entry(
            workspace_id=message.workspace_id,
            activity_type="a2a_receive",
            source_kind=message.source_kind,
            source_id=message.caller_id,
            source_label=message.source_label or None,
            target_id=message.workspace_id,
            method=message.method,
            summary=f"{message.method} from the mailbox",
            request_body=message.body,
            idempotency_key=f"message:{clamped(message.idempotency_key)}",
            chain_id=message.chain_id,
            chain_depth=message.depth,
        )
        await self._activity.record(entry, tx=tx)
        await store.complete(tx, message.id, response)
        await self.settled(
            tx, message, State.COMPLETED, response, None, duration_ms=0, attempts=message.attempts + 1
        )

    async def tell(self, tx: Connection, ended: Iterable[Ended]) -> None:
        """Tell the rooms that asked for a reply that there will be none."""
        now = self._clock.now()
        for message in ended:
            if (handler := self.replies.get(message.reply_kind)) is None:
                continue
            settled = Settled(
                message_id=message.id,
                status=message.status,
                response=None,
                error=message.last_error,
                reply_id=message.reply_id,
                target_id=message.workspace_id,
                duration_ms=max(0, int((now - message.enqueued_at).total_seconds() * 1000)),
                attempts=message.attempts,
                chain_id=message.chain_id,
            )
            await handler(tx, settled)

    async def _require_room(self, tx: Connection, post: Post) -> None:
        waiting = await store.depth(tx, post.target_id, post.caller_id)
        if waiting.of_target >= MAX_OF_TARGET or waiting.of_caller >= MAX_OF_CALLER:
            raise MailboxFull(busy=True, retry_after=30)


def clamped(key: str) -> str:
    """A key that fits into an index: itself, or what stands for it."""
    return key if len(key) <= _LONGEST_KEY else "sha256:" + hashlib.sha256(key.encode()).hexdigest()
