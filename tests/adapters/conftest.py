"""A model behind a real API, a stand-in platform, and an agent of the runtime under test between them."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.cases import Case, cases
from tests.adapters.model_api import ModelApi
from tests.agent_process import AgentProcess, StandInPlatform, agent_process, said
from tests.support import wait_for

START_SECONDS = 90.0  # some libraries take ten seconds of CPU to import
PROMPT = "You are the tester of {prompts}."  # libraries with templates must not touch it
PEER = {"id": "peer-1", "name": "Ada", "role": "counts", "status": "online", "agent_card": {}}


@dataclass
class Bench:
    """Everything a test of the suite looks at."""

    case: Case
    model: ModelApi
    platform: StandInPlatform
    agent: AgentProcess
    config_dir: Path
    stack: AsyncExitStack

    async def ask(self, text: str, **message: Any) -> dict[str, Any]:
        """Send a message and return the JSON-RPC reply."""
        return await self.agent.rpc("message/send", {"message": said(text, **message)})

    async def say(self, text: str, **message: Any) -> str:
        """Send a message and return the text of the answer."""
        return await self.agent.say(text, **message)

    async def start(self) -> None:
        """Start an agent on the same config directory."""
        self.platform.calls.clear()
        config = {"name": "Tess", "role": "tests", "runtime": self.case.runtime}
        environ = {**self.case.environ(self.model.url), "HOME": str(self.config_dir.parent)}
        agent = await self.stack.enter_async_context(
            agent_process(self.platform.url, self.config_dir, config, environ, self.agent_id)
        )
        await wait_for(
            lambda: self.platform.of("/registry/register") or agent.process.returncode is not None,
            START_SECONDS,
        )
        assert agent.process.returncode is None, agent.log.read_text()
        self.agent = agent

    @property
    def agent_id(self) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, self.case.name))


@pytest.fixture(scope="module", params=cases(), ids=lambda case: case.name)
async def bench(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Bench]:
    """One agent for all tests of a case: what they do must not depend on each other."""
    config_dir = tmp_path_factory.mktemp("agent") / "configs"
    config_dir.mkdir()
    (config_dir / "system-prompt.md").write_text(PROMPT)
    async with AsyncExitStack() as stack:
        model, platform = ModelApi(), StandInPlatform()
        await model.start()
        stack.push_async_callback(model.stop)
        await platform.start()
        stack.push_async_callback(platform.stop)
        platform.peers = [PEER]
        platform.answers = {"peer-1": "forty-two"}
        made = Bench(request.param, model, platform, None, config_dir, stack)  # type: ignore[arg-type]
        await made.start()
        yield made
