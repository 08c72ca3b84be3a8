"""A2A in both protocol versions, spoken by the SDK's own client against a real agent."""

import asyncio
import uuid

import httpx
import pytest
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.client.errors import A2AClientError
from a2a.helpers import get_artifact_text, get_message_text, new_text_message
from a2a.types.a2a_pb2 import (
    AgentCard,
    CancelTaskRequest,
    GetTaskRequest,
    Role,
    SendMessageConfiguration,
    SendMessageRequest,
    TaskState,
)
from a2a.utils.errors import TaskNotFoundError


async def _connected(agent, version: str, *, streaming: bool, http: httpx.AsyncClient):
    card: AgentCard = await A2ACardResolver(http, agent.url).get_agent_card()
    kept = [item for item in card.supported_interfaces if item.protocol_version == version]
    assert kept, card
    del card.supported_interfaces[:]
    card.supported_interfaces.extend(kept)
    return ClientFactory(ClientConfig(streaming=streaming, httpx_client=http)).create(card)


@pytest.fixture
async def http():
    async with httpx.AsyncClient(timeout=20) as client:
        yield client


def _request(text: str, **configuration) -> SendMessageRequest:
    message = new_text_message(text, role=Role.ROLE_USER)
    return SendMessageRequest(message=message, configuration=SendMessageConfiguration(**configuration))


async def test_both_versions_get_a_message_a_stream_and_a_task(parrot, http):
    _, agent = parrot
    for version in ("1.0", "0.3"):
        waiting = await _connected(agent, version, streaming=False, http=http)
        [reply] = [event async for event in waiting.send_message(_request(f"hello {version}"))]
        assert get_message_text(reply.message) == f"hello {version}"

        following = await _connected(agent, version, streaming=True, http=http)
        events = [event async for event in following.send_message(_request("stream"))]
        states = [event.status_update.status.state for event in events if event.HasField("status_update")]
        assert states[-1] == TaskState.TASK_STATE_COMPLETED
        [artifact] = [event.artifact_update for event in events if event.HasField("artifact_update")]
        assert get_artifact_text(artifact.artifact) == "stream"

        stored = await waiting.get_task(GetTaskRequest(id=artifact.task_id))
        assert stored.status.state == TaskState.TASK_STATE_COMPLETED
        assert get_artifact_text(stored.artifacts[0]) == "stream"
        with pytest.raises((TaskNotFoundError, A2AClientError)):
            await waiting.get_task(GetTaskRequest(id=str(uuid.uuid4())))


async def test_a_task_that_nobody_waits_for_can_be_cancelled(start_agent, platform, http, wait_for):
    agent = await start_agent(
        {"name": "Slow", "runtime": "command", "runtime_config": {"command": "sleep 60"}}
    )
    for version in ("1.0", "0.3"):
        client = await _connected(agent, version, streaming=False, http=http)
        [started] = [event async for event in client.send_message(_request("go", return_immediately=True))]
        assert started.HasField("task")
        cancelled = await client.cancel_task(CancelTaskRequest(id=started.task.id))
        assert cancelled.status.state == TaskState.TASK_STATE_CANCELED
        await wait_for(lambda: _beats(platform)[-2:] == [1, 0])


def _beats(platform) -> list[int]:
    return [call["body"]["active_tasks"] for call in platform.of("/registry/heartbeat")]


async def test_the_card_is_served_at_both_well_known_paths(parrot):
    _, agent = parrot
    _, new = await agent.get("/.well-known/agent-card.json")
    _, old = await agent.get("/.well-known/agent.json")
    assert new == old
    assert {item["protocolVersion"] for item in new["supportedInterfaces"]} == {"1.0", "0.3"}
    assert (new["url"], new["preferredTransport"], new["protocolVersion"]) == (agent.url, "JSONRPC", "0.3.0")


async def test_versions_are_told_apart_without_the_header(parrot, said):
    _, agent = parrot
    old = await agent.rpc("message/send", {"message": said("old")})
    assert (old["id"], old["result"]["kind"], old["result"]["role"]) == ("7", "message", "agent")
    assert old["result"]["parts"] == [{"kind": "text", "text": "old"}]
    message = {"role": "ROLE_USER", "messageId": "m-1", "parts": [{"text": "new"}]}
    new = await agent.rpc("SendMessage", {"message": message})
    assert new["result"]["message"]["parts"] == [{"text": "new"}]


NONSENSE = {
    b"{": -32700,
    b"[]": -32600,
    b'{"jsonrpc":"2.0","id":1,"method":"tasks/dance","params":{}}': -32601,
    b'{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{"message":{"parts":3}}}': -32602,
}


async def test_nonsense_gets_a_json_rpc_error(parrot):
    _, agent = parrot
    for body, code in NONSENSE.items():
        async with agent.session.post("/", data=body) as response:
            assert response.status == 200
            assert (await response.json())["error"]["code"] == code
    async with agent.session.post("/", data=b" " * (2 * 1024 * 1024 + 1)) as response:
        assert response.status == 413
    assert await agent.say("still fine") == "still fine"


async def test_a_repeated_message_acts_once(start_agent, config_dir):
    script = "sh -c 'echo ran >> runs; cat'"
    agent = await start_agent({"runtime": "command", "runtime_config": {"command": script}})
    together = await asyncio.gather(*(agent.say("once", messageId="m-1") for _ in range(5)))
    later = await agent.say("once", messageId="m-1")
    assert [*together, later] == ["once"] * 6
    assert (config_dir.parent / "workspace" / "runs").read_text() == "ran\n"


async def test_a_failed_task_is_an_error_and_may_be_tried_again(start_agent, platform, said, wait_for):
    script = "sh -c 'if [ -e flag ]; then cat; else touch flag; echo broken >&2; exit 3; fi'"
    agent = await start_agent({"runtime": "command", "runtime_config": {"command": script}})
    failed = await agent.rpc("message/send", {"message": said("try", messageId="m-1")})
    assert failed["error"]["code"] == -32603
    assert "status 3: broken" in failed["error"]["message"]
    assert await agent.say("try", messageId="m-1") == "try"


async def test_history_and_metadata_do_not_disturb(parrot, said):
    _, agent = parrot
    params = {
        "message": {"role": "user", "messageId": "m", "parts": [{"type": "text", "text": "typed"}]},
        "metadata": {"history": [{"role": "user", "parts": [{"kind": "text", "text": "before"}]}]},
    }
    reply = await agent.rpc("message/send", params)
    assert reply["result"]["parts"][0]["text"] == "typed"
