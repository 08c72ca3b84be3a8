"""The verbs of a workspace's life (contract 02 §5).

Each one writes what is wished and answers at once; the reconciler makes it true. No verb calls a
provisioner, so none is slower than its transaction, and a crash after it loses nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from urllib.parse import unquote
from uuid import UUID

from molecule_ai.kernel import failpoints
from molecule_ai.kernel.db import Connection, Database
from molecule_ai.kernel.notify import notify
from molecule_ai.server.auth.principal import Principal
from molecule_ai.server.events.catalogue import Event
from molecule_ai.server.events.service import Cleaner, Events
from molecule_ai.server.tokens.service import Tokens

from . import lifecycle_store as store
from . import transitions
from .errors import (
    ConfirmationRequired,
    ConfirmNameMismatch,
    ConfirmNameRequired,
    WorkspaceNotFound,
    WorkspaceRemoved,
)
from .lifecycle_errors import (
    AncestorPaused,
    ExternalWorkspace,
    HasActiveTasks,
    NotHibernatable,
    NotHibernated,
    NotPausable,
    NotPaused,
    NotStopped,
    ProvisionerNotAvailable,
)
from .lifecycle_schemas import BootstrapFailure, Noted, Paused, Removal, Restart, Restarted, Resumed
from .lifecycle_store import Change, Subject
from .relaunch import Relaunch
from .status import STOP_FAILED, Desired, Status
from .store import hold_tree, share_tree
from .transitions import ALLOWED, LIVE

RECONCILE = "molecule_reconcile"
# What sets the running agent's surroundings may come in bursts: ten secrets make one restart.
CONFIG_DEBOUNCE = timedelta(seconds=1)
# How long an agent's word that a task has ended may come after its answer, and how often we look.
LAST_WORD_SECONDS = 1.0
LOOK_AGAIN_SECONDS = 0.1
STOP_SECONDS = 25.0  # a stop takes a few; clients wait half a minute for an answer
MAX_TAIL_BYTES = 8192
CUT_MARK = "[… cut …]\n"
BOOT_ERROR = "the machine stopped before its agent registered"
_PRESENT = frozenset(Status) - {Status.REMOVED}

Cleanup = Callable[[Connection, Sequence[UUID], str], Awaitable[object]]


class Lifecycle:
    """Restart, pause, resume, hibernate, wake, remove."""

    def __init__(
        self,
        db: Database,
        events: Events,
        tokens: Tokens,
        relaunch: Relaunch,
        *,
        has_backend: bool,
        confirms_deletes: bool,
    ) -> None:
        self._db = db
        self._events = events
        self._tokens = tokens
        self._relaunch = relaunch
        self._has_backend = has_backend
        self._confirms_deletes = confirms_deletes
        self._cleanups: list[Cleanup] = []
        self.cleaner: Cleaner | None = None

    def on_removed(self, cleanup: Cleanup) -> None:
        """Call `cleanup(tx, workspace_ids, actor)` in the transaction that removes workspaces."""
        self._cleanups.append(cleanup)

    async def restart(self, caller: Principal, workspace_id: UUID, wish: Restart) -> Restarted:
        """Stop the agent, if one runs, and start it afresh; restarts asked for meanwhile are this one."""
        async with self._db.connection() as connection:
            plan = await self._relaunch.plan(await _existing(connection, workspace_id), wish)
        async with self._db.transaction() as tx:
            await share_tree(tx)
            subject = _required(await store.lock(tx, workspace_id))
            await self._require_startable(tx, subject)
            change = Change(desired=Desired.RUN, is_new_wish=True, cause="user")
            moved = await transitions.move(
                tx,
                self._events,
                workspace_id,
                Status.PROVISIONING,
                only_from=ALLOWED[Status.PROVISIONING],
                reason="restart",
                change=change,
                actor=caller.label,
            )
            if moved is None:
                await store.wish(tx, workspace_id, Desired.RUN, "user", only_from={Status.PROVISIONING})
            await store.prepare_restart(tx, workspace_id, plan.files, reset=wish.reset)
            await self._audit(tx, "workspace.restart", subject, caller)
            await self._wished(tx)
        return Restarted(Status.PROVISIONING, plan.label, wish.reset)

    async def request_restart(
        self,
        tx: Connection,
        workspace_ids: Sequence[UUID],
        *,
        reason: str,
        delay: timedelta = CONFIG_DEBOUNCE,
    ) -> None:
        """Have running agents start anew after `tx` commits; requests close together are one restart.

        Stopped, removed and external workspaces, and those below a paused one, are left alone.
        """
        if not self._has_backend or not workspace_ids:
            return
        if await store.request_restart(tx, workspace_ids, reason, "config", delay):
            await self._wished(tx)

    async def pause(self, caller: Principal, workspace_id: UUID, *, cascade: bool = True) -> Paused:
        """Stop a workspace and everybody below it who is not paused already."""
        async with self._db.transaction() as tx:
            await share_tree(tx)
            subject = await store.lock(tx, workspace_id)
            if subject is None or subject.status in (Status.REMOVED, Status.PAUSED):
                raise NotPausable
            below = await store.descendants(tx, workspace_id) if cascade else []
            moved = await transitions.move_many(
                tx,
                self._events,
                [workspace_id, *below],
                Status.PAUSED,
                only_from=ALLOWED[Status.PAUSED],
                reason="paused" if not below else f"paused with {subject.name}",
                actor=caller.label,
                change=Change(desired=Desired.PAUSE, is_new_wish=True, paused_by=workspace_id),
            )
            await self._audit(tx, "workspace.pause", subject, caller)
            await self._wished(tx)
        return Paused(Status.PAUSED, len(moved))

    async def resume(self, caller: Principal, workspace_id: UUID, *, everybody: bool = False) -> Resumed:
        """Bring back a paused workspace and those who were paused with it.

        Who was paused on their own account stays paused unless `everybody` is meant.
        """
        async with self._db.transaction() as tx:
            await share_tree(tx)
            subject = await store.lock(tx, workspace_id)
            if subject is None or subject.status is not Status.PAUSED:
                raise NotPaused
            if not (self._has_backend or subject.is_external):
                raise ProvisionerNotAvailable
            if (name := await store.paused_ancestor(tx, workspace_id)) is not None:
                raise AncestorPaused(name)
            below = await store.descendants(tx, workspace_id)
            resumed = await store.paused_here(tx, [workspace_id, *below], workspace_id, everybody=everybody)
            for to, external in ((Status.PROVISIONING, False), (Status.AWAITING_AGENT, True)):
                await transitions.move_many(
                    tx,
                    self._events,
                    [found for found, is_external in resumed if is_external is external],
                    to,
                    only_from={Status.PAUSED},
                    reason="resumed",
                    actor=caller.label,
                    change=Change(desired=Desired.RUN, is_new_wish=True, cause="user"),
                )
            await self._audit(tx, "workspace.resume", subject, caller)
            await self._wished(tx)
        return Resumed(Status.AWAITING_AGENT if subject.is_external else Status.PROVISIONING, len(resumed))

    async def hibernate(self, caller: Principal, workspace_id: UUID, *, force: bool) -> None:
        """Stop an idle agent until somebody needs it; with `force` a busy one too.

        An agent says that a task has ended after it has answered, so whoever holds the answer may be
        ahead of that word: a task that looks busy is looked at again for a moment.
        """
        loop = asyncio.get_running_loop()
        patience_ends = loop.time() + LAST_WORD_SECONDS
        while True:
            try:
                return await self._hibernate_now(caller, workspace_id, force=force)
            except HasActiveTasks:
                if loop.time() >= patience_ends:
                    raise
            await asyncio.sleep(LOOK_AGAIN_SECONDS)

    async def asleep(self, workspace_id: UUID) -> Status:
        """Wait for the end of a hibernation: the status that came of it, `hibernating` when it takes long.

        Raises `NotStopped` when the agent did not end and goes on.
        """
        loop = asyncio.get_running_loop()
        patience_ends = loop.time() + STOP_SECONDS
        while True:
            async with self._db.connection() as connection:
                subject = _required(await store.find(connection, workspace_id))
            if subject.status in LIVE and subject.status_reason.startswith(STOP_FAILED):
                raise NotStopped(detail=subject.status_reason)
            if subject.status is not Status.HIBERNATING or loop.time() >= patience_ends:
                return subject.status
            await asyncio.sleep(LOOK_AGAIN_SECONDS)

    async def _hibernate_now(self, caller: Principal, workspace_id: UUID, *, force: bool) -> None:
        async with self._db.transaction() as tx:
            subject = await store.lock(tx, workspace_id)
            if subject is None or subject.status not in LIVE:
                raise NotHibernatable
            if subject.is_external:
                raise ExternalWorkspace
            if not self._has_backend:
                raise ProvisionerNotAvailable
            tasks = max(subject.active_tasks, await store.load(tx, workspace_id))
            if tasks > 0 and not force:
                raise HasActiveTasks(active_tasks=tasks)
            await self.put_to_sleep(tx, workspace_id, reason="hibernated by hand", actor=caller.label)
            await self._audit(tx, "workspace.hibernate", subject, caller)

    async def put_to_sleep(
        self, tx: Connection, workspace_id: UUID, *, reason: str, actor: str | None = None
    ) -> bool:
        """Claim a live workspace for hibernation; whoever asked has looked at its tasks."""
        moved = await transitions.move(
            tx,
            self._events,
            workspace_id,
            Status.HIBERNATING,
            only_from=LIVE,
            reason=reason,
            actor=actor,
            change=Change(desired=Desired.HIBERNATE, is_new_wish=True),
        )
        await self._wished(tx)
        return moved is not None

    async def wake(self, tx: Connection, workspace_id: UUID, *, reason: str) -> bool:
        """Start a hibernated agent; of many callers one gets True, and all find it starting.

        One that is still falling asleep is started as soon as it has stopped.
        """
        change = Change(desired=Desired.RUN, is_new_wish=True, cause="wake")
        moved = await transitions.move(
            tx,
            self._events,
            workspace_id,
            Status.PROVISIONING,
            only_from={Status.HIBERNATED},
            reason=reason,
            change=change,
        )
        woken = moved is not None or await store.wish(
            tx,
            workspace_id,
            Desired.RUN,
            "wake",
            only_from={Status.HIBERNATING},
            instead_of=Desired.HIBERNATE,
        )
        if woken:
            await self._wished(tx)
        return woken

    async def wake_now(self, caller: Principal, workspace_id: UUID) -> None:
        """Wake by hand. Raises `NotHibernated`."""
        async with self._db.transaction() as tx:
            subject = _required(await store.lock(tx, workspace_id))
            if subject.status not in (Status.HIBERNATED, Status.HIBERNATING):
                raise NotHibernated(status=subject.status)
            if not self._has_backend:
                raise ProvisionerNotAvailable
            await self.wake(tx, workspace_id, reason="woken by hand")
            await self._audit(tx, "workspace.wake", subject, caller)

    async def remove(
        self,
        caller: Principal,
        workspace_id: UUID,
        *,
        confirm_name: str | None,
        confirm: bool,
        purge: bool,
    ) -> Removal:
        """Remove a workspace and its whole subtree: first marked, in one transaction, then stopped.

        Files stay for a week unless `purge`. Removing again repeats the stop. Raises
        `WorkspaceNotFound`, `ConfirmNameRequired`, `ConfirmNameMismatch` and `ConfirmationRequired`.
        """
        async with self._db.transaction() as tx:
            await hold_tree(tx)
            subject = await store.lock(tx, workspace_id)
            if subject is None:
                raise WorkspaceNotFound
            self._check_name(subject.name, confirm_name)
            children = await store.children(tx, workspace_id)
            if children and not confirm:
                raise ConfirmationRequired(children=children, children_count=len(children))
            below = await store.descendants(tx, workspace_id)
            await self._mark_removed(tx, caller, subject, below, purge=purge)
            failpoints.reach("lifecycle.removing")
        failpoints.reach("lifecycle.removed")
        return Removal("purged" if purge else "removed", len(below))

    async def _mark_removed(
        self, tx: Connection, caller: Principal, subject: Subject, below: Sequence[UUID], *, purge: bool
    ) -> None:
        ids = [subject.id, *below]
        change = Change(desired=Desired.REMOVE, is_new_wish=True)
        moved = await transitions.move_many(
            tx, self._events, ids, Status.REMOVED, only_from=_PRESENT, event=None, change=change
        )
        if subject.status is Status.REMOVED:
            await store.wish(tx, subject.id, Desired.REMOVE, "", only_from={Status.REMOVED})
        if purge:
            await store.mark_purge(tx, ids)
        await store.delete_layouts(tx, ids)
        await self._tokens.revoke_all(tx, ids, actor=caller.label)
        for cleanup in self._cleanups:
            await cleanup(tx, ids, caller.label)
        gone = {row.id for row in moved}
        for workspace_id in (found for found in below if found in gone):
            await self._events.append(tx, Event.WORKSPACE_REMOVED, workspace_id, {}, actor=caller.label)
        if subject.id in gone:
            payload = {"cascade_deleted": len(below)}
            await self._events.append(tx, Event.WORKSPACE_REMOVED, subject.id, payload, actor=caller.label)
        await self._audit(tx, "workspace.purge" if purge else "workspace.delete", subject, caller)
        await self._wished(tx)

    def _check_name(self, name: str, given: str | None) -> None:
        if given is None:
            if self._confirms_deletes:
                raise ConfirmNameRequired
        elif name not in (given, unquote(given)):
            raise ConfirmNameMismatch

    async def bootstrap_failed(
        self, caller: Principal, workspace_id: UUID, report: BootstrapFailure
    ) -> Noted:
        """Note that the machine of an agent died before the agent registered."""
        async with self._db.transaction() as tx:
            error = await self._cleaned(tx, workspace_id, report.error or BOOT_ERROR)
            tail = cut(await self._cleaned(tx, workspace_id, report.log_tail or ""))
            moved = await transitions.move(
                tx,
                self._events,
                workspace_id,
                Status.FAILED,
                only_from={Status.PROVISIONING},
                reason="BOOT_CRASH",
                payload={
                    "error": error,
                    "log_tail": tail,
                    "source": "bootstrap_watcher",
                    "code": "BOOT_CRASH",
                },
                change=Change(error=f"{error}\n\n{tail}" if tail else error),
            )
            if moved is not None:
                facts = {"error": error}
                await self._events.append(
                    tx, "workspace.bootstrap_failed", workspace_id, facts, actor=caller.label
                )
        return Noted(ok=True, no_change=moved is None)

    async def _cleaned(self, tx: Connection, workspace_id: UUID, text: str) -> str:
        return text if self.cleaner is None else str(await self.cleaner.clean([workspace_id], text, tx))

    async def _require_startable(self, tx: Connection, subject: Subject) -> None:
        if subject.is_external:
            raise ExternalWorkspace
        if (name := await store.paused_ancestor(tx, subject.id)) is not None:
            raise AncestorPaused(name)
        if not self._has_backend:
            raise ProvisionerNotAvailable

    async def _wished(self, tx: Connection) -> None:
        failpoints.reach("lifecycle.wished")
        await notify(tx, RECONCILE)

    async def _audit(self, tx: Connection, verb: str, subject: Subject, caller: Principal) -> None:
        await self._events.append(tx, verb, subject.id, {"name": subject.name}, actor=caller.label)


def cut(text: str, limit: int = MAX_TAIL_BYTES) -> str:
    """The last `limit` bytes of a text, marked when something is missing."""
    raw = text.encode()
    if len(raw) <= limit:
        return text
    return CUT_MARK + raw[-(limit - len(CUT_MARK.encode())) :].decode(errors="ignore")


async def _existing(connection: Connection, workspace_id: UUID) -> Subject:
    return _required(await store.find(connection, workspace_id))


def _required(subject: Subject | None) -> Subject:
    if subject is None:
        raise WorkspaceNotFound
    if subject.status is Status.REMOVED:
        raise WorkspaceRemoved(id=subject.id, removed_at=subject.removed_at)
    return subject
