"""One agent process from its start to its end."""

import asyncio
import json
import os
import signal
import time

import aiohttp

ECHO = {"name": "Parrot", "role": "repeats things", "description": "A test bird", "runtime": "echo"}


async def test_it_registers_and_answers(parrot, wait_for):
    platform, agent = parrot
    [registration] = platform.of("/registry/register")
    assert registration["body"]["id"] == agent.workspace_id
    assert registration["body"]["url"] == agent.url
    card = registration["body"]["agent_card"]
    assert card["name"] == "Parrot"
    assert card["description"] == "A test bird"
    assert card["configuration_status"] == "ready"
    assert card["capabilities"] == {"streaming": True, "pushNotifications": False}
    assert await agent.say("polly") == "polly"
    beat = (await wait_for(lambda: platform.of("/registry/heartbeat")))[0]["body"]
    assert beat["runtime_state"] == "ok"
    assert set(beat["runtime_metadata"]["capabilities"].values()) == {False}


async def test_every_call_carries_token_and_workspace(parrot, wait_for):
    platform, agent = parrot
    await agent.say("x")
    await wait_for(lambda: platform.of("/peers"))
    for call in platform.calls:
        assert call["bearer"] == "agent-token-0123456789abcdef"
        assert call["workspace"] == agent.workspace_id
        assert call["org"] == "org-1"


async def test_task_start_and_end_are_pushed(platform, start_agent, wait_for):
    agent = await start_agent(ECHO)
    await wait_for(lambda: platform.of("/registry/heartbeat"))
    await agent.say("count to three")

    def pushed():
        return [beat["body"]["active_tasks"] for beat in platform.of("/registry/heartbeat")][1:]

    await wait_for(lambda: pushed() == [1, 0])
    assert platform.of("/registry/heartbeat")[1]["body"]["current_task"] == "count to three"


async def test_agents_md_describes_the_workspace(parrot):
    _, agent = parrot
    text = (agent.log.parent / "workspace" / "AGENTS.md").read_text()
    assert text.startswith("# Parrot\n\n**Role:** repeats things\n")
    assert agent.url in text
    assert "- search" in text


async def test_a_project_keeps_its_own_agents_md(start_agent, config_dir):
    path = config_dir.parent / "workspace" / "AGENTS.md"
    path.parent.mkdir()
    path.write_text("# Our project\n")
    await start_agent(ECHO)
    assert path.read_text() == "# Our project\n"


async def test_the_environment_wins_over_the_file(platform, start_agent):
    await start_agent(ECHO, MOLECULE_WORKSPACE_NAME="Polly", MOLECULE_AGENT_ROLE="speaks")
    assert platform.of("/registry/register")[0]["body"]["agent_card"]["name"] == "Polly"


async def test_a_minted_token_is_kept_private_and_used(platform, start_agent, config_dir, wait_for):
    platform.tokens = set()
    platform.mint_on_register = "minted-token-abcdef0123456789"
    await start_agent(ECHO, MOLECULE_WORKSPACE_TOKEN="")
    await wait_for(lambda: platform.of("/registry/heartbeat"))
    path = config_dir / ".auth_token"
    assert path.read_text() == "minted-token-abcdef0123456789"
    assert path.stat().st_mode & 0o777 == 0o600
    assert platform.of("/registry/heartbeat")[0]["bearer"] == "minted-token-abcdef0123456789"


async def test_a_rotated_token_is_read_again_after_a_401(platform, start_agent, config_dir, wait_for):
    agent = await start_agent(ECHO)
    await wait_for(lambda: platform.of("/registry/heartbeat"))
    platform.tokens = {"rotated-token-0123456789"}
    (config_dir / ".auth_token").write_text("rotated-token-0123456789\n")
    await agent.say("x")
    await wait_for(lambda: platform.calls[-1]["bearer"] == "rotated-token-0123456789")


async def test_transcript_is_for_the_owner_and_pages(start_agent):
    agent = await start_agent(ECHO)
    await agent.say("first")
    await agent.say("second")
    token = "agent-token-0123456789abcdef"

    assert (await agent.get("/transcript"))[0] == 401
    assert (await agent.get("/transcript", "wrong"))[0] == 401
    assert (await agent.get("/transcript?since=x", token))[0] == 400
    status, page = await agent.get("/transcript?since=1&limit=2", token)
    assert status == 200
    assert [line["text"] for line in page["lines"]] == ["first", "second"]
    assert (page["runtime"], page["supported"], page["cursor"], page["more"]) == ("echo", True, 3, True)


