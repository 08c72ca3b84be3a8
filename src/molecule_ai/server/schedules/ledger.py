"""What is due becomes rows and messages in one transaction; what is answered becomes an outcome."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from msgspec import Struct
from msgspec.structs import asdict

from molecule_ai.kernel import log
from molecule_ai.kernel.clock import Ids
from molecule_ai.kernel.db import Connection
from molecule_ai.server.activity.schemas import Entry, SourceKind
from molecule_ai.server.activity.service import Activity
from molecule_ai.server.auth.errors import WorkspaceNotFound
from molecule_ai.server.events.catalogue import Event
from molecule_ai.server.events.service import Events

from . import ledger_store, store
from .delivery import Delivery, Fire, Settlement
from .judge import judge
from .ledger_store import ExpiredRun, Finished, NewRun, OpenRun
from .plan import Plan, Rules, held_back, inactive, plan
from .schemas import Reason, RunStatus
from .store import Advance, Due

STARVED_AFTER = 3  # held ticks in a row that lost their place


class Claimed(Struct, frozen=True, kw_only=True):
    """What a round of claiming did."""

    schedules: int = 0
    fired: int = 0
    skipped: int = 0
    coalesced: int = 0
    replaced: int = 0

    def plus(self, other: Claimed) -> Claimed:
        return Claimed(
            schedules=self.schedules + other.schedules,
            fired=self.fired + other.fired,
            skipped=self.skipped + other.skipped,
            coalesced=self.coalesced + other.coalesced,
            replaced=self.replaced + other.replaced,
        )


class Ledger:
    """Writes runs. Every method works in its caller's transaction, which holds the schedules' rows."""

    def __init__(
        self,
        events: Events,
        activity: Activity,
        delivery: Delivery,
        ids: Ids,
        rules: Rules,
        *,
        replica: str = "",
    ) -> None:
        self._events = events
        self._activity = activity
        self._delivery = delivery
        self._ids = ids
        self._replica = replica
        self._log = log.get()
        self.rules = rules

    async def claim(self, tx: Connection, dues: Sequence[Due], now: datetime) -> Claimed:
        """Turn the due slots of locked schedules into rows and messages, and advance the schedules."""
        if not dues:
            return Claimed()
        open_runs = await self._open_runs(tx, dues)
        plans = [(due, self._plan(due, now, open_runs)) for due in dues]
        lost = await self._give_way(tx, [due for due, _ in plans], open_runs, now)
        written = await self._write(tx, [run for _, made in plans for run in (*made.older, made.newest)], now)
        fires = [(due, made.newest) for due, made in plans if self._fires(made.newest, written)]
        await self._delivery.put(tx, [self._fire(due, run) for due, run in fires])
        await store.advance(tx, [self._advance(due, made, written, lost) for due, made in plans], now)
        for due, made in plans:
            await self._tell_skipped(tx, due, made.newest, written)
            await self._tell_starved(tx, due, lost)
        return self._count(plans, written, lost)

    async def fire_manual(self, tx: Connection, due: Due, run: NewRun, now: datetime) -> None:
        """Write and deliver a run that somebody asked for; `next_run_at` stays."""
        written = await self._write(tx, [run], now)
        fires = run.status is RunStatus.QUEUED
        if fires:
            await self._delivery.put(tx, [self._fire(due, run)])
        advance = Advance(
            id=due.id,
            next_run_at=due.next_run_at,
            last_status=run.status,
            last_error=run.error_detail,
            outcomes=0 if fires else 1,
            lost_slots=due.lost_slots,
        )
        await store.advance(tx, [advance], now)
        await self._tell_skipped(tx, due, run, written)

    async def settle_own(self, tx: Connection, due: Due, now: datetime) -> None:
        """Claim a locked schedule's slot if it is due, so that no change of the schedule swallows it."""
        if due.enabled and due.next_run_at is not None and due.next_run_at <= now:
            await self.claim(tx, [due], now)

    async def close_inactive(self, tx: Connection, due: Due, now: datetime) -> None:
        """Account for the slots of the time in which a schedule was off."""
        row = inactive(due, now, self._ids)
        if row is not None:
            await self._write(tx, [row], now)

    async def replace_prompt(self, tx: Connection, due: Due) -> None:
        """Give a held run the prompt as it is now: the newest wins (contract 03 §3.2)."""
        held = await ledger_store.list_open(tx, [due.id])
        back = await self._delivery.withdraw(tx, [run.id for run in held], reason="prompt changed")
        await self._delivery.put(tx, [self._fire(due, run) for run in held if run.id in back])

    async def drop_held(self, tx: Connection, due: Due, now: datetime, *, reason: Reason, text: str) -> None:
        """Take back what waits, without an event: somebody switched the schedule off or deleted it."""
        held = await ledger_store.list_open(tx, [due.id])
        for run_id in await self._delivery.withdraw(tx, [run.id for run in held], reason=text):
            end = Finished(id=run_id, status=RunStatus.SKIPPED, reason=reason, error_detail=text)
            await ledger_store.finish(tx, end, now)

    async def settle(self, tx: Connection, settlement: Settlement, now: datetime) -> None:
        """Record what became of a delivery. A run that has ended keeps its end."""
        if settlement.status == "completed":
            await self._end_answered(tx, settlement, now)
            return
        await self._end(tx, _unanswered(settlement), now)

    async def start(self, tx: Connection, run_id: UUID, now: datetime) -> None:
        """Note that a run is under way; from now on its time limit counts."""
        await ledger_store.start(tx, run_id, now, self.rules.fire_timeout)

    async def time_out(self, tx: Connection, run: ExpiredRun, now: datetime) -> None:
        """End a run that took longer than it may; an answer that comes later changes nothing."""
        seconds = round((now - run.started_at).total_seconds())
        text = f"timed out after {run.timeout_seconds or int(self.rules.fire_timeout.total_seconds())}s"
        await self._delivery.withdraw(tx, [run.id], reason=text)
        end = Finished(id=run.id, status=RunStatus.ERROR, error_detail=text, duration_ms=seconds * 1000)
        await self._end(tx, end, now)

    async def _end_answered(self, tx: Connection, settlement: Settlement, now: datetime) -> None:
        verdict = judge(settlement.response, await ledger_store.hold_empty_runs(tx, settlement.run_id))
        end = Finished(
            id=settlement.run_id,
            status=verdict.status,
            error_detail=verdict.error,
            output_preview=verdict.preview,
            duration_ms=settlement.duration_ms,
            attempts=settlement.attempts,
        )
        await self._end(tx, end, now, empty_runs=verdict.empty_runs)

    async def _end(
        self, tx: Connection, end: Finished, now: datetime, *, empty_runs: int | None = None
    ) -> None:
        held = await ledger_store.hold_empty_runs(tx, end.id)
        run = await ledger_store.finish(tx, end, now)
        if run is None:
            return
        outcome = store.Outcome(
            status=end.status,
            error=end.error_detail,
            empty_runs=held if empty_runs is None else empty_runs,
            duration_ms=end.duration_ms,
            is_success=end.status is RunStatus.OK,
        )
        await store.record_outcome(tx, run.schedule_id, outcome, now)
        await self._tell_ended(tx, run, end)

    async def _tell_ended(self, tx: Connection, run: OpenRun, end: Finished) -> None:
        name = str(run.request.get("schedule_name", ""))
        is_skip = end.status is RunStatus.SKIPPED
        payload: dict[str, Any] = {
            "schedule_id": str(run.schedule_id),
            "schedule_name": name,
            "run_id": str(run.id),
        }
        if is_skip:
            payload["reason"] = end.error_detail
        else:
            payload |= {"status": end.status, "trigger": run.trigger, "duration_ms": end.duration_ms}
            if end.error_detail:
                payload["error"] = end.error_detail
        event = Event.CRON_SKIPPED if is_skip else Event.CRON_EXECUTED
        await self._events.append(tx, event, run.workspace_id, payload, actor="scheduler")
        await self._log_activity(tx, run, end, name)

    async def _log_activity(self, tx: Connection, run: OpenRun, end: Finished, name: str) -> None:
        """The row that readers of the activity log know (contract 03 §3.1.9)."""
        entry = Entry(
            workspace_id=run.workspace_id,
            activity_type="cron_run",
            source_kind=SourceKind.SCHEDULER,
            method="cron",
            summary=f"Cron skipped: {name}" if end.status is RunStatus.SKIPPED else f"Cron: {name}",
            request_body=run.request,
            response_body={"text": end.output_preview} if end.output_preview else None,
            duration_ms=end.duration_ms,
            status=end.status.value,
            error_detail=end.error_detail or None,
            schedule_id=run.schedule_id,
        )
        with contextlib.suppress(WorkspaceNotFound):  # purged meanwhile: its log is gone, too
            await self._activity.record(entry, tx=tx)

    async def _open_runs(self, tx: Connection, dues: Sequence[Due]) -> dict[UUID, list[OpenRun]]:
        grouped: dict[UUID, list[OpenRun]] = {}
        for run in await ledger_store.list_open(tx, [due.id for due in dues]):
            grouped.setdefault(run.schedule_id, []).append(run)
        return grouped

    def _plan(self, due: Due, now: datetime, open_runs: dict[UUID, list[OpenRun]]) -> Plan:
        is_busy = bool(open_runs.get(due.id)) or due.active_tasks >= due.max_concurrent_tasks
        return plan(due, now, self.rules, self._ids, is_busy=is_busy)

    async def _give_way(
        self, tx: Connection, dues: Sequence[Due], open_runs: dict[UUID, list[OpenRun]], now: datetime
    ) -> dict[UUID, int]:
        """A held tick gives way to its successor (contract 03 §3.5); returns how many did, by schedule."""
        run_ids = [run.id for runs in open_runs.values() for run in runs]
        if not run_ids:
            return {}
        back = await self._delivery.withdraw(tx, run_ids, reason="its next slot came first")
        lost: dict[UUID, int] = {}
        for due in dues:
            for run in open_runs.get(due.id, ()):
                if run.id in back:
                    reason, text = held_back(due)
                    end = Finished(id=run.id, status=RunStatus.SKIPPED, reason=reason, error_detail=text)
                    if await ledger_store.finish(tx, end, now) is not None:
                        lost[due.id] = lost.get(due.id, 0) + 1
                        await self._tell_ended(tx, run, end)
        return lost

    async def _write(self, tx: Connection, runs: Sequence[NewRun], now: datetime) -> set[UUID]:
        return await ledger_store.insert(tx, runs, claimed_by=self._replica, now=now)

    @staticmethod
    def _fires(run: NewRun, written: set[UUID]) -> bool:
        return run.status is RunStatus.QUEUED and run.id in written

    def _fire(self, due: Due, run: NewRun | OpenRun) -> Fire:
        return Fire(
            run_id=run.id,
            schedule_id=due.id,
            workspace_id=due.workspace_id,
            prompt=due.prompt,
            trigger=run.trigger,
        )

    def _advance(self, due: Due, made: Plan, written: set[UUID], lost: dict[UUID, int]) -> Advance:
        run = made.newest
        is_outcome = run.status in {RunStatus.SKIPPED, RunStatus.ERROR} and run.id in written
        lost_slots = due.lost_slots + lost.get(due.id, 0)
        status: str | None = run.status if run.id in written else None
        error = run.error_detail
        if run.status is RunStatus.INACTIVE:
            status = None
        elif lost_slots >= STARVED_AFTER and run.status is RunStatus.QUEUED:
            status, error = RunStatus.ERROR, f"{lost_slots} slots in a row were lost: workspace busy"
        return Advance(
            id=due.id,
            next_run_at=made.next_run_at,
            last_status=status,
            last_error=error,
            outcomes=int(is_outcome) + lost.get(due.id, 0),
            lost_slots=lost_slots,
        )

    async def _tell_skipped(self, tx: Connection, due: Due, run: NewRun, written: set[UUID]) -> None:
        if run.status not in {RunStatus.SKIPPED, RunStatus.ERROR} or run.id not in written:
            return
        as_open = OpenRun(run.id, due.id, due.workspace_id, run.trigger, run.request)
        end = Finished(id=run.id, status=run.status, reason=run.reason, error_detail=run.error_detail)
        await self._tell_ended(tx, as_open, end)

    async def _tell_starved(self, tx: Connection, due: Due, lost: dict[UUID, int]) -> None:
        before, now_lost = due.lost_slots, due.lost_slots + lost.get(due.id, 0)
        if before < STARVED_AFTER <= now_lost:
            payload = {"schedule_id": str(due.id), "schedule_name": due.name, "lost_slots": now_lost}
            await self._events.append(
                tx, Event.SCHEDULE_STARVED, due.workspace_id, payload, actor="scheduler"
            )

    def _count(self, plans: Sequence[tuple[Due, Plan]], written: set[UUID], lost: dict[UUID, int]) -> Claimed:
        newest = [made.newest for _, made in plans if made.newest.id in written]
        claimed = Claimed(
            schedules=len(plans),
            fired=sum(run.status is RunStatus.QUEUED for run in newest),
            skipped=sum(run.status is not RunStatus.QUEUED for run in newest),
            coalesced=sum(run.id in written for _, made in plans for run in made.older),
            replaced=sum(lost.values()),
        )
        self._log.info("schedules_claimed", replica=self._replica, **asdict(claimed))
        return claimed


def _unanswered(settlement: Settlement) -> Finished:
    error = settlement.error or "delivery failed"
    status, reason = RunStatus.ERROR, Reason.NONE
    if error.startswith(("workspace removed", "workspace failed")):
        status, reason, error = RunStatus.SKIPPED, Reason.GONE, f"skipped: {error}"
    elif settlement.status == "dropped":
        status, reason, error = RunStatus.SKIPPED, Reason.DROPPED, f"skipped: {error}"
    elif "budget limit exceeded" in error:
        reason = Reason.BUDGET
    return Finished(
        id=settlement.run_id,
        status=status,
        reason=reason,
        error_detail=error,
        duration_ms=settlement.duration_ms,
        attempts=settlement.attempts,
    )


def rules_of(
    *, poll_seconds: int, fire_timeout_seconds: int, misfire_grace_seconds: int, busy_policy: str
) -> Rules:
    """The rules as the settings spell them."""
    return Rules(
        poll=timedelta(seconds=poll_seconds),
        fire_timeout=timedelta(seconds=fire_timeout_seconds),
        misfire_grace=timedelta(seconds=misfire_grace_seconds) if misfire_grace_seconds else None,
        skips_when_busy=busy_policy == "skip",
    )
