"""Which agents a newer image moves, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from molecule_ai.provisioners.docker.images import ImagePull
from molecule_ai.server.app import Server
from molecule_ai.server.images.service import Images
from tests.support import add_workspace

NODE = "node-of-the-test"


class Registry:
    """A back end's images, and a registry that has some of them."""

    references: Mapping[str, str] = {"echo": "agent:1", "langgraph": "agent:1", "codex": "codex:1"}

    def __init__(self, digests: Mapping[str, str], *, is_slow: bool = False) -> None:
        self._digests = digests
        self._is_slow = is_slow

    async def pull(self, reference: str) -> str:
        if self._is_slow:
            await asyncio.Event().wait()
        if reference not in self._digests:
            raise ImagePull(reference)
        return self._digests[reference]


def images(server: Server, home: Path, registry: Registry, **options: Any) -> Images:
    return Images(server.db, server.events, server.lifecycle, registry, node=NODE, home=home, **options)


async def add_agent(server: Server, runtime: str, digest: str, **columns: Any) -> UUID:
    handle = {
        "instance_id": "00000000-0000-4000-8000-000000000000",
        "url": "",
        "node": NODE,
        "image_digest": digest,
    }
    return await add_workspace(
        server, **{"runtime": runtime, "node": NODE, "handle": handle, "desired": "run"} | columns
    )


async def cause_of(server: Server, workspace_id: UUID) -> str:
    async with server.db.connection() as connection:
        return str(
            await connection.fetchval("SELECT restart_cause FROM workspaces WHERE id = $1", workspace_id)
        )


@pytest.mark.settings(provisioner="process")
async def test_agents_on_older_images_start_anew_and_busy_ones_later(server: Server, tmp_path: Path) -> None:
    idle = await add_agent(server, "echo", "old")
    busy = await add_agent(server, "langgraph", "old", active_tasks=1)
    current = await add_agent(server, "echo", "new")
    elsewhere = await add_agent(server, "echo", "old", node="another")
    paused = await add_agent(server, "echo", "old", status="paused")
    done = await images(server, tmp_path, Registry({"agent:1": "new"})).refresh(
        None, recreate=True, actor="test"
    )
    assert done.pulled == ["echo", "langgraph"]
    assert done.failed == ["codex"]
    assert done.recreated == [f"ws-{str(idle)[:12]}"]
    assert done.deferred == [busy]
    assert [await cause_of(server, w) for w in (idle, busy)] == ["config", "config"]
    async with server.db.connection() as connection:
        told = await connection.fetchrow(
            "SELECT actor, payload FROM structure_events WHERE event_type = 'image.refresh'"
        )
    assert told is not None
    assert (told["actor"], told["payload"]["restarted"], told["payload"]["deferred"]) == ("test", 1, 1)
    assert [await cause_of(server, w) for w in (current, elsewhere, paused)] == ["", "", ""]


@pytest.mark.settings(provisioner="process")
async def test_without_recreate_nobody_is_disturbed(server: Server, tmp_path: Path) -> None:
    idle = await add_agent(server, "echo", "old")
    done = await images(server, tmp_path, Registry({"agent:1": "new"})).refresh(
        "echo", recreate=False, actor="test"
    )
    assert (done.pulled, done.recreated) == (["echo"], [])
    assert await cause_of(server, idle) == ""


async def test_pulls_share_one_budget(server: Server, tmp_path: Path) -> None:
    slow = images(server, tmp_path, Registry({}, is_slow=True), budget_seconds=0.05)
    done = await slow.refresh(None, recreate=True, actor="test")
    assert (done.pulled, done.failed) == ([], ["codex", "echo", "langgraph"])
