"""Replicas that die at every point of a message's way: nothing is lost and nothing acts twice."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from molecule_ai.server.app import Server
from molecule_ai.server.delegations.schemas import Delegate
from tests.agents import Agent, add_agent
from tests.conftest import ADMIN_TOKEN, MakeServer
from tests.support import add_workspace, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.slow]
ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def replica(
    dsn: str, home: Path, failpoints: str = "", **more: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A replica that dies where `failpoints` says, or at the end of the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.chaos.replica"),
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "DATABASE_URL": dsn,
            "MOLECULE_HOME": str(home),
            "ADMIN_TOKEN": ADMIN_TOKEN,
            "PROVISIONER": "none",
            "MOLECULE_FAILPOINTS": failpoints,
            "LOG_LEVEL": "error",
        }
        | more,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def let_leases_end(server: Server) -> None:
    """What a minute does to the claims of the dead; the living renew theirs."""
    async with server.db.transaction() as tx:
        await tx.execute(
            "UPDATE mailbox_messages SET lease_until = now() - interval '1 second'"
            " WHERE status = 'dispatched'"
        )
        await tx.execute("UPDATE workspace_slots SET until = now() - interval '1 second' WHERE until > now()")
    server.supervisor.wake("mailbox")


async def counted(server: Server, sql: str) -> int:
    async with server.db.connection() as connection:
        return int(await connection.fetchval(sql))


async def ledger(server: Server) -> list[Any]:
    async with server.db.connection() as connection:
        return await connection.fetch(
            "SELECT delegation_id, status, result FROM delegations ORDER BY created_at"
        )


@pytest.mark.parametrize(
    ("failpoint", "received_before", "received_after"),
    [("mailbox.claimed", 0, 1), ("mailbox.dispatched", 1, 2), ("mailbox.settled", 1, 1)],
)
async def test_a_delegation_survives_the_replica_that_delivers_it(
    make_server: MakeServer,
    dsn: str,
    tmp_path: Path,
    failpoint: str,
    received_before: int,
    received_after: int,
) -> None:
    server = await make_server()
    async with Agent().serving() as agent:
        source = await add_workspace(server)
        target = await add_agent(server, agent, parent_id=source)
        accepted = await server.delegations.delegate(source, target, Delegate(task="count the stars"))
        async with replica(dsn, tmp_path / "child", failpoint) as child:
            assert await asyncio.wait_for(child.wait(), 30) == -signal.SIGKILL
        assert len(agent.received) == received_before
        survivor = await make_server(engines=True)
        await let_leases_end(survivor)

        async def is_done() -> bool:
            return [row["status"] for row in await ledger(survivor)] == ["completed"]

        await wait_for(is_done)
        assert len(agent.received) == received_after
        assert agent.effects == [accepted.delegation_id]
        assert [row["result"] for row in await ledger(survivor)] == ["count the stars"]
    completed = "SELECT count(*) FROM structure_events WHERE event_type = 'DELEGATION_COMPLETE'"
    assert await counted(survivor, completed) == 1
    assert await counted(survivor, "SELECT count(*) FROM mailbox_messages WHERE status = 'completed'") == 1
    assert (
        await counted(survivor, "SELECT count(*) FROM activity_logs WHERE activity_type = 'a2a_receive'") == 1
    )


@pytest.mark.parametrize("failpoint", ["mailbox.put", "delegations.accepted"])
async def test_what_was_not_committed_never_was(
    make_server: MakeServer, dsn: str, tmp_path: Path, failpoint: str
) -> None:
    server = await make_server()
    async with Agent().serving() as agent:
        source = await add_workspace(server)
        target = await add_agent(server, agent, parent_id=source)
        async with replica(dsn, tmp_path / "child", failpoint, DELEGATE=f"{source},{target}") as child:
            assert await asyncio.wait_for(child.wait(), 30) == -signal.SIGKILL
        assert agent.received == []
    assert await ledger(server) == []
    assert await counted(server, "SELECT count(*) FROM mailbox_messages") == 0
    assert (
        await counted(server, "SELECT count(*) FROM structure_events WHERE event_type LIKE 'DELEGATION%'")
        == 0
    )


async def test_a_storm_of_kills_loses_nothing_and_repeats_nothing(
    make_server: MakeServer, dsn: str, tmp_path: Path
) -> None:
    dice = random.Random(7)
    survivor = await make_server(engines=True)
    agents = [Agent() for _ in range(5)]
    async with (
        agents[0].serving(),
        agents[1].serving(),
        agents[2].serving(),
        agents[3].serving(),
        agents[4].serving(),
    ):
        source = await add_workspace(survivor)
        targets: list[UUID] = [await add_agent(survivor, agent, parent_id=source) for agent in agents]
        accepted = []
        for round_ in range(6):
            point = dice.choice(["mailbox.claimed", "mailbox.dispatched", "mailbox.settled"])
            async with replica(dsn, tmp_path / f"child{round_}", f"{point}:{dice.randint(1, 4)}") as child:
                for number in range(20):
                    accepted.append(
                        await survivor.delegations.delegate(
                            source, targets[number % 5], Delegate(task=f"{round_}.{number}")
                        )
                    )
                    await asyncio.sleep(dice.random() / 10)
                await asyncio.wait({asyncio.ensure_future(child.wait())}, timeout=3)
            await let_leases_end(survivor)

        async def all_done() -> bool:
            await let_leases_end(survivor)
            return all(row["status"] == "completed" for row in await ledger(survivor))

        await wait_for(all_done, 60, interval=0.5)
    assert len(await ledger(survivor)) == len(accepted) == 120
    effects = [message_id for agent in agents for message_id in agent.effects]
    assert sorted(effects) == sorted(one.delegation_id for one in accepted)
    assert await counted(survivor, "SELECT count(*) FROM mailbox_messages WHERE status = 'completed'") == 120
    completed = (
        "SELECT count(DISTINCT payload->>'delegation_id') = 120 AND count(*) = 120"
        " FROM structure_events WHERE event_type = 'DELEGATION_COMPLETE'"
    )
    assert await counted(survivor, completed)
