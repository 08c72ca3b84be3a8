from uuid import uuid4

from molecule_ai.server.activity.retention import ActivityRetention
from molecule_ai.server.app import Server
from tests.support import add_workspace

INSERT = """
    INSERT INTO activity_logs (workspace_id, activity_type, source_id, summary, created_at)
    VALUES ($1, $2, $3, $4, now() - make_interval(days => $5))"""


async def test_each_class_of_rows_lives_as_long_as_its_kind(server: Server) -> None:
    workspace_id, peer = await add_workspace(server), uuid4()
    rows = [
        ("a2a_receive", None, "chat of yesterday", 1),
        ("a2a_receive", None, "chat of two months ago", 60),
        ("a2a_receive", None, "chat of last year", 91),
        ("a2a_receive", peer, "peer of last week", 8),
        ("a2a_receive", peer, "peer of yesterday", 1),
        ("delegation", peer, "delegation of last week", 8),
        ("delegation", peer, "delegation of last month", 31),
        ("agent_log", workspace_id, "log of last week", 8),
        ("agent_log", workspace_id, "log of yesterday", 1),
    ]
    async with server.db.transaction() as tx:
        await tx.executemany(INSERT, [(workspace_id, *row) for row in rows])
    retention = ActivityRetention(server.db, server.clock, chat_days=90, other_days=7, interval_hours=6)
    assert await retention.sweep() == {"chat": 1, "delegation": 1, "other": 2}
    assert await retention.sweep() == {"chat": 0, "delegation": 0, "other": 0}
    async with server.db.connection() as connection:
        left = [
            row["summary"] for row in await connection.fetch("SELECT summary FROM activity_logs ORDER BY seq")
        ]
    assert left == [
        "chat of yesterday",
        "chat of two months ago",
        "peer of yesterday",
        "delegation of last week",
        "log of yesterday",
    ]


async def test_chat_may_be_kept_for_ever_and_batches_find_the_end(server: Server) -> None:
    workspace_id = await add_workspace(server)
    async with server.db.transaction() as tx:
        await tx.execute(INSERT, workspace_id, "a2a_receive", None, "old chat", 4000)
        await tx.execute(
            "INSERT INTO activity_logs (workspace_id, activity_type, created_at)"
            " SELECT $1, 'agent_log', now() - interval '30 days' FROM generate_series(1, 5001)",
            workspace_id,
        )
    retention = ActivityRetention(server.db, server.clock, chat_days=0, other_days=7, interval_hours=6)
    assert await retention.sweep() == {"delegation": 0, "other": 5001}


async def test_the_partial_indexes_serve_the_sweeps(server: Server) -> None:
    from molecule_ai.server.activity import store

    async with server.db.transaction() as tx:
        await tx.execute("SET LOCAL enable_seqscan = off")
        for kind, statement in store.SWEEPS.items():
            plan = await tx.fetch("EXPLAIN " + statement.replace("$1", "7").replace("$2", "10"))
            assert f"activity_logs_{kind}_idx" in str(plan)
