import asyncio
from uuid import UUID, uuid4

import asyncpg
import pytest

from molecule_ai.server.activity.schemas import Entry, SourceKind
from molecule_ai.server.app import Server
from molecule_ai.server.auth.errors import WorkspaceNotFound
from tests.conftest import ADMIN_TOKEN, connect
from tests.support import add_workspace


def _entry(workspace_id: UUID, **fields: object) -> Entry:
    values = {"activity_type": "agent_log", "source_kind": SourceKind.SYSTEM} | fields
    return Entry(workspace_id=workspace_id, **values)  # type: ignore[arg-type]


async def test_a_crowd_of_records_shares_few_statements(server: Server, dsn: str) -> None:
    workspace_id = await add_workspace(server)
    ids = await asyncio.gather(*(server.activity.record(_entry(workspace_id)) for _ in range(300)))
    async with server.db.connection() as connection:
        stored = await connection.fetch("SELECT id, xmin FROM activity_logs")
    assert {row["id"] for row in stored} == set(ids)
    assert len({row["xmin"] for row in stored}) <= 5


async def test_one_bad_row_does_not_cost_the_others_theirs(server: Server) -> None:
    workspace_id = await add_workspace(server)
    results = await asyncio.gather(
        server.activity.record(_entry(workspace_id, summary="first")),
        server.activity.record(_entry(workspace_id, summary="good")),
        server.activity.record(_entry(workspace_id, duration_ms=2**40)),
        server.activity.record(_entry(uuid4(), summary="nobody's")),
        return_exceptions=True,
    )
    assert isinstance(results[0], UUID)
    assert isinstance(results[1], UUID)
    assert isinstance(results[2], Exception)
    assert isinstance(results[3], WorkspaceNotFound)


async def test_a_key_is_used_once(server: Server) -> None:
    workspace_id = await add_workspace(server)
    entry = _entry(workspace_id, idempotency_key="once")
    ids = await asyncio.gather(*(server.activity.record(entry) for _ in range(5)))
    assert len(set(ids)) == 1
    async with server.db.transaction() as tx:
        assert await server.activity.record(entry, tx=tx) == ids[0]


async def test_a_row_of_a_transaction_shares_its_fate(server: Server) -> None:
    workspace_id = await add_workspace(server)

    class Stop(Exception):
        pass

    async def fail() -> None:
        async with server.db.transaction() as tx:
            await server.activity.record(_entry(workspace_id), tx=tx)
            raise Stop

    with pytest.raises(Stop):
        await fail()
    async with server.db.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM activity_logs") == 0


async def test_a_poller_never_skips_a_row_that_commits_late(server: Server, dsn: str) -> None:
    """A row drawn earlier and committed later than its successor arrives, in order."""
    workspace_id = await add_workspace(server)
    start = await server.activity.record(_entry(workspace_id, summary="start"))
    slow = await asyncpg.connect(dsn)
    transaction = slow.transaction()
    await transaction.start()
    insert = (
        "INSERT INTO activity_logs (workspace_id, activity_type, summary)"
        " VALUES ($1, 'agent_log', 'slow') RETURNING id"
    )
    await slow.fetchval(insert, workspace_id)
    fast = await server.activity.record(_entry(workspace_id, summary="fast"))

    async with connect(server, ADMIN_TOKEN) as admin:

        async def after(cursor: UUID) -> list[str]:
            answer = await admin.get(f"/workspaces/{workspace_id}/activity", params={"since_id": str(cursor)})
            return [row["summary"] for row in answer.json()]

        assert await after(start) == []
        listed = (await admin.get(f"/workspaces/{workspace_id}/activity")).json()
        assert listed[0]["id"] == str(fast)
        await transaction.commit()
        assert await after(start) == ["slow", "fast"]

        transaction = slow.transaction()
        await transaction.start()
        await slow.fetchval(insert, workspace_id)
        await server.activity.record(_entry(workspace_id, summary="next"))
        assert await after(fast) == []
        await transaction.rollback()
        assert await after(fast) == ["next"]
    await slow.close()
