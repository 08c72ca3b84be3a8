"""How long an agent takes to be there: from its creation until online, from sleep until it answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from bench.measure import percentiles
from bench.target import Target
from molecule_ai.client.messages import envelope

_ROUNDS = 24
_PATIENCE_SECONDS = 60.0
_POLL_SECONDS = 0.01
_RUNTIMES = {"echo": "offline:echo", "langgraph": "offline:demo"}


async def run(target: Target) -> dict[str, Any]:
    """One workspace after the other; each is started, put to sleep, and woken by a message."""
    return {runtime: await _measure(target, runtime, model) for runtime, model in _RUNTIMES.items()}


async def _measure(target: Target, runtime: str, model: str) -> dict[str, Any]:
    starts, wakes = [], []
    for number in range(_ROUNDS):
        began = time.monotonic()
        body = {"name": f"{runtime}-{number}", "runtime": runtime, "model": model}
        workspace_id = (await target.call("POST", "/workspaces", body))["id"]
        await _until(lambda w=workspace_id: _has_status(target, w, "online"))
        starts.append(time.monotonic() - began)
        await target.call("POST", f"/workspaces/{workspace_id}/hibernate?force=true")
        await _until(lambda w=workspace_id: _has_status(target, w, "hibernated"))
        wakes.append(await _wake(target, workspace_id))
    # The first one waits until the libraries of its runtime are imported, which happens once.
    return {
        "first_start_ms": round(starts[0] * 1000),
        "start": percentiles(starts[1:]),
        "wake": percentiles(wakes),
    }


async def _wake(target: Target, workspace_id: str) -> float:
    """Seconds from a message to one who sleeps until its answer is there."""
    began = time.monotonic()
    path = f"/workspaces/{workspace_id}/a2a"
    queued = await target.call("POST", path, envelope("Are you awake?"), headers={"Prefer": "respond-async"})

    async def is_answered() -> bool:
        item = await target.call("GET", f"{path}/queue/{queued['queue_id']}")
        if item["status"] in ("failed", "dropped"):
            raise RuntimeError(f"the message was {item['status']}: {item}")
        return bool(item["status"] == "completed")

    await _until(is_answered)
    return time.monotonic() - began


async def _has_status(target: Target, workspace_id: str, wanted: str) -> bool:
    status = (await target.call("GET", f"/workspaces/{workspace_id}/state"))["status"]
    if status == "failed":
        raise RuntimeError(f"{workspace_id} failed to start")
    return bool(status == wanted)


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while not await condition():
            await asyncio.sleep(_POLL_SECONDS)
