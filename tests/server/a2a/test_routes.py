import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from aiohttp import web

from molecule_ai.server.app import Server
from tests.agents import Agent, add_agent, envelope, reply
from tests.conftest import MakeServer, connect
from tests.support import add_token, add_workspace, free_port, wait_for


@pytest.fixture
async def agent() -> AsyncIterator[Agent]:
    async with Agent().serving() as running:
        yield running


async def rows(server: Server, workspace_id: UUID) -> list[Any]:
    async with server.db.connection() as connection:
        return await connection.fetch(
            "SELECT * FROM activity_logs WHERE workspace_id = $1 ORDER BY seq", workspace_id
        )


async def one_row(server: Server, workspace_id: UUID) -> Any:
    found = await wait_for(lambda: rows(server, workspace_id))
    assert len(found) == 1
    return found[0]


async def test_a_message_of_a_person_is_answered_with_the_agents_bytes(
    server: Server, admin: httpx.AsyncClient, agent: Agent
) -> None:
    raw = b'{"jsonrpc": "2.0",  "id": "1", "result": {"n": 1.10, "parts": [{"kind":"text","text":"hi"}]}}'

    async def answer(_: Agent, __: dict[str, Any]) -> web.StreamResponse:
        return web.Response(body=raw, content_type="application/json")

    agent.answer = answer
    target = await add_agent(server, agent, "target")
    answered = await admin.post(f"/workspaces/{target}/a2a", json=envelope("hello"))
    assert (answered.status_code, answered.content) == (200, raw)
    assert answered.headers["content-type"].startswith("application/json")
    row = await one_row(server, target)
    assert (row["activity_type"], row["source_id"], row["source_kind"], row["status"]) == (
        "a2a_receive",
        None,
        "canvas",
        "ok",
    )
    assert row["summary"] == "message/send → target"
    assert row["request_body"]["params"]["message"]["parts"] == [{"kind": "text", "text": "hello"}]
    assert row["response_body"] == json.loads(raw)
    assert row["duration_ms"] > 0


async def test_the_agent_gets_the_message_with_its_chain(
    server: Server, admin: httpx.AsyncClient, agent: Agent
) -> None:
    target = await add_agent(server, agent)
    await admin.post(
        f"/workspaces/{target}/a2a", json={"method": "message/send", "params": {"message": {"content": "x"}}}
    )
    said = agent.said()
    assert said["parts"] == [{"kind": "text", "text": "x"}]
    assert said["messageId"]
    assert agent.received[0]["jsonrpc"] == "2.0"
    chain = said["metadata"]["molecule"]
    assert (chain["depth"], chain["hops"], chain["path"]) == (0, 0, [])
    UUID(chain["chain_id"])


async def test_the_tool_trace_is_lifted_from_the_answer(
    server: Server, admin: httpx.AsyncClient, agent: Agent
) -> None:
    trace = [{"tool": "sql", "input": {}, "output_preview": "2 rows"}]

    async def answer(_: Agent, request: dict[str, Any]) -> web.StreamResponse:
        return reply(request, "ok", tool_trace=trace)

    agent.answer = answer
    target = await add_agent(server, agent)
    await admin.post(f"/workspaces/{target}/a2a", json=envelope("x"))
    assert (await one_row(server, target))["tool_trace"] == trace


async def test_siblings_and_lines_talk_and_cousins_do_not(server: Server, agent: Agent) -> None:
    root = await add_agent(server, agent, max_concurrent_tasks=9)
    one = await add_agent(server, agent, parent_id=root, max_concurrent_tasks=9)
    two = await add_agent(server, agent, parent_id=root, max_concurrent_tasks=9)
    deep = await add_agent(server, agent, parent_id=one, max_concurrent_tasks=9)
    tokens = {who: await add_token(server, who) for who in (root, one, two, deep)}
    for caller, target, expected in [
        (one, two, 200),
        (deep, root, 200),
        (root, deep, 200),
        (one, one, 200),
        (two, deep, 403),
        (deep, two, 403),
        (one, uuid4(), 403),
    ]:
        async with connect(server, tokens[caller]) as client:
            answer = await client.post(
                f"/workspaces/{target}/a2a", json=envelope("x"), headers={"x-workspace-id": str(caller)}
            )
        assert answer.status_code == expected, answer.text
        if expected == 403:
            assert (
                answer.json()["error"] == "access denied: workspaces cannot communicate per hierarchy rules"
            )


