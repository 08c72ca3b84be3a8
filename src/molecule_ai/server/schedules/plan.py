"""What a due schedule owes: one ledger row per slot, and the next one. No database, no clock."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice
from typing import Any
from uuid import UUID

from msgspec import Struct

from molecule_ai.kernel.clock import Ids
from molecule_ai.kernel.cron import InvalidCron, UnknownZone, parse, zone
from molecule_ai.server.workspaces.status import Status

from .ledger_store import NewRun
from .schemas import Reason, RunStatus, Trigger
from .store import Due

PROMPT_SHOWN_BYTES = 200
MAX_ROWS = 1500  # a day of every minute; older slots of a longer outage share one row
INVALID = "invalid cron expression"
MISSED = "missed while the platform was down"


class Rules(Struct, frozen=True, kw_only=True):
    """The operator's choices (contract 03 §3.2, §3.5, §3.6)."""

    poll: timedelta
    fire_timeout: timedelta
    # Slots older than this are not made up for; None: always.
    misfire_grace: timedelta | None
    skips_when_busy: bool

    def is_late(self, slot: datetime, now: datetime) -> bool:
        return now - slot > 2 * self.poll

    def is_missed(self, slot: datetime, now: datetime) -> bool:
        return self.misfire_grace is not None and now - slot > self.misfire_grace


class Plan(Struct, frozen=True, kw_only=True):
    """What one schedule owes at one instant; `newest` is the slot that fires or says why not."""

    next_run_at: datetime | None
    newest: NewRun
    older: list[NewRun]


def plan(due: Due, now: datetime, rules: Rules, ids: Ids, *, is_busy: bool) -> Plan:
    """The rows of every slot up to `now`. A later slot stands for those before it."""
    if due.next_run_at is None:
        raise ValueError("a schedule without a next run owes nothing")
    try:
        cron, tz = parse(due.cron_expr), zone(due.timezone)
        next_run_at: datetime | None = cron.after(now, tz)
        slots = [due.next_run_at, *islice(cron.fires(due.next_run_at, now, tz), MAX_ROWS)]
        newest = cron.latest(now, tz, since=due.next_run_at) or due.next_run_at
    except (InvalidCron, UnknownZone):
        row = _row(due, due.next_run_at, now, ids, RunStatus.ERROR, Reason.INVALID, INVALID)
        return Plan(next_run_at=None, newest=row, older=[])
    return Plan(
        next_run_at=next_run_at,
        newest=_newest(due, newest, now, rules, ids, is_busy=is_busy),
        older=list(_older(due, slots, newest, now, rules, ids)),
    )


def _newest(due: Due, slot: datetime, now: datetime, rules: Rules, ids: Ids, *, is_busy: bool) -> NewRun:
    status, reason, text = _verdict(due, slot, now, rules, is_busy=is_busy)
    return _row(due, slot, now, ids, status, reason, text, is_late=rules.is_late(slot, now))


def _verdict(
    due: Due, slot: datetime, now: datetime, rules: Rules, *, is_busy: bool
) -> tuple[RunStatus, Reason, str]:
    """Contract 03 §3.1.3, §3.4 to §3.6."""
    if due.keeps_own_clock:
        return RunStatus.INACTIVE, Reason.NATIVE, "the runtime keeps its own clock"
    if obstacle := _obstacle(due):
        return RunStatus.SKIPPED, *obstacle
    if rules.is_missed(slot, now):
        return RunStatus.SKIPPED, Reason.MISSED, MISSED
    if rules.skips_when_busy and is_busy:
        return RunStatus.SKIPPED, Reason.BUSY, busy_text(due)
    return RunStatus.QUEUED, Reason.NONE, ""


def _older(
    due: Due, slots: list[datetime], newest: datetime, now: datetime, rules: Rules, ids: Ids
) -> Iterator[NewRun]:
    for slot in slots:
        if slot >= newest:
            return
        yield _coalesced(due, slot, now, rules, ids)
    # The slots between the last one listed and the newest: one row for all of them.
    cron, tz = parse(due.cron_expr), zone(due.timezone)
    rest = cron.after(slots[-1], tz)
    before_newest = cron.latest(newest - timedelta(seconds=1), tz, since=slots[-1])
    if rest < newest and before_newest is not None:
        yield _coalesced(due, before_newest, now, rules, ids, covers_since=rest)


