"""A thousand external agents that have nothing to do but beat: what they cost the server."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from bench.measure import cpu_seconds, percentiles, pss_mb
from bench.target import Target

from .workspaces import registered

WORKSPACES = 1000
_INTERVAL_SECONDS = 30.0
_SECONDS = 60.0
_SAMPLE_SECONDS = 5.0
# What the server holds; the one that counts is not its own.
_CONNECTIONS = """
    SELECT count(*) FROM pg_stat_activity
     WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()"""


async def run(target: Target) -> dict[str, Any]:
    """A minute of beats, spread evenly: memory, processor, connections, and how long a beat takes."""
    agents = await registered(target, WORKSPACES, "idle")
    await asyncio.sleep(3)
    servers = target.server_processes()
    busy = -sum(cpu_seconds(process.pid) for process in servers)
    watch = asyncio.ensure_future(_watch(target))
    latencies, failures = await _beats(target, agents)
    busy += sum(cpu_seconds(process.pid) for process in servers)
    return {
        "workspaces": WORKSPACES,
        "beats": len(latencies),
        "failures": failures,
        "server_processes": len(servers),
        "server_cpu_percent": round(100 * busy / _SECONDS, 2),
        **await watch,
        "beat": percentiles(latencies),
    }


async def _beats(target: Target, agents: list[tuple[str, str]]) -> tuple[list[float], int]:
    latencies: list[float] = []
    failures = 0
    began = time.monotonic()

    async def agent(number: int, workspace_id: str, token: str) -> None:
        nonlocal failures
        at = began + _INTERVAL_SECONDS * number / len(agents)
        while at < began + _SECONDS:
            await asyncio.sleep(at - time.monotonic())
            at += _INTERVAL_SECONDS
            sent = time.perf_counter()
            body = {"workspace_id": workspace_id, "error_rate": 0, "active_tasks": 0, "uptime_seconds": 60}
            try:
                await target.call("POST", "/registry/heartbeat", body, token)
            except RuntimeError:
                failures += 1
            latencies.append(time.perf_counter() - sent)

    await asyncio.gather(*(agent(number, *who) for number, who in enumerate(agents)))
    return latencies, failures


async def _watch(target: Target) -> dict[str, Any]:
    """The most memory and the most connections that were seen."""
    connection = await target.database()
    memory, connections = 0.0, 0
    deadline = time.monotonic() + _SECONDS - _SAMPLE_SECONDS
    while time.monotonic() < deadline:
        await asyncio.sleep(_SAMPLE_SECONDS)
        memory = max(memory, sum(pss_mb(process.pid) for process in target.server_processes()))
        connections = max(connections, await connection.fetchval(_CONNECTIONS))
    await connection.close()
    return {"server_pss_mb": round(memory, 1), "database_connections": connections}
