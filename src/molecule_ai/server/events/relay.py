"""From the database to this process: every committed event once, recorded ones in order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice

import msgspec

from molecule_ai.kernel import log
from molecule_ai.kernel.clock import Clock
from molecule_ai.kernel.db import Connection, Database
from molecule_ai.kernel.notify import Notifications

from . import store
from .delivery import Delivery, from_notification, from_row, resync
from .schemas import RecordedEvent

_PAGE = 1000  # rows read at once
_TOO_FAR = 5000  # rows behind which clients are better off fetching afresh
_HELD_SECONDS = 0.01  # how soon to look again while an open transaction holds events back

Deliver = Callable[[Sequence[Delivery]], Awaitable[None]]


class Relay:
    """Listens, reads what was notified, and hands it on in order. One per process."""

    def __init__(
        self,
        db: Database,
        notifications: Notifications,
        deliver: Deliver,
        is_deserted: Callable[[], bool],
        clock: Clock,
    ) -> None:
        self._db = db
        self._deliver = deliver
        self._is_deserted = is_deserted
        self._clock = clock
        self._log = log.get()
        self._inbox: list[int | str] = []
        self._wake = asyncio.Event()
        self._has_gap = False
        self._has_more = False
        self._notified = 0
        self.position: int | None = None
        self.ready = asyncio.Event()
        notifications.on("molecule_events", self._on_event)
        notifications.on("molecule_frames", self._on_frame)
        notifications.on_gap(self._on_gap)

    async def run(self) -> None:
        """Relay until cancelled."""
        while True:
            held = self.position is not None and self._owes_rows
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_HELD_SECONDS if held else None):
                    await self._wake.wait()
            await self._round()

    def _on_event(self, payload: str) -> None:
        seq = int(payload)
        self._notified = max(self._notified, seq)
        self._inbox.append(seq)
        self._wake.set()

    def _on_frame(self, payload: str) -> None:
        self._inbox.append(payload)
        self._wake.set()

    def _on_gap(self) -> None:
        self._has_gap = True
        self._wake.set()

    async def _round(self) -> None:
        self._wake.clear()
        inbox, self._inbox = self._inbox, []
        has_gap, self._has_gap = self._has_gap, False
        try:
            await self._relay(inbox, has_gap=has_gap)
        except BaseException:
            self._inbox = inbox + self._inbox
            self._has_gap |= has_gap
            self._wake.set()
            raise

    async def _relay(self, inbox: Sequence[int | str], *, has_gap: bool) -> None:
        named = [int(item[1:]) for item in inbox if isinstance(item, str) and item.startswith("#")]
        if self.position is not None and not (self._owes_rows or has_gap or named):
            if not self._is_deserted():  # frames concern clients alone
                await self._deliver(self._in_order(inbox, (), {}))
            return
        async with self._db.connection() as connection:
            bound = await store.settled(connection)
            if self.position is None:
                self.position = bound
                self.ready.set()
                has_gap = False
            rows = await self._rows(connection, bound)
            large = await store.read_frames(connection, named) if named else {}
        if rows is None:
            rows, has_gap = [], True
        deliveries = self._in_order(inbox, rows, large)
        if has_gap:
            deliveries.append(resync("notifications were lost", self._clock.now()))
        position = bound if len(rows) < _PAGE else rows[-1].seq
        self._has_more = len(rows) == _PAGE
        if self._has_more:
            self._wake.set()
        await self._deliver(deliveries)
        self.position = max(self.position, position)

    @property
    def _owes_rows(self) -> bool:
        """Whether an event was announced, or seen, that is not delivered yet."""
        return self._has_more or self._notified > (self.position or 0)

    async def _rows(self, connection: Connection, bound: int) -> list[RecordedEvent] | None:
        """The events up to `bound` that are new here; None when they are too many to send."""
        position = self.position or 0
        if bound <= position:
            return []
        if bound - position > _TOO_FAR:
            return None
        return await store.list_events(
            connection, None, _PAGE, after_seq=position, through_seq=bound, ascending=True
        )

    def _in_order(
        self, inbox: Sequence[int | str], rows: Sequence[RecordedEvent], large: dict[int, str]
    ) -> list[Delivery]:
        """Rows and frames in the order in which they were announced, as far as the numbers allow."""
        deliveries: list[Delivery] = []
        done = 0
        for item in inbox:
            if isinstance(item, int):
                through = done
                while through < len(rows) and rows[through].seq <= item:
                    through += 1
                deliveries += map(from_row, islice(rows, done, through))
                done = through
                continue
            text = large.get(int(item[1:])) if item.startswith("#") else item
            if text is None:
                continue
            try:
                deliveries += from_notification(text)
            except msgspec.DecodeError as problem:
                self._log.error("frame_unreadable", error=str(problem))
        deliveries += map(from_row, islice(rows, done, None))
        return deliveries
