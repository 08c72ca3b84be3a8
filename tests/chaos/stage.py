"""A house with people in it, and what a test does to both."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from tests.chaos import truth
from tests.chaos.work import Ledgers, Work
from tests.house import House, house
from tests.support import wait_for


class Stage:
    """Used by one test after the other until one of them breaks it."""

    def __init__(self, house: House, work: Work, ledgers: Ledgers) -> None:
        self.house = house
        self.work = work
        self.ledgers = ledgers

    async def die_at(self, point: str) -> None:
        """Arm a point, see the process die that reaches it, and pull the plug on all others."""
        armed = self.house.armed / point
        armed.touch()
        try:
            await wait_for(lambda: not armed.exists(), 30, interval=0.002)
        except TimeoutError:
            raise AssertionError(f"nobody came to {point}") from None
        finally:
            armed.unlink(missing_ok=True)
        await self.pull_the_plug()
        await self.house.let_leases_end()
        await self.house.start()

    async def pull_the_plug(self) -> None:
        """Kill main process and workers at once."""
        self.house.kill_server()
        await self.house.until_gone()

    async def check(self, *, agents_died: bool = False) -> None:
        """Everything that must be true after a crash."""
        await truth.orphans_end(self.house)
        await truth.transitions_end(self.house)
        await truth.work_ends(self.house)
        await truth.nothing_is_lost(self.house, self.work, self.ledgers, agents_died=agents_died)
        await truth.everybody_is_as_wished(self.house, self.work)


class Theatre:
    """Keeps a stage between tests, and builds a new one after a failure."""

    def __init__(self) -> None:
        self._open: AsyncExitStack | None = None
        self._stage: Stage | None = None

    async def stage(self) -> Stage:
        if self._stage is None:
            self._open = AsyncExitStack()
            self._stage = await self._open.enter_async_context(stage())
        return self._stage

    async def close(self) -> None:
        if self._open is not None:
            await self._open.aclose()
        self._open = self._stage = None


@asynccontextmanager
async def stage(ledgers: int = 2, **settings: object) -> AsyncIterator[Stage]:
    """A new house; its residents are online."""
    with tempfile.TemporaryDirectory(prefix="molecule-ledgers-") as folder:
        kept = Ledgers(Path(folder))
        async with house(configs_dir=kept.templates, **settings) as built:
            work = Work(built)
            await work.settle_in(ledgers)
            yield Stage(built, work, kept)
