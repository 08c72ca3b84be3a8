"""What the offline demo model does, as a function and as a chat model in a real graph."""

import json

import pytest

from molecule_ai.runtime.offline.plan import MARK, Done, Persona, Use, decide

LEADER = Persona("Ada", "Head of Launch")
ALL = frozenset(
    {
        "list_peers",
        "delegate_task",
        "request_approval",
        "commit_memory",
        "recall_memory",
        "send_message_to_user",
    }
)
PEERS = [
    {"id": "c1", "name": "Bo", "role": "Writer", "status": "online", "relation": "child"},
    {"id": "c2", "name": "Cy", "role": "", "status": "hibernated", "relation": "child"},
    {"id": "c3", "name": "Di", "role": "Legal", "status": "paused", "relation": "child"},
    {"id": "s1", "name": "Ed", "role": "Sales", "status": "online", "relation": "sibling"},
    {"id": "p1", "name": "Fay", "role": "CEO", "status": "online", "relation": "parent"},
]
LISTED = Done("list_peers", {}, json.dumps(PEERS))


def test_a_leader_gives_each_child_a_part_at_once():
    assert decide(LEADER, "Plan the launch", [], ALL) == (Use("list_peers", {}),)
    step = decide(LEADER, "Plan the launch", [LISTED], ALL)
    assert step == (
        Use("delegate_task", {"workspace_id": "c1", "task": "Your part as Writer: Plan the launch"}),
        Use("delegate_task", {"workspace_id": "c2", "task": "Your part as Cy: Plan the launch"}),
    )


def test_a_leader_combines_the_answers_and_names_who_is_away():
    done = [
        LISTED,
        Done("delegate_task", {"workspace_id": "c1"}, f"{MARK} Bo: I would write words."),
        Done("delegate_task", {"workspace_id": "c2"}, "Error: the delegation failed: timeout"),
    ]
    reply = decide(LEADER, "Plan the launch", done, ALL)
    assert reply == (
        f"{MARK} {LEADER.name}, with 2 colleagues:\n"
        "- Bo: I would write words.\n"
        "- Cy: Error: the delegation failed: timeout\n"
        "Not available: Di (paused)."
    )


def test_a_part_of_a_part_carries_the_task_only_once():
    task = "Your part as Head of Launch: Plan the launch"
    first = decide(LEADER, task, [LISTED], ALL)[0]
    assert first.arguments["task"] == "Your part as Writer: Plan the launch"


def test_a_leaf_answers_itself_and_always_the_same():
    leaf = Persona("Bo", "Writer")
    listed = Done("list_peers", {}, json.dumps([peer for peer in PEERS if peer["relation"] != "child"]))
    reply = decide(leaf, "Your part as Writer: Plan the launch", [listed], ALL)
    assert reply.startswith(f"{MARK} Bo: I would ")
    assert reply == decide(leaf, "Plan the launch", [listed], ALL)
    assert decide(leaf, "Plan", [Done("list_peers", {}, "No peers found.")], ALL).startswith(MARK)


def test_without_delegation_it_works_alone():
    assert decide(LEADER, "Plan", [], frozenset({"list_peers"})).startswith(f"{MARK} {LEADER.name}: I would ")


@pytest.mark.parametrize(
    "text",
    [
        "Ask for approval to publish the report.",
        "Draft it, then ask for approval to publish the report",
        "needs approval: publish the report",
        "Please REQUEST APPROVAL TO publish the report.\nThanks",
    ],
)
def test_it_asks_for_approval(text):
    [wish] = decide(LEADER, text, [], ALL)
    assert (wish.tool, wish.arguments["action"]) == ("request_approval", "publish the report")


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ('{"status":"approved","decided_by":"dana"}', 'Approval to "publish": approved by dana.'),
        ('{"status":"denied","decided_by":null}', 'Approval to "publish": denied by nobody.'),
        ('{"status":"pending"}', 'Nobody has decided yet about "publish", so I have not done it.'),
        ("Error: no", "I could not ask for approval to publish. Error: no"),
    ],
)
def test_it_reports_the_decision(result, said):
    done = [Done("request_approval", {"action": "publish"}, result)]
    assert decide(LEADER, "ask for approval to publish", done, ALL) == f"{MARK} {said}"


@pytest.mark.parametrize(
    ("text", "use"),
    [
        ("Remember that tea is at five.", Use("commit_memory", {"content": "tea is at five"})),
        ("Please remember: tea", Use("commit_memory", {"content": "tea"})),
        ("What do you remember about tea?", Use("recall_memory", {"query": "tea?"})),
        ("Tell the user that we are live!", Use("send_message_to_user", {"message": "we are live"})),
    ],
)
def test_errands(text, use):
    assert decide(LEADER, text, [], ALL) == (use,)


@pytest.mark.parametrize("text", ["Hello there", "ping", "=== WORKSPACE RESTART CONTEXT ===\nRestart at: x"])
def test_small_talk_and_notices_start_no_work(text):
    assert "I am ready" in decide(LEADER, text, [], ALL)


async def test_a_leader_works_through_a_real_graph(start_agent, platform, wait_for):
    """The langgraph runtime with the offline model: peers, parallel delegation, one reply with its trace."""
    agent_id = "a1a1a1a1-0000-4000-8000-000000000001"
    for index, name in enumerate(["Bo", "Cy"]):
        child = {"id": f"c{index}", "name": name, "role": "Writer", "status": "online", "parent_id": agent_id}
        platform.peers.append({**child, "agent_card": {"skills": []}})
        platform.answers[f"c{index}"] = f"{MARK} {name} is done"
    config = {"name": "Ada", "role": "Head", "runtime": "langgraph", "model": "anthropic:ignored"}
    agent = await start_agent(config, WORKSPACE_ID=agent_id, MOLECULE_MODEL="offline:demo")
    chain = {"chain_id": "c-9", "depth": 1}
    message = {
        "role": "user",
        "messageId": "m-1",
        "parts": [{"kind": "text", "text": "Plan the launch"}],
        "metadata": {"molecule": chain},
    }

    reply = await agent.rpc("message/send", {"message": message})

    result = reply["result"]
    assert result["parts"][0]["text"] == (f"{MARK} Ada, with 2 colleagues:\n- Bo: is done\n- Cy: is done")
    used = [(item["tool"], item["input"]) for item in result["metadata"]["tool_trace"]]
    assert used[0] == ("list_peers", {})
    assert sorted(tool for tool, _ in used[1:]) == ["delegate_task", "delegate_task"]
    assert {call["body"]["metadata"]["molecule"]["chain_id"] for call in platform.of("/delegate")} == {"c-9"}
    assert [call["body"]["metadata"] for call in platform.of("/delegate")] == [{"molecule": chain}] * 2

    assert "approved by dana" in await agent.say("Ask for approval to ship it")
    assert "I will remember" in await agent.say("remember that Bo writes")
    assert "Bo writes" in await agent.say("recall Bo")
    assert "I told the user" in await agent.say("tell the user we are live")
    assert platform.of("/notify")[0]["body"] == {"message": "we are live"}