async def test_an_agents_call_is_logged_with_its_source_and_noted(server: Server, agent: Agent) -> None:
    caller = await add_workspace(server)
    target = await add_agent(server, agent, parent_id=caller)
    async with connect(server, await add_token(server, caller)) as client:
        answer = await client.post(
            f"/workspaces/{target}/a2a", json=envelope("x"), headers={"x-source-workspace-id": str(caller)}
        )
    assert answer.status_code == 200
    row = await one_row(server, target)
    assert (row["source_id"], row["source_kind"]) == (caller, "agent")
    assert agent.said()["metadata"]["molecule"]["path"] == [str(caller)]
    await server.traffic.flush()
    async with server.db.connection() as connection:
        assert await connection.fetchval("SELECT last_outbound_at FROM workspaces WHERE id = $1", caller)


async def test_credentials_come_before_everything_else(
    server: Server, admin: httpx.AsyncClient, anonymous: httpx.AsyncClient
) -> None:
    target, caller = await add_workspace(server), await add_workspace(server)
    path = f"/workspaces/{target}/a2a"
    await add_token(server, caller)
    for prefix in ("webhook:", "system:", "test:", "channel:"):
        forged = await admin.post(path, content=b"nonsense", headers={"x-workspace-id": f"{prefix}x"})
        assert (forged.status_code, forged.json()["error"]) == (403, "invalid caller ID")
    missing = await anonymous.post(path, content=b"nonsense", headers={"x-workspace-id": str(caller)})
    assert (missing.status_code, missing.json()["error"]) == (401, "missing caller auth token")
    wrong = await anonymous.post(
        path, content=b"x", headers={"x-workspace-id": str(caller), "authorization": "Bearer x"}
    )
    assert (wrong.status_code, wrong.json()["error"]) == (401, "invalid caller auth token")
    nobody = await anonymous.post(path, content=b"nonsense")
    assert (nobody.status_code, nobody.json()["error"]) == (401, "canvas auth required")
    bad_id = await admin.post("/workspaces/7/a2a", json=envelope("x"))
    assert (bad_id.status_code, bad_id.json()["error"]) == (400, "invalid workspace ID")


async def test_a_foreign_token_without_a_header_is_its_workspace(server: Server, agent: Agent) -> None:
    parent = await add_workspace(server)
    target = await add_agent(server, agent, parent_id=parent)
    stranger = await add_workspace(server, parent_id=await add_workspace(server))
    async with connect(server, await add_token(server, stranger)) as client:
        assert (await client.post(f"/workspaces/{target}/a2a", json=envelope("x"))).status_code == 403
    async with connect(server, await add_token(server, target)) as client:
        assert (await client.post(f"/workspaces/{target}/a2a", json=envelope("x"))).status_code == 200


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        ("provisioning", 503, "workspace has no URL"),
        ("paused", 503, "workspace has no URL"),
        ("failed", 503, "workspace has no URL"),
        ("awaiting_agent", 503, "workspace has no URL"),
        ("hibernating", 503, "workspace has no URL"),
        ("removed", 410, "workspace removed"),
    ],
)
async def test_the_state_of_the_target_counts_whatever_url_it_has(
    server: Server, admin: httpx.AsyncClient, agent: Agent, status: str, code: int, error: str
) -> None:
    target = await add_agent(server, agent, status=status)
    answer = await admin.post(f"/workspaces/{target}/a2a", content=b"not json")
    assert (answer.status_code, answer.json()["error"]) == (code, error)
    if code == 503:
        assert answer.json()["status"] == status
    assert agent.received == []


