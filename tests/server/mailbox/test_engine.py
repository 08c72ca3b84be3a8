import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiohttp import web

from molecule_ai.kernel.db import Connection
from molecule_ai.server.app import Server
from molecule_ai.server.mailbox.chain import Chain
from molecule_ai.server.mailbox.schemas import Settled, SourceKind, State
from tests.agents import Agent, add_agent, envelope, reply
from tests.conftest import ADMIN_TOKEN, MakeServer, connect
from tests.server.mailbox.test_service import post, put, row
from tests.support import add_token, add_workspace, free_port, wait_for


@pytest.fixture
async def agent() -> AsyncIterator[Agent]:
    async with Agent().serving() as running:
        yield running


@pytest.fixture
async def live(make_server: MakeServer) -> Server:
    """A replica with its engines running."""
    return await make_server(engines=True)


async def state(server: Server, message_id: UUID) -> str:
    return str((await row(server, message_id))["status"])


async def until(server: Server, message_id: UUID, wanted: str) -> Any:
    async def reached() -> bool:
        return await state(server, message_id) == wanted

    await wait_for(reached)
    return await row(server, message_id)


async def wake(server: Server) -> None:
    """What a notification does when time alone made something due."""
    server.supervisor.wake("mailbox")


async def test_a_message_is_delivered_and_its_answer_told_in_one_transaction(
    live: Server, agent: Agent
) -> None:
    told: list[Settled] = []

    async def hear(tx: Connection, settled: Settled) -> None:
        status = await tx.fetchval("SELECT status FROM mailbox_messages WHERE id = $1", settled.message_id)
        assert status == "completed"
        told.append(settled)

    live.mailbox.replies["test"] = hear
    target = await add_agent(live, agent)
    one = await put(
        live, post(target, "m-1", reply_kind="test", reply_id="r", source_kind=SourceKind.SCHEDULER)
    )
    done = await until(live, one.id, "completed")
    assert (done["attempts"], done["response_body"]["result"]["parts"][0]["text"]) == (1, "hi")
    assert [(t.status, t.reply_id, t.target_id, t.attempts) for t in told] == [
        (State.COMPLETED, "r", target, 1)
    ]
    assert told[0].response == done["response_body"]
    assert agent.said()["messageId"] == "m-1"
    async with live.db.connection() as connection:
        logged = await connection.fetch("SELECT * FROM activity_logs")
    assert [(r["source_kind"], r["source_id"], r["status"]) for r in logged] == [("scheduler", None, "ok")]


async def test_a_handler_that_fails_leaves_the_message_to_be_settled_again(
    live: Server, agent: Agent
) -> None:
    calls = 0

    async def stumble(tx: Connection, settled: Settled) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("no")

    live.mailbox.replies["test"] = stumble
    target = await add_agent(live, agent)
    one = await put(live, post(target, reply_kind="test"))
    await wait_for(lambda: calls == 1)
    async with live.db.transaction() as tx:
        await tx.execute("UPDATE mailbox_messages SET lease_until = now() - interval '1 second'")
        await tx.execute("UPDATE workspace_slots SET until = now() - interval '1 second'")
    await wake(live)
    await until(live, one.id, "completed")
    assert calls == 2
    assert (len(agent.received), agent.effects) == (2, ["k"])


async def test_more_urgent_then_older_messages_go_first(live: Server, agent: Agent) -> None:
    agent.gate.clear()
    target = await add_agent(live, agent)
    await put(live, post(target, "first"))
    await wait_for(lambda: agent.busy == 1)
    for key, priority in (("low", 10), ("normal-1", 50), ("normal-2", 50), ("high", 100)):
        await put(live, post(target, key, priority=priority))
    agent.gate.set()
    await wait_for(lambda: len(agent.received) == 5)
    assert agent.effects == ["first", "high", "normal-1", "normal-2", "low"]
    assert agent.peak == 1


