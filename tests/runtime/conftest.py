"""A stand-in platform, and agents that talk to it."""

from __future__ import annotations

import asyncio
import socket
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from molecule_ai.runtime.credentials import Credentials
from molecule_ai.runtime.platform import Platform
from molecule_ai.runtime.settings import RuntimeSettings
from tests.agent_process import START_SECONDS, TOKEN, AgentProcess, StandInPlatform, agent_process, said


async def _wait_for(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError("the condition did not come true in time")
        await asyncio.sleep(0.02)
    return found


@pytest.fixture
def wait_for() -> Callable[..., Awaitable[Any]]:
    return _wait_for


@pytest.fixture
async def platform() -> AsyncIterator[StandInPlatform]:
    standin = StandInPlatform()
    await standin.start()
    yield standin
    await standin.stop()


@pytest.fixture
def config_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "configs"
    directory.mkdir()
    return directory


@pytest.fixture
def settings(platform: StandInPlatform, config_dir: Path, tmp_path: Path) -> RuntimeSettings:
    return RuntimeSettings(
        workspace_id=str(uuid.uuid4()),
        platform_url=platform.url,
        workspace_config_path=config_dir,
        workspace_dir=tmp_path / "workspace",
        molecule_workspace_token=TOKEN,
        approval_poll_interval=0.2,
    )


@pytest.fixture
async def client(settings: RuntimeSettings) -> AsyncIterator[Platform]:
    """The agent's own client, talking to the stand-in over a real socket."""
    credentials = Credentials(settings.workspace_config_path, settings.molecule_workspace_token)
    platform = Platform(settings, credentials)
    yield platform
    await platform.close()


@pytest.fixture(name="said")
def _said() -> Callable[..., dict[str, Any]]:
    return said


@pytest.fixture(scope="module")
async def parrot(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[StandInPlatform, AgentProcess]]:
    """A platform and an echo agent for tests that only look, or only add."""
    platform = StandInPlatform()
    await platform.start()
    config_dir = tmp_path_factory.mktemp("parrot") / "configs"
    config_dir.mkdir()
    config = {"name": "Parrot", "role": "repeats things", "description": "A test bird", "runtime": "echo"}
    env = {"MOLECULE_ORG_ID": "org-1", "MOLECULE_INSTANCE_ID": "i-7", "STRIPE_API_KEY": "canary-value-9876"}
    async with agent_process(
        platform.url, config_dir, {**config, "tools": ["search"]}, env, str(uuid.uuid4())
    ) as agent:
        await _wait_for(lambda: platform.of("/registry/heartbeat"), START_SECONDS)
        yield platform, agent
    await platform.stop()


StartAgent = Callable[..., Awaitable[AgentProcess]]


@pytest.fixture
async def start_agent(platform: StandInPlatform, config_dir: Path) -> AsyncIterator[StartAgent]:
    """Start agents that end with the test; returns when the agent has registered, unless told not to wait."""
    async with AsyncExitStack() as stack:

        async def start(config: object, *, registers: bool = True, **env: str) -> AgentProcess:
            workspace_id = env.pop("WORKSPACE_ID", str(uuid.uuid4()))
            url = env.pop("PLATFORM_URL", platform.url)
            agent = await stack.enter_async_context(agent_process(url, config_dir, config, env, workspace_id))
            if registers:
                await _wait_for(
                    lambda: (
                        agent.process.returncode is not None
                        or any(
                            call["body"]["id"] == workspace_id for call in platform.of("/registry/register")
                        )
                    ),
                    START_SECONDS,
                )
                assert agent.process.returncode is None, agent.log.read_text()
            return agent

        yield start


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
