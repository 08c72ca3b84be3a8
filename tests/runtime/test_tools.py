"""What a model can do, against the platform over a real socket."""

import asyncio
import json

import pytest

from molecule_ai.runtime.config import RbacConfig
from molecule_ai.runtime.delegations import Delegations
from molecule_ai.runtime.origin import Origin, current_origin
from molecule_ai.runtime.peers import Peers
from molecule_ai.runtime.permissions import EVERYTHING, allowed_actions
from molecule_ai.runtime.results import DelegationResults
from molecule_ai.runtime.tools import ToolBox, Waits

CHILD = "b2a1f0de-0000-4000-8000-000000000002"
CHAIN = {"chain_id": "c-1", "parent_id": "p-1", "depth": 2, "ratio": 1.0}


@pytest.fixture
async def tools(client):
    delegations = Delegations(client)
    polling = asyncio.ensure_future(delegations.run())
    waits = Waits(approval_seconds=5, approval_poll_seconds=0.2, retry_attempts=1, retry_seconds=0.05)
    results = DelegationResults(client, delegations)
    box = ToolBox(client, Peers(client, "parent-1"), delegations, results, waits, EVERYTHING)
    yield {tool.name: tool for tool in box.tools()}
    polling.cancel()


@pytest.fixture
def working_for_a_message():
    token = current_origin.set(Origin("m-1", CHAIN))
    yield
    current_origin.reset(token)


async def test_every_tool_has_a_schema_that_models_take(tools):
    assert sorted(tools) == [
        "check_task_status",
        "commit_memory",
        "delegate_task",
        "delegate_task_async",
        "get_workspace_info",
        "list_peers",
        "recall_memory",
        "request_approval",
        "send_message_to_user",
    ]
    for tool in tools.values():
        assert tool.parameters["type"] == "object"
        assert "$ref" not in json.dumps(tool.parameters)
        assert tool.description.endswith(".")
    assert tools["delegate_task"].parameters["required"] == ["workspace_id", "task"]


async def test_bad_arguments_are_explained(tools):
    assert "workspace_id" in await tools["delegate_task"].call({"task": "x"})
    assert (await tools["commit_memory"].call({"content": "x", "scope": "MARS"})).startswith("Error: ")


async def test_a_delegated_task_comes_back(tools, platform, working_for_a_message):
    platform.answers[CHILD] = "41 of 52 sent."
    assert await tools["delegate_task"].call({"workspace_id": CHILD, "task": "Count"}) == "41 of 52 sent."
    body = platform.of("/delegate")[0]["body"]
    assert (body["target_id"], body["task"]) == (CHILD, "Count")
    assert body["idempotency_key"].startswith("m-1:")


async def test_the_causal_chain_is_forwarded_unchanged(tools, platform, client, working_for_a_message):
    await tools["delegate_task_async"].call({"workspace_id": CHILD, "task": "Count"})
    await tools["request_approval"].call({"action": "ship"})
    await client.send_message(CHILD, "hello")
    assert platform.of("/delegate")[0]["body"]["metadata"] == {"molecule": CHAIN}
    assert platform.of("/approvals")[0]["body"]["metadata"] == {"molecule": CHAIN}
    assert platform.of("/a2a")[0]["body"]["params"]["message"]["metadata"] == {"molecule": CHAIN}


async def test_a_redelivered_message_repeats_its_keys(tools, platform, working_for_a_message):
    for task in ("Count", "Count", "Weigh"):
        await tools["delegate_task_async"].call({"workspace_id": CHILD, "task": task})
    first, again, other = (call["body"]["idempotency_key"] for call in platform.of("/delegate"))
    assert first == again != other


async def test_many_waiters_share_one_poll(tools, platform):
    platform.answers = {f"child-{n}": f"answer {n}" for n in range(20)}
    calls = [tools["delegate_task"].call({"workspace_id": peer, "task": "x"}) for peer in platform.answers]
    assert await asyncio.gather(*calls) == list(platform.answers.values())
    assert len(platform.of("/delegations")) < 10


