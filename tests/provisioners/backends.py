"""The back ends that the shared tests are run against, each with what only a test needs to know of it."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from molecule_ai.provisioners.base import Handle, Launch, Provisioner
from molecule_ai.provisioners.docker.options import DockerOptions
from molecule_ai.provisioners.docker.provisioner import DockerProvisioner
from molecule_ai.provisioners.process import ProcessProvisioner
from tests.containers.podman import Podman
from tests.containers.rootfs import STUB as STUB_IN_IMAGE

STUB = str(Path(__file__).with_name("agent_stub.py"))
PLATFORM_URL = "http://platform.test:8080"
PRELOADS = {"forked": ("http.server", "json", "subprocess")}
NETWORK = "molecule-test"
ANSWER_SECONDS = 20.0


@dataclass
class Backend:
    """One back end under test."""

    name: str
    provisioner: Provisioner
    make: Callable[[Path], Provisioner]
    """Another one: on the same home a second server of the installation, else a second installation."""
    living: Callable[[], Awaitable[int]]
    """How many processes, or containers, of this installation live."""
    home: Path


def process_at(home: Path, **options: Any) -> ProcessProvisioner:
    return ProcessProvisioner(
        home, PLATFORM_URL, entry=STUB, preload=lambda runtime: PRELOADS.get(runtime, ()), **options
    )


def docker_at(home: Path, podman: Podman, **options: Any) -> DockerProvisioner:
    image = podman.image
    given = {
        "host": podman.url,
        "network": NETWORK,
        "images": {"forked": image, "langgraph": image},
        "command": ("python3", STUB_IN_IMAGE),
    } | options
    return DockerProvisioner(home, PLATFORM_URL, DockerOptions(**given))


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
    """What the stub at this URL says about itself, as soon as it listens."""

    def get() -> dict[str, Any]:
        with urllib.request.urlopen(handle.url, timeout=10) as response:
            answer: dict[str, Any] = json.load(response)
            return answer

    async with asyncio.timeout(ANSWER_SECONDS):
        while True:
            try:
                return await asyncio.to_thread(get)
            except OSError:
                await asyncio.sleep(0.05)
