"""What follows when an agent is gone although it should run (contract 02 §5.3, 05 "transport failure")."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import UUID

import msgspec

from molecule_ai.kernel.clock import Clock
from molecule_ai.kernel.db import Connection, Database
from molecule_ai.kernel.notify import notify
from molecule_ai.provisioners.base import Handle, Provisioner
from molecule_ai.provisioners.errors import ProvisionError
from molecule_ai.server.events.catalogue import Event
from molecule_ai.server.events.service import Events

from . import backoff, transitions
from . import lifecycle_store as store
from .lifecycle import RECONCILE, cut
from .lifecycle_store import Change, Moved, Subject
from .status import Desired, Status
from .transitions import LIVE

PROBE_PAUSE_SECONDS = 2.0  # one refused connection is a flap, two of them this far apart are not
MAX_BOOT_CRASHES = 2
BOOT_LOG_BYTES = 8192

Tail = Callable[[UUID], Awaitable[str]]


class Losses:
    """Decides between a restart, a back-off and giving up."""

    def __init__(
        self,
        db: Database,
        events: Events,
        provisioner: Provisioner,
        clock: Clock,
        tail: Tail,
        *,
        has_backend: bool,
    ) -> None:
        self._db = db
        self._events = events
        self._provisioner = provisioner
        self._clock = clock
        self.tail = tail
        self._has_backend = has_backend

    async def report_dead(self, workspace_id: UUID, handle: Handle | None = None) -> bool:
        """A caller was refused a connection: look twice; True when another agent is or will be there.

        An agent that cannot be judged from here counts as running.
        """
        subject = await self._managed(workspace_id)
        if subject is None:
            return False
        known = handle_of(subject)
        if _has_successor(subject, handle or known):
            return True
        if subject.status not in LIVE or known is None:
            return False
        for attempt in range(2):
            if attempt:
                await self._clock.sleep(PROBE_PAUSE_SECONDS)
            if not await self._is_dead(known):
                return False
        if await self.lost(workspace_id, str(known.instance_id), reason="agent unreachable"):
            return True
        # Somebody else has noticed meanwhile.
        subject = await self._managed(workspace_id)
        return subject is not None and _has_successor(subject, known)

    async def _managed(self, workspace_id: UUID) -> Subject | None:
        """The workspace, when its agent is ours to start."""
        async with self._db.connection() as connection:
            subject = await store.find(connection, workspace_id)
        return None if subject is None or subject.is_external or not self._has_backend else subject

    async def _is_dead(self, handle: Handle) -> bool:
        try:
            return not await self._provisioner.is_running(handle)
        except ProvisionError:
            return False

    async def lost(self, workspace_id: UUID, instance_id: str | None, *, reason: str) -> bool:
        """Take note that an instance is gone; False when it is not the one that should run."""
        tail = await self.tail(workspace_id)
        async with self._db.transaction() as tx:
            subject = await store.lock(tx, workspace_id)
            if subject is None or (instance_id is not None and subject.instance_id != instance_id):
                return False
            return await self.lost_in(tx, subject, reason=reason, tail=tail)

    async def lost_in(self, tx: Connection, subject: Subject, *, reason: str, tail: str = "") -> bool:
        """The same for a row that `tx` has locked."""
        if subject.status is Status.PROVISIONING:
            return await self._crashed(tx, subject, tail)
        if subject.is_external:
            moved = await transitions.move(
                tx,
                self._events,
                subject.id,
                Status.AWAITING_AGENT,
                only_from=LIVE,
                reason=reason,
                event=Event.WORKSPACE_OFFLINE,
                payload={},
            )
            return moved is not None
        moved = await transitions.move(
            tx, self._events, subject.id, Status.OFFLINE, only_from=LIVE, reason=reason
        )
        if moved is None:
            return False
        if self._has_backend:
            await self._revive(tx, moved, tail)
        return True

    async def _revive(self, tx: Connection, moved: Moved, tail: str) -> None:
        plan = backoff.plan(moved.at, moved.restart_times, moved.restart_attempts, moved.was_online_since)
        if plan.times is None:
            await self.fail(tx, moved.id, "RESTART_LOOP", "restart loop", tail, only_from=Status.OFFLINE)
            return
        await store.schedule_revival(tx, moved.id, plan.times, plan.attempts, plan.delay)
        await notify(tx, RECONCILE)

    async def _crashed(self, tx: Connection, subject: Subject, tail: str) -> bool:
        """An agent that ended before it registered: once more, then it is the configuration's fault."""
        record = await store.restart_record(tx, subject.id)
        plan = backoff.plan(record.now, record.restart_times, record.restart_attempts, None)
        if plan.times is None or len(plan.times) > MAX_BOOT_CRASHES:
            text = "the agent ended before it registered"
            return await self.fail(tx, subject.id, "BOOT_CRASH", text, tail, only_from=Status.PROVISIONING)
        await store.schedule_revival(tx, subject.id, plan.times, plan.attempts, backoff.DELAYS[0])
        await notify(tx, RECONCILE)
        return True

    async def fail(
        self,
        tx: Connection,
        workspace_id: UUID,
        code: str,
        error: str,
        tail: str = "",
        *,
        only_from: Status,
        **facts: object,
    ) -> bool:
        """Give up on a start: `failed`, with the reason where people look for it."""
        payload = {"error": error, "code": code, **facts}
        if tail:
            payload["log_tail"] = cut(tail)
        moved = await transitions.move(
            tx,
            self._events,
            workspace_id,
            Status.FAILED,
            only_from={only_from},
            reason=code,
            payload=payload,
            change=Change(error=f"{error}\n\n{cut(tail)}" if tail else error, forgets_instance=True),
        )
        return moved is not None


def _has_successor(subject: Subject, handle: Handle | None) -> bool:
    """Whether another agent than the one of `handle` runs already or is about to."""
    if subject.desired is not Desired.RUN:
        return False
    if subject.status in {Status.PROVISIONING, Status.OFFLINE}:
        return True
    known = handle_of(subject)
    is_other = known is not None and handle is not None and known.instance_id != handle.instance_id
    return is_other and subject.status in LIVE


def handle_of(subject: Subject) -> Handle | None:
    """The handle in a row; None when there is none that this version understands."""
    if subject.handle is None:
        return None
    try:
        return msgspec.convert(subject.handle, Handle)
    except msgspec.ValidationError:
        return None