async def test_refusals_come_in_the_order_of_the_contract(
    server: Server, admin: httpx.AsyncClient, agent: Agent
) -> None:
    missing = await admin.post(f"/workspaces/{uuid4()}/a2a", content=b"not json")
    assert (missing.status_code, missing.json()["error"]) == (404, "workspace not found")
    poor = await add_agent(server, agent, status="paused", budget_limit=5, monthly_spend=5)
    broke = await admin.post(f"/workspaces/{poor}/a2a", content=b"not json")
    assert (broke.status_code, broke.json()["error"]) == (402, "workspace budget limit exceeded")
    target = await add_agent(server, agent)
    bad = await admin.post(f"/workspaces/{target}/a2a", content=b"not json")
    assert (bad.status_code, bad.json()["error"]) == (400, "invalid JSON")
    empty = await admin.post(
        f"/workspaces/{target}/a2a", json={"method": "message/send", "params": {"message": {}}}
    )
    assert empty.status_code == 400
    assert empty.json()["error"]["data"] == {"field": "params.message.parts"}
    large = await admin.post(f"/workspaces/{target}/a2a", content=b"x" * (1024 * 1024 + 1))
    assert (large.status_code, large.json()["error"]) == (413, "request body exceeds 1 MiB")


async def test_an_address_of_somebody_elses_choice_is_guarded(
    server: Server, admin: httpx.AsyncClient, agent: Agent
) -> None:
    target = await add_workspace(server, url=agent.url)
    answer = await admin.post(f"/workspaces/{target}/a2a", json=envelope("x"))
    assert (answer.status_code, answer.json()["error"]) == (502, "workspace URL is not publicly routable")
    assert (await one_row(server, target))["status"] == "error"


async def test_an_agents_failure_keeps_its_status_and_its_words(
    server: Server, admin: httpx.AsyncClient, agent: Agent
) -> None:
    answers = [
        web.json_response({"error": "no model configured"}, status=500),
        web.json_response(
            {"jsonrpc": "2.0", "id": 1, "error": {"code": -32603, "message": "boom"}}, status=500
        ),
        web.Response(status=302, headers={"location": "http://127.0.0.1:1/"}),
        web.Response(text="nothing", status=404),
    ]

    async def answer(_: Agent, __: dict[str, Any]) -> web.StreamResponse:
        return answers.pop(0)

    agent.answer = answer
    target = await add_agent(server, agent)
    seen = [await admin.post(f"/workspaces/{target}/a2a", json=envelope("x")) for _ in range(4)]
    assert [(a.status_code, a.json()["error"]) for a in seen] == [
        (500, "no model configured"),
        (500, "Internal Server Error"),
        (302, "Found"),
        (404, "Not Found"),
    ]
    assert seen[1].json()["agent_error"] == {"code": -32603, "message": "boom"}


async def test_a_json_rpc_error_with_200_passes(
    server: Server, admin: httpx.AsyncClient, agent: Agent
) -> None:
    async def answer(_: Agent, request: dict[str, Any]) -> web.StreamResponse:
        return web.json_response({"jsonrpc": "2.0", "id": "1", "error": {"code": -32601, "message": "no"}})

    agent.answer = answer
    target = await add_agent(server, agent)
    answered = await admin.post(f"/workspaces/{target}/a2a", json={"method": "tasks/list"})
    assert (answered.status_code, answered.json()["error"]["code"]) == (200, -32601)


async def test_nobody_at_the_address_is_a_bad_gateway(server: Server, admin: httpx.AsyncClient) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    target = await add_workspace(
        server, url=url, handle={"instance_id": str(uuid4()), "url": url, "node": "n"}
    )
    answer = await admin.post(f"/workspaces/{target}/a2a", json=envelope("x"))
    assert (answer.status_code, answer.json()["error"]) == (502, "failed to reach workspace agent")


async def test_an_answer_that_breaks_off_was_delivered(
    server: Server, admin: httpx.AsyncClient, agent: Agent
) -> None:
    async def answer(_: Agent, __: dict[str, Any]) -> web.StreamResponse:
        response = web.Response(body=b"{}", headers={"content-length": "100"})
        response.force_close()
        return response

    agent.answer = answer
    target = await add_agent(server, agent)
    answered = await admin.post(f"/workspaces/{target}/a2a", json=envelope("x"))
    assert (answered.status_code, answered.json()["error"]) == (502, "failed to read agent response")
    assert answered.json()["delivery_confirmed"] is True
    assert (await one_row(server, target))["status"] == "ok"


