"""Workers are killed at random while agents are restarted, paused, put to sleep and woken."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from contextlib import suppress
from typing import Any
from uuid import UUID

import httpx
import pytest

from tests.server.workspaces.org import Org, agents, organization
from tests.support import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.serial]
AGENTS = int(os.environ.get("CHAOS_AGENTS", "8"))
KILLS = int(os.environ.get("CHAOS_KILLS", "10"))
SETTLED_SECONDS = 60.0
WORKERS = 2
VERBS = ("restart", "restart", "pause", "resume", "hibernate", "wake")
AT_REST = {"online", "paused", "hibernated"}


async def test_random_kills_leave_no_orphan_no_double_and_nothing_in_between(dsn: str) -> None:
    chance = random.Random(20260301)
    async with organization(dsn, workers=WORKERS) as org:
        ids = [await org.add(f"agent {n}") for n in range(AGENTS)]
        for workspace_id in ids:
            await org.until(workspace_id, "online")
        for _ in range(KILLS):
            await asyncio.gather(*(_act(org, chance, workspace_id) for workspace_id in ids))
            if chance.random() < 0.3:
                _kill(agents(chance.choice(ids)))
            _kill([chance.choice(await wait_for(org.served.worker_pids, 60))])
        await _rest(org, ids)


async def _act(org: Org, chance: random.Random, workspace_id: UUID) -> None:
    """One verb; a refusal, or a worker that dies while it answers, is part of the game."""
    await asyncio.sleep(chance.random() * 0.5)
    with suppress(httpx.HTTPError):
        await org.client.post(f"/workspaces/{workspace_id}/{chance.choice(VERBS)}")


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def _rest(org: Org, ids: list[UUID]) -> None:
    """Everybody comes to rest, with one process where one is wanted and none where not."""
    seen: dict[str, Any] = {}

    async def is_at_rest() -> bool:
        rows = [await org.row(workspace_id) for workspace_id in ids]
        seen["left"] = [
            (row["name"], row["status"], row["generation"], row["observed_generation"], row["status_reason"])
            for row in rows
            if row["status"] not in AT_REST
            or row["generation"] != row["observed_generation"]
            or len(agents(row["id"])) != (row["status"] == "online")
        ]
        return not seen["left"]

    try:
        await wait_for(is_at_rest, SETTLED_SECONDS, interval=0.2)
    except TimeoutError as late:
        raise AssertionError(f"{seen['left']}\n{org.served.log()[-4000:]}") from late
