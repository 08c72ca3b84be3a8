"""A runtime from outside, loaded by name: events, usage, cancellation."""

import pytest

ADAPTER = """
from molecule_ai.runtime.adapters.base import Capabilities, TaskFailed
from molecule_ai.runtime.messages import Reply, TextDelta, ToolUsed, Usage


class Adapter:
    capabilities = Capabilities(session=True)

    async def setup(self, context):
        self.name = context.name

    async def run(self, task):
        if task.text == "fail":
            raise TaskFailed("as asked")
        if task.text == "bug":
            raise ZeroDivisionError("oops")
        if task.text == "silent":
            return
        yield TextDelta("so ")
        yield ToolUsed("count", {"n": 3}, "o" * 1000)
        yield Reply(f"{self.name}: {len(task.history)}", Usage(812, 37))
"""


@pytest.fixture
async def agent(start_agent, tmp_path):
    (tmp_path / "my_adapter.py").write_text(ADAPTER)
    config = {"name": "Own", "runtime": "echo"}
    return await start_agent(config, ADAPTER_MODULE="my_adapter", PYTHONPATH=str(tmp_path))


async def test_its_events_reach_the_caller(agent, platform, said, wait_for):
    history = [{"role": "user", "parts": [{"kind": "text", "text": "earlier"}]}]
    params = {"message": said("go", messageId="m-1"), "metadata": {"history": history}}

    reply = await agent.rpc("message/send", params)

    assert reply["result"]["parts"][0]["text"] == "Own: 1"
    trace = [{"tool": "count", "input": {"n": 3}, "output_preview": "o" * 300}]
    usage = {"input_tokens": 812, "output_tokens": 37}
    assert reply["result"]["metadata"] == {"tool_trace": trace, "usage": usage}
    assert all(type(count) is int for count in reply["result"]["metadata"]["usage"].values())
    metadata = (await wait_for(lambda: platform.of("/registry/heartbeat")))[0]["body"]["runtime_metadata"]
    assert metadata["capabilities"]["session"] is True

    for text, reason in {"fail": "as asked", "bug": "oops", "silent": "without a reply"}.items():
        failed = await agent.rpc("message/send", {"message": said(text)})
        assert failed["error"]["code"] == -32603
        assert reason in failed["error"]["message"]
    streamed = await agent.session.post(
        "/", json={"jsonrpc": "2.0", "id": 1, "method": "message/stream", "params": {"message": said("go")}}
    )
    text = await streamed.text()
    assert text.index("so ") < text.index("Own: 0") < text.index("completed")