async def test_an_answer_without_end_is_refused(
    server: Server, admin: httpx.AsyncClient, agent: Agent
) -> None:
    async def answer(_: Agent, __: dict[str, Any]) -> web.StreamResponse:
        return web.Response(body=b"x" * (10 * 1024 * 1024 + 1))

    agent.answer = answer
    target = await add_agent(server, agent)
    answered = await admin.post(f"/workspaces/{target}/a2a", json=envelope("x"))
    assert (answered.status_code, answered.json()["error"]) == (502, "agent response exceeds 10 MiB")
    assert answered.json()["delivery_confirmed"] is True


async def test_a_busy_target_queues_the_message(
    server: Server, admin: httpx.AsyncClient, agent: Agent
) -> None:
    agent.gate.clear()
    target = await add_agent(server, agent)
    first = asyncio.create_task(admin.post(f"/workspaces/{target}/a2a", json=envelope("one")))
    await wait_for(lambda: agent.busy == 1)
    second = await admin.post(f"/workspaces/{target}/a2a", json=envelope("two", "m-2"))
    assert second.status_code == 202
    body = second.json()
    assert (body["queued"], body["queue_depth"]) == (True, 1)
    assert body["message"] == "workspace agent busy — request queued, will dispatch when capacity available"
    again = await admin.post(f"/workspaces/{target}/a2a", json=envelope("two", "m-2"))
    assert again.json()["queue_id"] == body["queue_id"]
    agent.gate.set()
    assert (await first).status_code == 200
    # Even now that the agent is free an equal message stays what it was: one.
    third = await admin.post(f"/workspaces/{target}/a2a", json=envelope("two", "m-2"))
    assert (third.status_code, third.json()["queue_id"]) == (202, body["queue_id"])
    assert agent.peak == 1
    queued = [row for row in await rows(server, target) if row["status"] == "queued"]
    assert len(queued) == 1


async def test_one_message_after_the_other_is_never_busy(
    server: Server, admin: httpx.AsyncClient, agent: Agent
) -> None:
    """What a heartbeat said of a task of ours is over when the task is."""

    async def answer(_: Agent, request: dict[str, Any]) -> web.StreamResponse:
        async with server.db.transaction() as tx:
            await tx.execute(
                "UPDATE workspaces SET active_tasks = 1, last_heartbeat_at = now() WHERE id = $1", target
            )
        return reply(request, "done")

    agent.answer = answer
    target = await add_agent(server, agent)
    for _ in range(5):
        assert (await admin.post(f"/workspaces/{target}/a2a", json=envelope("x"))).status_code == 200


async def test_work_that_only_the_heartbeat_knows_of_counts(
    server: Server, admin: httpx.AsyncClient, agent: Agent
) -> None:
    target = await add_agent(server, agent)
    async with server.db.transaction() as tx:
        await tx.execute(
            "UPDATE workspaces SET active_tasks = 1, last_heartbeat_at = now() WHERE id = $1", target
        )
    assert (await admin.post(f"/workspaces/{target}/a2a", json=envelope("x"))).status_code == 202
    async with server.db.transaction() as tx:
        await tx.execute(
            "UPDATE workspaces SET last_heartbeat_at = now() - interval '91 seconds' WHERE id = $1", target
        )
    assert (await admin.post(f"/workspaces/{target}/a2a", json=envelope("y"))).status_code == 200


async def test_two_replicas_keep_one_target_within_its_capacity(
    make_server: MakeServer, agent: Agent
) -> None:
    servers = [await make_server(), await make_server()]
    agent.gate.clear()
    target = await add_agent(servers[0], agent, max_concurrent_tasks=2)
    clients = [connect(server, "test-admin-token-0123456789abcdef") for server in servers]
    calls = [
        asyncio.create_task(clients[n % 2].post(f"/workspaces/{target}/a2a", json=envelope("x")))
        for n in range(12)
    ]
    await wait_for(lambda: sum(call.done() for call in calls) == 10)
    agent.gate.set()
    statuses = sorted([(await call).status_code for call in calls])
    assert statuses == [200] * 2 + [202] * 10
    assert agent.peak == 2
    for client in clients:
        await client.aclose()


