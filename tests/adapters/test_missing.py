"""A runtime whose library is not installed says so, names what to install, and becomes no other runtime."""

from __future__ import annotations

import uuid

import pytest

from tests.adapters.cases import libraries, missing
from tests.adapters.conftest import START_SECONDS
from tests.agent_process import StandInPlatform, agent_process, said
from tests.support import wait_for


@pytest.mark.parametrize("runtime", [name for name, library in libraries().items() if library.extra])
async def test_without_its_library_it_is_not_configured(runtime, tmp_path):
    if runtime not in missing():
        pytest.skip("this environment has the library")
    platform = StandInPlatform()
    await platform.start()
    (tmp_path / "configs").mkdir()
    environ = {"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k", "GOOGLE_API_KEY": "k"}
    config = {"runtime": runtime, "model": "anthropic:claude-opus-4-7"}
    async with agent_process(platform.url, tmp_path / "configs", config, environ, str(uuid.uuid4())) as agent:
        await wait_for(lambda: platform.of("/registry/register"), START_SECONDS)
        card = platform.of("/registry/register")[0]["body"]["agent_card"]
        assert card["configuration_status"] == "not_configured"
        assert f"pip install 'molecule-ai[{libraries()[runtime].extra}]'" in card["configuration_error"]
        reply = await agent.rpc("message/send", {"message": said("hello")})
        assert reply["error"]["message"] == "agent not configured"
        assert (await agent.get("/health"))[1]["runtime"] == runtime
    await platform.stop()
