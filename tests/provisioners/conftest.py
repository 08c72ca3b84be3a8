from __future__ import annotations

import asyncio
import inspect
import json
import os
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from molecule_ai.provisioners.base import Handle, Launch
from molecule_ai.provisioners.local import scan
from molecule_ai.provisioners.local.ending import end
from molecule_ai.provisioners.process import ProcessProvisioner

STUB = str(Path(__file__).with_name("agent_stub.py"))
PRELOADS = {"forked": ("http.server", "json", "subprocess")}


async def wait_for(
    condition: Callable[[], bool] | Callable[[], Awaitable[bool]], timeout: float = 10.0
) -> None:
    """Wait until the condition holds, and fail when it never does."""
    async with asyncio.timeout(timeout):
        while True:
            held = condition()
            if await held if inspect.isawaitable(held) else held:
                return
            await asyncio.sleep(0.01)


def make_provisioner(home: Path, **options: Any) -> ProcessProvisioner:
    return ProcessProvisioner(
        home,
        "http://127.0.0.1:8080",
        entry=STUB,
        preload=lambda runtime: PRELOADS.get(runtime, ()),
        **options,
    )


def make_launch(runtime: str = "forked", workspace_id: UUID | None = None, **fields: Any) -> Launch:
    return Launch(
        workspace_id=workspace_id or uuid4(),
        instance_id=uuid4(),
        name="Research Lead",
        token="t" * 43,
        runtime=runtime,
        config_files={"config.yaml": b"name: Research Lead\n", **fields.pop("config_files", {})},
        **fields,
    )


async def ask(handle: Handle) -> dict[str, Any]:
    """What the stub at this URL says about itself."""

    def get() -> dict[str, Any]:
        with urllib.request.urlopen(handle.url, timeout=10) as response:
            answer: dict[str, Any] = json.load(response)
            return answer

    return await asyncio.to_thread(get)


@pytest.fixture
async def provisioner(tmp_path: Path) -> AsyncIterator[ProcessProvisioner]:
    home = tmp_path / "home with spaces"
    provisioner = make_provisioner(home)
    yield provisioner
    await provisioner.close()
    await end(scan.Scanner(provisioner.home_id).look)


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