def _coalesced(
    due: Due, slot: datetime, now: datetime, rules: Rules, ids: Ids, *, covers_since: datetime | None = None
) -> NewRun:
    reason = Reason.MISSED if rules.is_missed(slot, now) else Reason.COALESCED
    text = MISSED if reason is Reason.MISSED else "a later run stands for this one"
    return _row(
        due,
        slot,
        now,
        ids,
        RunStatus.COALESCED,
        reason,
        text,
        is_late=rules.is_late(slot, now),
        covers_since=covers_since,
    )


def _row(
    due: Due,
    slot: datetime,
    now: datetime,
    ids: Ids,
    status: RunStatus,
    reason: Reason,
    text: str,
    *,
    is_late: bool = False,
    covers_since: datetime | None = None,
) -> NewRun:
    return NewRun(
        id=ids.new(),
        schedule_id=due.id,
        workspace_id=due.workspace_id,
        trigger=Trigger.CATCHUP if is_late else Trigger.CRON,
        scheduled_for=slot,
        status=status,
        reason=reason,
        covers_since=covers_since,
        late_ms=max(0, round((now - slot).total_seconds() * 1000)),
        error_detail=text,
        request=fired_request(due) if status is RunStatus.QUEUED else skipped_request(due),
    )


def inactive(due: Due, now: datetime, ids: Ids) -> NewRun | None:
    """One row for the slots of the time in which the schedule was off; None when there was no slot."""
    if due.disabled_since is None:
        return None
    try:
        cron, tz = parse(due.cron_expr), zone(due.timezone)
        last = cron.latest(now, tz, since=due.disabled_since)
        first = cron.after(due.disabled_since, tz)
    except (InvalidCron, UnknownZone):
        return None
    if last is None:
        return None
    return _row(
        due,
        last,
        now,
        ids,
        RunStatus.INACTIVE,
        Reason.DISABLED,
        "the schedule was disabled",
        covers_since=first,
    )


def manual(due: Due, run_id: UUID, now: datetime, rules: Rules, *, is_busy: bool) -> NewRun:
    """A run that somebody asked for, under the same conditions as a slot."""
    status, _, text = _verdict(due, now, now, rules, is_busy=is_busy)
    fires = status in {RunStatus.QUEUED, RunStatus.INACTIVE}
    return NewRun(
        id=run_id,
        schedule_id=due.id,
        workspace_id=due.workspace_id,
        trigger=Trigger.MANUAL,
        scheduled_for=now,
        status=RunStatus.QUEUED if fires else status,
        late_ms=0,
        error_detail="" if fires else text,
        request=fired_request(due) if fires else skipped_request(due),
    )


def _obstacle(due: Due) -> tuple[Reason, str] | None:
    """What keeps a workspace from taking work until somebody intervenes."""
    match due.workspace_status:
        case Status.PAUSED:
            return Reason.PAUSED, "skipped: workspace paused"
        case Status.FAILED | Status.REMOVED:
            return Reason.GONE, f"skipped: workspace {due.workspace_status}"
        case _:
            return None


def held_back(due: Due) -> tuple[Reason, str]:
    """Why a held tick was not delivered before its successor came."""
    return _obstacle(due) or (Reason.OVERLAP, busy_text(due))


def busy_text(due: Due) -> str:
    return f"skipped: workspace busy (active_tasks={due.active_tasks})"


def fired_request(due: Due) -> dict[str, Any]:
    """What the history shows of a run (contract 03 §2.9)."""
    return _request(due) | {"prompt": shown(due.prompt)}


def skipped_request(due: Due) -> dict[str, Any]:
    return _request(due) | {"skipped": True, "active_tasks": due.active_tasks}


def _request(due: Due) -> dict[str, Any]:
    return {"schedule_id": str(due.id), "schedule_name": due.name, "cron_expr": due.cron_expr}


def shown(prompt: str) -> str:
    """At most 200 bytes, cut between characters."""
    raw = prompt.encode()
    if len(raw) <= PROMPT_SHOWN_BYTES:
        return prompt
    return raw[: PROMPT_SHOWN_BYTES - 3].decode(errors="ignore") + "..."
