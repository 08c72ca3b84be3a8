"""One value that exists nowhere else in every place for a secret: where do they turn up?"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from tests import processes
from tests.house import House, house
from tests.support import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.processes]
DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi" / "management.yaml"
# Whoever may have a secret gets it here and nowhere else.
HANDED_OUT = {"/workspaces/{workspace_id}/secrets/values"}
KEPT_IN = {"admin-token", "postgres.password", "secrets.key", ".auth_token"}


class Trail:
    """All that was said aloud, and who must not be found in it."""

    def __init__(self) -> None:
        self.canaries: dict[str, str] = {}
        self.marker = _canary("marker")
        self._said: dict[str, list[str]] = {}

    def plant(self, slot: str) -> str:
        """A new value for a place where a secret is kept."""
        return self.know(slot, _canary(slot))

    def know(self, slot: str, value: str) -> str:
        """A secret that somebody else made up."""
        assert len(value) >= 16
        self.canaries[slot] = value
        return value

    def hear(self, where: str, text: str) -> None:
        self._said.setdefault(where, []).append(text)

    def found(self) -> set[tuple[str, str]]:
        """Which canary was seen where."""
        return {
            (slot, where)
            for where, texts in self._said.items()
            for text in texts
            for slot, value in self.canaries.items()
            if value in text
        }

    def places_of(self, value: str) -> set[str]:
        return {
            where.split(" ", 1)[0]
            for where, texts in self._said.items()
            if any(value in text for text in texts)
        }


async def test_no_secret_is_seen_outside_of_its_place() -> None:
    trail = Trail()
    async with house(admin_token=trail.plant("admin-token")) as built:
        async with _listening(built, trail):
            await _fill_every_slot(built, trail)
            await _work(built, trail)
            await _read_every_route(built, trail)
        await _look_around(built, trail)
        assert len(trail.canaries) >= 13
        assert {"answer", "event", "table", "file"} <= trail.places_of(trail.marker)
        assert trail.found() == set()


async def _fill_every_slot(built: House, trail: Trail) -> None:
    body = {"name": "keeper", "runtime": "echo", "role": trail.marker}
    keeper = await _hire(built, body | {"secrets": {"OF_CREATION": trail.plant("of-creation")}})
    await _hire(
        built, {"name": "thinker", "runtime": "langgraph", "model": "offline:demo", "parent_id": keeper}
    )
    given = {"key": "OF_WORKSPACE_KEY", "value": trail.plant("of-workspace")}
    await built.ask("POST", f"/workspaces/{keeper}/secrets", given)
    await built.ask("PUT", "/settings/secrets", {"key": "OF_ORG_TOKEN", "value": trail.plant("of-org")})
    team = {"name": "importer", "runtime": "echo", "env": {"OF_IMPORT": trail.plant("of-import")}}
    await built.ask("POST", "/org/import", {"template": {"name": "canaries", "workspaces": [team]}})

    minted = (await built.ask("POST", f"/workspaces/{keeper}/tokens", {"name": "laptop"})).json()
    trail.know("workspace-token", minted["auth_token"])
    trail.know("org-key", (await built.ask("POST", "/org/tokens", {"name": "ci"})).json()["auth_token"])
    outside = (await built.ask("POST", "/workspaces", {"name": "outside", "external": True})).json()
    trail.know("external-token", outside["connection"]["auth_token"])
    trail.know("database-password", (built.home / "postgres.password").read_text().strip())
    if (key := built.home / "secrets.key").exists():
        trail.know("sealing-key", key.read_text().strip())


async def _work(built: House, trail: Trail) -> None:
    """Everybody restarts with what was given, and speaks."""

    async def is_quiet() -> bool:
        rows = await built.fetch(
            "SELECT status::text, generation = observed_generation AS done FROM workspaces"
        )
        return all(row["status"] in ("online", "awaiting_agent") and row["done"] for row in rows)

    await wait_for(is_quiet, 90, interval=0.2)
    ids = {row["name"]: row["id"] for row in (await built.ask("GET", "/workspaces")).json()}
    for name in ("keeper", "importer"):
        message = {"messageId": name, "role": "user", "parts": [{"kind": "text", "text": trail.marker}]}
        body = {"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": {"message": message}}
        trail.hear("answer a2a", (await built.ask("POST", f"/workspaces/{ids[name]}/a2a", body)).text)
    task = {"target_id": ids["thinker"], "task": f"Look at {trail.marker}"}
    await built.ask("POST", f"/workspaces/{ids['keeper']}/delegate", task)
    for name, path in {"schedules": "schedules", "approvals": "approvals"}.items():
        body = {
            "name": "n",
            "cron_expr": "0 0 1 1 *",
            "prompt": trail.marker,
            "action": f"{name} {trail.marker}",
        }
        await built.ask("POST", f"/workspaces/{ids['keeper']}/{path}", body)
    await built.ask("POST", f"/workspaces/{ids['importer']}/hibernate?force=true")
    await wait_for(lambda: _is_done(built), 60, interval=0.2)
    for file in built.home.glob("workspaces/*/configs/.auth_token"):
        trail.know(f"agent-token-{file.parts[-3]}", file.read_text().strip())


async def _is_done(built: House) -> bool:
    rows = await built.fetch("SELECT 1 FROM delegations WHERE status NOT IN ('completed', 'failed')")
    busy = await built.fetch("SELECT 1 FROM workspaces WHERE status IN ('hibernating', 'provisioning')")
    return not rows and not busy


async def _read_every_route(built: House, trail: Trail) -> None:
    paths = yaml.safe_load(DOCUMENT.read_text())["paths"]
    ids = [row["id"] for row in (await built.ask("GET", "/workspaces")).json()]
    for path in paths:
        if "get" not in paths[path] or path in HANDED_OUT:
            continue
        for concrete in _filled(path, ids):
            status, text = await _read(built, concrete)
            assert str(status) in paths[path]["get"]["responses"], f"{concrete}: {status} {text}"
            trail.hear(f"answer {path}", text)


async def _look_around(built: House, trail: Trail) -> None:
    """Every table, every file and every command line."""
    for table in await built.fetch("SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables"):
        for row in await built.fetch(f"SELECT t::text AS text FROM {table['name']} t"):
            trail.hear(f"table {table['name']}", str(row["text"]))
    for file in built.home.rglob("*"):
        if file.is_file() and file.name not in KEPT_IN and not file.is_symlink():
            trail.hear(f"file {file.relative_to(built.home)}", file.read_bytes().decode("latin-1"))
    for pid in processes.pids():
        trail.hear(f"command {pid}", processes.command(pid).decode(errors="replace"))


@contextlib.asynccontextmanager
async def _listening(built: House, trail: Trail) -> AsyncIterator[None]:
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(f"{built.url}/ws", headers=built.headers) as socket,
    ):

        async def listen() -> None:
            async for message in socket:
                trail.hear("event", str(message.data))

        listening = asyncio.create_task(listen())
        yield
        listening.cancel()


async def _hire(built: House, body: dict[str, Any]) -> str:
    return str((await built.ask("POST", "/workspaces", body)).json()["id"])


async def _read(built: House, path: str) -> tuple[int, str]:
    """The status and the beginning of the answer; a stream has no end."""
    timeout = aiohttp.ClientTimeout(total=20)
    async with (
        aiohttp.ClientSession(timeout=timeout) as http,
        http.get(built.url + path, headers=built.headers) as answer,
    ):
        text = ""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(3):
                async for chunk in answer.content.iter_any():
                    text += chunk.decode(errors="replace")
        return answer.status, text


def _filled(path: str, workspace_ids: list[str]) -> Iterator[str]:
    """The path for each workspace; other ids stay away, their lists show the same rows."""
    if "{" not in path:
        yield path
    elif path.count("{") == 1 and "{workspace_id}" in path:
        yield from (path.replace("{workspace_id}", workspace_id) for workspace_id in workspace_ids)


def _canary(slot: str) -> str:
    return f"canary-{slot}-{secrets.token_hex(16)}"
