"""A set-up that fails stays up and says why."""

from pathlib import Path

import pytest

from molecule_ai.runtime.adapters import load_adapter
from molecule_ai.runtime.adapters.base import AdapterContext
from molecule_ai.runtime.config import parse_config
from molecule_ai.runtime.keeping import Keeping
from molecule_ai.runtime.preflight import NotConfigured, check


@pytest.mark.parametrize(
    ("config", "env", "reason"),
    [
        (None, {}, "config.yaml cannot be read"),
        ("name: [", {}, "config.yaml is not valid YAML"),
        ({"a2a": {"port": "many"}}, {}, "a2a.port"),
        ({"runtime": "echo", "runtime_config": {"required_env": ["B_KEY", "A_KEY"]}}, {}, "A_KEY, B_KEY"),
        ({"runtime": "langgraph", "model": "anthropic:claude"}, {}, "needs ANTHROPIC_API_KEY"),
        (
            {"runtime": "langgraph", "model": "anthropic:claude"},
            {"ANTHROPIC_API_KEY": "k"},
            "langchain-anthropic",
        ),
    ],
)
async def test_the_reason_is_shown_everywhere(start_agent, platform, wait_for, said, config, env, reason):
    agent = await start_agent(config, **env)

    card = platform.of("/registry/register")[0]["body"]["agent_card"]
    assert card["configuration_status"] == "not_configured"
    assert reason in card["configuration_error"]
    _, served = await agent.get("/.well-known/agent-card.json")
    assert served == card
    reply = await agent.rpc("message/send", {"message": said("hello")})
    assert (reply["id"], reply["error"]["code"]) == ("7", -32603)
    assert reply["error"]["message"] == "agent not configured"
    assert reason in reply["error"]["data"]["reason"]
    beat = (await wait_for(lambda: platform.of("/registry/heartbeat")))[0]["body"]
    assert beat["runtime_state"] == "wedged"
    assert reason in beat["sample_error"]
    assert (await agent.get("/health"))[1]["configuration_status"] == "not_configured"


async def test_it_sends_no_prompts_and_stops_cleanly(start_agent, platform, wait_for, config_dir):
    agent = await start_agent({"runtime": "astrology", "initial_prompt": "Start!"})
    await wait_for(lambda: platform.of("/registry/heartbeat"))
    assert not platform.of("/a2a")
    assert not (config_dir / ".initial_prompt_done").exists()
    assert await agent.stop() == 0


@pytest.mark.parametrize(
    ("config", "environ", "module", "reason"),
    [
        (
            {"runtime": "astrology"},
            {},
            "",
            "'astrology' has no adapter here; known: ",
        ),
        ({"runtime": "echo"}, {}, "no.such.module", "no.such.module"),
        ({"runtime": "echo", "a2a": {"port": 70000}}, {}, "", "a2a.port must be between 1 and 65535"),
        ({"runtime": "echo", "runtime_config": {"auth_token_file": "t"}}, {}, "", "does not exist: t"),
        ({"runtime": "command"}, {}, "", "runtime_config.command is not set"),
        ({"runtime": "command", "runtime_config": {"command": "no-such-program"}}, {}, "", "no-such-program"),
        ({"runtime": "command", "runtime_config": {"command": "sh -c '"}}, {}, "", "cannot be split"),
        ({"runtime": "codex"}, {"PATH": "/nonexistent"}, "", "command not found: codex"),
        ({"runtime": "langgraph", "model": "sonnet"}, {}, "", "provider:model"),
    ],
)
async def test_every_reason_is_named(tmp_path: Path, config, environ, module, reason):
    parsed = parse_config(config)
    context = AdapterContext(
        runtime=parsed.runtime,
        config=parsed,
        name="n",
        role="r",
        model=parsed.model,
        tools=(),
        sessions=Keeping(None, str),
        config_dir=tmp_path,
        workspace_dir=tmp_path,
        environ=environ,
    )

    async def set_up() -> None:
        check(parsed, tmp_path, environ)
        await load_adapter(parsed.runtime, module).setup(context)

    with pytest.raises(NotConfigured) as refusal:
        await set_up()
    assert reason in str(refusal.value)
