import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from molecule_ai.server.app import Server
from molecule_ai.server.mailbox.schemas import Settled, State
from tests.conftest import MakeServer, connect
from tests.support import add_token, add_workspace


class Pair:
    """A parent and its child, with the parent's client."""

    def __init__(self, server: Server, parent: UUID, child: UUID, client: httpx.AsyncClient) -> None:
        self.server = server
        self.parent = parent
        self.child = child
        self.client = client

    async def delegate(self, **body: Any) -> httpx.Response:
        return await self.client.post(
            f"/workspaces/{self.parent}/delegate", json={"target_id": str(self.child), "task": "do it"} | body
        )

    async def rows(self, query: str = "") -> list[dict[str, Any]]:
        answer = await self.client.get(f"/workspaces/{self.parent}/delegations{query}")
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()
        return found

    async def settle(self, delegation_id: str, status: State = State.COMPLETED, **values: Any) -> None:
        """What the mailbox does when the message of a delegation ends."""
        settled = Settled(
            message_id=uuid4(),
            status=status,
            response=values.get("response"),
            error=values.get("error"),
            reply_id=delegation_id,
            target_id=self.child,
            duration_ms=1,
            attempts=1,
            chain_id=uuid4(),
        )
        async with self.server.db.transaction() as tx:
            await tx.execute(
                "UPDATE mailbox_messages SET status = 'completed' WHERE reply_id = $1", delegation_id
            )
            await self.server.delegations.settled(tx, settled)

    async def events(self) -> list[tuple[str, dict[str, Any]]]:
        async with self.server.db.connection() as connection:
            rows = await connection.fetch(
                "SELECT event_type, payload FROM structure_events WHERE workspace_id = $1 ORDER BY seq",
                self.parent,
            )
        told = [(row["event_type"], row["payload"]) for row in rows]
        return [(name, payload) for name, payload in told if name.isupper()]


@pytest.fixture
async def pair(server: Server) -> AsyncIterator[Pair]:
    parent = await add_workspace(server, "parent")
    child = await add_workspace(server, "child", parent_id=parent)
    async with connect(server, await add_token(server, parent)) as client:
        yield Pair(server, parent, child, client)


def reply(text: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "result": {"role": "agent", "parts": [{"kind": "text", "text": text}]}}


async def test_a_delegation_is_accepted_and_waits_in_the_mailbox(pair: Pair) -> None:
    answer = await pair.delegate()
    assert answer.status_code == 202
    body = answer.json()
    assert body == {
        "delegation_id": body["delegation_id"],
        "status": "delegated",
        "target_id": str(pair.child),
    }
    async with pair.server.db.connection() as connection:
        message = await connection.fetchrow("SELECT * FROM mailbox_messages")
    assert (message["workspace_id"], message["caller_id"], message["hops"]) == (pair.child, pair.parent, 1)
    said = message["body"]["params"]["message"]
    assert (said["messageId"], said["metadata"]["delegation_id"]) == (body["delegation_id"],) * 2
    assert [name for name, _ in await pair.events()] == ["DELEGATION_SENT"]
    assert [(row["method"], row["status"]) for row in await pair.rows()] == [("delegate", "pending")]


async def test_a_result_is_shown_whole_and_first(pair: Pair) -> None:
    delegation_id = (await pair.delegate()).json()["delegation_id"]
    await pair.settle(delegation_id, response=reply("x" * 2000))
    result, request = await pair.rows()
    assert (result["method"], result["status"], result["source_id"]) == (
        "delegate_result",
        "completed",
        str(pair.parent),
    )
    assert result["result"] == "x" * 2000
    assert result["response_preview"] == "x" * 300 + "..."
    assert result["summary"] == f"Delegation completed ({'x' * 80})"
    assert (request["method"], request["status"]) == ("delegate", "completed")
    assert "result" not in request
    assert {row["delegation_id"] for row in (result, request)} == {delegation_id}
    name, told = (await pair.events())[-1]
    assert (name, told["target_id"], told["response_preview"]) == (
        "DELEGATION_COMPLETE",
        str(pair.child),
        "x" * 200 + "...",
    )


