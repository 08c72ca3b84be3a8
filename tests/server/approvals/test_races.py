"""Two hands on one request, time against a hand, a kill in the middle: decided once, or not at all."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from molecule_ai.kernel.errors import ApiError
from molecule_ai.server.app import Server
from molecule_ai.server.approvals.errors import HumanRequired, NoLongerPending, NotPending
from molecule_ai.server.approvals.schemas import ApprovalCreate, ApprovalRule, Approver, Decision
from molecule_ai.server.auth.principal import SYSTEM, Kind, Principal
from tests.conftest import MakeServer
from tests.support import add_workspace, wait_for

APPROVE, DENY = Decision(decision="approved"), Decision(decision="denied")


@pytest.fixture
async def workspace_id(server: Server) -> UUID:
    return await add_workspace(server)


@pytest.fixture
async def approval_id(server: Server, workspace_id: UUID) -> UUID:
    created = await server.approvals.create(SYSTEM, workspace_id, ApprovalCreate(action="act"))
    return created.approval_id


async def waiting(server: Server, count: int) -> None:
    """Until `count` statements wait for a lock."""

    async def enough() -> bool:
        async with server.db.connection() as connection:
            found = await connection.fetchval(
                """SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND wait_event_type = 'Lock'"""
            )
        return int(found) >= count

    await wait_for(enough)


async def recorded(server: Server, approval_id: UUID) -> list[str]:
    async with server.db.connection() as connection:
        rows = await connection.fetch(
            "SELECT event_type FROM structure_events WHERE payload ->> 'approval_id' = $1 ORDER BY seq",
            str(approval_id),
        )
    return [row["event_type"] for row in rows]


async def together(server: Server, approval_id: UUID, *acts: Any) -> list[Any]:
    """Let all `acts` reach the row while a third hand holds it, then let go."""
    async with server.db.transaction() as tx:
        await tx.execute("SELECT 1 FROM approval_requests WHERE id = $1 FOR UPDATE", approval_id)
        tasks = [asyncio.ensure_future(act) for act in acts]
        await waiting(server, len(tasks))
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_of_two_decisions_the_later_loses(
    server: Server, make_server: MakeServer, workspace_id: UUID, approval_id: UUID
) -> None:
    other = await make_server()
    outcomes = await together(
        server,
        approval_id,
        server.approvals.decide(SYSTEM, workspace_id, approval_id, APPROVE),
        other.approvals.decide(SYSTEM, workspace_id, approval_id, DENY),
    )
    [lost] = [outcome for outcome in outcomes if isinstance(outcome, ApiError)]
    [won] = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert isinstance(lost, NotPending)
    assert lost.extra["current_status"] == won.status
    assert await recorded(server, approval_id) == [
        "APPROVAL_REQUESTED",
        f"APPROVAL_{won.status.upper()}",
        "approval.decide",
    ]


async def test_a_double_click_counts_once(
    server: Server, make_server: MakeServer, workspace_id: UUID, approval_id: UUID
) -> None:
    other = await make_server()
    outcomes = await together(
        server,
        approval_id,
        server.approvals.decide(SYSTEM, workspace_id, approval_id, APPROVE),
        other.approvals.decide(SYSTEM, workspace_id, approval_id, APPROVE),
    )
    assert sorted(outcome.already is True for outcome in outcomes) == [False, True]
    assert (await recorded(server, approval_id)).count("APPROVAL_APPROVED") == 1


async def test_a_decision_and_a_withdrawal_exclude_each_other(
    server: Server, make_server: MakeServer, workspace_id: UUID, approval_id: UUID
) -> None:
    other = await make_server()
    outcomes = await together(
        server,
        approval_id,
        server.approvals.decide(SYSTEM, workspace_id, approval_id, APPROVE),
        other.approvals.withdraw(SYSTEM, workspace_id, approval_id),
    )
    assert sum(isinstance(outcome, NotPending | NoLongerPending) for outcome in outcomes) == 1
    ends = {"APPROVAL_APPROVED", "APPROVAL_WITHDRAWN"} & set(await recorded(server, approval_id))
    assert len(ends) == 1


async def test_what_is_past_its_time_cannot_be_approved(
    server: Server, workspace_id: UUID, approval_id: UUID
) -> None:
    async with server.db.transaction() as tx:
        await tx.execute("UPDATE approval_requests SET expires_at = now()")
    with pytest.raises(NotPending) as refused:
        await server.approvals.decide(SYSTEM, workspace_id, approval_id, APPROVE)
    assert refused.value.extra["current_status"] == "denied"
    assert refused.value.extra["decided_by"] == "auto-expired"
    assert (await recorded(server, approval_id))[1:] == ["APPROVAL_DENIED", "approval.decide"]


async def test_an_approval_covers_one_use_of_exactly_its_action(
    server: Server, make_server: MakeServer, workspace_id: UUID
) -> None:
    other = await make_server()
    context = {"amount": 7, "to": {"name": "Ada", "tags": [1, 2]}}
    asked = ApprovalCreate(action="pay", context=context)
    approval_id = (await server.approvals.create(SYSTEM, workspace_id, asked)).approval_id

    async def use(replica: Server, action: str, arguments: dict[str, Any], workspace: UUID) -> UUID | None:
        async with replica.db.transaction() as tx:
            return await replica.approvals.consume(tx, workspace, action, arguments, actor="test")

    assert await use(server, "pay", context, workspace_id) is None  # nobody has said yes
    await server.approvals.decide(SYSTEM, workspace_id, approval_id, APPROVE)
    assert await use(server, "pay", context | {"amount": 8}, workspace_id) is None
    assert await use(server, "pay twice", context, workspace_id) is None
    assert await use(server, "pay", context, await add_workspace(server)) is None
    reordered = {"to": {"tags": [1, 2], "name": "Ada"}, "amount": 7}
    used = await asyncio.gather(
        use(server, "pay", reordered, workspace_id), use(other, "pay", context, workspace_id)
    )
    assert sorted(used, key=str) == sorted([approval_id, None], key=str)
    assert await use(server, "pay", context, workspace_id) is None


CHILD = """
import asyncio, sys
from uuid import UUID
from molecule_ai.server.app import Server, running
from molecule_ai.server.approvals.schemas import ApprovalCreate, Decision
from molecule_ai.server.auth.principal import SYSTEM
from molecule_ai.server.environment import read