async def test_capacity_is_used_and_not_exceeded(live: Server, agent: Agent) -> None:
    agent.gate.clear()
    target = await add_agent(live, agent, max_concurrent_tasks=3)
    for n in range(8):
        await put(live, post(target, f"k{n}"))
    await wait_for(lambda: agent.busy == 3)
    agent.gate.set()
    await wait_for(lambda: len(agent.received) == 8)
    assert agent.peak == 3


async def test_a_slow_agent_holds_nobody_up(make_server: MakeServer, agent: Agent) -> None:
    live = await make_server(engines=True)
    agent.gate.clear()
    slow = await add_agent(live, agent)
    async with Agent().serving() as quick:
        other = await add_agent(live, quick)
        for n in range(5):
            await put(live, post(slow, f"s{n}"))
        await wait_for(lambda: agent.busy == 1)
        for n in range(5):
            await put(live, post(other, f"q{n}"))
        await wait_for(lambda: len(quick.received) == 5)
    agent.gate.set()


async def test_a_busy_agent_gets_it_again_without_counting(live: Server, agent: Agent) -> None:
    answers = iter([503, 429])

    async def answer(_: Agent, request: dict[str, Any]) -> web.StreamResponse:
        status = next(answers, 200)
        if status == 200:
            return reply(request, "now")
        return web.json_response({}, status=status, headers={"retry-after": "1"})

    agent.answer = answer
    target = await add_agent(live, agent)
    one = await put(live, post(target))
    done = await until(live, one.id, "completed")
    assert (done["attempts"], len(agent.received)) == (1, 3)


async def test_a_message_that_finds_its_target_busy_again_is_not_lost(live: Server, agent: Agent) -> None:
    """The busy branch of a drained message must not take its own row for an equal one."""
    agent.gate.clear()
    target = await add_agent(live, agent)
    async with connect(live, ADMIN_TOKEN) as client:
        first = asyncio.create_task(client.post(f"/workspaces/{target}/a2a", json=envelope("one")))
        await wait_for(lambda: agent.busy == 1)
        queued = (await client.post(f"/workspaces/{target}/a2a", json=envelope("two", "m-2"))).json()
        async with live.db.transaction() as tx:  # the agent says that it is busy with something of its own
            await tx.execute(
                "UPDATE workspaces SET active_tasks = 2, last_heartbeat_at = now() WHERE id = $1", target
            )
        agent.gate.set()
        await first
        item_id = UUID(queued["queue_id"])
        await wake(live)
        assert await state(live, item_id) == "queued"
        async with live.db.transaction() as tx:
            await tx.execute("UPDATE workspaces SET active_tasks = 0 WHERE id = $1", target)
            await tx.execute("SELECT pg_notify('molecule_mailbox', $1)", str(target))
        await until(live, item_id, "completed")
        item = (await client.get(f"/workspaces/{target}/a2a/queue/{item_id}")).json()
    assert item["response_body"]["result"]["parts"][0]["text"] == "two"
    async with live.db.connection() as connection:
        logged = await connection.fetch("SELECT status, response_body FROM activity_logs ORDER BY seq")
    assert [r["status"] for r in logged] == ["ok", "ok"] or {r["status"] for r in logged} == {"ok"}


async def test_after_five_attempts_a_message_is_a_dead_letter_with_its_reason(
    live: Server, agent: Agent
) -> None:
    told: list[Settled] = []

    async def hear(tx: Connection, settled: Settled) -> None:
        told.append(settled)

    async def answer(_: Agent, __: dict[str, Any]) -> web.StreamResponse:
        return web.json_response({}, status=502)

    live.mailbox.replies["test"] = hear
    agent.answer = answer
    target = await add_agent(live, agent)
    one = await put(live, post(target, reply_kind="test"))
    for attempt in range(1, 6):

        async def tried(attempt: int = attempt) -> bool:
            return len(agent.received) == attempt and await state(live, one.id) != "dispatched"

        await wait_for(tried)
        async with live.db.transaction() as tx:
            await tx.execute("UPDATE mailbox_messages SET not_before = now()")
        await wake(live)
    dead = await until(live, one.id, "failed")
    assert (dead["attempts"], dead["last_error"]) == (5, "given up after 5 attempts: agent answered HTTP 502")
    assert [t.error for t in told] == [dead["last_error"]]
    assert len(agent.received) == 5


