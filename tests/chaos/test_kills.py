"""Any process killed at any moment, again and again, with real leases and no help.

`make chaos` is the long version; `CHAOS_SEED` repeats the order of the victims.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import pytest

from tests import processes
from tests.chaos import truth
from tests.chaos.stage import Stage, stage
from tests.support import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.serial]
ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "6"))
AGENTS = int(os.environ.get("CHAOS_AGENTS", "4"))
SEED = int(os.environ.get("CHAOS_SEED", "0"))
REPORT = os.environ.get("CHAOS_REPORT", "")  # a file for the figures of the run
# Silence is a death after four beats that did not come.
BEATS = {"heartbeat_interval_seconds": 5, "liveness_ttl_seconds": 20}

BACK = """
    SELECT instance_id IS DISTINCT FROM $2 AND status NOT IN ('provisioning', 'offline', 'hibernating')
           AS is_back FROM workspaces WHERE id = $1"""
BACK_SECONDS = 300.0  # servers are killed faster than leases end


class Killer:
    """Chooses victims, and keeps the time until all is well again."""

    def __init__(self, stage: Stage) -> None:
        self._house = stage.house
        self._stage = stage
        self._chance = random.Random(SEED)
        self._agents_killed: Counter[UUID] = Counter()
        self._deck: list[str] = []
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.rounds = 0
        self._missing: list[asyncio.Task[None]] = []

    async def strike(self) -> None:
        """Kill somebody a moment later; return when no orphan is left and whoever died has a successor."""
        await asyncio.sleep(self._chance.uniform(0.2, 1.5))
        victims: dict[str, Callable[[], Awaitable[None]]] = {
            "server": self._server,
            "worker": self._worker,
            "database": self._database,
            "agent": self._agent,
            "main process": self._main,
        }
        if not self._deck:
            self._deck = self._chance.sample(list(victims), len(victims))
        victim = self._deck.pop()
        began = time.monotonic()
        await victims[victim]()
        await truth.orphans_end(self._house)
        if victim != "agent":  # whose return is not waited for
            self.seconds[victim].append(time.monotonic() - began)
        self.rounds += 1

    async def all_are_back(self) -> None:
        """Wait for the agents that were killed, whatever was killed after them."""
        await asyncio.gather(*self._missing)

    async def _server(self) -> None:
        """Main process and workers at once; another server takes over."""
        await self._stage.pull_the_plug()
        await self._house.start()

    async def _main(self) -> None:
        """The main process; its workers end themselves."""
        self._house.kill_main()
        await self._house.until_gone()
        await self._house.start()

    async def _worker(self) -> None:
        """One worker, however young; the main process starts another."""
        before = await wait_for(self._house.worker_pids, 60)
        os.kill(self._chance.choice(before), signal.SIGKILL)
        await wait_for(lambda: set(self._house.worker_pids()) - set(before), 60)

    async def _database(self) -> None:
        """The postmaster; the main process starts the database again."""
        self._house.kill_database()
        await self._house.until_healthy()

    async def _agent(self) -> None:
        """One agent; it is found dead and started again.

        Always one that died least often: who dies again soon is started again later and later.
        """
        alive = processes.agents(self._house.home)
        if alive:
            self._chance.shuffle(alive)
            victim = min(alive, key=lambda agent: self._agents_killed[agent.workspace_id])
            self._agents_killed[victim.workspace_id] += 1
            with suppress(ProcessLookupError):
                os.kill(victim.pid, signal.SIGKILL)
            self._missing.append(asyncio.create_task(self._until_replaced(victim)))

    async def _until_replaced(self, victim: processes.Agent) -> None:
        """Until another agent is there, or none is wanted any more."""
        began = time.monotonic()

        async def is_replaced() -> bool:
            rows = await self._house.fetch(BACK, victim.workspace_id, str(victim.instance_id))
            return not rows or bool(rows[0]["is_back"])

        await wait_for(is_replaced, BACK_SECONDS, interval=0.2)
        self.seconds["agent"].append(time.monotonic() - began)


async def test_whoever_is_killed_nothing_is_lost_or_doubled() -> None:
    async with stage(AGENTS, **BEATS) as staged:
        ended = asyncio.Event()
        killer = Killer(staged)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_work_until(ended, staged))
                while killer.rounds < ROUNDS:
                    await killer.strike()
                ended.set()
                await killer.all_are_back()
            began = time.monotonic()
            await staged.check(agents_died=True)
            _report(killer, time.monotonic() - began, staged)
        except BaseException as error:
            error.add_note(f"CHAOS_SEED={SEED}, after {killer.rounds} rounds\n{staged.house.log()}")
            raise


async def _work_until(ended: asyncio.Event, staged: Stage) -> None:
    work = staged.work
    while not ended.is_set():
        await work.talk(3, work.come_and_go(), work.sleep_and_wake(), work.steer())


def _report(killer: Killer, rest_seconds: float, staged: Stage) -> None:
    if not REPORT:
        return
    figures = {
        "rounds": killer.rounds,
        "agents": AGENTS,
        "seed": SEED,
        "cores": os.cpu_count(),
        "delegations": len(staged.work.delegations),
        "schedule_runs": len(staged.work.slots),
        "approvals": len(staged.work.approvals),
        "seconds_until_all_is_at_rest": round(rest_seconds, 1),
        "longest_recovery_seconds": {who: round(max(took), 1) for who, took in killer.seconds.items()},
        "kills": {who: len(took) for who, took in killer.seconds.items()},
    }
    Path(REPORT).write_text(json.dumps(figures, indent=2) + "\n")
