"""What only Claude Code has: tools of its own, and a record of each conversation."""

from __future__ import annotations

import shutil
import uuid

import pytest

from tests.adapters.cases import cases
from tests.adapters.conftest import Bench

pytestmark = pytest.mark.skipif(
    not any(case.runtime == "claude-code" for case in cases()), reason="needs the claude-code environment"
)


async def test_its_own_tools_work_unattended_and_are_traced(bench: Bench):
    reply = await bench.ask('[[use Bash {"command": "echo $((6 * 7))", "description": "multiplies"}]]')
    assert reply["result"]["parts"][0]["text"] == "the tool said: 42"
    [used] = reply["result"]["metadata"]["tool_trace"]
    assert (used["tool"], used["output_preview"]) == ("Bash", "42")


async def test_its_record_of_a_context_is_continued(bench: Bench):
    context_id = str(uuid.uuid4())
    await bench.say(
        '[[use Bash {"command": "echo river-wide", "description": "says"}]]', contextId=context_id
    )
    assert await bench.say("[[recall river]]", contextId=context_id) == "I heard river-wide"
    assert any(role == "tool" for role, _ in bench.model.asked[-1].said)  # results of tools, too


async def test_a_lost_record_is_made_up_for_by_what_was_said(bench: Bench):
    context_id = str(uuid.uuid4())
    await bench.say("Remember bird-blue. [[say noted]]", contextId=context_id)
    shutil.rmtree(bench.config_dir / ".claude")
    assert await bench.say("[[recall bird]]", contextId=context_id) == "I heard bird-blue"
