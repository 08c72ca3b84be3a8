"""The clock of schedules with a hand to turn it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from molecule_ai.kernel.clock import RandomIds
from molecule_ai.kernel.db import Connection
from molecule_ai.server.app import Server
from molecule_ai.server.auth.principal import SYSTEM
from molecule_ai.server.mailbox.schemas import Settled, State
from molecule_ai.server.schedules.ledger import Ledger, rules_of
from molecule_ai.server.schedules.messages import MailboxDelivery
from molecule_ai.server.schedules.scheduler import RunReaper, Scheduler
from molecule_ai.server.schedules.schemas import Schedule, ScheduleCreate, ScheduleUpdate
from molecule_ai.server.schedules.service import Schedules


class Clockwork:
    """The room and its engines on a time that stands still, with the mailbox as it is."""

    def __init__(self, server: Server, start: datetime, **rules: Any) -> None:
        self.server = server
        self.now = start
        chosen = {
            "poll_seconds": 30,
            "fire_timeout_seconds": 300,
            "misfire_grace_seconds": 0,
            "busy_policy": "queue",
        } | rules
        ids = RandomIds()
        self.ledger = Ledger(
            server.events,
            server.activity,
            MailboxDelivery(server.mailbox),
            ids,
            rules_of(**chosen),
            replica="test",
        )
        self.schedules = Schedules(server.db, server.events, self.ledger, ids, now=self.tell)
        self.scheduler = Scheduler(server.db, self.ledger, now=self.tell)
        self.reaper = RunReaper(server.db, self.ledger, now=self.tell, retention=timedelta(days=90))

    async def tell(self, _: Connection) -> datetime:
        return self.now

    async def add(self, workspace_id: UUID, cron_expr: str = "0 * * * *", **fields: Any) -> UUID:
        data = ScheduleCreate(cron_expr=cron_expr, **{"prompt": "go", **fields})
        return (await self.schedules.create(SYSTEM, workspace_id, data)).id

    async def change(self, workspace_id: UUID, schedule_id: UUID, **fields: Any) -> Schedule:
        return (
            await self.schedules.update(SYSTEM, workspace_id, schedule_id, ScheduleUpdate(**fields))
        ).schedule

    async def at(self, hour: int, minute: int, second: int = 0) -> object:
        """Set the time of day and let the scheduler look."""
        self.now = self.now.replace(hour=hour, minute=minute, second=second)
        return await self.scheduler.tick()

    async def rows(self, schedule_id: UUID) -> list[dict[str, Any]]:
        """The ledger of a schedule, oldest slot first."""
        async with self.server.db.connection() as connection:
            found = await connection.fetch(
                "SELECT * FROM schedule_runs WHERE schedule_id = $1 ORDER BY scheduled_for", schedule_id
            )
        return [dict(row) for row in found]

    async def summary(self, schedule_id: UUID) -> list[tuple[str, str, str, str]]:
        """The ledger as (slot, trigger, status, reason)."""
        return [
            (f"{row['scheduled_for']:%H:%M}", row["trigger"], row["status"], row["reason"])
            for row in await self.rows(schedule_id)
        ]

    async def messages(self, workspace_id: UUID) -> list[dict[str, Any]]:
        """Messages that wait or are under way, oldest first."""
        async with self.server.db.connection() as connection:
            found = await connection.fetch(
                """SELECT * FROM mailbox_messages
                    WHERE workspace_id = $1 AND status IN ('queued', 'dispatched')
                    ORDER BY enqueued_at, id""",
                workspace_id,
            )
        return [dict(row) for row in found]

    async def dispatch(self, run_id: UUID) -> None:
        """What the mailbox does when it gives a run to its agent."""
        async with self.server.db.transaction() as tx:
            await tx.execute(
                """UPDATE mailbox_messages SET status = 'dispatched', dispatched_at = $2
                    WHERE reply_id = $1 AND status = 'queued'""",
                str(run_id),
                self.now,
            )
            await self.schedules.started(tx, str(run_id))

    async def answer(
        self,
        run_id: UUID,
        response: dict[str, Any] | None = None,
        *,
        status: State = State.COMPLETED,
        error: str | None = None,
    ) -> None:
        """What the mailbox does when the agent has answered, or will not."""
        async with self.server.db.transaction() as tx:
            row = await tx.fetchrow(
                """UPDATE mailbox_messages SET status = $2, completed_at = now()
                    WHERE reply_id = $1 AND status IN ('queued', 'dispatched')
                    RETURNING id, workspace_id, chain_id""",
                str(run_id),
                status.value,
            )
            settled = Settled(
                message_id=row["id"] if row else uuid4(),
                status=status,
                response=response,
                error=error,
                reply_id=str(run_id),
                target_id=row["workspace_id"] if row else uuid4(),
                duration_ms=1500,
                attempts=1,
                chain_id=row["chain_id"] if row else uuid4(),
            )
            await self.schedules.settled(tx, settled)


def said(text: str) -> dict[str, Any]:
    """An agent's answer."""
    return {
        "jsonrpc": "2.0",
        "id": "1",
        "result": {"kind": "message", "parts": [{"kind": "text", "text": text}]},
    }


@pytest.fixture
def clockwork(server: Server) -> Clockwork:
    """A Monday, half past eight."""
    return Clockwork(server, datetime(2026, 6, 1, 8, 30, tzinfo=UTC))
