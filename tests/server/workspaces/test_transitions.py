import asyncio
from itertools import product
from uuid import UUID

import pytest

from molecule_ai.server.app import Server
from molecule_ai.server.workspaces import transitions
from molecule_ai.server.workspaces.lifecycle_store import Change
from molecule_ai.server.workspaces.status import Desired, Status
from molecule_ai.server.workspaces.transitions import ALLOWED, IllegalTransition
from tests.support import add_workspace


async def test_code_and_database_know_the_same_states(server: Server) -> None:
    async with server.db.connection() as connection:
        known = await connection.fetchval("SELECT enum_range(NULL::workspace_status)::text[]")
    assert set(known) == {str(status) for status in Status}


@pytest.mark.parametrize(("before", "to"), list(product(Status, Status)))
async def test_only_the_ways_of_the_table_exist(server: Server, before: Status, to: Status) -> None:
    workspace_id = await add_workspace(server, status=before)
    async with server.db.transaction() as tx:
        if before not in ALLOWED[to]:
            with pytest.raises(IllegalTransition):
                await transitions.move(tx, server.events, workspace_id, to, only_from={before})
            return
        moved = await transitions.move(tx, server.events, workspace_id, to, only_from={before})
        assert moved is not None
        assert moved.was is before
        assert await status_of(server, workspace_id, tx) == to


async def status_of(server: Server, workspace_id: UUID, connection: object) -> str:
    return str(
        await connection.fetchval("SELECT status FROM workspaces WHERE id = $1", workspace_id)  # type: ignore[attr-defined]
    )


async def count(server: Server, workspace_id: UUID) -> int:
    async with server.db.connection() as connection:
        return int(
            await connection.fetchval(
                "SELECT count(*) FROM structure_events WHERE workspace_id = $1", workspace_id
            )
        )


async def test_of_many_who_race_one_moves_and_one_event_tells(server: Server) -> None:
    workspace_id = await add_workspace(server, status="hibernated")

    async def wake() -> bool:
        async with server.db.transaction() as tx:
            moved = await transitions.move(
                tx, server.events, workspace_id, Status.PROVISIONING, only_from={Status.HIBERNATED}
            )
        return moved is not None

    assert sum(await asyncio.gather(*(wake() for _ in range(20)))) == 1
    assert await count(server, workspace_id) == 1


async def test_a_move_that_finds_another_status_changes_and_tells_nothing(server: Server) -> None:
    workspace_id = await add_workspace(server, status="paused")
    async with server.db.transaction() as tx:
        moved = await transitions.move(
            tx, server.events, workspace_id, Status.ONLINE, only_from={Status.OFFLINE}
        )
        assert moved is None
    assert await count(server, workspace_id) == 0


async def test_a_stop_forgets_the_url_and_the_tasks(server: Server) -> None:
    workspace_id = await add_workspace(
        server, url="http://127.0.0.1:1", active_tasks=3, current_task="t", instance_id="i"
    )
    async with server.db.transaction() as tx:
        await transitions.move(
            tx,
            server.events,
            workspace_id,
            Status.PAUSED,
            only_from={Status.ONLINE},
            reason="by hand",
            change=Change(desired=Desired.PAUSE, is_new_wish=True, paused_by=workspace_id),
        )
        stored = await tx.fetchrow("SELECT * FROM workspaces WHERE id = $1", workspace_id)
    assert stored is not None
    assert (stored["url"], stored["active_tasks"], stored["current_task"]) == ("", 0, "")
    assert (stored["desired"], stored["generation"], stored["status_reason"]) == ("pause", 2, "by hand")
    assert stored["paused_by"] == workspace_id


async def test_what_is_rolled_back_never_happened(server: Server) -> None:
    workspace_id = await add_workspace(server)

    async def fail_late() -> None:
        async with server.db.transaction() as tx:
            await transitions.move(tx, server.events, workspace_id, Status.OFFLINE, only_from={Status.ONLINE})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_late()
    assert await count(server, workspace_id) == 0