async def test_a_failed_delegation_says_so(tools, platform):
    platform.answers[CHILD] = "FAIL: nobody home"
    result = await tools["delegate_task"].call({"workspace_id": CHILD, "task": "x"})
    assert result == "Error: the delegation failed: FAIL: nobody home"


async def test_a_slow_delegation_leaves_an_id_to_ask_for(tools, platform):
    platform.answers[CHILD] = "NEVER"
    request = {"workspace_id": CHILD, "task": "x", "timeout_seconds": 0.2}
    pending = json.loads(await tools["delegate_task"].call(request))
    assert pending["status"] == "in_progress"
    status = json.loads(await tools["check_task_status"].call({"task_id": pending["delegation_id"]}))
    assert status["status"] == "pending"


async def test_a_refusal_keeps_its_machine_readable_reason(tools, platform):
    refusal = {"error": "the chain is too deep", "code": "CHAIN_DEPTH"}
    platform.delegation_refusal = (409, refusal)
    result = await tools["delegate_task"].call({"workspace_id": CHILD, "task": "x"})
    assert result == "Error: the chain is too deep (CHAIN_DEPTH)"
    assert len(platform.of("/delegate")) == 1


async def test_a_platform_that_is_away_is_tried_again(tools, platform):
    platform.delegation_refusal = (503, {"error": "database away"})
    assert await tools["delegate_task"].call({"workspace_id": CHILD, "task": "x"}) == "Error: database away"
    assert len(platform.of("/delegate")) == 2
    await platform.stop()
    result = await tools["list_peers"].call({})
    assert result.startswith("Error: the platform cannot be reached")


async def test_async_delegation_and_its_status(tools, platform):
    platform.answers[CHILD] = "counted"
    started = json.loads(await tools["delegate_task_async"].call({"workspace_id": CHILD, "task": "x"}))
    assert started["status"] == "dispatched"
    status = json.loads(await tools["check_task_status"].call({"task_id": started["task_id"]}))
    assert (status["status"], status["result"]) == ("completed", "counted")
    unknown = json.loads(await tools["check_task_status"].call({"task_id": "other"}))
    assert unknown["status"] == "not_found"


async def test_nobody_else_is_said_plainly(tools):
    assert await tools["list_peers"].call({}) == "No peers found."


async def test_peers_come_with_their_relation(client, platform):
    row = {"role": None, "status": "online", "agent_card": {"skills": [{"name": "Fly"}]}}
    platform.peers = [
        {"id": "s", "name": "Sib", "parent_id": "parent-1", **row},
        {"id": "c", "name": "Kid", "parent_id": client.workspace_id, **row},
        {"id": "parent-1", "name": "Boss", "parent_id": None, **row},
    ]
    found = await Peers(client, "parent-1").current()
    assert [(peer.name, peer.relation) for peer in found] == [
        ("Sib", "sibling"),
        ("Kid", "child"),
        ("Boss", "parent"),
    ]
    assert found[0].skills == ("Fly",)


async def test_a_long_answer_arrives_whole(client, platform):
    platform.peers = [{"id": str(n), "name": "n" * 1000, "parent_id": None} for n in range(2000)]
    assert len(await client.peers()) == 2000


async def test_workspace_info_shows_only_what_is_ours(tools, client):
    info = json.loads(await tools["get_workspace_info"].call({}))
    assert info == {"id": client.workspace_id, "name": "Self", "tier": 2}


@pytest.mark.parametrize("decision", ["approved", "denied", "withdrawn"])
async def test_an_approval_waits_for_its_decision(tools, platform, decision):
    platform.decision = decision
    request = {"action": "pay 40 EUR", "reason": "invoice 7", "arguments": {"amount": 40}}
    outcome = json.loads(await tools["request_approval"].call(request))
    assert (outcome["status"], outcome["decided_by"]) == (decision, "dana")
    body = platform.of("/approvals")[0]["body"]
    assert (body["action"], body["reason"]) == ("pay 40 EUR", "invoice 7")
    assert body["context"] == {"arguments": {"amount": 40}}


