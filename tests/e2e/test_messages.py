"""Messages through real servers to real agents: sleep and wake, busy agents, delegation, a killed server."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any
from uuid import UUID

import httpx
import pytest

from tests.agents import envelope
from tests.server.workspaces.org import Org, agents, organization
from tests.support import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.processes]


def text_of(body: dict[str, Any]) -> str:
    """What the echo agent says."""
    result = body["result"]
    parts = result.get("parts") or result["artifacts"][0]["parts"]
    return str(parts[0]["text"])


async def say(org: Org, workspace_id: UUID, text: str, **headers: str) -> Any:
    return await org.client.post(f"/workspaces/{workspace_id}/a2a", json=envelope(text), headers=headers)


async def test_an_agent_answers_sleeps_and_wakes_for_a_message(dsn: str) -> None:
    async with organization(dsn) as org:
        workspace_id = await org.add("scout")
        await org.until(workspace_id, "online")
        answer = await say(org, workspace_id, "are you there?")
        assert answer.status_code == 200, answer.text
        assert "are you there?" in text_of(answer.json())

        await org.verb(workspace_id, "hibernate")
        await org.until(workspace_id, "hibernated")
        waking = [await say(org, workspace_id, "wake up") for _ in range(3)]
        assert {a.status_code for a in waking} == {503}
        assert waking[0].json()["waking"] is True

        async def answered() -> Any:
            again = await say(org, workspace_id, "wake up")
            return again if again.status_code == 200 else None

        assert "wake up" in text_of((await wait_for(answered, 60, interval=0.2)).json())
        assert len(agents(workspace_id)) == 1


async def test_a_message_that_may_wait_wakes_its_target_and_is_delivered(dsn: str) -> None:
    async with organization(dsn) as org:
        workspace_id = await org.add("scout")
        await org.until(workspace_id, "online")
        await org.put_to_sleep(workspace_id)
        queued = await say(org, workspace_id, "good morning", prefer="respond-async")
        assert queued.status_code == 202
        path = f"/workspaces/{workspace_id}/a2a/queue/{queued.json()['queue_id']}"

        async def delivered() -> Any:
            item = (await org.client.get(path)).json()
            return item if item["status"] == "completed" else None

        item = await wait_for(delivered, 60, interval=0.2)
        assert "good morning" in text_of(item["response_body"])


async def test_a_delegation_outlives_the_servers_that_took_it(dsn: str) -> None:
    async with organization(dsn) as org:
        parent = await org.add("lead")
        child = await org.add("scout", parent_id=str(parent))
        for workspace_id in (parent, child):
            await org.until(workspace_id, "online")
        await org.verb(child, "pause")
        accepted = await org.client.post(
            f"/workspaces/{parent}/delegate", json={"target_id": str(child), "task": "look around"}
        )
        assert accepted.status_code == 202
        for pid in org.served.worker_pids():
            os.kill(pid, signal.SIGKILL)

        async def resumed() -> bool:
            try:
                answer = await org.client.post(f"/workspaces/{child}/resume")
            except Exception:
                return False
            return bool(answer.status_code == 200)

        await wait_for(resumed, 60, interval=0.3)

        async def finished() -> Any:
            try:
                rows = (await org.client.get(f"/workspaces/{parent}/delegations?status=completed")).json()
            except Exception:
                return None
            return rows[0] if rows else None

        result = await wait_for(finished, 60, interval=0.3)
        assert "look around" in result["result"]
        assert result["delegation_id"] == accepted.json()["delegation_id"]


async def test_a_crowd_of_messages_to_one_agent_are_all_answered(dsn: str) -> None:
    async with organization(dsn) as org:
        workspace_id = await org.add("scout")
        await org.until(workspace_id, "online")
        answers = await asyncio.gather(*(say(org, workspace_id, f"number {n}") for n in range(20)))
        assert {answer.status_code for answer in answers} <= {200, 202}
        queued = [answer.json()["queue_id"] for answer in answers if answer.status_code == 202]

        async def all_delivered() -> bool:
            items = [
                (await org.client.get(f"/workspaces/{workspace_id}/a2a/queue/{item}")).json()
                for item in queued
            ]
            return all(item["status"] == "completed" for item in items)

        await wait_for(all_delivered, 60, interval=0.3)
        history = (
            await org.client.get(f"/workspaces/{workspace_id}/activity?type=a2a_receive&source=canvas")
        ).json()
        assert sorted(row["data"]["text"] for row in history) == sorted(f"number {n}" for n in range(20))
        assert {row["status"] for row in history} == {"ok"}


async def test_an_agent_that_answers_only_the_platform(dsn: str) -> None:
    async with organization(dsn, A2A_REQUIRE_INBOUND_SECRET="true") as org:
        workspace_id = await org.add("scout")
        row = await org.until(workspace_id, "online")
        answer = await say(org, workspace_id, "are you there?")
        assert answer.status_code == 200, answer.text
        assert "are you there?" in text_of(answer.json())
        transcript = await org.client.get(f"/workspaces/{workspace_id}/transcript")
        assert [line["role"] for line in transcript.json()["lines"]] == ["user", "agent"]
        async with httpx.AsyncClient() as neighbour:
            past = await neighbour.post(row["url"], json=envelope("psst"))
            assert past.status_code == 401
            with_a_guess = await neighbour.post(
                row["url"], json=envelope("psst"), headers={"authorization": "Bearer guess"}
            )
            assert with_a_guess.status_code == 401
