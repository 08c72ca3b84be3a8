from molecule_ai.server.app import Server
from molecule_ai.server.events import store
from molecule_ai.server.events.retention import BusSweeper, EventRetention

EVENTS = [
    "CRON_EXECUTED",
    "DELEGATION_SENT",
    "APPROVAL_DENIED",
    "WORKSPACE_ONLINE",
    "AGENT_MOVED",
    "secret.set",
]


async def _left(server: Server) -> list[str]:
    async with server.db.connection() as connection:
        rows = await connection.fetch("SELECT event_type FROM structure_events ORDER BY seq")
    return [row["event_type"] for row in rows]


async def test_operational_events_end_structure_and_audit_stay(server: Server) -> None:
    async with server.db.transaction() as tx:
        for days in (91, 1):
            await tx.execute(
                "INSERT INTO structure_events (event_type, created_at)"
                " SELECT e, now() - make_interval(days => $2) FROM unnest($1::text[]) e",
                EVENTS,
                days,
            )
    keeps = EventRetention(server.db, server.clock, days=0, interval_hours=6)
    assert await keeps.sweep() == 0
    retention = EventRetention(server.db, server.clock, days=90, interval_hours=6)
    assert await retention.sweep() == 3
    assert await _left(server) == [*EVENTS[3:], *EVENTS]


async def test_the_bus_forgets_what_was_delivered(server: Server) -> None:
    async with server.db.transaction() as tx:
        await tx.execute(
            "INSERT INTO event_frames (frame, created_at) VALUES ('old', now() - interval '2 minutes'),"
            " ('new', now())"
        )
        await tx.execute(
            "INSERT INTO ws_tickets VALUES ('a', '{}', now() - interval '1 second'),"
            " ('b', '{}', now() + interval '1 minute')"
        )
    assert await BusSweeper(server.db).tick() == {"frames": 1, "tickets": 1}
    assert await BusSweeper(server.db).tick() == {"frames": 0, "tickets": 0}


async def test_the_partial_index_serves_the_sweep(server: Server) -> None:
    async with server.db.transaction() as tx:
        await tx.execute("SET LOCAL enable_seqscan = off")
        plan = await tx.fetch("EXPLAIN " + store.SWEEP_EVENTS.replace("$1", "7").replace("$2", "10"))
        assert "structure_events_operational_idx" in str(plan)