async def test_a_failure_of_the_agent_is_final(live: Server, agent: Agent) -> None:
    async def answer(_: Agent, __: dict[str, Any]) -> web.StreamResponse:
        return web.json_response({"error": "no such skill"}, status=500)

    agent.answer = answer
    one = await put(live, post(await add_agent(live, agent)))
    assert (await until(live, one.id, "failed"))["last_error"] == "agent answered HTTP 500: no such skill"


async def test_what_takes_longer_than_it_may_has_failed(live: Server, agent: Agent) -> None:
    agent.gate.clear()
    one = await put(live, post(await add_agent(live, agent), timeout_seconds=1))
    assert (await until(live, one.id, "failed"))["last_error"] == "timed out after 1s"


async def test_an_unreachable_agent_is_tried_again_later(live: Server) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    target = await add_workspace(live, url=url, handle={"instance_id": str(uuid4()), "url": url, "node": "n"})
    one = await put(live, post(target))

    async def tried() -> bool:
        found = await row(live, one.id)
        return bool(found["status"] == "queued" and found["attempts"] == 1)

    await wait_for(tried)
    found = await row(live, one.id)
    assert found["delivery_uncertain"] is False
    assert found["not_before"] > found["enqueued_at"]


async def test_what_waits_is_delivered_when_its_target_comes_online(live: Server, agent: Agent) -> None:
    for status in ("offline", "provisioning", "paused"):
        target = await add_agent(live, agent, status=status)
        one = await put(live, post(target, status))
        await wake(live)
        await asyncio.sleep(0.05)
        assert await state(live, one.id) == "queued"
        async with live.db.transaction() as tx:
            await tx.execute("UPDATE workspaces SET status = 'online' WHERE id = $1", target)
            await tx.execute("SELECT pg_notify('molecule_mailbox', $1)", str(target))
        await until(live, one.id, "completed")


@pytest.mark.parametrize("status", ["removed", "failed"])
async def test_what_is_for_a_target_that_is_gone_fails_with_the_reason(live: Server, status: str) -> None:
    target = await add_workspace(live, status=status)
    one = await put(live, post(target))
    live.supervisor.wake("mailbox")
    await asyncio.sleep(0.05)
    live.supervisor.wake("mailbox")
    assert (await until(live, one.id, "failed"))["last_error"] == f"workspace {status}"


async def test_a_sleeping_target_is_woken_once(live: Server) -> None:
    target = await add_workspace(live, status="hibernated", desired="hibernate")
    for n in range(5):
        await put(live, post(target, f"k{n}"))

    async def woken() -> bool:
        async with live.db.connection() as connection:
            return bool(
                await connection.fetchval("SELECT generation = 2 FROM workspaces WHERE id = $1", target)
            )

    await wait_for(woken)


async def test_a_message_waits_for_its_time_and_not_longer(live: Server, agent: Agent) -> None:
    target = await add_agent(live, agent)
    async with live.db.connection() as connection:
        soon = await connection.fetchval("SELECT now() + interval '0.7 seconds'")
    one = await put(live, post(target, not_before=soon))
    await asyncio.sleep(0.2)
    assert agent.received == []
    done = await until(live, one.id, "completed")
    assert done["dispatched_at"] >= soon


