"""Every verb of the command line against a real `molecule up`."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from tests import processes
from tests.e2e.programs import Ended, run, start
from tests.support import free_port, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.processes]
START_SECONDS = 60
STRANGER = "00000000-0000-4000-8000-000000000000"


class Desk:
    """One installation and the command line beside it, which finds the server by its home."""

    def __init__(self, home: Path, url: str) -> None:
        self.home = home
        self.url = url

    async def molecule(self, *arguments: str, **environment: str) -> Ended:
        return await run(self.home, *arguments, **environment)

    async def ok(self, *arguments: str) -> str:
        ended = await self.molecule(*arguments)
        assert ended.status == 0, ended.err
        return ended.out

    async def json(self, *arguments: str):  # type: ignore[no-untyped-def]
        return msgspec.json.decode(await self.ok("--json", *arguments))


@pytest.fixture(scope="module")
async def desk() -> AsyncIterator[Desk]:
    with tempfile.TemporaryDirectory(prefix="molecule cli ", ignore_cleanup_errors=True) as folder:
        home, port = Path(folder), free_port()
        up = await start(home, "up", "--port", str(port))
        try:
            assert up.stdout is not None
            said = await asyncio.wait_for(up.stdout.readuntil(b"Ctrl-C stops everything."), START_SECONDS)
            assert b"Admin token, shown once: " in said
            desk = Desk(home, f"http://127.0.0.1:{port}")

            async def is_healthy() -> bool:
                return (await desk.molecule("api", "GET", "/health")).status == 0

            await wait_for(is_healthy, START_SECONDS, interval=0.2)
            yield desk
            up.send_signal(signal.SIGINT)
            assert await asyncio.wait_for(up.wait(), 40) == 0
            assert [processes.command(pid) for pid in processes.of_home(home)] == []
        finally:
            processes.end_all(home)


async def test_a_workspace_from_birth_to_death(desk: Desk) -> None:
    made = await desk.json("workspace", "create", "--name", "scout", "--runtime", "echo", "--wait")
    scout = made["id"]
    assert made["status"] == "online"
    assert scout in [row["id"] for row in await desk.json("workspace", "list")]
    assert "scout" in await desk.ok("workspace", "list", "--status", "online")
    assert "scout  [online]" in await desk.ok("workspace", "tree")
    assert "name: scout" in await desk.ok("-o", "yaml", "workspace", "get", scout)
    assert (await desk.ok("workspace", "ask", scout, "good morning")).strip() == "good morning"
    assert "registered" in await desk.ok("workspace", "logs", scout)

    for verb, status in (
        ("pause", "paused"),
        ("resume", "online"),
        ("restart", "online"),
        ("hibernate", "hibernated"),
        ("wake", "online"),
    ):
        assert (await desk.json("workspace", verb, "scout", "--wait"))["status"] == status

    assert (await desk.molecule("workspace", "delete", scout, "--confirm-name", "Scout")).status == 1
    assert "deleted" in await desk.ok("workspace", "delete", scout, "--yes")
    gone = await desk.molecule("workspace", "get", scout)
    assert (gone.status, gone.out) == (1, "")
    assert "HTTP 410" in gone.err


async def test_an_organization_is_imported_whole_or_refused_with_the_line(desk: Desk, tmp_path: Path) -> None:
    assert "solo-desk" in [row["dir"] for row in await desk.json("org", "templates")]
    plan = await desk.json("org", "import", "solo-desk", "--dry-run")
    done = await desk.json("org", "import", "solo-desk")
    assert done["count"] == plan["count"] == 3
    again = await desk.json("org", "import", "solo-desk")
    assert all(workspace["skipped"] for workspace in again["workspaces"])

    broken = tmp_path / "org.yaml"
    broken.write_text("name: x\nworkspaces:\n  - name: a\n    runtime: nonsense\n")
    refused = await desk.molecule("org", "import", str(broken))
    assert refused.status == 1
    assert "line" in refused.err
    assert "nonsense" in refused.err


async def test_a_token_works_until_it_is_revoked(desk: Desk) -> None:
    made = await desk.json("workspace", "create", "--name", "clerk", "--runtime", "echo")
    minted = await desk.json("token", "mint", made["id"], "--name", "laptop")
    bearer = ("--token", minted["auth_token"], "--api-url", desk.url)
    assert (await desk.molecule(*bearer, "workspace", "get", made["id"])).status == 0
    listed = await desk.json("token", "list", made["id"])
    assert minted["id"] in [row["id"] for row in listed]
    assert minted["auth_token"] not in str(listed)
    await desk.ok("token", "revoke", made["id"], minted["id"])
    refused = await desk.molecule(*bearer, "token", "list", made["id"])
    assert refused.status == 1
    assert "HTTP 401" in refused.err

    key = await desk.json("org", "token", "create", "--name", "ci")
    as_key = ("--token", key["auth_token"], "--api-url", desk.url)
    assert (await desk.molecule(*as_key, "workspace", "list")).status == 0
    assert key["id"] in [row["id"] for row in await desk.json("org", "token", "list")]
    await desk.ok("org", "token", "revoke", key["id"])
    assert (await desk.molecule(*as_key, "workspace", "list")).status == 1


async def test_events_are_listed_and_followed(desk: Desk) -> None:
    made = await desk.json("workspace", "create", "--name", "herald", "--runtime", "echo", "--wait")
    tail = await start(desk.home, "--json", "events", "tail", "--workspace", made["id"])
    assert tail.stdout is not None
    try:
        line = asyncio.create_task(tail.stdout.readline())
        while not line.done():  # nothing says when it has begun to listen
            await desk.json("workspace", "restart", made["id"], "--wait")
        frame = msgspec.json.decode(await line)
        assert frame["workspace_id"] == made["id"]
        assert frame["event"].startswith("WORKSPACE_")
    finally:
        tail.send_signal(signal.SIGINT)
        await asyncio.wait_for(tail.wait(), 10)
    listed = await desk.json("events", "list", "--workspace", made["id"], "--limit", "50")
    assert {"WORKSPACE_PROVISIONING", "WORKSPACE_ONLINE"} <= {row["event_type"] for row in listed}
    assert (await desk.json("events", "list", "--type", "WORKSPACE_ONLINE", "--limit", "1"))[0][
        "event_type"
    ] == "WORKSPACE_ONLINE"


async def test_any_route_can_be_called(desk: Desk) -> None:
    made = await desk.ok("api", "post", "/workspaces", "-d", '{"name": "any", "runtime": "echo"}')
    workspace_id = msgspec.json.decode(made)["id"]
    assert workspace_id in await desk.ok("api", "GET", "workspaces")
    missing = await desk.molecule("api", "GET", f"/workspaces/{STRANGER}")
    assert (missing.status, missing.out) == (1, "")
    assert "HTTP 404" in missing.err
    assert (await desk.molecule("api", "POST", "/workspaces", "-d", "{nonsense")).status == 2


async def test_mistakes_are_told_and_have_a_status(desk: Desk, tmp_path: Path) -> None:
    assert (await desk.molecule("workspace", "fly")).status == 2
    assert (await desk.molecule("-o", "xml", "workspace", "list")).status == 2
    assert (await desk.molecule("workspace", "ask", STRANGER, "hello")).status == 1
    nobody = await desk.molecule("--api-url", f"http://127.0.0.1:{free_port()}", "workspace", "list")
    assert nobody.status == 1
    assert "molecule up" in nobody.err
    second = await desk.molecule("up", "--port", str(free_port()))
    assert second.status == 1
    assert desk.url in second.err
