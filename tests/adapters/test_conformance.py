"""What every runtime does, whatever library it stands on: against the real one, and a model's real API."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from molecule_ai.runtime.adapters import load_adapter
from molecule_ai.runtime.adapters.base import AdapterContext
from molecule_ai.runtime.config import parse_config
from molecule_ai.runtime.keeping import Keeping
from molecule_ai.runtime.preflight import NotConfigured
from tests.adapters.cases import cases, missing
from tests.adapters.conftest import PROMPT, Bench
from tests.adapters.model_api import KEY
from tests.agent_process import said
from tests.support import wait_for

OURS = {
    "delegate_task",
    "delegate_task_async",
    "check_task_status",
    "list_peers",
    "get_workspace_info",
    "request_approval",
    "send_message_to_user",
    "commit_memory",
    "recall_memory",
}
CALLS = [
    ("list_peers", {}, "/peers", "Ada"),
    ("delegate_task", {"workspace_id": "peer-1", "task": "count"}, "/delegate", "forty-two"),
    ("delegate_task_async", {"workspace_id": "peer-1", "task": "count"}, "/delegate", "dispatched"),
    ("request_approval", {"action": "launch", "arguments": {"at": [1, 2]}}, "/approvals", "approved"),
    ("send_message_to_user", {"message": "hello there"}, "/notify", "Message sent"),
    ("commit_memory", {"content": "water is wet"}, "/memories", "LOCAL"),
    ("get_workspace_info", {}, "", "Self"),
]

each_case = pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)


def context_id() -> str:
    return str(uuid.uuid4())


async def test_it_is_ready_and_answers(bench: Bench):
    card = bench.platform.of("/registry/register")[0]["body"]["agent_card"]
    assert card["configuration_status"] == "ready", card
    assert await bench.say("[[say good morning]]") == "good morning"


async def test_the_model_hears_the_system_prompt_and_is_offered_our_tools(bench: Bench):
    await bench.say("[[say anything]]")
    asked = bench.model.asked[-1]
    assert PROMPT in asked.system or any(PROMPT in text for _, text in asked.said)
    assert {name.rpartition("__")[2] for name in asked.tools} >= OURS


@pytest.mark.parametrize(("tool", "arguments", "path", "result"), CALLS, ids=[call[0] for call in CALLS])
async def test_a_tool_reaches_the_platform(
    bench: Bench, tool: str, arguments: dict[str, Any], path: str, result: str
):
    reply = await bench.ask(f"[[use {tool} {json.dumps(arguments)}]]", messageId=f"m-{tool}")
    assert "result" in reply, reply
    assert result in reply["result"]["parts"][0]["text"]
    assert bench.platform.of(path)
    [used] = reply["result"]["metadata"]["tool_trace"]
    assert (used["tool"], used["input"]) == (tool, arguments)


async def test_what_a_tool_causes_is_traced_to_its_message(bench: Bench):
    chain = {"chain_id": "c-1", "depth": 2}
    order = '[[use delegate_task {"workspace_id": "peer-1", "task": "trace me"}]]'
    await bench.say(order, messageId="m-origin", metadata={"molecule": chain})
    bodies = [call["body"] for call in bench.platform.of("/delegate")]
    [asked] = [body for body in bodies if body["task"] == "trace me"]
    assert asked["idempotency_key"].startswith("m-origin:")
    assert asked["metadata"]["molecule"] == chain


async def test_tokens_are_counted(bench: Bench):
    reply = await bench.ask("[[say count me]]")
    usage = reply["result"]["metadata"]["usage"]
    assert usage["input_tokens"] >= 812
    assert usage["output_tokens"] >= 37


async def test_a_context_is_remembered_and_others_are_not(bench: Bench):
    one, other = context_id(), context_id()
    word = f"fruit-{uuid.uuid4().hex}"
    await bench.say(f"Remember {word}. [[say noted]]", contextId=one)
    assert await bench.say("[[recall fruit]]", contextId=one) == f"I heard {word}"
    assert word not in await bench.say("[[recall fruit]]", contextId=other)


async def test_a_reader_sees_the_answer_grow(bench: Bench):
    if not bench.case.streams:
        pytest.skip("this library tells its answer as a whole")
    states, pieces = await _streamed(bench, "[[say the long answer]]")
    assert states[-1] == "completed"
    assert len(pieces) >= 3  # two of the model, then the whole
    assert pieces[-1] == "the long answer"


async def test_a_refusal_of_the_model_fails_the_task_in_plain_words(bench: Bench):
    reply = await bench.ask("[[fail 400]]")
    assert reply["error"]["code"] == -32603
    assert "refused as ordered" in reply["error"]["message"]
    assert KEY not in json.dumps(reply)
    states, _ = await _streamed(bench, "[[fail 400]]")
    assert states[-1] == "failed"
    assert KEY not in bench.agent.log.read_text()
    assert await bench.say("[[say still here]]") == "still here"


async def test_a_cancelled_task_lets_go_of_the_model(bench: Bench):
    released = bench.model.released
    configuration = {"blocking": False}
    reply = await bench.agent.rpc(
        "message/send", {"message": said("[[hang]]"), "configuration": configuration}
    )
    task_id = reply["result"]["id"]
    await wait_for(lambda: bench.model.hanging > bench.model.released, 30)
    cancelled = await bench.agent.rpc("tasks/cancel", {"id": task_id})
    assert cancelled["result"]["status"]["state"] == "canceled", cancelled
    await wait_for(lambda: bench.model.released > released, 20)
    assert await bench.say("[[say free again]]") == "free again"


async def test_an_agent_that_was_killed_remembers_the_context(bench: Bench):
    one = context_id()
    word = f"tree-{uuid.uuid4().hex}"
    await bench.say(f"Remember {word}. [[say noted]]", contextId=one)
    bench.agent.process.kill()
    await bench.agent.process.wait()
    await bench.start()
    assert await bench.say("[[recall tree]]", contextId=one) == f"I heard {word}"


@each_case
async def test_a_missing_key_is_named(case, tmp_path):
    with pytest.raises(NotConfigured, match=case.key):
        await _set_up(case.runtime, case.model, {}, tmp_path)


@each_case
async def test_a_model_it_cannot_have_is_refused_and_not_replaced(case, tmp_path):
    with pytest.raises(NotConfigured, match=case.other.partition(":")[0]):
        await _set_up(case.runtime, case.other, {case.key: KEY}, tmp_path)


@each_case
def test_its_library_is_really_here(case):
    assert case.runtime not in missing()


async def _set_up(runtime: str, model: str, environ: dict[str, str], directory: Any) -> None:
    context = AdapterContext(
        runtime=runtime,
        config=parse_config({"runtime": runtime}),
        name="Tess",
        role="tests",
        model=model,
        tools=(),
        sessions=Keeping(None, str),
        config_dir=directory,
        workspace_dir=directory,
        environ=environ,
    )
    await load_adapter(runtime).setup(context)


async def _streamed(bench: Bench, text: str) -> tuple[list[str], list[str]]:
    """Return the states that a reader of the stream saw, and the pieces of the answer."""
    body = {"jsonrpc": "2.0", "id": 1, "method": "message/stream", "params": {"message": said(text)}}
    states, pieces = [], []
    async with bench.agent.session.post("/", json=body) as response:
        async for line in response.content:
            if not line.startswith(b"data:"):
                continue
            event = json.loads(line.removeprefix(b"data:"))["result"]
            if "status" in event:
                states.append(event["status"]["state"])
            if "artifact" in event:
                pieces.append(event["artifact"]["parts"][0]["text"])
    return states, pieces
