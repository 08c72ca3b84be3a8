"""Thirty simulated days: every due instant is in the ledger once, whatever happened meanwhile."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from msgspec import Struct

from molecule_ai.kernel.cron import parse, zone
from molecule_ai.kernel.db import Connection
from molecule_ai.server.app import Server
from molecule_ai.server.schedules.ledger import Claimed
from molecule_ai.server.schedules.store import Due
from tests.server.schedules.conftest import Clockwork, said
from tests.support import add_workspace

CRONS = [
    "*/20 * * * *",
    "7 * * * *",
    "30 2 * * *",
    "*/30 2 * * *",
    "0 1-3 * * *",
    "0 9 * * 1-5",
    "15 6,18 * * *",
    "0 0 1 * *",
    "0 12 */10 * 0",
    "5 3 * * 7",
]
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Santiago",
    "Asia/Kathmandu",
]
STARTS = [
    datetime(2026, 3, 4, tzinfo=UTC),
    datetime(2026, 3, 20, tzinfo=UTC),
    datetime(2026, 10, 10, tzinfo=UTC),
]
DAYS = 30


class Term(Struct):
    """From when on a schedule had which expression."""

    since: datetime
    cron: str
    zone: str
    until: datetime | None = None

    def slots(self) -> list[datetime]:
        assert self.until is not None
        return list(parse(self.cron).fires(self.since, self.until, zone(self.zone)))


class Killed(Exception):
    """Stands for a process that died in the middle of its transaction."""


class Story:
    """One org with several schedules, and what was done to it."""

    def __init__(self, server: Server, start: datetime, random: Random) -> None:
        self.random = random
        self.clockwork = Clockwork(server, start)
        self.other = Clockwork(server, start)
        self.other.schedules._now = self.other.scheduler._now = self.clockwork.tell
        self.terms: dict[UUID, list[Term]] = {}
        self.homes: dict[UUID, UUID] = {}
        self.enabled: dict[UUID, bool] = {}

    async def begin(self) -> None:
        for _ in range(3):
            workspace_id = await add_workspace(self.clockwork.server)
            for _ in range(2):
                term = self._term()
                schedule_id = await self.clockwork.add(workspace_id, term.cron, timezone=term.zone)
                self.terms[schedule_id] = [term]
                self.homes[schedule_id] = workspace_id
                self.enabled[schedule_id] = True

    async def live(self, until: datetime) -> None:
        while self.clockwork.now < until:
            minutes = self.random.choice([1, 13, 47, 180, 600, 1500])
            self.clockwork.now += timedelta(minutes=minutes, seconds=self.random.randrange(60))
            act = self.random.choice(
                [self.tick, self.tick, self.tick, self.die, self.edit, self.toggle, self.move, self.work]
            )
            await act()

    async def end(self) -> None:
        for schedule_id, is_enabled in self.enabled.items():
            if not is_enabled:
                await self.clockwork.change(self.homes[schedule_id], schedule_id, enabled=True)
        await self.tick()
        for terms in self.terms.values():
            terms[-1].until = self.clockwork.now

    async def tick(self) -> None:
        """Two replicas look at the same moment."""
        await asyncio.gather(self.clockwork.scheduler.tick(), self.other.scheduler.tick())

    async def die(self) -> None:
        """One replica claims and dies before it commits."""
        claim = self.clockwork.ledger.claim

        async def claim_and_die(tx: Connection, dues: list[Due], now: datetime) -> Claimed:
            claimed = await claim(tx, dues, now)
            if dues:
                raise Killed
            return claimed

        self.clockwork.ledger.claim = claim_and_die  # type: ignore[method-assign, assignment]
        try:
            await self.clockwork.scheduler.tick()
        except Killed:
            pass
        finally:
            self.clockwork.ledger.claim = claim  # type: ignore[method-assign]

    async def edit(self) -> None:
        schedule_id = self._any()
        term = self._term()
        await self.clockwork.change(
            self.homes[schedule_id], schedule_id, cron_expr=term.cron, timezone=term.zone
        )
        self.terms[schedule_id][-1].until = self.clockwork.now
        self.terms[schedule_id].append(term)

    async def toggle(self) -> None:
        schedule_id = self._any()
        self.enabled[schedule_id] = not self.enabled[schedule_id]
        await self.clockwork.change(self.homes[schedule_id], schedule_id, enabled=self.enabled[schedule_id])

    async def move(self) -> None:
        """A workspace is paused, lost, resumed."""
        async with self.clockwork.server.db.transaction() as tx:
            await tx.execute(
                "UPDATE workspaces SET status = $2 WHERE id = $1",
                self.homes[self._any()],
                self.random.choice(["online", "online", "paused", "hibernated", "failed"]),
            )

    async def work(self) -> None:
        """Agents take some of what waits, and answer some of it."""
        for schedule_id, home in self.homes.items():
            for row in await self.clockwork.rows(schedule_id):
                if row["status"] == "queued" and await self.clockwork.messages(home):
                    await self.clockwork.dispatch(row["id"])
                    if self.random.random() < 0.8:
                        await self.clockwork.answer(row["id"], said("done"))
        await self.clockwork.reaper.tick()

    def _any(self) -> UUID:
        return self.random.choice(list(self.terms))

    def _term(self) -> Term:
        return Term(self.clockwork.now, self.random.choice(CRONS), self.random.choice(ZONES))


@pytest.mark.slow
@settings(
    max_examples=5,
    phases=[Phase.generate],  # a story is told whole: a shorter one is another one
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(start=st.sampled_from(STARTS), seed=st.integers(0, 2**32))
async def test_due_instants_are_ledger_rows(server: Server, start: datetime, seed: int) -> None:
    async with server.db.transaction() as tx:
        await tx.execute("TRUNCATE workspaces, schedule_runs CASCADE")
    story = Story(server, start, Random(seed))
    await story.begin()
    await story.live(start + timedelta(days=DAYS))
    await story.end()

    for schedule_id, terms in story.terms.items():
        due = [slot for term in terms for slot in term.slots()]
        rows = [
            row for row in await story.clockwork.rows(schedule_id) if row["trigger"] in {"cron", "catchup"}
        ]
        spans = [(row["covers_since"] or row["scheduled_for"], row["scheduled_for"]) for row in rows]
        assert len(set(due)) == len(due)
        for slot in due:
            covering = [span for span in spans if span[0] <= slot <= span[1]]
            assert len(covering) == 1, (slot, covering, terms)
        for first, last in spans:
            assert first in due
            assert last in due
    await _assert_messages_match(server)


async def _assert_messages_match(server: Server) -> None:
    """A run has one message, and a skipped or coalesced slot has none."""
    async with server.db.connection() as connection:
        sent = await connection.fetch(
            "SELECT reply_id, count(*) AS n FROM mailbox_messages GROUP BY reply_id"
        )
        fired = await connection.fetch("SELECT id FROM schedule_runs WHERE request ? 'prompt'")
    assert {UUID(row["reply_id"]): row["n"] for row in sent} == {row["id"]: 1 for row in fired}
