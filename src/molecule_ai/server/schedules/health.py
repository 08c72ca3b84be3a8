"""How schedules are doing, for teammates and for operators (contract 03 §2.10, §2.11)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from molecule_ai.kernel.cron import InvalidCron, UnknownZone, parse, zone

from .judge import EMPTY_LIMIT
from .redact import redact
from .schemas import PeerHealth, ScheduleHealth
from .store import Watched

_ERROR_SHOWN_CHARACTERS = 500
_AT_ONCE = 200  # schedules judged between two chances for other requests


def peer_view(rows: Sequence[PeerHealth]) -> list[PeerHealth]:
    """Errors may quote an upstream answer: cut them short and take secrets out."""
    return [
        msgspec.structs.replace(row, last_error=redact(row.last_error)[:_ERROR_SHOWN_CHARACTERS])
        for row in rows
    ]


async def watch(rows: Sequence[Watched], now: datetime, *, poll: timedelta) -> list[ScheduleHealth]:
    """The operator's view of each row."""
    found: list[ScheduleHealth] = []
    for start in range(0, len(rows), _AT_ONCE):
        found.extend(_health(row, now, poll) for row in rows[start : start + _AT_ONCE])
        await asyncio.sleep(0)
    return found


def _health(row: Watched, now: datetime, poll: timedelta) -> ScheduleHealth:
    status, threshold = _judge(row, now, poll)
    return ScheduleHealth(
        workspace_id=row.workspace_id,
        workspace_name=row.workspace_name,
        schedule_id=row.id,
        schedule_name=row.name,
        cron_expr=row.cron_expr,
        expression=row.cron_expr,
        timezone=row.timezone,
        enabled=row.enabled,
        source=row.source,
        last_run_at=row.last_run_at,
        last_fired_at=row.last_run_at,
        expected_next_run=row.next_run_at,
        next_scheduled_at=row.next_run_at,
        status=status,
        stale_threshold_seconds=threshold,
        consecutive_empty=row.consecutive_empty_runs,
        phantom_detected=row.consecutive_empty_runs >= EMPTY_LIMIT,
        last_status=row.last_status,
        last_success_at=row.last_success_at,
    )


def _judge(row: Watched, now: datetime, poll: timedelta) -> tuple[str, int]:
    """The status, and twice the gap between the next two fires in seconds (0: no such fires)."""
    try:
        cron, tz = parse(row.cron_expr), zone(row.timezone)
    except (InvalidCron, UnknownZone):
        return _plain_status(row), 0
    first = cron.after(now, tz)
    threshold = int(2 * (cron.after(first, tz) - first).total_seconds())
    status = _plain_status(row)
    if status == "ok" and row.last_run_at is not None:
        missed = cron.after(row.last_run_at, tz)
        if now - missed > max(2 * poll, 2 * (missed - row.last_run_at)):
            status = "stale"
    return status, threshold


def _plain_status(row: Watched) -> str:
    if not row.enabled:
        return "disabled"
    return "ok" if row.last_run_at is not None else "never_run"