async def test_an_expired_message_is_dropped_and_told(live: Server) -> None:
    told: list[Settled] = []

    async def hear(tx: Connection, settled: Settled) -> None:
        told.append(settled)

    live.mailbox.replies["test"] = hear
    target = await add_workspace(live, status="offline")
    async with live.db.connection() as connection:
        soon = await connection.fetchval("SELECT now() + interval '0.3 seconds'")
    one = await put(live, post(target, expires_at=soon, reply_kind="test"))
    assert (await until(live, one.id, "dropped"))["last_error"] == "expired"
    assert [(t.status, t.error) for t in told] == [(State.DROPPED, "expired")]


async def test_over_budget_holds_or_fails_as_the_message_wants(live: Server, agent: Agent) -> None:
    target = await add_agent(live, agent, budget_limit=1, monthly_spend=2, max_concurrent_tasks=2)
    held = await put(live, post(target, "held"))
    fatal = await put(live, post(target, "fatal", is_budget_fatal=True))
    assert (await until(live, fatal.id, "failed"))["last_error"] == "workspace budget limit exceeded"

    async def is_held() -> bool:
        found = await row(live, held.id)
        return bool(found["last_error"] and found["status"] == "queued")

    await wait_for(is_held)
    assert (await row(live, held.id))["attempts"] == 0
    assert agent.received == []


async def test_a_polling_target_gets_it_in_its_log(live: Server) -> None:
    target = await add_workspace(live, status="awaiting_agent", delivery_mode="poll")
    one = await put(live, post(target))
    done = await until(live, one.id, "completed")
    assert done["response_body"] == {"status": "queued", "delivery_mode": "poll", "method": "message/send"}
    async with connect(live, await add_token(live, target)) as client:
        found = (await client.get(f"/workspaces/{target}/activity?type=a2a_receive")).json()
    assert [r["data"]["text"] for r in found] == ["hi"]


async def test_a_stopped_chain_is_not_delivered_even_when_claimed_late(live: Server, agent: Agent) -> None:
    agent.gate.clear()
    target = await add_agent(live, agent)
    await put(live, post(target, "first"))
    await wait_for(lambda: agent.busy == 1)
    chain = Chain(chain_id=uuid4())
    waiting = await put(live, post(target, "second", chain=chain))
    async with connect(live, ADMIN_TOKEN) as client:
        stopped = (await client.post(f"/chains/{chain.chain_id}/stop")).json()
    assert stopped["cancelled"] == 1
    agent.gate.set()
    assert (await until(live, waiting.id, "dropped"))["last_error"] == "chain stopped"
    assert agent.effects == ["first"]


async def test_an_answer_to_the_canvas_comes_back_after_the_queue(live: Server, agent: Agent) -> None:
    agent.gate.clear()
    target = await add_agent(live, agent)
    frames: list[str] = []
    listening = await live.db.connect()
    await listening.add_listener("molecule_frames", lambda *args: frames.append(str(args[3])))
    async with connect(live, ADMIN_TOKEN) as client:
        first = asyncio.create_task(client.post(f"/workspaces/{target}/a2a", json=envelope("one")))
        await wait_for(lambda: agent.busy == 1)
        await client.post(f"/workspaces/{target}/a2a", json=envelope("two"))
        agent.gate.set()
        await first
        await wait_for(lambda: "".join(frames).count("A2A_RESPONSE") == 2)
        history = (await client.get(f"/workspaces/{target}/activity?type=a2a_receive&source=canvas")).json()
    assert sorted(r["response_body"]["result"]["parts"][0]["text"] for r in history) == ["one", "two"]
    assert {r["status"] for r in history} == {"ok"}
    await listening.close()


async def test_a_polling_caller_finds_the_late_answer_in_its_inbox(live: Server, agent: Agent) -> None:
    agent.gate.clear()
    caller = await add_workspace(live, delivery_mode="poll", status="awaiting_agent")
    target = await add_agent(live, agent, parent_id=caller)
    token = await add_token(live, caller)
    async with connect(live, ADMIN_TOKEN) as admin, connect(live, token) as client:
        first = asyncio.create_task(admin.post(f"/workspaces/{target}/a2a", json=envelope("one")))
        await wait_for(lambda: agent.busy == 1)
        queued = await client.post(f"/workspaces/{target}/a2a", json=envelope("two"))
        assert queued.status_code == 202
        agent.gate.set()
        await first

        async def inbox() -> list[Any]:
            found: list[Any] = (await client.get(f"/workspaces/{caller}/activity?type=a2a_receive")).json()
            return found

        (answer,) = await wait_for(inbox)
    assert (answer["source_id"], answer["data"]["text"]) == (str(target), "two")


