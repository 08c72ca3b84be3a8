"""The rules of traffic. Whoever entered holds a slot, renewed while it works, free when it is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from molecule_ai.kernel import log
from molecule_ai.kernel.batch import Coalescer
from molecule_ai.kernel.clock import Ids
from molecule_ai.kernel.db import Connection, Database
from molecule_ai.kernel.errors import DatastoreUnavailable
from molecule_ai.server.events.catalogue import Event
from molecule_ai.server.events.service import Events
from molecule_ai.server.mailbox import chain as chains
from molecule_ai.server.mailbox.chain import Chain, Exceeded, Limits, Task

from . import store
from .errors import ChainLimit
from .schemas import Entrance, Entry, Situation, Slot

LEASE = timedelta(seconds=30)  # three renewals; a killed replica's tasks block their agents no longer
OVERFLOW = 8  # slots beyond the capacity for messages that the target itself waits for
_SECOND_LOOK_SECONDS = 0.025
_TRIES = 5  # each lost race means that another message got in: with so many losses the target is full


class Traffic:
    """Looks before a message, keeps count of what is under way, and ends chains that go nowhere."""

    def __init__(self, db: Database, events: Events, ids: Ids, limits: Limits) -> None:
        self._db = db
        self._events = events
        self._ids = ids
        self._limits = limits
        self._held: dict[UUID, Slot] = {}
        self._leaves: Coalescer[Slot, None] = Coalescer(self._write_leaves)
        self._leaving: dict[UUID, asyncio.Task[None]] = {}
        self._spoke: set[UUID] = set()
        self._log = log.get()

    async def look(self, caller_id: UUID | None, target_id: UUID) -> Situation:
        """What is known of a message's two ends, in one round trip."""
        async with self._db.connection() as connection:
            return await store.look(connection, caller_id, target_id)

    def chain_of(
        self, caller_id: UUID | None, target_id: UUID, said: Chain | None, situation: Situation
    ) -> tuple[Chain, Task | None]:
        """The chain of a message and the task of its caller that caused it. Raises `ChainLimit`."""
        if caller_id is None:
            return said or chains.root(self._ids.new()), None
        task = chains.cause(said, situation.tasks)
        chain = chains.follow(caller_id, target_id, said, task, fresh=self._ids.new())
        siblings = 0 if task is None else task.children
        if broken := chains.exceeded(chain, target_id, self._limits, siblings=siblings):
            raise ChainLimit(chain.chain_id, broken)
        return chain, task

    async def enter(self, entry: Entry) -> Slot | Entrance:
        """A slot at the target, or what was found instead. Raises `ChainLimit`."""
        if (leaving := self._leaving.get(entry.target.id)) is not None:
            await asyncio.wait({leaving})
        holder = self._ids.new()
        found = await self._try_enter(entry, holder, counted=entry.caller_id is not None)
        tries = 1
        while found.slot is None and found.twin_id is None and entry.target.has_capacity and tries < _TRIES:
            found = await self._try_enter(entry, holder, counted=False)
            tries += 1
        if found.slot is None and found.twin_id is None:
            # The caller may have its answer already while another replica still gives the slot back.
            await asyncio.sleep(_SECOND_LOOK_SECONDS)
            found = await self._try_enter(entry, holder, counted=False)
        if found.slot is None:
            return found
        slot = Slot(workspace_id=entry.target.id, slot=found.slot, holder=holder)
        self._held[holder] = slot
        return slot

    async def _try_enter(self, entry: Entry, holder: UUID, *, counted: bool) -> Entrance:
        async with self._db.connection() as connection:
            found = await store.enter(
                connection,
                entry,
                holder,
                counted=counted,
                pair_limit=self._limits.pair_per_minute,
                overflow=OVERFLOW if entry.is_continuation else 0,
                lease=LEASE,
            )
        if found.is_stopped:
            raise ChainLimit(entry.chain.chain_id, Exceeded("stopped", 0))
        if found.pair_messages > self._limits.pair_per_minute:
            raise ChainLimit(entry.chain.chain_id, Exceeded("pair_rate", self._limits.pair_per_minute))
        return found

    async def count(
        self, tx: Connection, caller_id: UUID, target_id: UUID, chain_id: UUID, cause: Task | None
    ) -> None:
        """Count a message that goes through the mailbox. Raises `ChainLimit`."""
        sent = await store.count(tx, caller_id, target_id, cause.holder if cause else None)
        if sent > self._limits.pair_per_minute:
            raise ChainLimit(chain_id, Exceeded("pair_rate", self._limits.pair_per_minute))

    async def enter_many(
        self, tx: Connection, wanted: list[tuple[UUID, UUID, str, Chain]], *, overflow: int
    ) -> dict[UUID, Slot]:
        """Slots for messages of the mailbox, by holder; call `hold` once `tx` is committed.

        `overflow` is how far beyond its capacity a target takes them.
        """
        return {slot.holder: slot for slot in await store.enter_many(tx, wanted, LEASE, overflow)}

    def hold(self, slot: Slot) -> None:
        """Renew a slot from now on."""
        self._held[slot.holder] = slot

    async def leave(self, slot: Slot, *, tx: Connection | None = None) -> None:
        """Give a slot back; inside `tx` it is free once that is committed."""
        self._held.pop(slot.holder, None)
        if tx is not None:
            await store.leave(tx, [slot])
        else:
            await self._leaves.get(slot)

    def leave_soon(self, slot: Slot) -> None:
        """Give a slot back without being waited for; who enters next in this process waits for it."""
        self._held.pop(slot.holder, None)
        leaving = asyncio.create_task(self._leave(slot))
        self._leaving[slot.workspace_id] = leaving
        leaving.add_done_callback(lambda task: self._left(slot.workspace_id, task))

    async def tell_of_room(self, workspace_ids: Sequence[UUID]) -> None:
        """Their agents have less to do than before: whatever waits for them may go out.

        Call it once that is committed, so that a message which arrives meanwhile finds the room itself.
        """
        if workspace_ids:
            async with self._db.connection() as connection:
                await store.tell_of_room(connection, workspace_ids)

    async def settle(self) -> None:
        """Wait for the slots that are being given back."""
        if self._leaving:
            await asyncio.wait(self._leaving.values())

    async def _write_leaves(self, slots: Sequence[Slot]) -> dict[Slot, None]:
        async with self._db.connection() as connection:
            await store.leave(connection, slots)
        return {}

    async def _leave(self, slot: Slot) -> None:
        try:
            await self.leave(slot)
        except DatastoreUnavailable:
            self._log.warning("slot_not_left", workspace_id=str(slot.workspace_id))  # its lease ends it

    def _left(self, workspace_id: UUID, task: asyncio.Task[None]) -> None:
        if self._leaving.get(workspace_id) is task:
            del self._leaving[workspace_id]

    async def renew(self) -> int:
        """Extend the leases of the slots that this process holds."""
        slots = list(self._held.values())
        if slots:
            async with self._db.connection() as connection:
                await store.renew(connection, slots, LEASE)
        return len(slots)

    async def refused(self, limit: ChainLimit, caller_id: UUID | None, target_id: UUID) -> None:
        """Tell once per chain that it went too far."""
        async with self._db.transaction() as tx:
            if not await store.notice(tx, limit.chain_id, limit.exceeded.reason):
                return
            await self._events.append(
                tx,
                Event.CHAIN_STOPPED,
                caller_id,
                {
                    "chain_id": str(limit.chain_id),
                    "reason": limit.exceeded.reason,
                    "limit": limit.exceeded.limit,
                    "target_id": str(target_id),
                },
                chain_id=limit.chain_id,
                target_id=target_id,
            )

    async def require_running(self, connection: Connection, chain_id: UUID) -> None:
        """Raises `ChainLimit` when an operator stopped the chain."""
        if await store.is_stopped(connection, chain_id):
            raise ChainLimit(chain_id, Exceeded("stopped", 0))

    async def stop(self, tx: Connection, chain_id: UUID, *, reason: str, by: str) -> datetime:
        """Refuse every further message of a chain; returns since when. The first stop is told of."""
        stopped_at, is_new = await store.stop(tx, chain_id, reason, by)
        if is_new:
            told = {"chain_id": str(chain_id), "reason": "stopped", "note": reason}
            await self._events.append(tx, Event.CHAIN_STOPPED, None, told, actor=by, chain_id=chain_id)
        return stopped_at

    async def in_flight(self, connection: Connection, chain_id: UUID) -> list[UUID]:
        """Workspaces that work on a message of the chain right now."""
        return await store.in_flight(connection, chain_id)

    async def quiet_seconds(self, workspace_id: UUID) -> float:
        """How long a workspace has been silent; without end when it never spoke."""
        async with self._db.connection() as connection:
            seconds = await store.quiet_seconds(connection, workspace_id)
        return float("inf") if seconds is None else seconds

    async def is_held_down(self, connection: Connection, workspace_id: UUID) -> bool:
        """Whether a paused ancestor keeps a workspace from waking."""
        return await store.is_held_down(connection, workspace_id)

    async def is_polling(self, connection: Connection, workspace_id: UUID) -> bool:
        """Whether a workspace fetches its messages itself."""
        return await store.is_polling(connection, workspace_id)

    def spoke(self, workspace_id: UUID) -> None:
        """Note that a workspace sent a message; written with the next `flush`."""
        self._spoke.add(workspace_id)

    async def flush(self) -> None:
        """Write what was noted."""
        spoke, self._spoke = self._spoke, set()
        if not spoke:
            return
        try:
            async with self._db.connection() as connection:
                await store.spoke(connection, list(spoke))
        except DatastoreUnavailable:
            self._spoke |= spoke
            raise

    async def sweep(self) -> int:
        """Forget old slots, pairs and chains."""
        async with self._db.transaction() as tx:
            return await store.sweep(tx)
