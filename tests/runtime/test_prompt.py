"""Skills, plugins, peers and instructions become one system prompt."""

import asyncio

import pytest

from molecule_ai.runtime.config import AgentConfig, ApprovalRule
from molecule_ai.runtime.peers import Peers
from molecule_ai.runtime.prompt import PromptBuilder
from molecule_ai.runtime.skills import load_skills, split_front_matter, watch_skills


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def skill(config_dir, name, front="", body="Do it well."):
    write(config_dir / "skills" / name / "SKILL.md", f"---\n{front}\n---\n{body}\n" if front else body)


def test_front_matter_and_body():
    about, body = split_front_matter("---\nname: Fly\ntags: [air]\n---\n# How\nFlap.\n")
    assert (about.name, about.tags, body) == ("Fly", ["air"], "# How\nFlap.")


@pytest.mark.parametrize(
    "text", ["---\nname: [\n---\nbody", "---\n- a list\n---\nbody", "---\nname: {a: 1}\n---\nbody", "body"]
)
def test_malformed_front_matter_counts_as_empty(text):
    about, body = split_front_matter(text)
    assert (about.name, about.runtime, body) == ("", [], "body")


def test_skills_are_all_or_the_named_ones(config_dir):
    for name in ("a", "b", "c"):
        skill(config_dir, name)
    skill(config_dir, "other", front="runtime: [crewai]")
    assert [item.id for item in load_skills(config_dir, [], "echo")] == ["a", "b", "c"]
    assert [item.id for item in load_skills(config_dir, ["c", "missing", "other"], "echo")] == ["c"]
    assert [item.id for item in load_skills(config_dir, ["other"], "crewai")] == ["other"]


def test_a_skill_name_cannot_leave_its_directory(config_dir):
    write(config_dir / "SKILL.md", "secret")
    assert load_skills(config_dir, [".."], "echo") == []


async def test_changes_are_told_once_they_rest(config_dir, wait_for):
    seen = []

    async def reload():
        seen.append([item.id for item in load_skills(config_dir, [], "echo")])

    watching = asyncio.ensure_future(
        watch_skills(config_dir, reload, poll_seconds=0.05, debounce_seconds=0.2)
    )
    await asyncio.sleep(0)
    skill(config_dir, "a")
    skill(config_dir, "b")
    await wait_for(lambda: seen)
    watching.cancel()
    assert seen == [["a", "b"]]


async def test_the_sections_come_in_order(client, platform, config_dir, tmp_path):
    platform.instructions = "Be honest."
    card = {"skills": [{"name": "Flying"}]}
    platform.peers = [
        {
            "id": "c",
            "name": "Kid",
            "role": "Writer",
            "status": "online",
            "parent_id": client.workspace_id,
            "agent_card": card,
        },
        {"id": "n", "name": "Newcomer", "status": "provisioning", "parent_id": client.workspace_id},
    ]
    write(config_dir / "first.md", "I come first.")
    write(config_dir / "MEMORY.md", "Tea at five.")
    write(config_dir / "plugins" / "house" / "rules" / "a.md", "No shoes.")
    write(tmp_path / "shared" / "house" / "rules" / "a.md", "Shadowed.")
    write(tmp_path / "shared" / "extra" / "hints.md", "Smile.")
    write(tmp_path / "shared" / "extra" / "README.md", "Not for the prompt.")
    skill(config_dir, "fly", front="name: Flying\ndescription: In the air")
    config = AgentConfig(
        prompt_files=["first.md", "../../etc/passwd"],
        approvals=[ApprovalRule(action="publish*", reason="It cannot be taken back.")],
    )
    builder = PromptBuilder(client, Peers(client, ""), config, config_dir, tmp_path / "shared")
    builder.skills = load_skills(config_dir, [], "echo")

    prompt = await builder.build()

    expected = [
        "# Platform Instructions\n\nBe honest.",
        "I come first.",
        "Tea at five.",
        "## Platform Rules\n\n# Plugin: house / rule: a.md\n\nNo shoes.",
        "## Platform Guidelines\n\n# Plugin: extra / fragment: hints.md\n\nSmile.",
        "You lead a team.",
        "## Actions That Need Approval\n\nCall request_approval",
        "- publish*: It cannot be taken back.",
        "## Your Skills\n\n### Flying\nIn the air\n\nDo it well.",
        "## Your Peers\n\n- Kid, Writer (child, id c, online; skills: Flying)",
        "## When a delegation fails",
    ]
    places = [prompt.find(part) for part in expected]
    assert -1 not in places, prompt
    assert places == sorted(places)
    for absent in ("Newcomer", "Shadowed", "Not for the prompt", "root:"):
        assert absent not in prompt


async def test_without_a_platform_the_prompt_is_what_the_files_say(client, platform, config_dir, tmp_path):
    await platform.stop()
    write(config_dir / "system-prompt.md", "You are Ada.")
    builder = PromptBuilder(client, Peers(client, ""), AgentConfig(), config_dir, tmp_path / "shared")
    assert await builder.build() == "You are Ada."
