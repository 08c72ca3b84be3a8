"""A set-up that fails stays up and says why."""

import pytest

ANTHROPIC = "langgraph"


@pytest.mark.parametrize(
    ("config", "env", "reason"),
    [
        (None, {}, "config.yaml cannot be read"),
        ("name: [", {}, "config.yaml is not valid YAML"),
        ("- a list", {}, "config.yaml must be a mapping"),
        ({"a2a": {"port": "many"}}, {}, "a2a.port"),
        ({"a2a": {"port": 70000}, "runtime": "echo"}, {}, "a2a.port must be between 1 and 65535"),
        ({"runtime": "astrology"}, {}, "runtime 'astrology' has no adapter"),
        ({"runtime": "echo", "runtime_config": {"required_env": ["B_KEY", "A_KEY"]}}, {}, "A_KEY, B_KEY"),
        ({"runtime": "command"}, {}, "runtime_config.command is not set"),
        ({"runtime": "command", "runtime_config": {"command": "no-such-program"}}, {}, "no-such-program"),
        ({"runtime": "codex"}, {"PATH": "/nonexistent"}, "command not found: codex"),
        ({"runtime": "langgraph", "model": "sonnet"}, {}, "provider:model"),
        ({"runtime": "langgraph", "model": "anthropic:claude"}, {}, "langchain-anthropic"),
        ({"runtime": "echo"}, {"ADAPTER_MODULE": "no.such.module"}, "no.such.module"),
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
