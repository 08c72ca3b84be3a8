"""Any process killed at any moment, again and again, with real leases and no help.

`CHAOS_ROUNDS=200 CHAOS_AGENTS=50` is the long version; `CHAOS_SEED` repeats the order of the victims.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from tests import processes
from tests.chaos import truth
from tests.chaos.stage import Stage, stage
from tests.support import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.serial]
ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "6"))
AGENTS = int(os.environ.get("CHAOS_AGENTS", "4"))
SEED = int(os.environ.get("CHAOS_SEED", "0"))


async def server(stage: Stage, chance: random.Random) -> None:
    """Main process and workers at once; another server takes over."""
    await stage.pull_the_plug()
    await stage.house.start()


async def main(stage: Stage, chance: random.Random) -> None:
    """The main process; its workers end themselves."""
    stage.house.kill_main()
    await stage.house.until_gone()
    await stage.house.start()


async def worker(stage: Stage, chance: random.Random) -> None:
    """One worker; the main process starts another."""
    before = stage.house.worker_pids()
    os.kill(chance.choice(before), signal.SIGKILL)
    await wait_for(lambda: len(set(stage.house.worker_pids()) - set(before)) >= 1, 20)


async def database(stage: Stage, chance: random.Random) -> None:
    """The postmaster; the main process starts the database again."""
    stage.house.kill_database()
    await stage.house.until_healthy()


async def agent(stage: Stage, chance: random.Random) -> None:
    """One agent; it is found dead and started again."""
    victims = processes.agents(stage.house.home)
    with suppress(ProcessLookupError, IndexError):
        os.kill(chance.choice(victims).pid, signal.SIGKILL)


Victim = Callable[[Stage, random.Random], Awaitable[None]]
VICTIMS: list[Victim] = [server, worker, database, agent, main]


async def test_whoever_is_killed_nothing_is_lost_or_doubled() -> None:
    chance = random.Random(SEED)
    async with stage(AGENTS, liveness_ttl_seconds=20) as staged:
        ended = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_work_until(ended, staged))
                for n in range(ROUNDS):
                    await asyncio.sleep(chance.uniform(0.2, 1.5))
                    await VICTIMS[n % len(VICTIMS)](staged, chance)
                    await truth.orphans_end(staged.house)
                ended.set()
            await staged.check(agents_died=True)
        except BaseException as error:
            error.add_note(f"CHAOS_SEED={SEED}\n{staged.house.log()}")
            raise


async def _work_until(ended: asyncio.Event, staged: Stage) -> None:
    work = staged.work
    while not ended.is_set():
        await work.talk(3, work.come_and_go(), work.sleep_and_wake(), work.steer())
