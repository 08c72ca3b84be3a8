"""What is left of agents when a server is killed at any moment, and how the next one finds them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest
from msgspec import structs

from molecule_ai.provisioners.base import Handle, Launch, Orphan
from molecule_ai.provisioners.local import scan
from molecule_ai.provisioners.local.layout import layout_of
from molecule_ai.provisioners.process import ProcessProvisioner

from .conftest import ask, make_launch, wait_for

SERVER = str(Path(__file__).with_name("server_stub.py"))


@pytest.fixture
def no_youth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an agent be an orphan from its first moment on."""
    monkeypatch.setattr("molecule_ai.provisioners.process.YOUNG_SECONDS", 0.0)


class Server:
    """A server in a process of its own, which starts one agent and is killed."""

    def __init__(self, home: Path, runtime: str, failpoint: str = "") -> None:
        self.workspace_id, self.instance_id = uuid4(), uuid4()
        self._process = subprocess.Popen(
            [sys.executable, SERVER, str(home), runtime, str(self.workspace_id), str(self.instance_id)],
            stdout=subprocess.PIPE,
            env={**os.environ, "MOLECULE_FAILPOINTS": failpoint},
        )

    async def handle(self) -> Handle:
        """Wait until the agent is started."""
        assert self._process.stdout
        line = await asyncio.to_thread(self._process.stdout.readline)
        return msgspec.json.decode(line, type=Handle)

    async def end(self) -> None:
        """Wait until the fail point killed it."""
        await asyncio.to_thread(self._process.wait)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()


@pytest.fixture
def server(provisioner: ProcessProvisioner, runtime: str, request: pytest.FixtureRequest) -> Iterator[Server]:
    server = Server(provisioner.home, runtime, getattr(request, "param", ""))
    yield server
    server.kill()


async def test_an_agent_survives_its_server_and_is_adopted_by_the_next_one(
    provisioner: ProcessProvisioner, server: Server
) -> None:
    handle = await server.handle()
    server.kill()
    assert await provisioner.is_running(handle)
    assert (await ask(handle))["pid"] == handle.pid
    assert "stub is up" in await provisioner.logs(server.workspace_id)
    await provisioner.stop(server.workspace_id, handle)
    assert not await provisioner.is_running(handle)


async def test_no_zygote_outlives_its_server(provisioner: ProcessProvisioner, server: Server) -> None:
    await server.handle()
    server.kill()
    needle = f"{scan.HOME_MARK}={provisioner.home_id}".encode()

    def preloaded() -> list[int]:
        return [pid for pid in pids() if needle in environ(pid) and b"MOLECULE_RESERVED" in environ(pid)]

    await wait_for(lambda: not preloaded())


@pytest.mark.parametrize("server", ["process.prepared", "process.born", "process.recorded"], indirect=True)
async def test_a_server_killed_before_it_gave_leave_leaves_no_agent(
    provisioner: ProcessProvisioner, server: Server
) -> None:
    await server.end()
    await wait_for(lambda: scan.marked(provisioner.home_id) == [])
    assert await provisioner.logs(server.workspace_id) == ""
    handle = await provisioner.start(repeated(server))
    assert handle.instance_id == server.instance_id
    assert (await ask(handle))["pid"] == handle.pid


@pytest.mark.usefixtures("no_youth")
@pytest.mark.parametrize("server", ["process.released"], indirect=True)
async def test_an_agent_that_nobody_recorded_is_found_and_ended(
    provisioner: ProcessProvisioner, server: Server
) -> None:
    await server.end()
    assert await provisioner.find_orphans({server.workspace_id: server.instance_id}) == []
    for expected in ({}, {server.workspace_id: uuid4()}):
        [orphan] = await provisioner.find_orphans(expected)
        assert (orphan.workspace_id, orphan.instance_id) == (server.workspace_id, server.instance_id)
    await provisioner.kill_orphan(orphan)
    assert scan.marked(provisioner.home_id) == []
    assert await provisioner.find_orphans({}) == []


@pytest.mark.parametrize("server", ["process.released", "process.remembered"], indirect=True)
async def test_a_start_repeated_by_another_replica_doubles_nothing(
    provisioner: ProcessProvisioner, server: Server
) -> None:
    await server.end()
    handle = await provisioner.start(repeated(server))
    assert (await ask(handle))["environment"]["MOLECULE_INSTANCE_ID"] == str(server.instance_id)
    [only] = scan.marked(provisioner.home_id)
    assert only.identity.pid == handle.pid


@pytest.mark.usefixtures("no_youth")
async def test_what_a_crashed_agent_started_is_an_orphan_of_its_old_instance(
    provisioner: ProcessProvisioner, runtime: str
) -> None:
    launch = make_launch(runtime, env={"STUB_CHILD": "1"})
    handle = await provisioner.start(launch)
    await ask(handle)
    assert handle.pid
    os.kill(handle.pid, signal.SIGKILL)
    await wait_for(lambda: len(scan.marked(provisioner.home_id)) == 1)
    [orphan] = await provisioner.find_orphans({launch.workspace_id: uuid4()})
    assert orphan.pid != handle.pid
    await provisioner.kill_orphan(orphan)
    assert scan.marked(provisioner.home_id) == []


async def test_a_start_in_flight_is_no_orphan(provisioner: ProcessProvisioner) -> None:
    await provisioner.start(make_launch())
    assert await provisioner.find_orphans({}) == []


async def test_ending_an_orphan_leaves_the_expected_agent_alone(provisioner: ProcessProvisioner) -> None:
    launch = make_launch()
    handle = await provisioner.start(launch)
    stale = Orphan(
        workspace_id=launch.workspace_id, instance_id=uuid4(), node=provisioner.node, pid=handle.pid
    )
    await provisioner.kill_orphan(stale)
    assert await provisioner.is_running(handle)


@pytest.mark.parametrize("milliseconds", [0, 1, 2, 4, 8, 16, 32, 64])
async def test_a_cancelled_start_leaves_nothing(
    provisioner: ProcessProvisioner, runtime: str, milliseconds: int
) -> None:
    await provisioner.warm(runtime)
    launch = make_launch(runtime)
    try:
        async with asyncio.timeout(milliseconds / 1000):
            handle = await provisioner.start(launch)
    except TimeoutError:
        await wait_for(lambda: scan.marked(provisioner.home_id) == [])
        handle = await provisioner.start(launch)
    assert (await ask(handle))["pid"] == handle.pid


async def test_many_starts_at_once_all_succeed(provisioner: ProcessProvisioner, runtime: str) -> None:
    handles = await asyncio.gather(*(provisioner.start(make_launch(runtime)) for _ in range(12)))
    assert len({handle.url for handle in handles}) == 12
    assert all([await provisioner.is_running(handle) for handle in handles])
    await asyncio.gather(*(ask(handle) for handle in handles))


async def test_a_workspace_with_a_damaged_handle_file_starts(provisioner: ProcessProvisioner) -> None:
    launch = make_launch()
    await provisioner.start(launch)
    layout_of(provisioner.home, launch.workspace_id).handle.write_bytes(b"{")
    again = await provisioner.start(structs.replace(launch, instance_id=uuid4()))
    assert await provisioner.is_running(again)
    assert len(scan.marked(provisioner.home_id)) == 1


def repeated(server: Server) -> Launch:
    """The same start, by a replica that found it unfinished."""
    return structs.replace(make_launch(workspace_id=server.workspace_id), instance_id=server.instance_id)


def pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def environ(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""