async def test_a_delegation_runs_to_its_result(live: Server, agent: Agent) -> None:
    parent = await add_workspace(live)
    child = await add_agent(live, agent, parent_id=parent)
    async with connect(live, await add_token(live, parent)) as client:
        answer = await client.post(
            f"/workspaces/{parent}/delegate", json={"target_id": str(child), "task": "add it up"}
        )
        assert answer.status_code == 202

        async def finished() -> list[Any]:
            found: list[Any] = (await client.get(f"/workspaces/{parent}/delegations?status=completed")).json()
            return found

        result, request = await wait_for(finished)
    assert (result["result"], result["delegation_id"]) == ("add it up", answer.json()["delegation_id"])
    assert request["method"] == "delegate"
    assert agent.said()["metadata"]["delegation_id"] == answer.json()["delegation_id"]
    async with live.db.connection() as connection:
        names = [
            r["event_type"]
            for r in await connection.fetch(
                "SELECT event_type FROM structure_events WHERE event_type LIKE 'DELEGATION%' ORDER BY seq"
            )
        ]
    assert names == ["DELEGATION_SENT", "DELEGATION_STATUS", "DELEGATION_COMPLETE"]


async def test_two_replicas_share_the_work_and_deliver_each_message_once(make_server: MakeServer) -> None:
    servers = [await make_server(engines=True), await make_server(engines=True)]
    agents = [Agent() for _ in range(4)]
    async with agents[0].serving(), agents[1].serving(), agents[2].serving(), agents[3].serving():
        targets = [await add_agent(servers[0], agent, max_concurrent_tasks=2) for agent in agents]
        ids = [(await put(servers[n % 2], post(targets[n % 4], f"k{n}"))).id for n in range(80)]

        async def all_done() -> bool:
            async with servers[0].db.connection() as connection:
                return await connection.fetchval(
                    "SELECT count(*) FROM mailbox_messages WHERE status = 'completed'"
                ) == len(ids)

        await wait_for(all_done, 30)
        for agent in agents:
            assert len(agent.received) == 20
            assert agent.peak <= 2


async def test_a_replica_that_stops_hands_its_work_on(make_server: MakeServer, agent: Agent) -> None:
    stopping, staying = await make_server(engines=True), await make_server()
    agent.gate.clear()
    target = await add_agent(stopping, agent)
    one = await put(stopping, post(target))
    await wait_for(lambda: agent.busy == 1)
    await stopping.couriers.stop()
    async with staying.db.connection() as connection:
        assert await connection.fetchval(
            "SELECT lease_until < now() FROM mailbox_messages WHERE id = $1", one.id
        )


async def test_a_delegation_back_to_whoever_waits_for_it_is_not_stuck(live: Server) -> None:
    """Parent and child each hand a task to the other and wait for it, with one task at a time each."""
    async with Agent().serving() as boss, Agent().serving() as worker:
        parent = await add_agent(live, boss, "parent")
        child = await add_agent(live, worker, "child", parent_id=parent)
        tokens = {who: await add_token(live, who) for who in (parent, child)}

        async def ask(source: UUID, target: UUID, task: str) -> str:
            async with connect(live, tokens[source]) as client:
                body = {"target_id": str(target), "task": task}
                accepted = await client.post(f"/workspaces/{source}/delegate", json=body)
                path = f"/workspaces/{source}/delegations?delegation_id={accepted.json()['delegation_id']}"

                async def result() -> Any:
                    return next((r for r in (await client.get(path)).json() if "result" in r), None)

                return str((await wait_for(result))["result"])

        async def lead(agent: Agent, request: dict[str, Any]) -> web.StreamResponse:
            if agent.texts[-1] == "start":
                return reply(request, await ask(parent, child, "help"))
            return reply(request, "so")

        async def follow(agent: Agent, request: dict[str, Any]) -> web.StreamResponse:
            return reply(request, "done: " + await ask(child, parent, "how?"))

        boss.answer, worker.answer = lead, follow
        async with connect(live, ADMIN_TOKEN) as client:
            answer = await client.post(f"/workspaces/{parent}/a2a", json=envelope("start"))
    assert answer.json()["result"]["parts"][0]["text"] == "done: so"


