"""Registration and heartbeats: how the platform knows that this agent lives."""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Any

from molecule_ai.runtime.platform import (
    CALL_SECONDS,
    PUSH_SECONDS,
    Platform,
    PlatformRefused,
    PlatformUnreachable,
)
from molecule_ai.runtime.state import AgentState

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 30.0  # contract 02 §11.2, unless the register reply says otherwise
FIRST_RETRY_SECONDS = 1.0
JITTER = 0.1  # keeps a thousand agents that started together from beating together
ENDED = frozenset({"paused", "hibernated", "removed"})


class WorkspaceEnded(Exception):
    """The platform says that no agent of this workspace should run."""


class PlatformLost(Exception):
    """The platform has been away for longer than an orphan may live."""


class Heartbeat:
    """Registers once, then beats until the platform says stop."""

    def __init__(
        self,
        platform: Platform,
        state: AgentState,
        *,
        url: str,
        card: Callable[[], dict[str, Any]],
        runtime_metadata: dict[str, Any],
        orphan_seconds: float,
    ) -> None:
        self._platform = platform
        self._state = state
        self._url = url
        self._card = card
        self._runtime_metadata = runtime_metadata
        self._orphan_seconds = orphan_seconds
        self._interval = INTERVAL_SECONDS
        self._last_contact = time.monotonic()
        self._wake = asyncio.Event()
        self.registered = asyncio.Event()
        state.on_push = self._wake.set

    async def run(self) -> None:
        """Raise WorkspaceEnded or PlatformLost when it is time to go."""
        while True:
            await self._register()
            await self._beat_until_told()
            await self._pause(self._next_pause())

    def _next_pause(self) -> float:
        pause = self._interval * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311  (no secret)
        return min(pause, self._orphan_seconds) if self._orphan_seconds else pause

    async def _register(self) -> None:
        delay = FIRST_RETRY_SECONDS
        while not self.registered.is_set():
            try:
                reply = await self._platform.register(self._url, self._card())
            except (PlatformRefused, PlatformUnreachable) as error:
                log.warning("register_failed error=%s", error)
                if self._note_failure(error):
                    return  # a refusal that a quick retry cannot mend; the beats still show that we live
                await asyncio.sleep(delay)
                delay = min(delay * 2, INTERVAL_SECONDS)
            else:
                self._note_contact(reply.get("status"))
                interval = reply.get("heartbeat_interval_seconds")
                if isinstance(interval, int | float) and interval > 0:
                    self._interval = float(interval)
                self.registered.set()
                log.info("registered url=%s interval_seconds=%s", self._url, self._interval)

    async def _beat_until_told(self) -> None:
        """Send the periodic beat; while the platform is away, try again with growing pauses."""
        delay = FIRST_RETRY_SECONDS
        beat = self._state.beat()
        while True:
            try:
                await self._send(beat, CALL_SECONDS)
                return
            except (PlatformRefused, PlatformUnreachable) as error:
                log.warning("heartbeat_failed error=%s", error)
                if self._note_failure(error):
                    return
            await asyncio.sleep(delay)
            delay = min(delay * 2, self._interval)

    async def _pause(self, seconds: float) -> None:
        """Wait for the next beat, and tell task changes as they happen."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                async with asyncio.timeout(left):
                    await self._wake.wait()
            except TimeoutError:
                return
            self._wake.clear()
            for push in self._state.take_pushes():
                await self._send_push(push)

    async def _send_push(self, push: dict[str, Any]) -> None:
        try:
            await self._send(push, PUSH_SECONDS)
        except PlatformUnreachable as error:
            log.warning("task_push_failed error=%s", error)  # the periodic beat repeats the state
        except PlatformRefused as error:
            log.warning("task_push_failed error=%s", error)
            self._note_failure(error)

    async def _send(self, beat: dict[str, Any], seconds: float) -> None:
        reply = await self._platform.heartbeat({**beat, "runtime_metadata": self._runtime_metadata}, seconds)
        self._note_contact(reply.get("workspace_status"))

    def _note_contact(self, status: object) -> None:
        self._last_contact = time.monotonic()
        if status in ENDED:
            raise WorkspaceEnded(f"workspace is {status}")

    def _note_failure(self, error: PlatformRefused | PlatformUnreachable) -> bool:
        """Say whether the failure is an answer that a quick retry cannot change."""
        refused = isinstance(error, PlatformRefused) and not error.is_transient
        if isinstance(error, PlatformRefused):
            if error.status == 410 or error.body.get("status") in ENDED:
                raise WorkspaceEnded(f"the platform answered {error.status}: {error}")
            if refused and error.status != 401:  # the token of a removed workspace is only ever refused
                self._last_contact = time.monotonic()
        if self._orphan_seconds and time.monotonic() - self._last_contact >= self._orphan_seconds:
            raise PlatformLost(f"no platform for {self._orphan_seconds:g} seconds")
        return refused
