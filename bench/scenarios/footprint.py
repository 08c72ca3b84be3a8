"""What it costs to be there: cold start, idle memory and CPU of the server, memory of idle agents."""

from __future__ import annotations

import asyncio
from typing import Any

from bench.measure import cpu_seconds, pss_mb
from bench.target import Target

from .orgs import until_online

_IDLE_SECONDS = 20


async def run(target: Target) -> dict[str, Any]:
    """Needs a server that the bench started itself."""
    if target.process is None:
        raise RuntimeError("this scenario starts its own server; leave out --base-url")
    await asyncio.sleep(3)
    servers = target.server_processes()
    before = sum(cpu_seconds(process.pid) for process in servers)
    await asyncio.sleep(_IDLE_SECONDS)
    busy = sum(cpu_seconds(process.pid) for process in servers) - before
    figures: dict[str, Any] = {
        "cold_start_seconds": round(target.cold_start_seconds, 2),
        "server_processes": len(servers),
        "server_pss_mb": round(sum(pss_mb(process.pid) for process in servers), 1),
        "server_idle_cpu_percent": round(100 * busy / _IDLE_SECONDS, 2),
    }
    for runtime, model in (
        ("langgraph", "offline:demo"),
        ("echo", "offline:echo"),
        ("command", "offline:demo"),
    ):
        figures[f"agent_{runtime}_pss_mb"] = round(await _agent_memory(target, runtime, model), 1)
    return figures


async def _agent_memory(target: Target, runtime: str, model: str) -> float:
    known = {process.pid for process in target.agent_processes()}
    body = {"name": f"idle {runtime}", "runtime": runtime, "model": model}
    made = await target.call("POST", "/workspaces", body)
    if runtime != "command":  # it has no command to run and says so, which costs the same memory
        await until_online(target, {made["id"]}, 60)
    await asyncio.sleep(5)
    return max(pss_mb(p.pid) for p in target.agent_processes() if p.pid not in known)
