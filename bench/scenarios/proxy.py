"""What the A2A proxy adds to calling the same agent directly."""

from __future__ import annotations

from typing import Any

from bench.load import closed_loop
from bench.target import Target
from molecule_ai.client.messages import envelope

from .orgs import until_online

_CALLS = 2000
_WARM_UP = 200


async def run(target: Target) -> dict[str, Any]:
    """One caller after the other, directly and through the proxy: the difference is the overhead."""
    made = await target.call(
        "POST", "/workspaces", {"name": "proxied", "runtime": "echo", "model": "offline:echo"}
    )
    await until_online(target, {made["id"]}, 60)
    agent_url = (await target.call("GET", f"/workspaces/{made['id']}"))["url"]
    headers = {"Authorization": f"Bearer {target.token}"}
    proxy_url = f"{target.url}/workspaces/{made['id']}/a2a"

    async def call(url: str) -> None:
        async with target.http.post(url, json=envelope("hello"), headers=headers) as answer:
            if answer.status != 200 or b'"result"' not in await answer.read():
                raise RuntimeError(f"HTTP {answer.status}")

    async def directly(_: int) -> None:
        await call(agent_url)

    async def proxied(_: int) -> None:
        await call(proxy_url)

    figures: dict[str, Any] = {}
    for name, request in (("direct", directly), ("proxied", proxied)):
        await closed_loop(request, count=_WARM_UP, concurrency=1)
        figures[name] = await closed_loop(request, count=_CALLS, concurrency=1)
    for point in ("p50_ms", "p99_ms"):
        figures[f"overhead_{point}"] = round(figures["proxied"][point] - figures["direct"][point], 3)
    return figures
