"""What becomes of every slot: fired, held, skipped, made up for; and what is told of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest

from molecule_ai.server.app import Server
from molecule_ai.server.auth.principal import SYSTEM
from molecule_ai.server.mailbox.schemas import State
from molecule_ai.server.schedules.schemas import Explanation, Schedule
from tests.server.schedules.conftest import Clockwork, said
from tests.support import add_workspace


@pytest.fixture
async def workspace_id(server: Server) -> UUID:
    return await add_workspace(server)


async def get(clockwork: Clockwork, workspace_id: UUID, schedule_id: UUID) -> Schedule:
    return await clockwork.schedules.get(workspace_id, schedule_id)


async def set_status(server: Server, workspace_id: UUID, **columns: Any) -> None:
    async with server.db.transaction() as tx:
        for name, value in columns.items():
            await tx.execute(f"UPDATE workspaces SET {name} = $2 WHERE id = $1", workspace_id, value)


async def told(server: Server) -> list[tuple[str, dict[str, Any]]]:
    async with server.db.connection() as connection:
        rows = await connection.fetch(
            """SELECT event_type, payload FROM structure_events
                WHERE event_type ~ '^(CRON|SCHEDULE_ST)' ORDER BY seq"""
        )
    return [(row["event_type"], row["payload"]) for row in rows]


async def why(clockwork: Clockwork, workspace_id: UUID, schedule_id: UUID, *clock: int) -> Explanation:
    at = clockwork.now.replace(hour=clock[0], minute=clock[1], second=0)
    return await clockwork.schedules.explain(workspace_id, schedule_id, at)


async def test_a_slot_fires_once_and_its_answer_is_recorded(
    server: Server, admin: httpx.AsyncClient, clockwork: Clockwork, workspace_id: UUID
) -> None:
    schedule_id = await clockwork.add(workspace_id, name="Pulse")
    assert await clockwork.at(8, 59) is not None
    assert await clockwork.rows(schedule_id) == []
    await clockwork.at(9, 0)
    await clockwork.at(9, 0, 1)

    [run] = await clockwork.rows(schedule_id)
    assert (run["status"], run["trigger"], run["late_ms"]) == ("queued", "cron", 0)
    [message] = await clockwork.messages(workspace_id)
    assert message["reply_id"] == str(run["id"])
    held = await get(clockwork, workspace_id, schedule_id)
    assert (held.last_status, held.running, held.run_count, held.last_run_at) == ("queued", True, 0, None)
    assert held.next_run_at == clockwork.now.replace(hour=10, second=0)

    await clockwork.dispatch(run["id"])
    clockwork.now += timedelta(seconds=3)
    await clockwork.answer(run["id"], said("all well"))
    done = await get(clockwork, workspace_id, schedule_id)
    assert (done.last_status, done.running, done.run_count) == ("ok", False, 1)
    assert done.last_run_at == done.last_success_at == clockwork.now
    [entry] = (await admin.get(f"/workspaces/{workspace_id}/schedules/{schedule_id}/history")).json()
    assert (entry["status"], entry["raw_status"], entry["trigger"]) == ("success", "ok", "cron")
    assert (entry["duration_ms"], entry["output_preview"], entry["attempts"]) == (1500, "all well", 1)
    assert entry["request"] == {
        "schedule_id": str(schedule_id),
        "schedule_name": "Pulse",
        "cron_expr": "0 * * * *",
        "prompt": "go",
    }
    [(event, payload)] = await told(server)
    assert (event, payload["status"], payload["run_id"]) == ("CRON_EXECUTED", "ok", str(run["id"]))
    [activity] = (await admin.get(f"/workspaces/{workspace_id}/activity", params={"type": "cron_run"})).json()
    assert (activity["method"], activity["summary"], activity["status"]) == ("cron", "Cron: Pulse", "ok")
    assert (activity["source_id"], activity["source_kind"]) == (None, "scheduler")
    explained = await why(clockwork, workspace_id, schedule_id, 9, 0)
    assert (explained.outcome, explained.run_id) == ("fired", run["id"])


async def test_a_late_slot_is_a_catchup_and_stands_for_the_earlier_ones(
    clockwork: Clockwork, workspace_id: UUID
) -> None:
    schedule_id = await clockwork.add(workspace_id)
    await clockwork.at(12, 20)
    assert await clockwork.summary(schedule_id) == [
        ("09:00", "catchup", "coalesced", "coalesced"),
        ("10:00", "catchup", "coalesced", "coalesced"),
        ("11:00", "catchup", "coalesced", "coalesced"),
        ("12:00", "catchup", "queued", ""),
    ]
    assert len(await clockwork.messages(workspace_id)) == 1
    assert (await get(clockwork, workspace_id, schedule_id)).run_count == 0
    explained = await why(clockwork, workspace_id, schedule_id, 10, 0)
    assert (explained.outcome, explained.text) == ("coalesced", "a later run stands for this one")


async def test_a_long_outage_shares_one_row(clockwork: Clockwork, workspace_id: UUID) -> None:
    schedule_id = await clockwork.add(workspace_id, "* * * * *")
    clockwork.now += timedelta(days=3)
    await clockwork.scheduler.tick()
    rows = await clockwork.rows(schedule_id)
    assert len(rows) < 1600
    [shared] = [row for row in rows if row["covers_since"]]
    covered = (shared["scheduled_for"] - shared["covers_since"]).total_seconds() / 60 + 1
    assert len(rows) - 1 + covered == 3 * 1440
    explained = await clockwork.schedules.explain(
        workspace_id, schedule_id, clockwork.now - timedelta(hours=1)
    )
    assert explained.outcome == "coalesced"


async def test_slots_older_than_the_grace_are_missed(
    server: Server, clockwork: Clockwork, workspace_id: UUID
) -> None:
    clockwork = Clockwork(server, clockwork.now, misfire_grace_seconds=600)
    schedule_id = await clockwork.add(workspace_id)
    await clockwork.at(10, 20)
    assert await clockwork.summary(schedule_id) == [
        ("09:00", "catchup", "coalesced", "missed"),
        ("10:00", "catchup", "skipped", "missed"),
    ]
    assert await clockwork.messages(workspace_id) == []
    assert (await told(server))[0][1]["reason"] == "missed while the platform was down"


async def test_a_held_tick_gives_way_to_the_next(
    server: Server, clockwork: Clockwork, workspace_id: UUID
) -> None:
    schedule_id = await clockwork.add(workspace_id)
    await set_status(server, workspace_id, active_tasks=1)
    await clockwork.at(9, 0)
    await clockwork.at(10, 0)

    assert await clockwork.summary(schedule_id) == [
        ("09:00", "cron", "skipped", "overlap"),
        ("10:00", "cron", "queued", ""),
    ]
    [message] = await clockwork.messages(workspace_id)
    assert message["reply_id"] == str((await clockwork.rows(schedule_id))[1]["id"])
    [(event, payload)] = await told(server)
    assert (event, payload["reason"]) == ("CRON_SKIPPED", "skipped: workspace busy (active_tasks=1)")
    assert (await get(clockwork, workspace_id, schedule_id)).run_count == 1


async def test_a_run_under_way_is_left_alone(clockwork: Clockwork, workspace_id: UUID) -> None:
    schedule_id = await clockwork.add(workspace_id)
    await clockwork.at(9, 0)
    [run] = await clockwork.rows(schedule_id)
    await clockwork.dispatch(run["id"])
    await clockwork.at(10, 0)
    assert [row[2] for row in await clockwork.summary(schedule_id)] == ["running", "queued"]
    assert len(await clockwork.messages(workspace_id)) == 2


async def test_three_lost_slots_starve_a_schedule(
    server: Server, clockwork: Clockwork, workspace_id: UUID
) -> None:
    schedule_id = await clockwork.add(workspace_id)
    for hour in range(9, 14):
        await clockwork.at(hour, 0)
    events = [event for event, _ in await told(server)]
    assert events == ["CRON_SKIPPED", "CRON_SKIPPED", "CRON_SKIPPED", "SCHEDULE_STARVED", "CRON_SKIPPED"]
    starved = await get(clockwork, workspace_id, schedule_id)
    assert (starved.last_status, starved.last_error) == (
        "error",
        "4 slots in a row were lost: workspace busy",
    )
    await clockwork.answer((await clockwork.rows(schedule_id))[-1]["id"], said("at last"))
    assert (await get(clockwork, workspace_id, schedule_id)).last_status == "ok"
    await clockwork.at(14, 0)
    assert (await get(clockwork, workspace_id, schedule_id)).last_status == "queued"


async def test_the_policy_skip_holds_nothing(
    server: Server, clockwork: Clockwork, workspace_id: UUID
) -> None:
    strict = Clockwork(server, clockwork.now, busy_policy="skip")
    schedule_id = await strict.add(workspace_id)
    await set_status(server, workspace_id, active_tasks=1)
    await strict.at(9, 0)
    await set_status(server, workspace_id, active_tasks=0)
    await strict.at(10, 0)
    assert [row[2:] for row in await strict.summary(schedule_id)] == [("skipped", "busy"), ("queued", "")]


@pytest.mark.parametrize(
    ("status", "reason", "text"),
    [
        ("paused", "paused", "skipped: workspace paused"),
        ("failed", "gone", "skipped: workspace failed"),
    ],
)
async def test_a_workspace_that_cannot_work_is_skipped(
    server: Server, clockwork: Clockwork, workspace_id: UUID, status: str, reason: str, text: str
) -> None:
    schedule_id = await clockwork.add(workspace_id)
    await set_status(server, workspace_id, status=status)
    await clockwork.at(9, 0)
    assert await clockwork.summary(schedule_id) == [("09:00", "cron", "skipped", reason)]
    after = await get(clockwork, workspace_id, schedule_id)
    assert (after.last_status, after.last_error, after.run_count) == ("skipped", text, 1)
    assert after.next_run_at == clockwork.now.replace(hour=10)
    explained = await why(clockwork, workspace_id, schedule_id, 9, 0)
    assert (explained.outcome, explained.reason, explained.text) == ("skipped", reason, text)


@pytest.mark.parametrize("status", ["offline", "provisioning", "hibernated", "degraded"])
async def test_a_workspace_that_comes_back_is_waited_for(
    server: Server, clockwork: Clockwork, workspace_id: UUID, status: str
) -> None:
    schedule_id = await clockwork.add(workspace_id)
    await set_status(server, workspace_id, status=status)
    await clockwork.at(9, 0)
    assert await clockwork.summary(schedule_id) == [("09:00", "cron", "queued", "")]


async def test_a_runtime_with_its_own_clock_is_not_fired(
    server: Server, clockwork: Clockwork, workspace_id: UUID
) -> None:
    schedule_id = await clockwork.add(workspace_id)
    await set_status(server, workspace_id, capabilities={"scheduler": True})
    await clockwork.at(9, 0)
    assert await clockwork.summary(schedule_id) == [("09:00", "cron", "inactive", "native")]
    after = await get(clockwork, workspace_id, schedule_id)
    assert (after.last_status, after.run_count) == ("", 0)
    assert await told(server) == []


async def test_an_expression_that_cannot_be_read_never_loops(
    server: Server, clockwork: Clockwork, workspace_id: UUID
) -> None:
    schedule_id = await clockwork.add(workspace_id)
    async with server.db.transaction() as tx:
        await tx.execute("UPDATE workspace_schedules SET cron_expr = 'nonsense'")
    await clockwork.at(9, 0)
    await clockwork.at(10, 0)
    assert await clockwork.summary(schedule_id) == [("09:00", "cron", "error", "invalid")]
    broken = await get(clockwork, workspace_id, schedule_id)
    assert (broken.last_error, broken.next_run_at) == ("invalid cron expression", None)

    mended = await clockwork.change(workspace_id, schedule_id, cron_expr="0 * * * *")
    assert (mended.last_error, mended.next_run_at) == ("", clockwork.now.replace(hour=11))
    async with server.db.transaction() as tx:
        await tx.execute("UPDATE workspace_schedules SET next_run_at = NULL")
    restarted = Clockwork(server, clockwork.now)
    await restarted.scheduler.tick()
    assert (await get(clockwork, workspace_id, schedule_id)).next_run_at is not None


async def test_the_third_empty_answer_is_stale(clockwork: Clockwork, workspace_id: UUID) -> None:
    schedule_id = await clockwork.add(workspace_id)
    answers = [said(" "), said("(no response generated)"), {"result": {"status": {"state": "completed"}}}]
    for hour, response in enumerate([*answers, {"result": {"parts": [{"kind": "file", "file": {}}]}}], 9):
        await clockwork.at(hour, 0)
        await clockwork.answer((await clockwork.rows(schedule_id))[-1]["id"], response)
    runs = await clockwork.rows(schedule_id)
    assert [run["status"] for run in runs] == ["ok", "ok", "stale", "ok"]
    assert runs[2]["error_detail"] == (
        "empty response 3 consecutive times — agent may be phantom-producing (#795)"
    )
    assert (await get(clockwork, workspace_id, schedule_id)).consecutive_empty_runs == 0


async def test_an_answer_that_only_accepts_is_not_judged(clockwork: Clockwork, workspace_id: UUID) -> None:
    schedule_id = await clockwork.add(workspace_id)
    await clockwork.at(9, 0)
    await clockwork.answer((await clockwork.rows(schedule_id))[0]["id"], {"status": "queued"})
    after = await get(clockwork, workspace_id, schedule_id)
    assert (after.last_status, after.consecutive_empty_runs) == ("ok", 0)


@pytest.mark.parametrize(
    ("state", "error", "ends"),
    [
        (State.FAILED, "HTTP 500", ("error", "", "HTTP 500")),
        (
            State.FAILED,
            "workspace budget limit exceeded",
            ("error", "budget", "workspace budget limit exceeded"),
        ),
        (State.FAILED, "workspace removed", ("skipped", "gone", "skipped: workspace removed")),
        (State.DROPPED, "chain stopped", ("skipped", "dropped", "skipped: chain stopped")),
    ],
)
async def test_a_run_without_an_answer_says_why(
    clockwork: Clockwork, workspace_id: UUID, state: State, error: str, ends: tuple[str, str, str]
) -> None:
    schedule_id = await clockwork.add(workspace_id)
    await clockwork.at(9, 0)
    [run] = await clockwork.rows(schedule_id)
    await clockwork.answer(run["id"], status=state, error=error)
    [run] = await clockwork.rows(schedule_id)
    assert (run["status"], run["reason"], run["error_detail"]) == ends


async def test_an_agent_error_is_an_error(clockwork: Clockwork, workspace_id: UUID) -> None:
    schedule_id = await clockwork.add(workspace_id)
    await clockwork.at(9, 0)
    response = {"jsonrpc": "2.0", "error": {"code": -32603, "message": "no model"}}
    await clockwork.answer((await clockwork.rows(schedule_id))[0]["id"], response)
    assert (await get(clockwork, workspace_id, schedule_id)).last_error == "no model"


async def test_a_run_past_its_limit_is_ended_once(
    server: Server, clockwork: Clockwork, workspace_id: UUID
) -> None:
    schedule_id = await clockwork.add(workspace_id)
    await clockwork.at(9, 0)
    [run] = await clockwork.rows(schedule_id)
    await clockwork.dispatch(run["id"])
    clockwork.now += timedelta(seconds=299)
    assert await clockwork.reaper.tick() == {"timed_out": 0, "orphans": 0, "swept": 0}
    clockwork.now += timedelta(seconds=1)
    assert await clockwork.reaper.tick() == {"timed_out": 1, "orphans": 0, "swept": 0}
    await clockwork.answer(run["id"], said("too late"))
    [run] = await clockwork.rows(schedule_id)
    assert (run["status"], run["error_detail"]) == ("error", "timed out after 300s")
    assert [event for event, _ in await told(server)] == ["CRON_EXECUTED"]


async def test_a_purge_leaves_no_open_run(server: Server, clockwork: Clockwork, workspace_id: UUID) -> None:
    schedule_id = await clockwork.add(workspace_id)
    await clockwork.at(9, 0)
    async with server.db.transaction() as tx:
        await tx.execute("DELETE FROM workspaces WHERE id = $1", workspace_id)
    clockwork.now += timedelta(minutes=2)
    await clockwork.reaper.tick()
    assert (await clockwork.summary(schedule_id))[0][2:] == ("skipped", "gone")
    clockwork.now += timedelta(days=91)
    await clockwork.reaper.tick()
    assert await clockwork.rows(schedule_id) == []


async def test_a_change_does_not_swallow_a_due_slot(clockwork: Clockwork, workspace_id: UUID) -> None:
    schedule_id = await clockwork.add(workspace_id)
    clockwork.now = clockwork.now.replace(hour=9, minute=0)
    await clockwork.change(workspace_id, schedule_id, cron_expr="30 * * * *")
    assert await clockwork.summary(schedule_id) == [("09:00", "cron", "queued", "")]
    assert (await get(clockwork, workspace_id, schedule_id)).next_run_at == clockwork.now.replace(minute=30)


async def test_a_held_run_takes_the_newest_prompt(clockwork: Clockwork, workspace_id: UUID) -> None:
    schedule_id = await clockwork.add(workspace_id)
    await clockwork.at(9, 0)
    await clockwork.change(workspace_id, schedule_id, prompt="something else")
    [message] = await clockwork.messages(workspace_id)
    assert message["body"]["params"]["message"]["parts"][0]["text"] == "something else"
    assert message["reply_id"] == str((await clockwork.rows(schedule_id))[0]["id"])


async def test_switching_off_drops_what_waits_and_explains_itself(
    server: Server, clockwork: Clockwork, workspace_id: UUID
) -> None:
    schedule_id = await clockwork.add(workspace_id)
    await clockwork.at(9, 0)
    await clockwork.change(workspace_id, schedule_id, enabled=False)
    assert await clockwork.messages(workspace_id) == []
    await clockwork.at(11, 30)
    explained = await why(clockwork, workspace_id, schedule_id, 10, 0)
    assert (explained.outcome, explained.reason) == ("inactive", "disabled")

    on = await clockwork.change(workspace_id, schedule_id, enabled=True)
    assert on.next_run_at == clockwork.now.replace(hour=12, minute=0)
    assert await clockwork.summary(schedule_id) == [
        ("09:00", "cron", "skipped", "disabled"),
        ("11:00", "cron", "inactive", "disabled"),
    ]
    for hour in (10, 11):
        explained = await why(clockwork, workspace_id, schedule_id, hour, 0)
        assert (explained.due, explained.outcome, explained.reason) == (True, "inactive", "disabled")
    assert await told(server) == []


async def test_deleting_keeps_the_history(
    admin: httpx.AsyncClient, clockwork: Clockwork, workspace_id: UUID
) -> None:
    schedule_id = await clockwork.add(workspace_id)
    await clockwork.at(9, 0)
    path = f"/workspaces/{workspace_id}/schedules/{schedule_id}"
    await clockwork.schedules.delete(SYSTEM, workspace_id, schedule_id)
    [entry] = (await admin.get(f"{path}/history")).json()
    assert (entry["status"], entry["error_detail"]) == ("skipped", "skipped: schedule deleted")
    assert await clockwork.messages(workspace_id) == []
    assert (await why(clockwork, workspace_id, schedule_id, 9, 0)).reason == "gone"


async def test_a_run_by_hand_finds_its_own_message(clockwork: Clockwork, workspace_id: UUID) -> None:
    schedule_id = await clockwork.add(workspace_id, prompt="by hand")
    fired = await clockwork.schedules.run(SYSTEM, workspace_id, schedule_id)
    find = clockwork.schedules.find_manual_run
    assert await find(workspace_id, "by hand") == fired.run_id
    assert await find(workspace_id, "something else") is None
    clockwork.now += timedelta(seconds=121)
    assert await find(workspace_id, "by hand") is None