async def test_a_child_reaches_the_parent_that_waits_for_it(server: Server) -> None:
    async with Agent().serving() as boss, Agent().serving() as worker:
        parent = await add_agent(server, boss, "parent")
        child = await add_agent(server, worker, "child", parent_id=parent)
        tokens = {who: await add_token(server, who) for who in (parent, child)}

        async def send(caller: UUID, target: UUID, text: str) -> httpx.Response:
            async with connect(server, tokens[caller]) as client:
                return await client.post(
                    f"/workspaces/{target}/a2a", json=envelope(text), headers={"x-workspace-id": str(caller)}
                )

        async def lead(agent: Agent, request: dict[str, Any]) -> web.StreamResponse:
            if agent.texts[-1] != "start":
                return reply(request, "do it so")
            answer = await send(parent, child, "help me")
            return reply(request, answer.json()["result"]["parts"][0]["text"])

        async def ask_back(agent: Agent, request: dict[str, Any]) -> web.StreamResponse:
            answer = await send(child, parent, "how?")
            assert answer.status_code == 200, answer.text
            return reply(request, "done: " + answer.json()["result"]["parts"][0]["text"])

        boss.answer, worker.answer = lead, ask_back
        async with connect(server, "test-admin-token-0123456789abcdef") as client:
            answer = await client.post(f"/workspaces/{parent}/a2a", json=envelope("start"))
        assert answer.json()["result"]["parts"][0]["text"] == "done: do it so"
        chains = [agent.said(n)["metadata"]["molecule"] for agent, n in ((boss, 0), (worker, 0), (boss, 1))]
        assert len({chain["chain_id"] for chain in chains}) == 1
        assert [chain["hops"] for chain in chains] == [0, 1, 2]
        assert [chain["depth"] for chain in chains] == [0, 1, 0]


async def test_a_ring_of_agents_stops_at_the_configured_hop_with_one_event(make_server: MakeServer) -> None:
    server = await make_server(chain_max_hops=5)
    agents = [Agent() for _ in range(3)]
    refusals: list[dict[str, Any]] = []
    async with agents[0].serving(), agents[1].serving(), agents[2].serving():
        ids = [await add_agent(server, agent) for agent in agents]
        tokens = [await add_token(server, who) for who in ids]

        def passing_on(n: int) -> Any:
            async def answer(agent: Agent, request: dict[str, Any]) -> web.StreamResponse:
                following = (n + 1) % 3
                async with connect(server, tokens[n]) as client:
                    said = await client.post(
                        f"/workspaces/{ids[following]}/a2a",
                        json=envelope("on and on"),
                        headers={"x-workspace-id": str(ids[n])},
                    )
                if said.status_code == 409:
                    refusals.append(said.json())
                return reply(request, f"{said.status_code}")

            return answer

        for n, agent in enumerate(agents):
            agent.answer = passing_on(n)
        async with connect(server, "test-admin-token-0123456789abcdef") as client:
            assert (await client.post(f"/workspaces/{ids[0]}/a2a", json=envelope("go"))).status_code == 200
    assert sum(len(agent.received) for agent in agents) == 6
    assert len(refusals) == 1
    assert (refusals[0]["code"], refusals[0]["reason"], refusals[0]["limit"]) == ("chain_limit", "hops", 5)
    assert "answer with what you have" in refusals[0]["error"]
    async with server.db.connection() as connection:
        events = await connection.fetch(
            "SELECT payload FROM structure_events WHERE event_type = 'CHAIN_STOPPED'"
        )
    assert [event["payload"]["reason"] for event in events] == ["hops"]


async def test_a_stopped_chain_goes_no_further(
    server: Server, admin: httpx.AsyncClient, agent: Agent
) -> None:
    parent = await add_workspace(server)
    target = await add_agent(server, agent, parent_id=parent)
    chain = {"chain_id": str(uuid4()), "parent_id": "", "depth": 0, "hops": 0, "path": []}
    await admin.post(f"/chains/{chain['chain_id']}/stop", json={"reason": "enough"})
    body = envelope("x")
    body["params"]["message"]["metadata"] = {"molecule": chain}
    async with connect(server, await add_token(server, parent)) as client:
        answer = await client.post(f"/workspaces/{target}/a2a", json=body)
    assert (answer.status_code, answer.json()["reason"]) == (409, "stopped")
    assert agent.received == []


