"""Why a schedule did or did not run at an instant."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from molecule_ai.kernel.cron import Cron, InvalidCron, UnknownZone, parse, zone

from .ledger_store import Run
from .schemas import Explanation, Reason, RunStatus, Schedule

_YEAR = timedelta(days=366)
_FIRED = frozenset({RunStatus.OK, RunStatus.STALE, RunStatus.ERROR})


def explain(
    schedule_id: UUID, schedule: Schedule | None, run: Run | None, *, at: datetime, now: datetime
) -> Explanation:
    """The ledger's word if it has one for the minute before `at`; else what the schedule itself says."""
    slot, previous, following = _around(schedule, at)
    if run is not None:
        outcome, reason, text = _recorded(run)
    else:
        outcome, reason, text = _unrecorded(schedule, slot, now)
    return Explanation(
        schedule_id=schedule_id,
        at=at,
        due=run is not None or slot is not None,
        outcome=outcome,
        reason=reason,
        text=text,
        scheduled_for=run.scheduled_for if run and run.covers_since is None else slot,
        late_seconds=run.late_ms / 1000 if run else None,
        run_id=run.id if run else None,
        run_status=run.status if run else None,
        previous_due_at=previous,
        next_due_at=following,
    )


def _around(
    schedule: Schedule | None, at: datetime
) -> tuple[datetime | None, datetime | None, datetime | None]:
    """The slot within the minute before `at`, the one before `at`, the one after."""
    if schedule is None:
        return None, None, None
    try:
        cron, tz = parse(schedule.cron_expr), zone(schedule.timezone)
        slot = cron.latest(at, tz, since=at - timedelta(minutes=1))
        return slot, _previous(cron, schedule, slot or at), cron.after(at, tz)
    except (InvalidCron, UnknownZone):
        return None, None, None


def _previous(cron: Cron, schedule: Schedule, before: datetime) -> datetime | None:
    return cron.latest(before - timedelta(seconds=1), zone(schedule.timezone), since=before - _YEAR)


def _recorded(run: Run) -> tuple[str, str, str]:
    if run.status in _FIRED and run.reason is not Reason.INVALID:
        late = f", {run.late_ms / 1000:.0f} s late" if run.late_ms >= 1000 else ""
        ending = {RunStatus.OK: "ok", RunStatus.STALE: "empty again", RunStatus.ERROR: "error"}[run.status]
        detail = f": {run.error_detail}" if run.error_detail else ""
        return "fired", run.reason, f"it ran{late}, with the result {ending}{detail}"
    if run.status is RunStatus.QUEUED:
        return "queued", Reason.BUSY, "it waits until the workspace can take work"
    if run.status is RunStatus.RUNNING:
        return "running", "", "it is under way"
    return run.status, run.reason, run.error_detail


def _unrecorded(schedule: Schedule | None, slot: datetime | None, now: datetime) -> tuple[str, str, str]:
    if schedule is None:
        return "unrecorded", Reason.GONE, "the schedule was deleted and nothing is recorded for this time"
    if slot is None:
        return "not_due", "", f"{schedule.cron_expr} ({schedule.timezone}) does not match this time"
    if slot <= schedule.created_at:
        return "not_due", "", "the schedule did not exist yet"
    if not schedule.enabled and slot > schedule.updated_at:
        return "inactive", Reason.DISABLED, "the schedule is disabled"
    if slot > now:
        return "future", "", "it has not come yet"
    if schedule.next_run_at is not None and slot >= schedule.next_run_at:
        return "pending", "", "it is due and about to be claimed"
    if slot <= schedule.updated_at:
        return "unrecorded", "", "the schedule was changed after this time and did not match it before"
    return "unrecorded", "", "the record of this time is no longer kept"