@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        (
            {"status": State.FAILED, "error": "workspace budget limit exceeded"},
            "workspace budget limit exceeded",
        ),
        ({"status": State.DROPPED, "error": "chain stopped"}, "chain stopped"),
        ({"response": {"jsonrpc": "2.0", "id": 1, "error": {"code": -32000, "message": "boom"}}}, "boom"),
        ({"response": {"result": {"kind": "task", "status": {"state": "failed"}}}}, "the task is failed"),
    ],
)
async def test_a_failure_is_told_with_its_reason(pair: Pair, outcome: Any, error: str) -> None:
    delegation_id = (await pair.delegate()).json()["delegation_id"]
    await pair.settle(delegation_id, **outcome)
    result, request = await pair.rows()
    assert (result["status"], request["status"]) == ("failed", "failed")
    assert (result["error"], result["summary"], result["delegation_id"]) == (
        error,
        "Delegation failed",
        delegation_id,
    )
    assert (await pair.events())[-1] == (
        "DELEGATION_FAILED",
        {"delegation_id": delegation_id, "target_id": str(pair.child), "error": error},
    )


async def test_a_final_state_stays(pair: Pair) -> None:
    delegation_id = (await pair.delegate()).json()["delegation_id"]
    await pair.settle(delegation_id, response=reply("done"))
    await pair.settle(delegation_id, State.FAILED, error="late")
    assert (await pair.rows())[0]["status"] == "completed"
    assert [name for name, _ in await pair.events()].count("DELEGATION_COMPLETE") == 1


async def test_a_busy_target_is_told_as_queued(pair: Pair) -> None:
    async with pair.server.db.transaction() as tx:
        await tx.execute(
            "UPDATE workspaces SET active_tasks = 1, last_heartbeat_at = now() WHERE id = $1", pair.child
        )
    delegation_id = (await pair.delegate()).json()["delegation_id"]
    assert [name for name, _ in await pair.events()] == ["DELEGATION_SENT", "DELEGATION_STATUS"]
    result, request = await pair.rows()
    assert (result["status"], request["status"]) == ("queued", "queued")
    assert result["summary"] == "Delegation queued — target at capacity"
    async with pair.server.db.transaction() as tx:
        await pair.server.delegations.dispatched(tx, delegation_id)
    await pair.settle(delegation_id, response=reply("done"))
    names = [(name, told.get("status") or told.get("via")) for name, told in await pair.events()]
    assert names[-2:] == [("DELEGATION_STATUS", "dispatched"), ("DELEGATION_COMPLETE", "queue_drain")]


async def test_a_repeat_of_a_key_returns_the_first(pair: Pair) -> None:
    first = (await pair.delegate(idempotency_key="k")).json()
    again = await pair.delegate(idempotency_key="k")
    assert again.status_code == 202
    assert again.json() == {
        "delegation_id": first["delegation_id"],
        "status": "pending",
        "target_id": str(pair.child),
        "idempotent_hit": True,
    }
    await pair.settle(first["delegation_id"], response=reply("done"))
    done = (await pair.delegate(idempotency_key="k")).json()
    assert (done["status"], done["idempotent_hit"]) == ("completed", True)


async def test_of_many_repeats_at_once_one_runs(pair: Pair) -> None:
    answers = [
        a.json() for a in await asyncio.gather(*(pair.delegate(idempotency_key="k") for _ in range(8)))
    ]
    assert len({answer["delegation_id"] for answer in answers}) == 1
    assert sum("idempotent_hit" not in answer for answer in answers) == 1


async def test_a_key_is_free_again_after_its_window_and_after_a_failure(pair: Pair) -> None:
    first = (await pair.delegate(idempotency_key="k")).json()["delegation_id"]
    await pair.settle(first, State.FAILED, error="x")
    second = (await pair.delegate(idempotency_key="k")).json()
    assert second["delegation_id"] != first
    assert "idempotent_hit" not in second
    await pair.settle(second["delegation_id"], response=reply("done"))
    async with pair.server.db.transaction() as tx:
        await tx.execute("UPDATE delegations SET completed_at = now() - interval '601 seconds'")
    assert "idempotent_hit" not in (await pair.delegate(idempotency_key="k")).json()


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({"task": ""}, 400, "invalid delegation request"),
        ({"task": 7}, 400, "invalid delegation request"),
        ({"target_id": "x"}, 400, "target_id must be a valid UUID"),
        ({"target_id": None}, 400, "invalid delegation request"),
        ({"target_id": str(uuid4())}, 404, "target workspace not found"),
        ({"task": "x" * (256 * 1024 + 1)}, 413, "task exceeds 256 KiB"),
    ],
)
async def test_bad_delegations_are_refused(pair: Pair, body: Any, status: int, error: str) -> None:
    answer = await pair.delegate(**body)
    assert (answer.status_code, answer.json()["error"]) == (status, error)


