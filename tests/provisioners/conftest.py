from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from molecule_ai.provisioners.docker import names
from molecule_ai.provisioners.local import scan
from molecule_ai.provisioners.local.ending import end
from molecule_ai.provisioners.process import ProcessProvisioner

from .backends import Backend, ask, docker_at, make_launch, process_at

__all__ = ["ask", "make_launch", "make_provisioner", "wait_for"]
make_provisioner = process_at


async def wait_for(
    condition: Callable[[], bool] | Callable[[], Awaitable[bool]], timeout: float = 20.0
) -> None:
    """Wait until the condition holds, and fail when it never does."""
    async with asyncio.timeout(timeout):
        while True:
            held = condition()
            if await held if inspect.isawaitable(held) else held:
                return
            await asyncio.sleep(0.01)


@pytest.fixture
async def provisioner(tmp_path: Path) -> AsyncIterator[ProcessProvisioner]:
    home = tmp_path / "home with spaces"
    provisioner = make_provisioner(home)
    yield provisioner
    await provisioner.close()
    await end(scan.Scanner(provisioner.home_id).look)


@pytest.fixture(params=["process", "docker"])
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    """Every back end in turn."""
    home = tmp_path / "home with spaces"
    made = _process(home) if request.param == "process" else _docker(home, request)
    yield made
    if isinstance(made.provisioner, ProcessProvisioner):
        await end(scan.Scanner(made.provisioner.home_id).look)
    await made.provisioner.close()


def _process(home: Path) -> Backend:
    provisioner = process_at(home)

    async def living() -> int:
        return len(scan.marked(provisioner.home_id))

    return Backend("process", provisioner, process_at, living, home)


def _docker(home: Path, request: pytest.FixtureRequest) -> Backend:
    podman = request.getfixturevalue("containers")
    provisioner = docker_at(home, podman)

    async def living() -> int:
        labels = {names.INSTALLATION: provisioner.node}
        return len(await provisioner.engine.containers(labels, is_running=True))

    return Backend("docker", provisioner, lambda other: docker_at(other, podman), living, home)


@pytest.fixture(params=["forked", "spawned"])
def runtime(request: pytest.FixtureRequest) -> str:
    """Both ways for an agent to be born."""
    return str(request.param)


@pytest.fixture(autouse=True)
def canary(monkeypatch: pytest.MonkeyPatch) -> str:
    """A secret in the environment of the server."""
    value = f"canary-{os.urandom(8).hex()}"
    monkeypatch.setenv("DATABASE_PASSWORD_OF_SERVER", value)
    monkeypatch.setenv("ADMIN_TOKEN", value)
    return value
