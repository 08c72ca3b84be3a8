"""Waiting for delegated work: one poll serves every waiter."""

import asyncio
import logging
import time

from msgspec import Struct

from molecule_ai.runtime.platform import Platform, PlatformRefused, PlatformUnreachable

log = logging.getLogger(__name__)

ENDED = frozenset({"completed", "failed"})
FIRST_POLL_SECONDS = 0.05
SLOWEST_POLL_SECONDS = 1.0
GROWTH = 1.5


class Delegated(Struct, frozen=True):
    """What is known about one delegation."""

    id: str
    status: str
    target_id: str = ""
    result: str = ""
    error: str = ""

    @property
    def is_over(self) -> bool:
        """Say whether nothing more will happen to it."""
        return self.status in ENDED


class Delegations:
    """Reads the delegations of this workspace while anybody waits for one."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._waiting: dict[str, asyncio.Future[Delegated]] = {}
        self._wake = asyncio.Event()

    async def find(self, delegation_id: str) -> Delegated | None:
        """Look one delegation up; its freshest end wins over its request."""
        rows = await self._platform.delegations(delegation_id=delegation_id)
        found = [_delegated(row) for row in rows if row.get("delegation_id") == delegation_id]
        return next((item for item in found if item.is_over), found[0] if found else None)

    async def wait(self, delegation_id: str, seconds: float) -> Delegated:
        """Wait for the end of a delegation; raises TimeoutError, and the work goes on without us."""
        future = self._waiting.setdefault(delegation_id, asyncio.get_running_loop().create_future())
        self._wake.set()
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(future)
        finally:
            self._waiting.pop(delegation_id, None)

    async def run(self) -> None:
        """Poll quickly at first and slower the longer nothing happens."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            pause, started = FIRST_POLL_SECONDS, time.monotonic()
            while self._waiting:
                await asyncio.sleep(pause)
                if await self._collect() or self._wake.is_set():
                    pause = FIRST_POLL_SECONDS
                    self._wake.clear()
                else:
                    pause = min(pause * GROWTH, SLOWEST_POLL_SECONDS)
            log.debug("delegations_settled seconds=%.2f", time.monotonic() - started)

    async def _collect(self) -> bool:
        try:
            rows = await self._platform.delegations()
        except (PlatformRefused, PlatformUnreachable) as error:
            log.warning("delegations_failed error=%s", error)
            return False
        any_ended = False
        for item in map(_delegated, rows):
            future = self._waiting.get(item.id)
            if future is not None and item.is_over and not future.done():
                future.set_result(item)
                any_ended = True
        return any_ended


def _delegated(row: dict[str, object]) -> Delegated:
    return Delegated(
        id=str(row.get("delegation_id") or ""),
        status=str(row.get("status") or ""),
        target_id=str(row.get("target_id") or ""),
        result=str(row.get("result") or row.get("response_preview") or ""),
        error=str(row.get("error") or ""),
    )