async def test_nobody_delegates_to_itself(pair: Pair) -> None:
    answer = await pair.delegate(target_id=str(pair.parent))
    assert (answer.status_code, answer.json()["error"]) == (400, "self-delegation not permitted")


async def test_the_hierarchy_holds_and_removed_targets_are_gone(pair: Pair) -> None:
    cousin = await add_workspace(pair.server, parent_id=await add_workspace(pair.server))
    answer = await pair.delegate(target_id=str(cousin))
    assert answer.status_code == 403
    assert answer.json()["error"] == "access denied: workspaces cannot communicate per hierarchy rules"
    gone = await add_workspace(pair.server, parent_id=pair.parent, status="removed")
    assert (await pair.delegate(target_id=str(gone))).status_code == 404


async def test_only_the_own_token_delegates(pair: Pair, anonymous: httpx.AsyncClient) -> None:
    path, body = f"/workspaces/{pair.parent}/delegate", {"target_id": str(pair.child), "task": "t"}
    assert (await anonymous.post(path, json=body)).status_code == 401
    stranger = {"authorization": f"Bearer {await add_token(pair.server, pair.child)}"}
    assert (await anonymous.post(path, json=body, headers=stranger)).status_code == 401
    named = stranger | {"x-workspace-id": str(pair.child)}
    assert (await anonymous.post(path, json=body, headers=named)).status_code == 401
    for route in ("delegations", "delegations/record", "delegations/x/update"):
        method = "GET" if route == "delegations" else "POST"
        answer = await anonymous.request(
            method, f"/workspaces/{pair.parent}/{route}", json={}, headers=stranger
        )
        assert answer.status_code == 401


async def test_the_sdk_posts_to_the_target_with_its_own_token(pair: Pair) -> None:
    answer = await pair.client.post(
        f"/workspaces/{pair.child}/delegate", json={"task": "t"}, headers={"x-workspace-id": str(pair.parent)}
    )
    assert (answer.status_code, answer.json()["target_id"]) == (202, str(pair.child))
    assert len(await pair.rows()) == 1
    forged = await pair.client.post(
        f"/workspaces/{pair.child}/delegate", json={"task": "t"}, headers={"x-workspace-id": str(uuid4())}
    )
    assert forged.status_code == 401


async def test_the_chain_of_the_message_being_worked_on_is_kept(pair: Pair) -> None:
    chain = {"chain_id": str(uuid4()), "parent_id": "m", "depth": 1, "hops": 31, "path": []}
    assert (await pair.delegate(metadata={"molecule": chain})).status_code == 202
    refused = await pair.delegate(metadata={"molecule": chain | {"hops": 32}})
    assert refused.status_code == 409
    body = refused.json()
    assert (body["code"], body["reason"], body["limit"]) == ("chain_limit", "hops", 32)
    assert (await pair.delegate(metadata={"molecule": chain | {"hops": 40}})).status_code == 409
    names = [name for name, _ in await pair.events()]
    assert names.count("CHAIN_STOPPED") == 1


async def test_a_pair_cannot_talk_without_end(make_server: MakeServer) -> None:
    server = await make_server(chain_pair_rate=3)
    parent = await add_workspace(server)
    child = await add_workspace(server, parent_id=parent)
    async with connect(server, await add_token(server, parent)) as client:
        pair = Pair(server, parent, child, client)
        answers = [await pair.delegate() for _ in range(8)]  # the minute may turn once meanwhile
    refused = next(answer for answer in answers if answer.status_code != 202)
    assert (refused.status_code, refused.json()["reason"]) == (409, "pair_rate")
    assert refused.headers["retry-after"] == "60"


