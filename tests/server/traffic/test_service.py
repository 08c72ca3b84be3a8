from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from molecule_ai.server.app import Server
from molecule_ai.server.mailbox.chain import Chain
from molecule_ai.server.traffic.errors import ChainLimit
from molecule_ai.server.traffic.schemas import Entrance, Entry, Slot
from tests.conftest import MakeServer
from tests.support import add_workspace


async def enter(
    server: Server, workspace_id: UUID, *, chain: Chain | None = None, **values: Any
) -> Slot | Entrance:
    target = (await server.traffic.look(None, workspace_id)).target
    assert target is not None
    entry = Entry(target=target, message_id=str(uuid4()), chain=chain or Chain(chain_id=uuid4()), **values)
    return await server.traffic.enter(entry)


async def load(server: Server, workspace_id: UUID) -> int:
    target = (await server.traffic.look(None, workspace_id)).target
    assert target is not None
    return target.load


async def report(server: Server, workspace_id: UUID, tasks: int) -> None:
    """A heartbeat."""
    async with server.db.transaction() as tx:
        await tx.execute(
            "UPDATE workspaces SET active_tasks = $2, last_heartbeat_at = now() WHERE id = $1",
            workspace_id,
            tasks,
        )


async def test_a_slot_is_taken_once_and_free_when_it_is_left(server: Server) -> None:
    workspace_id = await add_workspace(server)
    one = await enter(server, workspace_id)
    assert isinstance(one, Slot)
    assert isinstance(await enter(server, workspace_id), Entrance)
    await server.traffic.leave(one)
    assert isinstance(await enter(server, workspace_id), Slot)


async def test_the_slot_of_a_dead_replica_is_free_when_its_lease_ends(server: Server) -> None:
    workspace_id = await add_workspace(server)
    assert isinstance(await enter(server, workspace_id), Slot)
    async with server.db.transaction() as tx:
        await tx.execute("UPDATE workspace_slots SET until = now() - interval '1 second'")
    assert isinstance(await enter(server, workspace_id), Slot)


async def test_a_slot_lives_as_long_as_it_is_renewed_and_not_after_it_was_left(server: Server) -> None:
    workspace_id = await add_workspace(server)
    slot = await enter(server, workspace_id)
    assert isinstance(slot, Slot)
    async with server.db.transaction() as tx:
        await tx.execute("UPDATE workspace_slots SET until = now() + interval '1 second'")
    assert await server.traffic.renew() == 1
    async with server.db.connection() as connection:
        left = await connection.fetchval("SELECT until - now() FROM workspace_slots")
    assert left > timedelta(seconds=20)
    await server.traffic.leave(slot)
    server.traffic.hold(slot)  # as a renewal sees it that read the list before
    await server.traffic.renew()
    assert await load(server, workspace_id) == 0


async def test_who_left_without_waiting_is_gone_for_the_next(server: Server) -> None:
    workspace_id = await add_workspace(server)
    for _ in range(20):
        slot = await enter(server, workspace_id)
        assert isinstance(slot, Slot)
        server.traffic.leave_soon(slot)
    await server.traffic.settle()
    assert await load(server, workspace_id) == 0


async def test_a_task_that_the_agent_reports_too_counts_once(server: Server) -> None:
    workspace_id = await add_workspace(server, max_concurrent_tasks=3)
    assert isinstance(await enter(server, workspace_id), Slot)
    await report(server, workspace_id, 1)
    assert await load(server, workspace_id) == 1
    await report(server, workspace_id, 2)
    assert await load(server, workspace_id) == 2


async def test_a_reported_task_of_ours_ends_with_its_slot(server: Server) -> None:
    workspace_id = await add_workspace(server)
    for _ in range(3):
        slot = await enter(server, workspace_id)
        assert isinstance(slot, Slot)
        await report(server, workspace_id, 1)
        await server.traffic.leave(slot)
        assert await load(server, workspace_id) == 0
        # The next task is in the same slot while the same report is the last one.
        slot = await enter(server, workspace_id)
        assert isinstance(slot, Slot)
        await server.traffic.leave(slot)
        assert await load(server, workspace_id) == 0


async def test_an_old_report_counts_no_more(server: Server) -> None:
    workspace_id = await add_workspace(server)
    await report(server, workspace_id, 1)
    assert await load(server, workspace_id) == 1
    async with server.db.transaction() as tx:
        await tx.execute("UPDATE workspaces SET last_heartbeat_at = now() - interval '91 seconds'")
    assert await load(server, workspace_id) == 0


async def test_what_the_target_waits_for_enters_beyond_its_capacity_up_to_a_bound(server: Server) -> None:
    workspace_id = await add_workspace(server)
    slots = [await enter(server, workspace_id, is_continuation=n > 0) for n in range(12)]
    assert sum(isinstance(slot, Slot) for slot in slots) == 9
    assert isinstance(await enter(server, workspace_id), Entrance)


async def test_children_of_a_task_are_counted(make_server: MakeServer) -> None:
    server = await make_server(chain_max_fan_out=3)
    parent, child = await add_workspace(server), await add_workspace(server, max_concurrent_tasks=99)
    assert isinstance(await enter(server, parent), Slot)
    for _ in range(3):
        situation = await server.traffic.look(parent, child)
        chain, cause = server.traffic.chain_of(parent, child, None, situation)
        assert cause is not None
        await enter(server, child, chain=chain, caller_id=parent, cause=cause)
    situation = await server.traffic.look(parent, child)
    with pytest.raises(ChainLimit) as refused:
        server.traffic.chain_of(parent, child, None, situation)
    assert refused.value.exceeded.reason == "fan_out"


async def test_a_look_knows_what_is_there_and_what_is_not(server: Server) -> None:
    workspace_id = await add_workspace(server)
    assert (await server.traffic.look(None, uuid4())).target is None
    unknown = await server.traffic.look(uuid4(), workspace_id)
    assert (unknown.target is not None, unknown.is_allowed) == (True, False)


async def test_old_traces_are_forgotten(server: Server) -> None:
    workspace_id = await add_workspace(server)
    slot = await enter(server, workspace_id, caller_id=await add_workspace(server))
    assert isinstance(slot, Slot)
    await server.traffic.leave(slot)
    async with server.db.transaction() as tx:
        await tx.execute("UPDATE workspace_slots SET until = now() - interval '2 days'")
        await tx.execute("UPDATE message_pairs SET minute_at = now() - interval '2 days'")
    await server.traffic.sweep()
    async with server.db.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM workspace_slots") == 0
        assert await connection.fetchval("SELECT count(*) FROM message_pairs") == 0