async def test_health_says_who_it_is(parrot):
    _, agent = parrot
    status, health = await agent.get("/health")
    assert status == 200
    assert health["workspace_id"] == agent.workspace_id
    assert health["instance_id"] == "i-7"
    assert health["configuration_status"] == "ready"


async def test_sigterm_leaves_a_snapshot_without_secrets(start_agent, config_dir):
    agent = await start_agent(ECHO, STRIPE_API_KEY="canary-value-9876")
    await agent.say("the key is canary-value-9876")
    started = time.monotonic()
    assert await agent.stop() == 0
    assert time.monotonic() - started < 5
    text = (config_dir / ".agent_snapshot.json").read_text()
    assert "canary-value-9876" not in text
    assert "canary-value-9876" not in agent.log.read_text()
    snapshot = json.loads(text)
    assert snapshot["workspace_id"] == agent.workspace_id
    assert [line["role"] for line in snapshot["adapter"]["transcript_lines"]] == ["user", "agent"]


async def test_the_next_agent_continues_the_transcript(start_agent, config_dir):
    first = await start_agent(ECHO, WORKSPACE_ID="5e6a0c6c-7f0e-4a52-8f43-9d6f2f3b7e20")
    await first.say("before")
    await first.stop()
    second = await start_agent(ECHO, WORKSPACE_ID="5e6a0c6c-7f0e-4a52-8f43-9d6f2f3b7e20")
    await second.say("after")
    _, page = await second.get("/transcript", "agent-token-0123456789abcdef")
    assert [line["text"] for line in page["lines"]] == ["before", "before", "after", "after"]


async def test_sigterm_sends_new_work_away_and_ends_a_long_task(start_agent, config_dir, wait_for, platform):
    agent = await start_agent({"runtime": "command", "runtime_config": {"command": "sleep", "args": ["60"]}})
    task = asyncio.ensure_future(agent.say("never"))
    await wait_for(lambda: any(c["body"]["active_tasks"] == 1 for c in platform.of("/registry/heartbeat")))
    started = time.monotonic()
    agent.process.terminate()
    await wait_for(lambda: "stopping" in agent.log.read_text())
    async with agent.session.post("/", json={"jsonrpc": "2.0", "id": 1, "method": "message/send"}) as reply:
        assert (reply.status, reply.headers["Retry-After"]) == (503, "5")
    assert await agent.stop() == 0
    assert time.monotonic() - started < 5
    snapshot = json.loads((config_dir / ".agent_snapshot.json").read_text())
    assert snapshot["current_task"] == "never"
    await asyncio.gather(task, return_exceptions=True)


async def test_a_second_agent_of_the_same_workspace_cannot_start(start_agent):
    agent = await start_agent(ECHO)
    second = await start_agent(ECHO, registers=False)
    assert await asyncio.wait_for(second.process.wait(), 40) == os.EX_TEMPFAIL
    assert await agent.say("still here") == "still here"
    await agent.stop(signal.SIGKILL)
    third = await start_agent(ECHO)
    assert await third.say("free again") == "free again"


async def test_it_goes_when_the_platform_says_so(platform, start_agent, config_dir):
    platform.beat_status = "hibernated"
    agent = await start_agent(ECHO)
    assert await asyncio.wait_for(agent.process.wait(), 40) == 0
    assert (config_dir / ".agent_snapshot.json").exists()


async def test_it_goes_when_the_workspace_is_gone(platform, start_agent):
    platform.beat_http_status = 410
    agent = await start_agent(ECHO)
    assert await asyncio.wait_for(agent.process.wait(), 40) == 0


async def test_an_orphan_ends_itself(start_agent, free_port):
    url = f"http://127.0.0.1:{free_port}"
    agent = await start_agent(ECHO, registers=False, PLATFORM_URL=url, AGENT_ORPHAN_TIMEOUT="1")
    assert await asyncio.wait_for(agent.process.wait(), 40) == 0
    assert "no platform for 1 seconds" in agent.log.read_text()


async def test_an_agent_whose_token_is_gone_for_good_ends_itself(platform, start_agent):
    platform.tokens = {"another-token"}
    agent = await start_agent(ECHO, AGENT_ORPHAN_TIMEOUT="1")
    assert await asyncio.wait_for(agent.process.wait(), 40) == 0


