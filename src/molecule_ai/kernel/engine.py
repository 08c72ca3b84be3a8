"""Background engines: the loop, the wake-up, the supervision and the report, written once.

An engine is a `tick` that takes nothing, lets the stored state decide, is idempotent and bounded,
and returns what it did (shown by `GET /admin/liveness`). It runs in every process; processes
share work by `FOR UPDATE SKIP LOCKED` and leases, so there is no leader to lose.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from . import log
from .clock import Clock
from .errors import DatastoreUnavailable

_FIRST_BACKOFF = 1.0
_MAX_BACKOFF = 30.0
_HEALTHY_AFTER = 60.0  # seconds of success after which the back-off starts over


class Engine(Protocol):
    """`tick` returns a small JSON-able value: what this round did."""

    name: str
    interval_seconds: float

    async def tick(self) -> object:
        """Do one bounded round. Returning `True` asks for another round at once."""
        ...


@dataclass
class Pulse:
    """What `/admin/liveness` shows of one engine."""

    name: str
    interval_seconds: float
    state: str = "running"
    restarts: int = 0
    last_pulse_at: datetime | None = None
    last_tick_at: datetime | None = None
    last_error: str | None = None
    last_result: object = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class Supervisor:
    """Runs engines and long-lived services; restarts what crashes, with back-off."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tasks: list[asyncio.Task[None]] = []
        self._log = log.get()
        self.pulses: dict[str, Pulse] = {}

    def add(self, engine: Engine) -> Pulse:
        """Start an engine; set the returned pulse's `wake` to make it tick early."""
        pulse = Pulse(engine.name, engine.interval_seconds)
        self.pulses[engine.name] = pulse
        self._start(engine.name, pulse, lambda: self._loop(engine, pulse))
        return pulse

    def run(self, name: str, service: Callable[[], Awaitable[None]]) -> None:
        """Start a service that never returns (a listener, a fan-out)."""
        pulse = Pulse(name, 0)
        self.pulses[name] = pulse
        self._start(name, pulse, service)

    def wake(self, name: str) -> None:
        """Make an engine tick now, if it runs here."""
        if name in self.pulses:
            self.pulses[name].wake.set()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for pulse in self.pulses.values():
            pulse.state = "stopped"

    def _start(self, name: str, pulse: Pulse, body: Callable[[], Awaitable[None]]) -> None:
        self._tasks.append(asyncio.create_task(self._supervise(pulse, body), name=f"engine:{name}"))

    async def _supervise(self, pulse: Pulse, body: Callable[[], Awaitable[None]]) -> None:
        backoff = _FIRST_BACKOFF
        while True:
            pulse.state = "running"
            started = self._clock.now()
            try:
                await body()
                pulse.last_error = "returned unexpectedly"
            except DatastoreUnavailable as away:
                pulse.last_error = str(away)
            except Exception as error:
                pulse.last_error = f"{type(error).__name__}: {error}"
                self._log.exception("engine_crashed", engine=pulse.name)
            pulse.restarts += 1
            pulse.state = "backoff"
            if (self._clock.now() - started).total_seconds() > _HEALTHY_AFTER:
                backoff = _FIRST_BACKOFF
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, _MAX_BACKOFF)

    async def _loop(self, engine: Engine, pulse: Pulse) -> None:
        while True:
            pulse.wake.clear()
            pulse.last_pulse_at = self._clock.now()
            pulse.last_result = await engine.tick()
            pulse.last_tick_at = self._clock.now()
            pulse.last_error = None
            if pulse.last_result is True:
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(engine.interval_seconds):
                    await pulse.wake.wait()
