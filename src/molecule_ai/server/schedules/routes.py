"""Routes of schedules (contract 03 §2)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import msgspec

from molecule_ai.kernel.http import FromPath, FromQuery, Here, JSONBody, delete, get, patch, post
from molecule_ai.server.auth.principal import Principal
from molecule_ai.server.auth.tiers import Tier

from . import errors
from .schemas import (
    Explanation,
    HistoryEntry,
    PeerHealth,
    Schedule,
    ScheduleCreate,
    ScheduleCreated,
    ScheduleDeleted,
    ScheduleFired,
    ScheduleHealth,
    ScheduleUpdate,
    ScheduleUpdated,
)
from .service import Schedules

_ALL = "/workspaces/{workspace_id:str}/schedules"
_ONE = "/workspaces/{workspace_id:str}/schedules/{schedule_id:str}"
_MISSING = {"schedule_id": errors.ScheduleNotFound}
_INVALID = [
    errors.CronNamesDisagree,
    errors.InvalidCronExpression,
    errors.CronNeverFires,
    errors.InvalidTimezone,
    errors.NameTooLong,
    errors.PromptTooLong,
]
_TAGS = ["schedules"]
_DEFAULT_HISTORY = 20


@get(_ALL, Tier.WORKSPACE, tags=_TAGS)
async def list_schedules(schedules: Here[Schedules], workspace_id: FromPath[UUID]) -> Sequence[Schedule]:
    """List the schedules of a workspace, oldest first."""
    return await schedules.list_all(workspace_id)


@post(
    _ALL,
    Tier.WORKSPACE,
    status=201,
    errors=[
        errors.CronAndPromptRequired,
        *_INVALID,
        errors.WorkspaceNotFound,
        errors.NameTaken,
        errors.TooManySchedules,
    ],
    invalid_body="cron_expr and prompt are required",
    tags=_TAGS,
)
async def create_schedule(
    schedules: Here[Schedules],
    caller: Here[Principal],
    workspace_id: FromPath[UUID],
    data: JSONBody[ScheduleCreate],
) -> ScheduleCreated:
    """Add a schedule to a workspace."""
    return await schedules.create(caller, workspace_id, data)


@get(f"{_ALL}/health", Tier.PEER, errors=[errors.AccessDenied, errors.WorkspaceNotFound], tags=_TAGS)
async def get_schedules_health(
    schedules: Here[Schedules], caller: Here[Principal], workspace_id: FromPath[UUID]
) -> Sequence[PeerHealth]:
    """Show teammates whether the schedules of a workspace work, without what they say."""
    return await schedules.peer_health(caller, workspace_id)


@get(_ONE, Tier.WORKSPACE, errors=[errors.ScheduleNotFound], missing=_MISSING, tags=_TAGS)
async def get_schedule(
    schedules: Here[Schedules], workspace_id: FromPath[UUID], schedule_id: FromPath[UUID]
) -> Schedule:
    """Show one schedule."""
    return await schedules.get(workspace_id, schedule_id)


@patch(
    _ONE,
    Tier.WORKSPACE,
    errors=[errors.PromptEmpty, *_INVALID, errors.ScheduleNotFound, errors.NameTaken],
    missing=_MISSING,
    invalid_body="invalid JSON",
    tags=_TAGS,
)
async def update_schedule(
    schedules: Here[Schedules],
    caller: Here[Principal],
    workspace_id: FromPath[UUID],
    schedule_id: FromPath[UUID],
    data: JSONBody[ScheduleUpdate],
) -> ScheduleUpdated:
    """Change the given fields of a schedule."""
    return await schedules.update(caller, workspace_id, schedule_id, data)


@delete(_ONE, Tier.WORKSPACE, errors=[errors.ScheduleNotFound], missing=_MISSING, tags=_TAGS)
async def delete_schedule(
    schedules: Here[Schedules],
    caller: Here[Principal],
    workspace_id: FromPath[UUID],
    schedule_id: FromPath[UUID],
) -> ScheduleDeleted:
    """Remove a schedule; its history stays."""
    return await schedules.delete(caller, workspace_id, schedule_id)


@post(
    f"{_ONE}/run",
    Tier.WORKSPACE,
    errors=[errors.ScheduleNotFound, errors.RunInProgress],
    missing=_MISSING,
    tags=_TAGS,
)
async def run_schedule(
    schedules: Here[Schedules],
    caller: Here[Principal],
    workspace_id: FromPath[UUID],
    schedule_id: FromPath[UUID],
) -> ScheduleFired:
    """Fire a schedule now, enabled or not."""
    return await schedules.run(caller, workspace_id, schedule_id)


@get(
    f"{_ONE}/history",
    Tier.WORKSPACE,
    errors=[errors.ScheduleNotFound, errors.InvalidInstant],
    missing=_MISSING,
    tags=_TAGS,
)
async def get_schedule_history(
    schedules: Here[Schedules],
    workspace_id: FromPath[UUID],
    schedule_id: FromPath[UUID],
    limit: FromQuery[str] = "",
    before: FromQuery[str] = "",
) -> Sequence[HistoryEntry]:
    """List the outcomes of a schedule, newest first."""
    count = int(limit) if limit.isascii() and limit.isdigit() and int(limit) > 0 else _DEFAULT_HISTORY
    return await schedules.history(workspace_id, schedule_id, limit=count, before=_instant(before, "before"))


@get(
    f"{_ONE}/explain",
    Tier.WORKSPACE,
    errors=[errors.ScheduleNotFound, errors.InvalidInstant],
    missing=_MISSING,
    tags=_TAGS,
)
async def explain_schedule(
    schedules: Here[Schedules],
    workspace_id: FromPath[UUID],
    schedule_id: FromPath[UUID],
    at: FromQuery[str] = "",
) -> Explanation:
    """Tell why a schedule did or did not run in the minute before an instant, by default now."""
    return await schedules.explain(workspace_id, schedule_id, _instant(at, "at"))


@get("/admin/schedules/health", Tier.ADMIN, tags=_TAGS)
async def list_schedules_health(schedules: Here[Schedules]) -> Sequence[ScheduleHealth]:
    """Show operators how every schedule is doing."""
    return await schedules.health()


def _instant(text: str, name: str) -> datetime | None:
    if not text:
        return None
    try:
        # A plus sign that was not escaped arrives as a space.
        instant = msgspec.convert(text.replace(" ", "+"), datetime)
    except msgspec.ValidationError as invalid:
        raise errors.InvalidInstant(f"{name} must be RFC 3339 (e.g. 2026-04-17T09:00:00Z)") from invalid
    return instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)


handlers = [
    list_schedules,
    create_schedule,
    get_schedules_health,
    get_schedule,
    update_schedule,
    delete_schedule,
    run_schedule,
    get_schedule_history,
    explain_schedule,
    list_schedules_health,
]
