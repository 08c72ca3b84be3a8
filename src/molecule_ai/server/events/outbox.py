"""What waits for one client: bounded, with the rules of contract 03 §8.4 for a client that is too slow."""

from __future__ import annotations

import asyncio
from collections import deque
from uuid import UUID

from .catalogue import DROPPABLE, Event
from .delivery import Bundle, Delivery, array_of

LIMIT = 256
# Of these only the newest of a workspace says anything.
_LATEST_COUNTS = frozenset({Event.WORKSPACE_HEARTBEAT, Event.TASK_UPDATED})


class Outbox:
    """A queue with one reader. When it is full, what a client can do without goes first."""

    __slots__ = ("_waiter", "_whole", "items")

    def __init__(self) -> None:
        self.items: deque[Delivery] = deque()
        self._whole: Bundle | None = None  # what is queued, while that is one bundle and nothing else
        self._waiter: asyncio.Future[None] | None = None

    def put(self, delivery: Delivery) -> bool:
        """Queue it; False when the client has to go, because something it needs did not fit."""
        self._whole = None
        items = self.items
        if len(items) >= LIMIT:
            self._compact()
            if len(self.items) >= LIMIT:
                return delivery.event in DROPPABLE
            items = self.items
        items.append(delivery)
        self.wake()
        return True

    def put_all(self, bundle: Bundle) -> bool:
        """Queue events that came together. A client that keeps up gets the message that others get."""
        if len(self.items) + len(bundle.deliveries) > LIMIT:
            return all(self.put(delivery) for delivery in bundle.deliveries)
        self._whole = None if self.items else bundle
        self.items.extend(bundle.deliveries)
        self.wake()
        return True

    def take_all(self) -> str:
        """Empty the queue; its events as one message."""
        text = self._whole.array if self._whole is not None else array_of(self.items)
        self._whole = None
        self.items.clear()
        return text

    def wake(self) -> None:
        """Let the reader look, whether there is something or not."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self) -> None:
        """Return once there may be something to read."""
        if self.items:
            return
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _compact(self) -> None:
        kept: deque[Delivery] = deque()
        seen: set[tuple[str, UUID | None]] = set()
        for item in reversed(self.items):
            if item.event in DROPPABLE:
                key = (item.event, item.workspace_id)
                if item.event not in _LATEST_COUNTS or key in seen:
                    continue
                seen.add(key)
            kept.appendleft(item)
        if len(kept) >= LIMIT:
            kept = deque(item for item in kept if item.event not in DROPPABLE)
        self.items = kept