async def test_recording_is_a_note_and_twice_is_once(pair: Pair) -> None:
    body = {"target_id": str(pair.child), "task": "mine", "delegation_id": "any string"}
    for _ in range(2):
        answer = await pair.client.post(f"/workspaces/{pair.parent}/delegations/record", json=body)
        assert (answer.status_code, answer.json()) == (
            202,
            {"delegation_id": "any string", "status": "recorded"},
        )
    assert [(row["delegation_id"], row["status"]) for row in await pair.rows()] == [
        ("any string", "dispatched")
    ]
    assert [name for name, _ in await pair.events()] == ["DELEGATION_SENT"]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({}, "invalid request body"),
        ({"target_id": "x", "task": "t", "delegation_id": "d"}, "target_id must be a valid UUID"),
        ({"target_id": str(uuid4()), "task": "", "delegation_id": "d"}, "invalid request body"),
    ],
)
async def test_bad_records_are_refused(pair: Pair, body: Any, error: str) -> None:
    answer = await pair.client.post(f"/workspaces/{pair.parent}/delegations/record", json=body)
    assert (answer.status_code, answer.json()["error"]) == (400, error)


async def test_updates_tell_the_way_to_the_end(pair: Pair) -> None:
    body = {"target_id": str(pair.child), "task": "mine", "delegation_id": "d"}
    await pair.client.post(f"/workspaces/{pair.parent}/delegations/record", json=body)
    path = f"/workspaces/{pair.parent}/delegations/d/update"
    for status in ("queued", "in_progress"):
        answer = await pair.client.post(path, json={"status": status})
        assert answer.json() == {"status": status, "delegation_id": "d"}
    assert (await pair.client.post(path, json={"status": "completed"})).status_code == 200
    assert (
        await pair.client.post(path, json={"status": "completed", "response_preview": "late"})
    ).status_code == 200
    assert (await pair.client.post(path, json={"status": "failed", "error": "no"})).status_code == 200
    result, _ = await pair.rows()
    assert (result["status"], result["result"]) == ("completed", "late")
    assert [name for name, _ in await pair.events()] == [
        "DELEGATION_SENT",
        "DELEGATION_STATUS",
        "DELEGATION_STATUS",
        "DELEGATION_COMPLETE",
    ]


async def test_bad_updates_are_refused(pair: Pair) -> None:
    path = f"/workspaces/{pair.parent}/delegations/nothing/update"
    unknown = await pair.client.post(path, json={"status": "completed"})
    assert (unknown.status_code, unknown.json()["error"]) == (404, "delegation not found")
    bad = await pair.client.post(path, json={"status": "pending"})
    assert (bad.status_code, bad.json()["error"]) == (400, "status must be 'completed' or 'failed'")


async def test_the_list_can_be_narrowed_and_paged(pair: Pair) -> None:
    ids = [(await pair.delegate()).json()["delegation_id"] for _ in range(3)]
    await pair.settle(ids[0], response=reply("one"))
    assert [row["delegation_id"] for row in await pair.rows()][:1] == [ids[0]]
    assert len(await pair.rows("?status=completed")) == 2
    assert {row["delegation_id"] for row in await pair.rows(f"?delegation_id={ids[1]}")} == {ids[1]}
    newest = await pair.rows("?limit=2")
    before = newest[-1]["created_at"]
    assert all(row["created_at"] < before for row in await pair.rows(f"?before={before}"))
    assert (await pair.client.get(f"/workspaces/{pair.parent}/delegations?limit=0")).status_code == 400
    assert (await pair.client.get(f"/workspaces/{pair.parent}/delegations?before=x")).status_code == 400


async def test_time_fails_what_nobody_answers(pair: Pair) -> None:
    (await pair.delegate()).json()
    async with pair.server.db.transaction() as tx:
        await tx.execute("UPDATE delegations SET deadline = now() - interval '1 second'")
    assert await pair.server.delegations.fail_overdue() == 1
    assert (await pair.rows())[0]["error"] == "no result before the deadline"
    async with pair.server.db.connection() as connection:
        assert await connection.fetchval("SELECT status FROM mailbox_messages") == "dropped"