async def main():
    async with running(Server(read()), engines=False) as server:
        workspace_id = UUID(sys.argv[1])
        if len(sys.argv) > 2:
            await server.approvals.decide(SYSTEM, workspace_id, UUID(sys.argv[2]), Decision(approved=True))
        else:
            await server.approvals.create(SYSTEM, workspace_id, ApprovalCreate(action="act"))

asyncio.run(main())
"""


async def die(dsn: str, home: Path, failpoint: str, *arguments: UUID) -> int:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "MOLECULE_HOME": str(home / "home"),
        "DATABASE_URL": dsn,
        "ADMIN_TOKEN": "test-admin-token-0123456789abcdef",
        "PROVISIONER": "none",
        "MOLECULE_FAILPOINTS": failpoint,
    }
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, *map(str, arguments), env=environment
    )
    return await asyncio.wait_for(child.wait(), 60)


@pytest.mark.processes
async def test_a_kill_loses_no_decision_and_applies_none_twice(
    server: Server, dsn: str, tmp_path: Path, workspace_id: UUID, approval_id: UUID
) -> None:
    killed = await die(dsn, tmp_path, "approvals.decided", workspace_id, approval_id)
    assert killed == -signal.SIGKILL
    approval = await server.approvals.get(workspace_id, approval_id)
    assert (approval.status, await recorded(server, approval_id)) == ("pending", ["APPROVAL_REQUESTED"])

    assert await die(dsn, tmp_path, "", workspace_id, approval_id) == 0
    assert await die(dsn, tmp_path, "", workspace_id, approval_id) == 0
    assert (await recorded(server, approval_id))[1:] == ["APPROVAL_APPROVED", "approval.decide"]


@pytest.mark.processes
async def test_a_kill_while_asking_leaves_nothing(
    server: Server, dsn: str, tmp_path: Path, workspace_id: UUID
) -> None:
    assert await die(dsn, tmp_path, "approvals.created", workspace_id) == -signal.SIGKILL
    assert await server.approvals.list_all(workspace_id, status=None, limit=50) == []


async def test_silence_is_a_denial_announced_above(server: Server) -> None:
    top = await add_workspace(server, "Top")
    middle = await add_workspace(server, "Middle", parent_id=top)
    bottom = await add_workspace(server, "Bottom", parent_id=middle)
    approval_id = (await server.approvals.create(SYSTEM, bottom, ApprovalCreate(action="act"))).approval_id

    assert await server.approvals.escalate() == 0
    async with server.db.transaction() as tx:
        await tx.execute("UPDATE approval_requests SET escalate_at = now()")
    assert await server.approvals.escalate() == 1
    assert await server.approvals.escalate() == 0
    approval = await server.approvals.get(bottom, approval_id)
    assert (approval.status, approval.escalated_to) == ("pending", [middle, top])
    async with server.db.connection() as connection:
        payload = await connection.fetchval(
            "SELECT payload FROM structure_events WHERE workspace_id = $1", top
        )
    assert (payload["level"], payload["from_workspace_id"]) == (2, str(bottom))

    async with server.db.transaction() as tx:
        await tx.execute("UPDATE approval_requests SET expires_at = now()")
    assert await server.approvals.expire() == 1
    assert await server.approvals.expire() == 0
    approval = await server.approvals.get(bottom, approval_id)
    assert (approval.status, approval.decided_by) == ("denied", "auto-expired")


async def test_the_pending_list_expires_what_is_late(
    server: Server, workspace_id: UUID, approval_id: UUID
) -> None:
    assert len(await server.approvals.list_pending()) == 1
    async with server.db.transaction() as tx:
        await tx.execute("UPDATE approval_requests SET expires_at = now()")
    assert await server.approvals.list_pending() == []
    assert (await server.approvals.get(workspace_id, approval_id)).status == "denied"


@pytest.mark.settings(approval_ttl_seconds=0)
async def test_without_a_lifetime_a_request_waits_for_ever(
    server: Server, workspace_id: UUID, approval_id: UUID
) -> None:
    approval = await server.approvals.get(workspace_id, approval_id)
    assert approval.expires_at is None
    assert await server.approvals.expire() == 0


async def test_rules_say_who_decides_and_how_long(server: Server) -> None:
    boss = await add_workspace(server)
    workspace_id = await add_workspace(server, parent_id=boss)
    rules = [
        ApprovalRule(action="Publish*", approver=Approver.USER, ttl_seconds=3600, reason="cannot be undone"),
        ApprovalRule(action="send*", approver=Approver.PARENT),
    ]
    async with server.db.transaction() as tx:
        await server.approvals.set_rules(tx, workspace_id, [ApprovalRule(action="old")])
        await server.approvals.set_rules(tx, workspace_id, rules)
    assert (await server.approvals.rules(workspace_id)).rules == rules

    by_boss = Principal(kind=Kind.WORKSPACE, workspace_id=boss)
    published = await server.approvals.create(SYSTEM, workspace_id, ApprovalCreate(action="publish the post"))
    found = await server.approvals.get(workspace_id, published.approval_id)
    assert found.reason == "cannot be undone"
    assert found.expires_at is not None
    assert (found.expires_at - found.created_at).total_seconds() == 3600
    with pytest.raises(HumanRequired):
        await server.approvals.decide(by_boss, boss, published.approval_id, APPROVE)
    sent = await server.approvals.create(SYSTEM, workspace_id, ApprovalCreate(action="send the letter"))
    assert (await server.approvals.decide(by_boss, boss, sent.approval_id, APPROVE)).approved


async def test_a_waiting_agent_gets_a_frame_of_its_own(
    server: Server, workspace_id: UUID, approval_id: UUID
) -> None:
    frames: list[str] = []
    connection = await server.db.connect()
    await connection.add_listener("molecule_frames", lambda *given: frames.append(str(given[-1])))
    try:
        await server.approvals.decide(
            SYSTEM, workspace_id, approval_id, Decision(approved=True, decided_by="Ada")
        )
        text = await wait_for(lambda: next((f for f in frames if "APPROVAL_DECIDED" in f), None))
    finally:
        await connection.close()
    for part in (f'"approval_id":"{approval_id}"', '"status":"approved"', '"decided_by":"Ada"'):
        assert text.count(part) == 2  # in the payload, and beside the envelope
