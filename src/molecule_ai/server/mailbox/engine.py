"""The engine of the mailbox: claims what can be delivered, hands it over, and never waits for an agent."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

import msgspec

from molecule_ai.kernel import failpoints
from molecule_ai.kernel.clock import Clock, Ids
from molecule_ai.kernel.db import Connection, Database
from molecule_ai.server.a2a.service import polled
from molecule_ai.server.a2a.waking import Sleepers
from molecule_ai.server.auth.presented import parse_uuid
from molecule_ai.server.traffic.schemas import Slot
from molecule_ai.server.traffic.service import OVERFLOW, Traffic

from . import store
from .couriers import LEASE, MAX_ATTEMPTS, Couriers
from .service import Mailbox, clamped
from .store import Picked

CHANNEL = "molecule_mailbox"
_MAX_NAMED = 500  # targets; with more of them a look at all is cheaper
_MAX_BATCH = 64
_BY_TIME_SECONDS = 0.25


class MailboxEngine:
    """Looks at the targets that it heard of, and at all of them when time itself made something due."""

    name = "mailbox"

    def __init__(
        self,
        db: Database,
        mailbox: Mailbox,
        traffic: Traffic,
        couriers: Couriers,
        sleepers: Sleepers,
        clock: Clock,
        ids: Ids,
        *,
        retention_days: int,
        wake: Callable[[], None],
        interval_seconds: float = 30.0,
    ) -> None:
        self._db = db
        self._mailbox = mailbox
        self._traffic = traffic
        self._couriers = couriers
        self._sleepers = sleepers
        self._clock = clock
        self._ids = ids
        self._retention_days = retention_days
        self._wake = wake
        self._longest = interval_seconds
        self.interval_seconds = interval_seconds
        self._heard: set[UUID] = set()
        self._owes_all = True
        self._timed_at: datetime | None = None

    def hear(self, payload: str) -> None:
        """A target has a new message, or room for one."""
        if (target_id := parse_uuid(payload)) is not None:
            self._heard.add(target_id)
        self._wake()

    def look_at_all(self) -> None:
        """Notifications may have been missed."""
        self._owes_all = True
        self._wake()

    async def tick(self) -> object:
        """One look. `True` asks for the next one at once, because this one was cut short."""
        heard, self._heard = self._heard, set()
        looks_at_all = self._owes_all or not 0 < len(heard) <= _MAX_NAMED
        self._owes_all = False
        try:
            return await self._look(None if looks_at_all else heard)
        except BaseException:
            self._owes_all = True
            raise

    async def _look(self, heard: set[UUID] | None) -> object:
        targets = None if heard is None else list(heard)
        done = await self._by_time() if heard is None and self._is_due() else {}
        given_up = await self._give_up(targets)
        claimed, is_whole = await self._claim(targets)
        woken = await self._wake_sleepers(targets)
        await self._set_timer()
        if not is_whole:
            self._owes_all |= heard is None
            self._heard |= heard or set()
            if self._couriers.room:
                return True
        under_way = self._couriers.under_way
        return {**done, "given_up": given_up, "claimed": claimed, "woken": woken, "under_way": under_way}

    def _is_due(self) -> bool:
        """Time is looked at a few times a second at most, however many messages there are."""
        now = self._clock.now()
        is_due = self._timed_at is None or (now - self._timed_at).total_seconds() >= _BY_TIME_SECONDS
        if is_due:
            self._timed_at = now
        return is_due

    async def _by_time(self) -> dict[str, int]:
        """What happens to messages because time passed."""
        async with self._db.transaction() as tx:
            recovered = await store.recover(tx)
        async with self._db.transaction() as tx:
            expired = await store.expire(tx)
            await self._mailbox.tell(tx, expired)
        async with self._db.transaction() as tx:
            await store.sweep(tx, self._retention_days)
        return {"recovered": len(recovered), "expired": len(expired)}

    async def _give_up(self, targets: list[UUID] | None) -> int:
        """Dead letters: what was tried too often, and what is for a target that is gone."""
        async with self._db.transaction() as tx:
            given_up = await store.give_up(tx, targets, MAX_ATTEMPTS)
            await self._mailbox.tell(tx, given_up)
        return len(given_up)

    async def _claim(self, targets: list[UUID] | None) -> tuple[int, bool]:
        """Hand over what can go out now; also whether that was all."""
        limit = min(_MAX_BATCH, self._couriers.room)
        if not limit:
            return 0, False
        async with self._db.transaction() as tx:
            picked = await store.pick(tx, targets, limit)
            for message in picked:
                if message.is_polling:
                    await self._leave_in_log(tx, message)
            awaited = await store.pick_awaited(tx, targets, [m.id for m in picked], limit)
            started = await self._take(tx, [m for m in picked if not m.is_polling], overflow=0)
            started += await self._take(tx, awaited, overflow=OVERFLOW)
        failpoints.reach("mailbox.claimed")
        for message, slot in started:
            self._couriers.start(message, slot)
        return len(picked) + len(awaited), len(picked) < limit

    async def _take(
        self, tx: Connection, picked: list[Picked], *, overflow: int
    ) -> list[tuple[Picked, Slot]]:
        """Claim the picked messages for which their target had a slot."""
        if not picked:
            return []
        holders = {message.id: self._ids.new() for message in picked}
        wanted = [
            (message.workspace_id, holders[message.id], clamped(message.idempotency_key), message.chain)
            for message in picked
        ]
        slots = await self._traffic.enter_many(tx, wanted, overflow=overflow)
        taken = [message for message in picked if holders[message.id] in slots]
        await store.claim(tx, {message.id: holders[message.id] for message in taken}, LEASE)
        for message in taken:
            await self._mailbox.dispatched(tx, message)
        return [(_once_more(message, holders[message.id]), slots[holders[message.id]]) for message in taken]

    async def _leave_in_log(self, tx: Connection, message: Picked) -> None:
        """A polling agent reads its messages from its log: that is the delivery."""
        await self._mailbox.leave_in_log(tx, message, polled(message.method))

    async def _wake_sleepers(self, targets: list[UUID] | None) -> int:
        async with self._db.connection() as connection:
            asleep = await store.asleep(connection, targets)
        return sum([await self._sleepers.wake(workspace_id) for workspace_id in asleep])

    async def _set_timer(self) -> None:
        async with self._db.connection() as connection:
            nearest = await store.nearest(connection)
        wait = self._longest if nearest is None else min(max(nearest, 0.05), self._longest)
        self.interval_seconds = wait


class LeaseKeeper:
    """Extends the leases of what this process delivers."""

    name = "mailbox-leases"
    interval_seconds = 10.0

    def __init__(self, couriers: Couriers) -> None:
        self._couriers = couriers

    async def tick(self) -> object:
        await self._couriers.renew()
        return {"under_way": self._couriers.under_way}


def _once_more(message: Picked, holder: UUID) -> Picked:
    """The message as the claim left it."""
    return msgspec.structs.replace(message, attempts=message.attempts + 1, lease_owner=holder)
