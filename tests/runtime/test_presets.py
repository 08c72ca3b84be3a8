"""Programs the command runtime knows, played by scripts that answer as the real ones were seen to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from molecule_ai.runtime.adapters.base import AdapterContext, TaskFailed
from molecule_ai.runtime.adapters.command import CommandAdapter
from molecule_ai.runtime.config import AgentConfig
from molecule_ai.runtime.keeping import Keeping
from molecule_ai.runtime.messages import AgentTask, Reply, Turn, Usage
from molecule_ai.runtime.preflight import NotConfigured

THREAD = "01a20136-9848-7012-9a71-dc0867be99d3"
CODEX = f"""
if [ "$2" = resume ] && [ -e lost ]; then
  echo "Error: thread/resume: thread/resume failed: no rollout found for thread id $6 (code -32600)" >&2
  exit 1
fi
echo '{{"type":"thread.started","thread_id":"{THREAD}"}}'
echo '{{"type":"item.completed","item":{{"id":"item_0","type":"error","message":"Falling back"}}}}'
echo '{{"type":"turn.started"}}'
echo '{{"type":"item.completed","item":{{"id":"item_1","type":"agent_message","text":"hello there"}}}}'
echo '{{"type":"turn.completed","usage":{{"input_tokens":812,"cached_input_tokens":0,"output_tokens":37}}}}'
"""
GEMINI = """
echo "YOLO mode is enabled." >&2
echo '{ "session_id": "33156317-daa8", "response": "hello there", "stats": {"models": {}} }'
"""
HERMES = """
printf '  ⚠ tirith security scanner enabled but not available\\r\\n'
echo "hello there"
printf '\\nsession_id: 20261122_030613_cd8c12\\n' >&2
"""
CLAW = "echo hello there"
PROGRAMS = {
    "codex": ("codex", CODEX),
    "gemini-cli": ("gemini", GEMINI),
    "hermes": ("hermes", HERMES),
    "openclaw": ("openclaw", CLAW),
}
KEYS = {"OPENAI_API_KEY": "key-o", "GEMINI_API_KEY": "key-g"}


class Preset:
    """One program, and what it was called with."""

    def __init__(self, directory: Path, runtime: str) -> None:
        self.directory = directory
        self.runtime = runtime
        self.sessions = Keeping(directory, str)

    async def set_up(self, **environ: str) -> CommandAdapter:
        name, script = PROGRAMS[self.runtime]
        program = self.directory / "bin" / name
        program.parent.mkdir(exist_ok=True)
        record = 'printf "%s\\n" "$@" > args; env > env; [ -p /dev/stdin ] && cat > input\n'
        program.write_text(f"#!/bin/sh\n{record}{script}")
        program.chmod(0o755)
        context = AdapterContext(
            runtime=self.runtime,
            config=AgentConfig(runtime=self.runtime),
            name="n",
            role="r",
            model="some:model-1",
            tools=(),
            sessions=self.sessions,
            config_dir=self.directory,
            workspace_dir=self.directory,
            environ={"PATH": f"{program.parent}:{os.environ['PATH']}", **environ},
        )
        adapter = CommandAdapter()
        await adapter.setup(context)
        return adapter

    async def ask(self, adapter: CommandAdapter, text: str, **task: Any) -> Reply:
        (self.directory / "input").write_text("")
        asked = AgentTask(id="t", context_id="c-1", text=text, system_prompt="Be kind.", **task)
        [reply] = [event async for event in adapter.run(asked)]
        assert isinstance(reply, Reply)
        return reply

    def given(self) -> str:
        """All that the program was told, as arguments or on standard input."""
        return (self.directory / "args").read_text() + (self.directory / "input").read_text()


@pytest.fixture(params=PROGRAMS)
def preset(request, tmp_path):
    return Preset(tmp_path, request.param)


async def test_it_is_introduced_once_and_then_continued(preset):
    adapter = await preset.set_up(**KEYS)

    assert (await preset.ask(adapter, "first")).text == "hello there"
    assert "Be kind." in preset.given()
    session = preset.sessions.session("c-1")
    assert session
    assert (await preset.ask(adapter, "second")).text == "hello there"

    assert session in preset.given()
    assert "second" in preset.given()
    assert "Be kind." not in preset.given()
    assert preset.sessions.session("c-1") == session


async def test_its_state_lies_below_the_config_directory(preset):
    adapter = await preset.set_up(**KEYS)
    await preset.ask(adapter, "first")
    home = str(preset.directory / f".{preset.runtime}")
    assert any(line.endswith(f"={home}") for line in (preset.directory / "env").read_text().splitlines())


async def test_a_lost_session_begins_anew_with_what_was_said(tmp_path):
    codex = Preset(tmp_path, "codex")
    adapter = await codex.set_up(**KEYS)
    reply = await codex.ask(adapter, "first")
    assert reply.usage == Usage(812, 37)
    (tmp_path / "lost").touch()
    assert (
        await codex.ask(adapter, "second", history=(Turn("user", "my name is Ada"),))
    ).text == "hello there"
    assert "my name is Ada" in codex.given()


async def test_a_failed_turn_is_told_in_its_words(tmp_path):
    codex = Preset(tmp_path, "codex")
    adapter = await codex.set_up(**KEYS)
    failed = '{"type":"turn.failed","error":{"message":"high demand"}}'
    (tmp_path / "bin" / "codex").write_text(f"#!/bin/sh\necho '{failed}'; exit 1\n")
    with pytest.raises(TaskFailed, match="codex ended with status 1: high demand"):
        await codex.ask(adapter, "first")


@pytest.mark.parametrize(("runtime", "key"), [("codex", "OPENAI_API_KEY"), ("gemini-cli", "GEMINI_API_KEY")])
async def test_a_missing_key_is_named_unless_it_is_logged_in(tmp_path, runtime, key):
    with pytest.raises(NotConfigured, match=key):
        await Preset(tmp_path, runtime).set_up()
    login = {"codex": ".codex/auth.json", "gemini-cli": ".gemini-cli/.gemini/oauth_creds.json"}[runtime]
    (tmp_path / login).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / login).write_text("{}")
    await Preset(tmp_path, runtime).set_up()
