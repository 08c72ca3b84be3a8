"""Several replicas on one database, one of them killed in the middle: every slot fires, and fires once."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from molecule_ai.kernel.db import Connection
from molecule_ai.kernel.db import now as database_now
from molecule_ai.kernel.notify import notify
from molecule_ai.server.app import Server
from molecule_ai.server.auth.principal import SYSTEM
from molecule_ai.server.schedules import store
from molecule_ai.server.schedules.scheduler import BATCH, Scheduler
from molecule_ai.server.schedules.schemas import ScheduleUpdate
from molecule_ai.server.schedules.service import CHANNEL
from molecule_ai.server.schedules.store import Due
from tests.conftest import MakeServer
from tests.support import add_workspace, wait_for

REPLICA = """
import asyncio
from molecule_ai.server.app import Server, running
from molecule_ai.kernel import log
from molecule_ai.server.environment import read

async def main():
    log.configure(level="error", json=True)
    server = Server(read())
    async with running(server, engines=True):
        await server.notifications.ready.wait()
        print("ready", flush=True)
        await asyncio.sleep(120)

asyncio.run(main())
"""
# Rows that are due, whose next fire is far away.
PLANT = """
    INSERT INTO workspace_schedules (id, workspace_id, cron_expr, prompt, next_run_at)
    SELECT gen_random_uuid(), w, '0 0 1 1 *', 'go', now()
      FROM unnest($1::uuid[]) AS w, generate_series(1, $2)"""
COUNTS = """
    SELECT (SELECT count(*) FROM schedule_runs) AS runs,
           (SELECT count(DISTINCT schedule_id) FROM schedule_runs) AS schedules,
           (SELECT count(*) FROM mailbox_messages) AS messages,
           (SELECT count(DISTINCT reply_id) FROM mailbox_messages) AS replies,
           (SELECT count(*) FROM workspace_schedules WHERE next_run_at <= now()) AS due"""


@asynccontextmanager
async def replica(dsn: str, home: Path, failpoint: str = "") -> AsyncIterator[asyncio.subprocess.Process]:
    """A real process with a running scheduler; killed at the end if it still lives."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "DATABASE_URL": dsn,
        "MOLECULE_HOME": str(home / uuid4().hex),
        "ADMIN_TOKEN": "test-admin-token-0123456789abcdef",
        "PROVISIONER": "none",
        "MOLECULE_FAILPOINTS": failpoint,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", REPLICA, env=environment, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 60) == b"ready\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def plant(server: Server, workspaces: int, each: int) -> None:
    ids = [await add_workspace(server) for _ in range(workspaces)]
    async with server.db.transaction() as tx:
        await tx.execute(PLANT, ids, each)
        await notify(tx, CHANNEL)


async def counts(server: Server) -> dict[str, int]:
    async with server.db.connection() as connection:
        row = await connection.fetchrow(COUNTS)
    assert row is not None
    return dict(row)


@pytest.mark.processes
async def test_three_thousand_due_schedules_fire_once_while_a_replica_is_killed(
    server: Server, dsn: str, tmp_path: Path
) -> None:
    async with (
        replica(dsn, tmp_path, "schedules.claimed") as doomed,
        replica(dsn, tmp_path),
        replica(dsn, tmp_path),
    ):
        await plant(server, 60, 50)
        await wait_for(lambda: doomed.returncode is not None, 60)

        async def nothing_is_due() -> bool:
            return (await counts(server))["due"] == 0

        await wait_for(nothing_is_due, 60, interval=0.1)
    assert doomed.returncode == -signal.SIGKILL
    assert await counts(server) == {
        "runs": 3000,
        "schedules": 3000,
        "messages": 3000,
        "replies": 3000,
        "due": 0,
    }


@pytest.mark.processes
@pytest.mark.parametrize(("failpoint", "written"), [("schedules.claimed", 0), ("schedules.committed", BATCH)])
async def test_a_kill_leaves_a_batch_whole_or_undone(
    server: Server, dsn: str, tmp_path: Path, failpoint: str, written: int
) -> None:
    async with replica(dsn, tmp_path, failpoint) as doomed:
        await plant(server, 20, 30)
        await wait_for(lambda: doomed.returncode is not None, 60)
    found = await counts(server)
    assert (found["runs"], found["messages"], found["due"]) == (written, written, 600 - written)


async def test_a_claim_passes_over_what_another_one_holds(server: Server, make_server: MakeServer) -> None:
    other = await make_server()
    await plant(server, 2, 5)
    async with server.db.transaction() as tx:
        held = await tx.fetch("SELECT id FROM workspace_schedules LIMIT 4 FOR UPDATE")
        report = await _tick(other)
        assert report["schedules"] == 6
    assert (await _tick(other))["schedules"] == len(held)
    assert (await counts(server))["runs"] == 10


async def test_an_edit_waits_for_the_claim_and_sees_its_result(
    server: Server, make_server: MakeServer
) -> None:
    """Of a claim and an edit at the same moment each sees the other: the slot fires once."""
    other = await make_server()
    workspace_id = await add_workspace(server)
    async with server.db.transaction() as tx:
        await tx.execute(PLANT, [workspace_id], 1)
    [schedule] = await server.schedules.list_all(workspace_id)
    async with server.db.transaction() as tx:
        await tx.execute("SELECT 1 FROM workspace_schedules FOR UPDATE")
        edit = asyncio.create_task(
            other.schedules.update(SYSTEM, workspace_id, schedule.id, ScheduleUpdate(prompt="new"))
        )
        await wait_for(lambda: _is_waiting(server))
        await server.ledger.claim(tx, await _due(tx, workspace_id, schedule.id), await database_now(tx))
    await edit
    assert (await counts(server))["runs"] == 1
    assert (await server.schedules.get(workspace_id, schedule.id)).prompt == "new"


async def _tick(server: Server) -> dict[str, int]:
    report = await Scheduler(server.db, server.ledger, now=database_now).tick()
    assert isinstance(report, dict)
    return report


async def _is_waiting(server: Server) -> bool:
    async with server.db.connection() as connection:
        return bool(
            await connection.fetchval(
                """SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND wait_event_type = 'Lock'"""
            )
        )


async def _due(tx: Connection, workspace_id: UUID, schedule_id: UUID) -> list[Due]:
    due = await store.hold(tx, workspace_id, schedule_id)
    assert due is not None
    return [due]
