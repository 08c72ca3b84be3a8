"""Injected time and ids, so that thirty days of schedules can be tested in seconds."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """The only source of "now" in rules. What decides between processes is the database's `now()`."""

    def now(self) -> datetime:
        """Return the current instant in UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` of this clock's time."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class ManualClock:
    """A clock that stands still until `advance` moves it."""

    def __init__(self, start: datetime) -> None:
        self._now = start
        self._sleepers: list[tuple[datetime, asyncio.Event]] = []

    def now(self) -> datetime:
        return self._now

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.Event()
        self._sleepers.append((self._now + timedelta(seconds=seconds), woken))
        await woken.wait()

    def advance(self, delta: timedelta) -> None:
        """Move time forward and wake whoever slept until then."""
        self._now += delta
        for until, woken in self._sleepers:
            if until <= self._now:
                woken.set()
        self._sleepers = [(until, woken) for until, woken in self._sleepers if not woken.is_set()]


class Ids(Protocol):
    """The only source of new ids in rules."""

    def new(self) -> uuid.UUID:
        """Return an id that nobody has seen."""
        ...


class RandomIds:
    """UUID version 4 from the operating system."""

    def new(self) -> uuid.UUID:
        return uuid.uuid4()
