"""What answered messages leave behind, written a moment later and many at a time.

The caller has its answer already. Under load a hundred messages share one transaction, and none of them
takes the processor from the next message's way.
"""

from __future__ import annotations

import asyncio

from molecule_ai.kernel import log
from molecule_ai.kernel.errors import ApiError
from molecule_ai.server.activity.schemas import Entry
from molecule_ai.server.activity.service import Activity
from molecule_ai.server.events.schemas import Frame
from molecule_ai.server.events.service import Events

GATHER_SECONDS = 0.01
_ATTEMPTS = 3
_RETRY_SECONDS = 5.0


class Aftermath:
    """Gathers log rows and frames of messages that are over."""

    def __init__(self, activity: Activity, events: Events) -> None:
        self._activity = activity
        self._events = events
        self._waiting: list[tuple[Entry, Frame | None]] = []
        self._writer: asyncio.Task[None] | None = None
        self._log = log.get()

    def note(self, entry: Entry, frame: Frame | None = None) -> None:
        """Record `entry`, and send `frame` to the workspace's clients."""
        self._waiting.append((entry, frame))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())

    async def drain(self) -> None:
        """Return when everything is written."""
        while self._writer is not None:
            await asyncio.wait({self._writer})

    async def _write(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(GATHER_SECONDS)
                batch, self._waiting = self._waiting, []
                await asyncio.gather(
                    self._send([frame for _, frame in batch if frame is not None]),
                    *(self._record(entry) for entry, _ in batch),
                )
        finally:
            self._writer = None

    async def _send(self, frames: list[Frame]) -> None:
        try:
            await self._events.send(*frames)
        except ApiError as lost:
            self._log.warning("frames_lost", frames=len(frames), error=lost.text)

    async def _record(self, entry: Entry) -> None:
        for attempt in range(_ATTEMPTS):
            try:
                await self._activity.record(entry)
                return
            except ApiError as lost:
                if lost.status != 503 or attempt == _ATTEMPTS - 1:
                    self._log.warning("activity_lost", workspace_id=str(entry.workspace_id), error=lost.text)
                    return
            await asyncio.sleep(_RETRY_SECONDS)