async def test_silence_is_not_a_decision(tools, platform):
    platform.decision = ""
    outcome = json.loads(await tools["request_approval"].call({"action": "x", "timeout_seconds": 0.3}))
    assert outcome["status"] == "pending"


async def test_the_user_and_the_memory(tools, platform):
    assert await tools["send_message_to_user"].call({"message": "Hello"}) == "Message sent."
    assert platform.of("/notify")[0]["body"] == {"message": "Hello"}
    assert await tools["recall_memory"].call({"query": "tea"}) == "No memories found."
    stored = json.loads(await tools["commit_memory"].call({"content": "tea at 5", "scope": "TEAM"}))
    assert stored["scope"] == "TEAM"
    [found] = json.loads(await tools["recall_memory"].call({"query": "tea"}))
    assert found["content"] == "tea at 5"
    assert platform.of("/memories")[-1]["query"] == {"q": "tea", "scope": "ALL"}


@pytest.mark.parametrize(
    ("roles", "missing"),
    [
        (["operator"], set()),
        (["no-delegation"], {"delegate"}),
        (["no-approval"], {"approve"}),
        (["read-only"], {"delegate", "approve", "memory.write"}),
        (["unheard-of"], set(EVERYTHING)),
        (["read-only", "writer"], {"delegate", "approve"}),
    ],
)
def test_roles_decide_which_tools_there_are(roles, missing):
    rbac = RbacConfig(roles=roles, allowed_actions={"writer": ["memory.write"]})
    assert EVERYTHING - allowed_actions(rbac) == missing


async def test_a_role_without_delegation_sees_no_such_tool(client):
    allowed = allowed_actions(RbacConfig(roles=["no-delegation"]))
    delegations = Delegations(client)
    results = DelegationResults(client, delegations)
    box = ToolBox(client, Peers(client, ""), delegations, results, Waits(), allowed)
    names = {tool.name for tool in box.tools()}
    assert "delegate_task" not in names
    assert "request_approval" in names


async def test_results_nobody_waits_for_come_as_one_message_per_chain(client, platform, wait_for):
    delegations = Delegations(client)
    results = DelegationResults(client, delegations, poll_seconds=0.05, cool_down_seconds=0.05)
    box = ToolBox(client, Peers(client, ""), delegations, results, Waits(), EVERYTHING)
    tools = {tool.name: tool for tool in box.tools()}
    platform.answers = {"a": "one", "b": "FAIL: two", "c": "three", "d": "asked for", "e": "NEVER"}
    for target, chain in {"a": CHAIN, "b": CHAIN, "c": {"chain_id": "other"}, "d": CHAIN, "e": CHAIN}.items():
        token = current_origin.set(Origin("m", chain))
        started = json.loads(await tools["delegate_task_async"].call({"workspace_id": target, "task": "x"}))
        current_origin.reset(token)
        if target == "d":
            await tools["check_task_status"].call({"task_id": started["task_id"]})
    delivering = asyncio.ensure_future(results.run())
    sent = await wait_for(lambda: platform.of("/a2a")[1:] and platform.of("/a2a"))
    await asyncio.sleep(0.3)
    delivering.cancel()

    assert len(platform.of("/a2a")) == len(sent) == 2
    first, second = (call["body"]["params"]["message"] for call in sent)
    text = first["parts"][0]["text"]
    assert text.startswith("Delegation results:\n")
    assert "one" in text
    assert "failed: FAIL: two" in text
    assert first["metadata"]["molecule"] == CHAIN
    assert second["metadata"]["molecule"] == {"chain_id": "other"}
    assert "asked for" not in text