async def test_a_caller_in_a_hurry_learns_that_the_work_goes_on(
    server: Server, admin: httpx.AsyncClient, agent: Agent
) -> None:
    agent.gate.clear()
    target = await add_agent(server, agent)
    answer = await admin.post(f"/workspaces/{target}/a2a", json=envelope("x"), headers={"x-timeout": "1"})
    assert answer.status_code == 504
    body = answer.json()
    assert (body["error"], body["delivery_confirmed"], body["in_flight"]) == ("caller timeout", False, True)
    agent.gate.set()
    assert (await one_row(server, target))["status"] == "ok"


async def test_the_canvas_can_be_answered_early(make_server: MakeServer, agent: Agent) -> None:
    server = await make_server(a2a_canvas_sync_budget="50ms")
    agent.gate.clear()
    target = await add_agent(server, agent)
    async with connect(server, "test-admin-token-0123456789abcdef") as client:
        answer = await client.post(f"/workspaces/{target}/a2a", json=envelope("x"))
    assert (answer.status_code, answer.json()) == (
        200,
        {"status": "queued", "delivery_mode": "push", "method": "message/send"},
    )
    agent.gate.set()
    await one_row(server, target)


async def test_silence_ends_a_call_and_a_heartbeat_prolongs_it(make_server: MakeServer, agent: Agent) -> None:
    server = await make_server(a2a_idle_timeout_seconds=1)
    agent.gate.clear()
    target = await add_agent(server, agent)

    async def beat() -> None:
        while True:
            async with server.db.transaction() as tx:
                await tx.execute("UPDATE workspaces SET last_heartbeat_at = now() WHERE id = $1", target)
            await asyncio.sleep(0.2)

    beating = asyncio.create_task(beat())
    async with connect(server, "test-admin-token-0123456789abcdef") as client:
        call = asyncio.create_task(client.post(f"/workspaces/{target}/a2a", json=envelope("x", "m")))
        done, _ = await asyncio.wait({call}, timeout=2.5)
        assert not done
        beating.cancel()
        answer = await asyncio.wait_for(call, 5)
        assert answer.status_code == 202
        item = (await client.get(f"/workspaces/{target}/a2a/queue/{answer.json()['queue_id']}")).json()
    assert item["delivery_uncertain"] is True


async def test_a_busy_answer_of_the_agent_queues_for_later(
    server: Server, admin: httpx.AsyncClient, agent: Agent
) -> None:
    async def answer(_: Agent, __: dict[str, Any]) -> web.StreamResponse:
        return web.json_response({}, status=429, headers={"retry-after": "7"})

    agent.answer = answer
    target = await add_agent(server, agent)
    queued = await admin.post(f"/workspaces/{target}/a2a", json=envelope("x"))
    assert queued.status_code == 202
    async with server.db.connection() as connection:
        later = await connection.fetchval(
            "SELECT not_before > now() + interval '5 seconds' FROM mailbox_messages"
        )
    assert later


async def test_an_agent_with_its_own_queue_is_asked_again_later(
    server: Server, admin: httpx.AsyncClient, agent: Agent
) -> None:
    agent.gate.clear()
    target = await add_agent(server, agent, capabilities={"session": True})
    first = asyncio.create_task(admin.post(f"/workspaces/{target}/a2a", json=envelope("x")))
    await wait_for(lambda: agent.busy == 1)
    busy = await admin.post(f"/workspaces/{target}/a2a", json=envelope("y"))
    assert (busy.status_code, busy.headers["retry-after"]) == (503, "30")
    body = busy.json()
    assert body["error"] == "workspace agent busy — adapter handles retry (native_session)"
    assert (body["busy"], body["retry_after"], body["native_session"]) == (True, 30, True)
    agent.gate.set()
    await first


async def test_a_full_mailbox_says_busy(server: Server, admin: httpx.AsyncClient, agent: Agent) -> None:
    target = await add_agent(server, agent)
    async with server.db.transaction() as tx:
        await tx.execute(
            "UPDATE workspaces SET active_tasks = 1, last_heartbeat_at = now() WHERE id = $1", target
        )
    statuses = {
        (await admin.post(f"/workspaces/{target}/a2a", json=envelope("x"))).status_code for _ in range(50)
    }
    full = await admin.post(f"/workspaces/{target}/a2a", json=envelope("x"))
    assert statuses == {202}
    assert (full.status_code, full.headers["retry-after"], full.json()["busy"]) == (503, "30", True)
    assert full.json()["error"] == "workspace agent busy — retry after a short backoff"