async def test_it_registers_when_the_platform_comes_up_later(platform, start_agent, wait_for):
    port = int(platform.url.rsplit(":", 1)[1])
    await platform.stop()
    agent = await start_agent(ECHO, registers=False)
    await wait_for(lambda: "register_failed" in agent.log.read_text())
    assert await agent.say("alone") == "alone"
    await platform.start(port)
    await wait_for(lambda: platform.of("/registry/register"))


async def test_without_an_inherited_socket_it_binds_its_port(start_agent, free_port, wait_for):
    agent = await start_agent(
        {**ECHO, "a2a": {"port": free_port}}, AGENT_LISTEN_FD="", AGENT_HOST="127.0.0.1"
    )
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{free_port}/health") as reply,
    ):
        assert (await reply.json())["workspace_id"] == agent.workspace_id


async def test_a_missing_workspace_id_is_named(start_agent):
    agent = await start_agent(ECHO, registers=False, WORKSPACE_ID="")
    assert await asyncio.wait_for(agent.process.wait(), 40) == os.EX_CONFIG
    assert "WORKSPACE_ID" in agent.log.read_text()


async def test_the_initial_prompt_is_sent_once(platform, start_agent, config_dir, wait_for):
    agent = await start_agent({**ECHO, "initial_prompt": "Get to know your team."})
    [sent] = await wait_for(lambda: platform.of(f"/workspaces/{agent.workspace_id}/a2a"))
    message = sent["body"]["params"]["message"]
    assert sent["body"]["method"] == "message/send"
    assert message["messageId"].startswith("initial-")
    assert message["parts"] == [{"kind": "text", "text": "Get to know your team."}]
    assert (config_dir / ".initial_prompt_done").exists()
    [noted] = await wait_for(lambda: platform.of("/activity"))
    assert noted["body"]["summary"] == "Initial prompt sent"
    await agent.stop()
    again = await start_agent({**ECHO, "initial_prompt": "Get to know your team."})
    await wait_for(lambda: len(platform.of("/registry/heartbeat")) >= 2)
    assert await again.say("x") == "x"
    assert len(platform.of("/a2a")) == 1


IDLE = {**ECHO, "idle_prompt": "Anything to do?", "idle_interval_seconds": 0.1}


def _idle_ids(platform):
    return [call["body"]["params"]["message"]["messageId"] for call in platform.of("/a2a")]


async def test_the_idle_prompt_comes_while_nothing_runs_and_one_at_a_time(platform, start_agent, wait_for):
    agent = await start_agent(IDLE)
    await wait_for(lambda: _idle_ids(platform))
    for _ in range(20):
        await agent.say("the first is still on its way")
    [first] = _idle_ids(platform)
    assert first.startswith("idle-")
    await agent.say("Anything to do?", messageId=first)
    await wait_for(lambda: len(_idle_ids(platform)) == 2)
    assert len(set(_idle_ids(platform))) == 2


async def test_idle_prompts_have_a_daily_limit_that_outlives_the_agent(platform, start_agent, wait_for):
    agent = await start_agent({**IDLE, "idle_daily_limit": 1})
    await wait_for(lambda: _idle_ids(platform))
    await agent.say("Anything to do?", messageId=_idle_ids(platform)[0])
    await wait_for(lambda: "idle_prompt_skipped reason=daily limit" in agent.log.read_text())
    await agent.stop()
    agent.log.write_text("")
    await start_agent({**IDLE, "idle_daily_limit": 1})
    await wait_for(lambda: "idle_prompt_skipped reason=daily limit" in agent.log.read_text())
    assert len(_idle_ids(platform)) == 1


async def test_a_changed_skill_reaches_the_card(platform, start_agent, config_dir, wait_for):
    agent = await start_agent(ECHO)
    skill = config_dir / "skills" / "fly" / "SKILL.md"
    skill.parent.mkdir(parents=True)
    skill.write_text("---\nname: Flying\ndescription: How to fly\ntags: [air]\n---\nFlap.\n")
    [update] = await wait_for(lambda: platform.of("/registry/update-card"), 12)
    expected = [{"id": "fly", "name": "Flying", "description": "How to fly", "tags": ["air"]}]
    assert update["body"]["agent_card"]["skills"] == expected
    _, card = await agent.get("/.well-known/agent-card.json")
    assert card["skills"] == expected