async def test_a_polling_callee_answers_with_a_message(live: Server, agent: Agent) -> None:
    parent = await add_agent(live, agent, "parent")
    child = await add_workspace(live, parent_id=parent, delivery_mode="poll", status="awaiting_agent")
    async with (
        connect(live, await add_token(live, parent)) as asking,
        connect(live, await add_token(live, child)) as answering,
    ):
        accepted = (
            await asking.post(
                f"/workspaces/{parent}/delegate", json={"target_id": str(child), "task": "look"}
            )
        ).json()

        async def inbox() -> list[Any]:
            found: list[Any] = (await answering.get(f"/workspaces/{child}/activity?type=a2a_receive")).json()
            return found

        (task,) = await wait_for(inbox)
        assert task["data"]["text"] == "look"
        assert (
            task["request_body"]["params"]["message"]["metadata"]["delegation_id"]
            == accepted["delegation_id"]
        )
        body = envelope("seen it")
        body["params"]["message"]["metadata"] = {"delegation_id": accepted["delegation_id"]}
        await answering.post(f"/workspaces/{parent}/a2a", json=body)

        async def finished() -> list[Any]:
            found: list[Any] = (await asking.get(f"/workspaces/{parent}/delegations?status=completed")).json()
            return found

        result, _ = await wait_for(finished)
    assert result["result"] == "seen it"


async def test_a_polling_delegator_finds_the_result_in_its_inbox(live: Server, agent: Agent) -> None:
    parent = await add_workspace(live, delivery_mode="poll", status="awaiting_agent")
    child = await add_agent(live, agent, parent_id=parent)
    async with connect(live, await add_token(live, parent)) as client:
        await client.post(f"/workspaces/{parent}/delegate", json={"target_id": str(child), "task": "look"})

        async def inbox() -> list[Any]:
            found: list[Any] = (await client.get(f"/workspaces/{parent}/activity?type=a2a_receive")).json()
            return found

        (result,) = await wait_for(inbox)
        assert (result["method"], result["source_id"], result["data"]["text"]) == (
            "delegate_result",
            str(child),
            "look",
        )
        logged = (await client.get(f"/workspaces/{parent}/activity?type=delegation&order=asc")).json()
    assert [(r["method"], r["status"]) for r in logged] == [
        ("delegate", "completed"),
        ("delegate_result", "completed"),
    ]
    assert logged[1]["response_body"]["text"] == "look"


async def test_many_messages_for_many_targets_all_leave_though_few_may_be_under_way(
    make_server: MakeServer, agent: Agent
) -> None:
    """Looks that are cut short must not forget whom they left out."""
    live = await make_server(engines=True, mailbox_max_concurrent=8)
    targets = [await add_agent(live, agent) for _ in range(40)]
    async with live.db.transaction() as tx:
        for n in range(160):
            await live.mailbox.put(tx, post(targets[n % 40], f"k{n}"))

    async def all_done() -> bool:
        async with live.db.connection() as connection:
            return bool(
                await connection.fetchval("SELECT count(*) FROM mailbox_messages WHERE status = 'completed'")
                == 160
            )

    await wait_for(all_done, 25)  # a forgotten target would wait for the next look at all
    assert agent.peak <= 8
