"""What only containers have: limits that the kernel counts, adoption by label, and killed servers."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from msgspec import structs

from molecule_ai.provisioners.base import Handle, Launch, Root, WorkspaceAccess
from molecule_ai.provisioners.docker import names
from molecule_ai.provisioners.docker.engine import EngineAway
from molecule_ai.provisioners.docker.images import ImagePull
from molecule_ai.provisioners.docker.provisioner import DockerProvisioner
from molecule_ai.provisioners.docker.tiers import Size
from tests.containers.podman import Podman

from .backends import ask, docker_at, make_launch
from .conftest import wait_for

SERVER = str(Path(__file__).with_name("server_stub.py"))
MiB = 1024 * 1024


@pytest.fixture
async def docker(tmp_path: Path, containers: Podman) -> AsyncIterator[DockerProvisioner]:
    provisioner = docker_at(tmp_path, containers)
    yield provisioner
    await provisioner.close()


async def inspected(docker: DockerProvisioner, handle: Handle) -> dict[str, Any]:
    found = await docker.engine.inspect(handle.container_id or "")
    assert found is not None
    return found


async def test_a_sandbox_can_write_nowhere_but_where_it_should(docker: DockerProvisioner) -> None:
    probes = '["write:/etc/x", "write:/opt/x", "write:/tmp/x", "write:/home/sandbox/x", "write:/configs/x"]'
    launch = make_launch(tier=1, env={"STUB_PROBES": probes})
    handle = await docker.start(launch)
    said = await ask(handle)
    assert said["probes"] == {
        "write:/etc/x": "Read-only file system",
        "write:/opt/x": "Read-only file system",
        "write:/tmp/x": "ok",
        "write:/home/sandbox/x": "ok",
        "write:/configs/x": "ok",
    }
    binds = (await inspected(docker, handle))["HostConfig"]["Binds"]
    assert not any(":/workspace" in bind for bind in binds)


@pytest.mark.parametrize(("tier", "memory", "cpus", "processes"), [(1, 256, 0.5, 512), (3, 2048, 2, 2048)])
async def test_a_tier_is_a_size_and_never_a_privilege(
    docker: DockerProvisioner, tier: int, memory: int, cpus: float, processes: int
) -> None:
    handle = await docker.start(make_launch(tier=tier))
    host = (await inspected(docker, handle))["HostConfig"]
    assert host["Memory"] == memory * MiB
    assert host["NanoCpus"] == cpus * 1e9
    assert host["PidsLimit"] == processes
    assert host["Privileged"] is False
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert any("no-new-privileges" in option for option in host["SecurityOpt"])
    status = (
        await docker.files(await _workspace(docker, handle)).exec(["cat", "/proc/self/status"])
    ).stdout.decode()
    assert "CapEff:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    assert f"{memory} MiB" in (handle.isolation or "")


async def _workspace(docker: DockerProvisioner, handle: Handle) -> UUID:
    return UUID((await inspected(docker, handle))["Config"]["Labels"][names.WORKSPACE])


async def test_memory_is_counted_over_all_processes_of_an_agent(tmp_path: Path, containers: Podman) -> None:
    small = Size(memory_mb=64, cpus=1, processes=64, open_files=256)
    docker = docker_at(tmp_path, containers, sizes={2: small})
    try:
        ended = await docker.files(uuid4()).exec(
            ["python3", "-c", "x = bytearray(200 * 2**20); print('had it')"]
        )
        assert b"had it" not in ended.stdout
        assert ended.exit_code != 0
    finally:
        await docker.close()


async def test_the_environment_reaches_the_container_and_the_name_of_the_host_too(
    docker: DockerProvisioner,
) -> None:
    launch = make_launch(env={"STUB_PROBES": '["read:/etc/hosts"]'})
    handle = await docker.start(launch)
    said = await ask(handle)
    own = said["environment"]
    assert (own["WORKSPACE_CONFIG_PATH"], own["PLUGINS_DIR"]) == ("/configs", "/plugins")
    assert (own["HOME"], own["WORKSPACE_DIR"], said["directory"]) == (
        "/home/agent",
        "/workspace",
        "/workspace",
    )
    hosts = (await inspected(docker, handle))["HostConfig"]["ExtraHosts"]
    assert any(entry.startswith("host.docker.internal:") for entry in hosts)


async def test_the_operators_own_directory_is_mounted_as_the_workspace(
    docker: DockerProvisioner, tmp_path: Path
) -> None:
    own = tmp_path / "project"
    own.mkdir()
    own.chmod(0o777)
    (own / "README").write_text("mine")
    probes = '["read:/workspace/README", "write:/workspace/new"]'
    launch = make_launch(
        workspace_dir=str(own), workspace_access=WorkspaceAccess.READ_ONLY, env={"STUB_PROBES": probes}
    )
    read_only = (await ask(await docker.start(launch)))["probes"]
    assert list(read_only.values()) == ["ok", "Read-only file system"]
    files = docker.files(launch.workspace_id)
    assert await files.read(Root.WORKSPACE, "README") == b"mine"
    again = structs.replace(launch, instance_id=uuid4(), workspace_access=WorkspaceAccess.READ_WRITE)
    assert set((await ask(await docker.start(again)))["probes"].values()) == {"ok"}
    assert (own / "new").exists()


async def test_the_image_of_an_agent_is_known_and_a_missing_one_has_its_reason(
    docker: DockerProvisioner, tmp_path: Path, containers: Podman
) -> None:
    handle = await docker.start(make_launch())
    assert handle.image == containers.image
    assert handle.image_digest == await docker.images.digest(containers.image)
    missing = docker_at(tmp_path, containers, images={"forked": "localhost/no-such-image:1"})
    try:
        with pytest.raises(ImagePull) as refusal:
            await missing.start(make_launch())
        assert refusal.value.code == "IMAGE_PULL"
        with pytest.raises(ImagePull):
            await missing.start(make_launch("unheard-of"))
    finally:
        await missing.close()


async def test_an_engine_that_is_away_judges_nobody(docker: DockerProvisioner, tmp_path: Path) -> None:
    handle = await docker.start(make_launch())
    docker.engine._host, engine = f"unix://{tmp_path}/nobody.sock", docker.engine
    await engine.close()
    with pytest.raises(EngineAway):
        await docker.is_running(handle)


async def test_a_name_that_is_not_ours_is_left_alone(docker: DockerProvisioner, containers: Podman) -> None:
    launch = make_launch()
    name = names.container(launch.workspace_id)
    containers.run("create", "--name", name, containers.image, "sleep", "600")
    with pytest.raises(Exception, match="another container"):
        await docker.start(launch)
    assert name in containers.run("ps", "--all", "--format", "{{.Names}}")


async def test_the_death_of_an_agent_is_announced(docker: DockerProvisioner) -> None:
    launch = make_launch()
    handle = await docker.start(launch)
    await ask(handle)
    heard: list[str] = []

    async def listen() -> None:
        async for name in docker.deaths():
            heard.append(name)

    listening = asyncio.ensure_future(listen())
    try:

        async def is_heard() -> bool:
            await docker.stop(launch.workspace_id, handle, grace=0)
            if not heard:
                await docker.start(structs.replace(launch, instance_id=uuid4()))
            return bool(heard)

        await wait_for(is_heard, 60)
        assert heard[0] == names.container(launch.workspace_id)
    finally:
        listening.cancel()


class Server:
    """A server in a process of its own, which starts one agent and dies at a fail point."""

    def __init__(self, home: Path, podman: Podman, failpoint: str) -> None:
        self.launch = make_launch("langgraph")
        self._process = subprocess.Popen(
            [
                *(sys.executable, SERVER, str(home), "langgraph", str(self.launch.workspace_id)),
                *(str(self.launch.instance_id), podman.url, podman.image),
            ],
            stdout=subprocess.PIPE,
            env={**os.environ, "MOLECULE_FAILPOINTS": failpoint},
        )

    async def end(self) -> Launch:
        await asyncio.to_thread(self._process.wait)
        assert self._process.stdout
        self._process.stdout.close()
        return self.launch


@pytest.mark.parametrize(("failpoint", "lives"), [("docker.created", 0), ("docker.started", 1)])
async def test_a_server_killed_in_a_start_leaves_one_agent_at_most_and_the_next_goes_on(
    tmp_path: Path, containers: Podman, failpoint: str, lives: int
) -> None:
    launch = await Server(tmp_path, containers, failpoint).end()
    docker = docker_at(tmp_path, containers)
    try:
        labels = {names.WORKSPACE: str(launch.workspace_id), names.KIND: names.AGENT}
        assert len(await docker.engine.containers(labels)) == 1
        left = await docker.engine.containers(labels, is_running=True)
        assert len(left) == lives
        handle = await docker.start(launch)
        assert len(await docker.engine.containers(labels)) == 1
        assert [handle.container_id] == [entry["Id"] for entry in left] or not lives
        await ask(handle)
    finally:
        await docker.close()


async def test_what_a_killed_server_created_and_nobody_expects_is_swept(
    tmp_path: Path, containers: Podman
) -> None:
    launch = await Server(tmp_path, containers, "docker.recorded").end()
    docker = docker_at(tmp_path, containers)
    try:

        async def is_orphan() -> bool:
            return [o.workspace_id for o in await docker.find_orphans({})] == [launch.workspace_id]

        await wait_for(is_orphan)
        for orphan in await docker.find_orphans({}):
            await docker.kill_orphan(orphan)
        assert await docker.engine.containers({names.WORKSPACE: str(launch.workspace_id)}) == []
    finally:
        await docker.close()
