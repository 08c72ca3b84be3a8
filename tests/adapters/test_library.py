"""What the shared adapter does for every library, shown with a library that everybody has."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from molecule_ai.runtime.adapters.base import AdapterContext, TaskFailed
from molecule_ai.runtime.adapters.library import Library, LibraryAdapter
from molecule_ai.runtime.config import parse_config
from molecule_ai.runtime.keeping import Keeping
from molecule_ai.runtime.messages import AgentEvent, AgentTask, Reply, TextDelta, ToolUsed
from molecule_ai.runtime.preflight import NotConfigured
from molecule_ai.runtime.tools import Tool


class Obedient:
    """Does what its task says."""

    def __init__(self, context: AdapterContext) -> None:
        self.context = context

    async def answer(self, task: AgentTask, tell: Any) -> Reply:
        match task.text.split():
            case ["sleep"]:
                await asyncio.sleep(600)
            case ["group"]:
                raise ExceptionGroup("several", [ValueError("the first of them")])
            case ["tool", times]:
                return Reply([await self.context.tools[0].call({"n": n}) for n in range(int(times))][-1])
        tell(TextDelta("half "))
        return Reply("half and half")


async def _tool(arguments: dict[str, Any]) -> str:
    return f"called with {arguments['n']}"


async def _events(tmp_path, text: str, *, package: str = "json", **config: Any) -> list[AgentEvent]:
    adapter = LibraryAdapter("obedient", Library(f"{__name__}:Obedient", (package,), "obedient"))
    context = AdapterContext(
        runtime="obedient",
        config=parse_config(config),
        name="n",
        role="r",
        model="m",
        tools=(Tool("count", "Counts.", {"type": "object", "properties": {}, "required": []}, _tool),),
        sessions=Keeping(None, str),
        config_dir=tmp_path,
        workspace_dir=tmp_path,
    )
    await adapter.setup(context)
    task = AgentTask(id="t", context_id="c", text=text, system_prompt="")
    return [event async for event in adapter.run(task)]


async def test_words_come_before_the_reply(tmp_path):
    assert await _events(tmp_path, "talk") == [TextDelta("half "), Reply("half and half")]


async def test_tool_calls_are_told_and_limited(tmp_path):
    *used, reply = await _events(tmp_path, "tool 3", compliance={"max_tool_calls_per_task": 2})
    assert used == [ToolUsed("count", {"n": n}, f"called with {n}") for n in range(2)]
    assert reply.text == "Error: this task has used all of its 2 tool calls; answer with what you know."


async def test_a_task_has_a_time_limit(tmp_path):
    with pytest.raises(TaskFailed, match=r"no answer within 0\.1 seconds"):
        await _events(tmp_path, "sleep", runtime_config={"timeout": 0.1})


async def test_of_several_errors_the_first_is_told(tmp_path):
    with pytest.raises(TaskFailed, match="obedient: ValueError: the first of them"):
        await _events(tmp_path, "group")


async def test_what_is_missing_is_named_with_its_cure(tmp_path):
    with pytest.raises(NotConfigured) as refusal:
        await _events(tmp_path, "talk", package="nosuch.package")
    assert "nosuch.package; install them with: pip install 'molecule-ai[obedient]'" in str(refusal.value)
