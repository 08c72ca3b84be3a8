"""The rules of schedules: who may have which, and what a change of one does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from molecule_ai.kernel import log
from molecule_ai.kernel.clock import Ids
from molecule_ai.kernel.cron import zone
from molecule_ai.kernel.db import Connection, Database
from molecule_ai.kernel.errors import InvalidRequest
from molecule_ai.kernel.notify import notify
from molecule_ai.server.auth.principal import Principal
from molecule_ai.server.events.catalogue import Event
from molecule_ai.server.events.service import Events
from molecule_ai.server.mailbox.schemas import Settled
from molecule_ai.server.workspaces.tree import can_communicate

from . import errors, ledger_store, store, terms
from .explain import explain
from .health import peer_view, watch
from .ledger import Ledger
from .messages import settlement_of
from .plan import manual
from .schemas import (
    Explanation,
    HistoryEntry,
    PeerHealth,
    Reason,
    RunStatus,
    Schedule,
    ScheduleCreate,
    ScheduleCreated,
    ScheduleDeleted,
    ScheduleFired,
    ScheduleHealth,
    ScheduleUpdate,
    ScheduleUpdated,
    TemplateSchedule,
    Upserted,
)
from .store import Due, NewSchedule

Now = Callable[[Connection], Awaitable[datetime]]
CHANNEL = "molecule_schedules"  # notified when the nearest fire may have moved
MAX_PER_WORKSPACE = 200
MAX_HISTORY = 200
_TEMPLATE = "template"
_OWN_FIELDS = ("name", "cron_expr", "timezone", "prompt", "enabled")
_HISTORY_WORDS = {RunStatus.OK: "success", RunStatus.STALE: "error"}


class Schedules:
    """Schedules of every workspace. One method is one transaction with its events."""

    def __init__(self, db: Database, events: Events, ledger: Ledger, ids: Ids, *, now: Now) -> None:
        self._db = db
        self._events = events
        self._ledger = ledger
        self._ids = ids
        self._now = now
        self._log = log.get()

    async def list_all(self, workspace_id: UUID) -> list[Schedule]:
        """The schedules of a workspace, oldest first."""
        async with self._db.connection() as connection:
            return await store.list_for_workspace(connection, workspace_id)

    async def get(self, workspace_id: UUID, schedule_id: UUID) -> Schedule:
        async with self._db.connection() as connection:
            return await self._get(connection, workspace_id, schedule_id)

    async def create(self, caller: Principal, workspace_id: UUID, data: ScheduleCreate) -> ScheduleCreated:
        """Add a schedule; its first fire is the next one from now."""
        cron_expr, prompt = terms.cron_text_of(data), data.prompt
        if not cron_expr or not prompt or not terms.without_cr(prompt).strip():
            raise errors.CronAndPromptRequired
        timezone = terms.checked_timezone(data.timezone)
        cron = terms.checked_cron(cron_expr)
        name, prompt = terms.checked_name(data.name or ""), terms.checked_prompt(prompt)
        async with self._db.transaction() as tx:
            await store.hold_workspace(tx, workspace_id)
            if not await store.workspace_exists(tx, workspace_id):
                raise errors.WorkspaceNotFound
            if await store.count(tx, workspace_id) >= MAX_PER_WORKSPACE:
                raise errors.TooManySchedules
            now = await self._now(tx)
            new = NewSchedule(
                id=self._ids.new(),
                workspace_id=workspace_id,
                name=name,
                cron_expr=cron.expression,
                timezone=timezone,
                prompt=prompt,
                enabled=data.enabled is not False,
                source="runtime",
                next_run_at=cron.after(now, zone(timezone)),
                now=now,
            )
            await self._insert(tx, new, actor=caller.label)
            schedule = await self._get(tx, workspace_id, new.id)
        return ScheduleCreated(
            id=schedule.id, status="created", next_run_at=schedule.next_run_at, schedule=schedule
        )

    async def update(
        self, caller: Principal, workspace_id: UUID, schedule_id: UUID, data: ScheduleUpdate
    ) -> ScheduleUpdated:
        """Change the fields that are given; a due slot is settled under the old terms first."""
        changes = terms.changes_of(data)
        async with self._db.transaction() as tx:
            due = await self._hold(tx, workspace_id, schedule_id)
            touched = [name for name in _OWN_FIELDS if name in changes and due.source == _TEMPLATE]
            await self._change(tx, due, changes, touched=touched, actor=caller.label)
            schedule = await self._get(tx, workspace_id, schedule_id)
        return ScheduleUpdated(status="updated", next_run_at=schedule.next_run_at, schedule=schedule)

    async def delete(self, caller: Principal, workspace_id: UUID, schedule_id: UUID) -> ScheduleDeleted:
        """Remove a schedule. A run under way finishes; what waits is taken back; the history stays."""
        async with self._db.transaction() as tx:
            due = await self._hold(tx, workspace_id, schedule_id)
            now = await self._now(tx)
            await self._ledger.settle_own(tx, due, now)
            await self._ledger.drop_held(tx, due, now, reason=Reason.GONE, text="skipped: schedule deleted")
            await store.delete(tx, due.id)
            await self._tell(
                tx,
                Event.SCHEDULE_DELETED,
                "schedule.delete",
                due.workspace_id,
                due.id,
                due.name,
                caller.label,
            )
        return ScheduleDeleted("deleted")

    async def run(self, caller: Principal, workspace_id: UUID, schedule_id: UUID) -> ScheduleFired:
        """Fire now, whatever the cron says and whether or not the schedule is enabled."""
        async with self._db.transaction() as tx:
            due = await self._hold(tx, workspace_id, schedule_id)
            open_runs = await ledger_store.list_open(tx, [due.id])
            if open_runs:
                raise errors.RunInProgress(run_id=str(open_runs[-1].id))
            now = await self._now(tx)
            is_busy = due.active_tasks >= due.max_concurrent_tasks
            run = manual(due, self._ids.new(), now, self._ledger.rules, is_busy=is_busy)
            await self._ledger.fire_manual(tx, due, run, now)
            payload = {"schedule_id": str(due.id), "schedule_name": due.name, "run_id": str(run.id)}
            await self._events.append(tx, "schedule.run", workspace_id, payload, actor=caller.label)
        return ScheduleFired(
            status="fired", workspace_id=workspace_id, prompt=due.prompt, schedule_id=due.id, run_id=run.id
        )

    async def history(
        self, workspace_id: UUID, schedule_id: UUID, *, limit: int, before: datetime | None
    ) -> list[HistoryEntry]:
        """Outcomes, newest first, also of a schedule that was deleted."""
        async with self._db.connection() as connection:
            runs = await ledger_store.list_outcomes(
                connection, workspace_id, schedule_id, before=before, limit=min(limit, MAX_HISTORY)
            )
            if not runs and not await ledger_store.is_known(connection, workspace_id, schedule_id):
                await self._get(connection, workspace_id, schedule_id)
        return [
            HistoryEntry(
                timestamp=run.finished_at or run.recorded_at,
                duration_ms=run.duration_ms,
                status=_HISTORY_WORDS.get(run.status, run.status.value),
                raw_status=run.status.value,
                error_detail=run.error_detail,
                request=run.request,
                run_id=run.id,
                trigger=run.trigger,
                scheduled_for=run.scheduled_for,
                started_at=run.started_at,
                finished_at=run.finished_at,
                output_preview=run.output_preview,
                attempts=run.attempt,
            )
            for run in runs
        ]

    async def explain(self, workspace_id: UUID, schedule_id: UUID, at: datetime | None) -> Explanation:
        """Why the schedule did or did not run at `at`, by default now."""
        async with self._db.connection() as connection:
            now = await self._now(connection)
            at = at or now
            schedule = await store.find(connection, workspace_id, schedule_id)
            if schedule is None and not await ledger_store.is_known(connection, workspace_id, schedule_id):
                raise errors.ScheduleNotFound
            minute_before = at - timedelta(minutes=1)
            run = await ledger_store.find_covering(
                connection, workspace_id, schedule_id, after=minute_before, until=at
            )
        return explain(schedule_id, schedule, run, at=at, now=now)

    async def peer_health(self, caller: Principal, workspace_id: UUID) -> Sequence[PeerHealth]:
        """What teammates may see: whether the schedules of `workspace_id` work, never what they say."""
        async with self._db.connection() as connection:
            if not caller.is_admin:
                if caller.acting_for is None or not await can_communicate(
                    connection, caller.acting_for, workspace_id
                ):
                    raise errors.AccessDenied
            elif not await store.workspace_exists(connection, workspace_id):
                raise errors.WorkspaceNotFound
            return peer_view(await store.list_health(connection, workspace_id))

    async def health(self) -> Sequence[ScheduleHealth]:
        """Every schedule of every workspace that is not removed."""
        async with self._db.connection() as connection:
            now = await self._now(connection)
            rows = await store.list_watched(connection)
        return await watch(rows, now, poll=self._ledger.rules.poll)

    async def settled(self, tx: Connection, settled: Settled) -> None:
        """Record the end of a run's message, in the transaction that ends it."""
        await self._ledger.settle(tx, settlement_of(settled), await self._now(tx))

    async def started(self, tx: Connection, reply_id: str) -> None:
        """Note that a run's message is on its way to the agent, in the transaction that claims it."""
        await self._ledger.start(tx, UUID(reply_id), await self._now(tx))

    async def find_manual_run(self, workspace_id: UUID, text: str) -> UUID | None:
        """The run that somebody asked for within two minutes and whose prompt a client now posts itself."""
        async with self._db.connection() as connection:
            now = await self._now(connection)
            return await ledger_store.find_recent_manual(connection, workspace_id, text, now)

    async def upsert_template(
        self, tx: Connection, workspace_id: UUID, specs: Sequence[TemplateSchedule]
    ) -> Upserted:
        """Bring the schedules that an org template declares up to date; nothing is deleted.

        Rows made by people and columns that people edited stay as they are. A declaration that
        cannot fire is left out and reported.
        """
        await store.hold_workspace(tx, workspace_id)
        report = Upserted()
        for spec in specs:
            try:
                await self._upsert(tx, workspace_id, spec, report)
            except InvalidRequest as problem:
                report.warnings.append(f"schedule '{spec.name}': {problem.text}")
        return report

    async def disable_for(self, tx: Connection, workspace_ids: Sequence[UUID], actor: str) -> int:
        """Switch off every schedule of workspaces that `actor` removes."""
        disabled = await store.disable_for(tx, workspace_ids, await self._now(tx))
        self._log.info("schedules_disabled", schedules=disabled, actor=actor)
        return disabled

    async def _upsert(
        self, tx: Connection, workspace_id: UUID, spec: TemplateSchedule, report: Upserted
    ) -> None:
        cron, timezone = terms.checked_cron(spec.cron_expr), terms.checked_timezone(spec.timezone)
        prompt, name = terms.checked_prompt(spec.prompt), terms.checked_name(spec.name)
        now = await self._now(tx)
        known = await store.hold_all(tx, workspace_id)
        for due in known:
            same_unnamed = not name and (due.cron_expr, due.timezone, due.prompt) == (
                cron.expression,
                timezone,
                prompt,
            )
            if due.name == name and (name or same_unnamed):
                wanted = {
                    "cron_expr": cron.expression,
                    "timezone": timezone,
                    "prompt": prompt,
                    "enabled": spec.enabled,
                }
                changes = {
                    key: value
                    for key, value in wanted.items()
                    if key not in due.user_modified and getattr(due, key) != value
                }
                if due.source != _TEMPLATE or not changes:
                    report.unchanged += 1
                    return
                await self._change(tx, due, changes, touched=(), actor="import")
                report.updated += 1
                return
        if len(known) >= MAX_PER_WORKSPACE:
            raise InvalidRequest(errors.TooManySchedules.__doc__)
        new = NewSchedule(
            id=self._ids.new(),
            workspace_id=workspace_id,
            name=name,
            cron_expr=cron.expression,
            timezone=timezone,
            prompt=prompt,
            enabled=spec.enabled,
            source=_TEMPLATE,
            next_run_at=cron.after(now, zone(timezone)),
            now=now,
        )
        await self._insert(tx, new, actor="import")
        report.created += 1

    async def _insert(self, tx: Connection, new: NewSchedule, *, actor: str) -> None:
        if not await store.insert(tx, new):
            raise errors.NameTaken
        await self._tell(
            tx, Event.SCHEDULE_CREATED, "schedule.create", new.workspace_id, new.id, new.name, actor
        )

    async def _change(
        self, tx: Connection, due: Due, changes: dict[str, Any], *, touched: Sequence[str], actor: str
    ) -> None:
        now = await self._now(tx)
        await self._ledger.settle_own(tx, due, now)
        changed = msgspec.structs.replace(due, **changes)
        timing_differs = (changed.cron_expr, changed.timezone) != (due.cron_expr, due.timezone)
        if not due.enabled and (changed.enabled or timing_differs):
            await self._ledger.close_inactive(tx, due, now)
        if due.enabled and not changed.enabled:
            text = "skipped: schedule disabled"
            await self._ledger.drop_held(tx, due, now, reason=Reason.DISABLED, text=text)
        elif changed.prompt != due.prompt:
            await self._ledger.replace_prompt(tx, changed)
        is_unclaimed = due.next_run_at is None or due.next_run_at <= now
        moves = timing_differs or is_unclaimed or (changed.enabled and not due.enabled)
        next_run_at = terms.next_fire(changed, now) if moves else due.next_run_at
        disabled_since = (
            None if changed.enabled else (now if due.enabled or timing_differs else due.disabled_since)
        )
        is_written = await store.update(
            tx,
            changed,
            next_run_at=next_run_at,
            disabled_since=disabled_since,
            user_modified=sorted({*due.user_modified, *touched}),
            now=now,
        )
        if not is_written:
            raise errors.NameTaken
        await self._tell(
            tx, Event.SCHEDULE_UPDATED, "schedule.update", due.workspace_id, due.id, changed.name, actor
        )

    async def _tell(
        self,
        tx: Connection,
        event: Event,
        audit: str,
        workspace_id: UUID,
        schedule_id: UUID,
        name: str,
        actor: str,
    ) -> None:
        payload = {"schedule_id": str(schedule_id), "schedule_name": name}
        await self._events.append(tx, event, workspace_id, payload, actor=actor)
        await self._events.append(tx, audit, workspace_id, payload, actor=actor)
        await notify(tx, CHANNEL)

    async def _hold(self, tx: Connection, workspace_id: UUID, schedule_id: UUID) -> Due:
        due = await store.hold(tx, workspace_id, schedule_id)
        if due is None:
            raise errors.ScheduleNotFound
        return due

    async def _get(self, connection: Connection, workspace_id: UUID, schedule_id: UUID) -> Schedule:
        schedule = await store.find(connection, workspace_id, schedule_id)
        if schedule is None:
            raise errors.ScheduleNotFound
        return schedule
