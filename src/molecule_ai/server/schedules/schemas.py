"""Schedules, their runs and their health on the wire (contract 03 §2)."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from msgspec import Meta, Struct

CronText = Annotated[
    str, Meta(description="Five cron fields, or @daily and the like.", examples=["0 9 * * 1-5"])
]
Zone = Annotated[str, Meta(description="IANA time zone.", examples=["Europe/Oslo"])]


class RunStatus(StrEnum):
    """States of a row of the ledger; all but the first two are final."""

    QUEUED = "queued"
    RUNNING = "running"
    OK = "ok"
    STALE = "stale"  # answered, but empty for the third time
    ERROR = "error"
    SKIPPED = "skipped"
    COALESCED = "coalesced"  # the run of a later slot stands for it
    INACTIVE = "inactive"  # nothing was meant to fire


class Trigger(StrEnum):
    """What asked for a run."""

    CRON = "cron"
    MANUAL = "manual"
    WEBHOOK = "webhook"
    CATCHUP = "catchup"


class Reason(StrEnum):
    """Why a slot did not become a run, for machines."""

    NONE = ""
    OVERLAP = "overlap"  # the run before was still waiting or working
    BUSY = "busy"
    PAUSED = "paused"
    BUDGET = "budget"
    GONE = "gone"  # the workspace failed or was removed, or the schedule was deleted
    DISABLED = "disabled"
    MISSED = "missed"
    COALESCED = "coalesced"
    NATIVE = "native"  # the runtime keeps its own clock
    INVALID = "invalid"
    DROPPED = "dropped"  # somebody took the message out of the mailbox


class ScheduleBody(Struct, kw_only=True):
    """Fields a client may send; absent and null mean the same."""

    name: Annotated[str | None, Meta(description="At most 200 characters; unique unless empty.")] = None
    cron_expr: CronText | None = None
    expression: Annotated[str | None, Meta(description="The same as `cron_expr`.")] = None
    cron: Annotated[str | None, Meta(description="The same as `cron_expr`.")] = None
    timezone: Zone | None = None
    prompt: Annotated[str | None, Meta(description="What the agent is told; at most 64 KiB.")] = None
    enabled: bool | None = None


class ScheduleCreate(ScheduleBody, kw_only=True):
    """A new schedule: `cron_expr` and `prompt` are required."""


class ScheduleUpdate(ScheduleBody, kw_only=True):
    """What to change; a field that is absent or null stays."""


class Schedule(Struct, kw_only=True):
    """A prompt that is sent to a workspace at the times of a cron expression."""

    id: UUID
    workspace_id: UUID
    name: str
    cron_expr: CronText
    expression: Annotated[str, Meta(description="The same as `cron_expr`.")]
    timezone: Zone
    prompt: str
    enabled: bool
    last_run_at: Annotated[datetime | None, Meta(description="Of the last outcome, skips included.")]
    next_run_at: datetime | None
    run_count: Annotated[int, Meta(description="Outcomes so far, skips included.")]
    last_status: Annotated[
        str, Meta(description="Empty, ok, error, skipped, stale or queued.", examples=["ok"])
    ]
    last_error: str
    source: Annotated[str, Meta(description="`template` or `runtime`.", examples=["runtime"])]
    created_at: datetime
    updated_at: datetime
    consecutive_empty_runs: int
    last_success_at: datetime | None
    last_duration_ms: int | None
    running: Annotated[bool, Meta(description="A run waits or is under way.")]


class ScheduleCreated(Struct, kw_only=True):
    """The new schedule."""

    id: UUID
    status: str
    next_run_at: datetime | None
    schedule: Schedule


class ScheduleUpdated(Struct, kw_only=True):
    """The schedule after the change."""

    status: str
    next_run_at: datetime | None
    schedule: Schedule


class ScheduleDeleted(Struct):
    """What happened."""

    status: str


class ScheduleFired(Struct, kw_only=True):
    """A run that somebody asked for; its outcome appears in the history."""

    status: str
    workspace_id: UUID
    prompt: str
    schedule_id: UUID
    run_id: UUID


class HistoryEntry(Struct, kw_only=True):
    """One outcome."""

    timestamp: Annotated[datetime, Meta(description="When the outcome was recorded.")]
    duration_ms: int | None
    status: Annotated[str, Meta(description="success, error or skipped.", examples=["success"])]
    raw_status: str
    error_detail: str
    request: Annotated[dict[str, Any], Meta(description="What was sent, the prompt cut to 200 bytes.")]
    run_id: UUID
    trigger: Trigger
    scheduled_for: datetime
    started_at: datetime | None
    finished_at: datetime | None
    output_preview: str
    attempts: int


class PeerHealth(Struct, kw_only=True):
    """What teammates may know of a schedule: never its prompt or expression."""

    id: UUID
    name: str
    enabled: bool
    last_run_at: datetime | None
    next_run_at: datetime | None
    run_count: int
    last_status: str
    last_error: str
    consecutive_empty_runs: int
    last_success_at: datetime | None


class ScheduleHealth(Struct, kw_only=True):
    """How a schedule is doing, for operators."""

    workspace_id: UUID
    workspace_name: str
    schedule_id: UUID
    schedule_name: str
    cron_expr: str
    expression: str
    timezone: str
    enabled: bool
    source: str
    last_run_at: datetime | None
    last_fired_at: datetime | None
    expected_next_run: datetime | None
    next_scheduled_at: datetime | None
    status: Annotated[str, Meta(description="never_run, stale, ok or disabled.", examples=["ok"])]
    stale_threshold_seconds: int
    consecutive_empty: int
    phantom_detected: bool
    last_status: str
    last_success_at: datetime | None


class Explanation(Struct, kw_only=True):
    """Why a schedule did or did not run at an instant."""

    schedule_id: UUID
    at: datetime
    due: Annotated[bool, Meta(description="The instant is one of the schedule's times.")]
    outcome: Annotated[
        str,
        Meta(
            description="fired, queued, running, skipped, coalesced, inactive, pending, future, "
            "not_due or unrecorded.",
            examples=["skipped"],
        ),
    ]
    reason: Annotated[str, Meta(description="For machines.", examples=["paused"])]
    text: Annotated[str, Meta(description="For people.", examples=["skipped: workspace paused"])]
    scheduled_for: datetime | None
    late_seconds: float | None
    run_id: UUID | None
    run_status: str | None
    previous_due_at: datetime | None
    next_due_at: datetime | None


class TemplateSchedule(Struct, frozen=True, kw_only=True):
    """A schedule as an org template declares it."""

    name: str
    cron_expr: str
    prompt: str
    timezone: str = "UTC"
    enabled: bool = True


class Upserted(Struct, kw_only=True):
    """What an import made of its schedules."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    warnings: list[str] = []
