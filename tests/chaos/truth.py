"""What must be true when the dust has settled, read from the database and the process table."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from uuid import UUID

from tests import processes
from tests.chaos.work import Ledgers, Work
from tests.house import House

ORPHAN_SECONDS = 10.0
TRANSITION_SECONDS = 60.0
_RUNNING = {"online", "degraded", "provisioning", "hibernating"}

OPEN = """
    SELECT 'delegation ' || status || ' ' || task AS open
      FROM delegations WHERE status NOT IN ('completed', 'failed')
    UNION ALL SELECT 'message ' || status || ' attempt ' || attempts || ' until ' || not_before || ' '
                     || COALESCE(last_error, '')
                FROM mailbox_messages WHERE status IN ('queued', 'dispatched')
    UNION ALL SELECT 'run ' || status FROM schedule_runs WHERE status IN ('queued', 'running')
    UNION ALL SELECT 'due ' || name FROM workspace_schedules WHERE enabled AND next_run_at <= now()"""
UNSETTLED = """
    SELECT name || ' ' || status || ' wants ' || desired || ', made ' || observed_generation || ' of '
           || generation AS open
      FROM workspaces
     WHERE status IN ('provisioning', 'hibernating') OR (generation <> observed_generation)"""


async def orphans_end(house: House) -> None:
    """Within ten seconds every process belongs to the living server or is the agent that its row names."""
    await _until_none(lambda: _orphans(house), ORPHAN_SECONDS, "orphans")


async def transitions_end(house: House) -> None:
    """Within a minute nobody is on the way from one state to another."""
    await _until_none(lambda: _rows(house, UNSETTLED), TRANSITION_SECONDS, "in transition")


async def work_ends(house: House, seconds: float = 90.0) -> None:
    """All that was accepted has come to an end."""
    await _until_none(lambda: _rows(house, OPEN), seconds, "open")


async def nothing_is_lost(house: House, work: Work, ledgers: Ledgers, *, agents_died: bool = False) -> None:
    """Everything that was accepted happened, and once.

    An agent that died may do a task again, under the same message id; one that lived may not.
    """
    await _delegations(house, work)
    await _schedules(house, work)
    await _approvals(house, work)
    failed = await house.fetch(
        # What is meant for a workspace ends with it.
        "SELECT m.body, m.status, m.last_error"
        "  FROM mailbox_messages m JOIN workspaces w ON w.id = m.workspace_id"
        " WHERE m.status <> 'completed' AND w.status <> 'removed'"
    )
    assert [tuple(row) for row in failed] == []
    effects = ledgers.effects()
    assert set(effects) == work.jobs
    for job, keys in effects.items():
        assert len(keys) == 1, f"{job} was asked for by more than one message: {keys}"
        assert agents_died or job.startswith("call") or keys.total() == 1, f"{job} was done twice: {keys}"


async def everybody_is_as_wished(house: House, work: Work) -> None:
    """One agent for who shall run, none for who shall not, and each knows the newest secrets."""
    rows = {
        row["id"]: row
        for row in await house.fetch("SELECT id, name, status::text, instance_id FROM workspaces")
    }
    assert {rows[gone]["status"] for gone in work.removed} <= {"removed"}
    live = {wanted: rows[wanted]["status"] for wanted in work.wishes}
    assert live == work.wishes
    names = Counter(row["name"] for row in rows.values() if row["status"] != "removed")
    assert names.keys() == {rows[wanted]["name"] for wanted in work.wishes}
    assert names.total() == len(work.wishes)
    running = {agent.workspace_id: agent for agent in processes.agents(house.home)}
    assert running.keys() == {wanted for wanted, status in work.wishes.items() if status == "online"}
    assert all(str(agent.instance_id) == rows[wanted]["instance_id"] for wanted, agent in running.items())
    if work.secret:
        assert work.secret in str(await work.call(work.clerk))


async def _delegations(house: House, work: Work) -> None:
    ledger = await house.fetch("SELECT delegation_id, task, status, error_detail FROM delegations")
    told = Counter(
        row["delegation_id"]
        for row in await house.fetch(
            "SELECT payload->>'delegation_id' AS delegation_id FROM structure_events "
            "WHERE event_type IN ('DELEGATION_COMPLETE', 'DELEGATION_FAILED')"
        )
    )
    assert Counter(row["task"] for row in ledger) == Counter(work.delegations.keys())
    assert {row["task"]: row["delegation_id"] for row in ledger} == work.delegations
    assert {(row["status"], row["error_detail"]) for row in ledger} <= {("completed", None)}
    assert told == Counter(work.delegations.values())


async def _schedules(house: House, work: Work) -> None:
    runs = await house.fetch("SELECT schedule_id, status, reason, error_detail FROM schedule_runs")
    assert Counter(row["schedule_id"] for row in runs) == Counter(work.slots)
    assert {(row["status"], row["error_detail"]) for row in runs} <= {("ok", "")}


async def _approvals(house: House, work: Work) -> None:
    rows = await house.fetch("SELECT id, action, status FROM approval_requests")
    assert {row["action"]: row["id"] for row in rows} == work.approvals
    assert {row["status"] for row in rows} <= {"approved"}
    told = await house.fetch(
        "SELECT payload->>'approval_id' AS id FROM structure_events WHERE event_type = 'APPROVAL_APPROVED'"
    )
    assert Counter(UUID(row["id"]) for row in told) == Counter(work.approvals.values())


async def _orphans(house: House) -> list[str]:
    rows = await house.fetch("SELECT id, status::text, instance_id FROM workspaces")
    expected = {str(row["id"]): row["instance_id"] for row in rows if row["status"] in _RUNNING}
    unknown = [
        f"agent {agent}"
        for agent in processes.agents(house.home)
        if expected.get(str(agent.workspace_id)) != str(agent.instance_id)
    ]
    strays = [f"{pid} {processes.command(pid)!r}" for pid in processes.strays(house.home, house.pid)]
    return unknown + strays


async def _rows(house: House, sql: str) -> list[str]:
    return [str(row["open"]) for row in await house.fetch(sql)]


async def _until_none(look, seconds: float, what: str) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + seconds
    while left := await look():
        assert time.monotonic() < deadline, f"{what} after {seconds:.0f} s: {left}"
        await asyncio.sleep(0.1)