async def test_a_polling_target_finds_the_message_in_its_log(
    server: Server, admin: httpx.AsyncClient
) -> None:
    target = await add_workspace(server, status="awaiting_agent", delivery_mode="poll")
    answer = await admin.post(f"/workspaces/{target}/a2a", json=envelope("are you there?", "m"))
    assert (answer.status_code, answer.json()) == (
        200,
        {"status": "queued", "delivery_mode": "poll", "method": "message/send"},
    )
    await admin.post(f"/workspaces/{target}/a2a", json=envelope("are you there?", "m"))
    async with connect(server, await add_token(server, target)) as client:
        found = (await client.get(f"/workspaces/{target}/activity?type=a2a_receive")).json()
    assert [row["data"]["text"] for row in found] == ["are you there?"]


async def test_a_sleeping_target_wakes_once_for_many_messages(
    server: Server, admin: httpx.AsyncClient, agent: Agent
) -> None:
    target = await add_agent(server, agent, status="hibernated", desired="hibernate")
    answers = await asyncio.gather(
        *(admin.post(f"/workspaces/{target}/a2a", json=envelope("x")) for _ in range(10))
    )
    told = [answer for answer in answers if answer.json().get("waking")]
    assert told
    assert {answer.status_code for answer in answers} == {503}
    assert told[0].json()["error"] == "workspace is waking from hibernation — retry in ~15 seconds"
    assert (told[0].json()["retry_after"], told[0].headers["retry-after"]) == (15, "15")
    async with server.db.connection() as connection:
        row = await connection.fetchrow("SELECT status, generation FROM workspaces WHERE id = $1", target)
    assert (row["status"], row["generation"]) == ("provisioning", 2)


async def test_a_paused_ancestor_keeps_a_target_asleep(server: Server, admin: httpx.AsyncClient) -> None:
    parent = await add_workspace(server, status="paused")
    target = await add_workspace(server, status="hibernated", parent_id=parent)
    answer = await admin.post(f"/workspaces/{target}/a2a", json=envelope("x"))
    assert answer.status_code == 503
    assert (answer.json()["status"], answer.json()["blocked_by"]) == ("hibernated", "paused_parent")


async def test_who_prefers_a_late_answer_is_queued(server: Server, admin: httpx.AsyncClient) -> None:
    for status in ("hibernated", "provisioning", "offline"):
        target = await add_workspace(server, status=status)
        answer = await admin.post(
            f"/workspaces/{target}/a2a", json=envelope("x"), headers={"prefer": "respond-async"}
        )
        assert answer.status_code == 202


async def test_an_event_stream_is_relayed_and_logged(
    server: Server, admin: httpx.AsyncClient, agent: Agent
) -> None:
    async def answer(_: Agent, request: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        response.enable_chunked_encoding()
        await response.prepare(agent.requests[-1])
        for n in range(3):
            result = {"jsonrpc": "2.0", "id": "1", "result": {"n": n}}
            await response.write(f"data: {json.dumps(result)}\n\n".encode())
        await response.write_eof()
        return response

    agent.answer = answer
    target = await add_agent(server, agent)
    body = envelope("x") | {"method": "message/stream"}
    async with admin.stream("POST", f"/workspaces/{target}/a2a", json=body) as streamed:
        text = (await streamed.aread()).decode()
        assert streamed.headers["content-type"].startswith("text/event-stream")
        assert streamed.headers["x-accel-buffering"] == "no"
    assert [json.loads(line[6:])["result"]["n"] for line in text.splitlines() if line] == [0, 1, 2]
    assert (await one_row(server, target))["response_body"]["result"] == {"n": 2}
    assert (await admin.post(f"/workspaces/{target}/a2a", json=envelope("next"))).status_code != 202


async def test_a_plain_answer_to_a_streaming_call_stays_json(
    server: Server, admin: httpx.AsyncClient, agent: Agent
) -> None:
    target = await add_agent(server, agent)
    answer = await admin.post(f"/workspaces/{target}/a2a", json=envelope("x") | {"method": "message/stream"})
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.json()["result"]["parts"][0]["text"] == "x"
