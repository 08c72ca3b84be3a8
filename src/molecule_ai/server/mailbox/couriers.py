"""Deliveries of messages from the mailbox: each one ends its row, or hands it back with a reason."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any, ClassVar
from uuid import UUID

import msgspec

from molecule_ai.kernel import failpoints, log
from molecule_ai.kernel.db import Connection, Database
from molecule_ai.kernel.errors import ApiError
from molecule_ai.server.a2a.agents import CEILING_SECONDS, Agents, Delivery, Outcome, Streaming
from molecule_ai.server.a2a.log import Subject, answer_json
from molecule_ai.server.a2a.queueing import delivery_key
from molecule_ai.server.activity.schemas import Entry, SourceKind
from molecule_ai.server.activity.service import Activity
from molecule_ai.server.traffic.errors import ChainLimit
from molecule_ai.server.traffic.schemas import Slot, Target
from molecule_ai.server.traffic.service import Traffic
from molecule_ai.server.workspaces.status import Status

from . import store
from .schemas import Message, State
from .service import Mailbox

MAX_ATTEMPTS = 5
LEASE = timedelta(seconds=30)  # three renewals; a dead replica's messages wait no longer
BACKOFF_SECONDS = (8, 20, 45, 120)  # contract 05 §20: a restart takes longer than one pause
BUSY_SECONDS = 5
_LEAST_ROOM = 32
OVER_BUDGET_SECONDS = 60
OVER_BUDGET = "workspace budget limit exceeded"
_GONE = frozenset({Status.REMOVED, Status.FAILED})
_TRANSIENT = frozenset({502, 503, 504})
_MAX_RAW_CHARS = 100_000


class HandBack(msgspec.Struct, frozen=True, kw_only=True):
    """A message that is to be tried again."""

    reason: str
    delay_seconds: int
    is_counted: bool = False
    is_uncertain: bool = False


class End(msgspec.Struct, frozen=True, kw_only=True):
    """A message that is done with."""

    state: State
    response: dict[str, Any] | None = None
    error: str | None = None
    duration_ms: int = 0


class Couriers:
    """Carries claimed messages to their agents, many at once, none waiting for another."""

    log: ClassVar = log.get()

    def __init__(
        self,
        db: Database,
        mailbox: Mailbox,
        traffic: Traffic,
        agents: Agents,
        activity: Activity,
        *,
        limit: int,
        on_free: Callable[[], None],
    ) -> None:
        self._db = db
        self._mailbox = mailbox
        self._traffic = traffic
        self._agents = agents
        self._activity = activity
        self._limit = limit
        self._least = max(1, min(_LEAST_ROOM, limit // 4))
        self._on_free = on_free
        self._tasks: dict[asyncio.Task[None], tuple[UUID, UUID]] = {}

    @property
    def room(self) -> int:
        """How many more deliveries may begin now; none rather than a few, so that looks are worth it."""
        room = self._limit - len(self._tasks)
        return room if room >= self._least else 0

    @property
    def under_way(self) -> int:
        return len(self._tasks)

    def start(self, message: Message, slot: Slot) -> None:
        """Deliver a claimed message in the background."""
        self._traffic.hold(slot)
        task = asyncio.create_task(self._carry(message, slot))
        self._tasks[task] = (message.id, slot.holder)
        task.add_done_callback(self._done)

    async def renew(self) -> None:
        """Extend the leases of what is under way."""
        if holders := dict(self._tasks.values()):
            async with self._db.transaction() as tx:
                await store.renew(tx, holders, LEASE)

    async def stop(self) -> None:
        """Let go of everything, so that another replica may go on at once."""
        holders = dict(self._tasks.values())
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if holders:
            async with self._db.transaction() as tx:
                await store.release(tx, holders)

    def _done(self, task: asyncio.Task[None]) -> None:
        had_room = self.room > 0
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()):
            # The row's lease ends by itself, and it is delivered again under the same messageId.
            self.log.error("delivery_crashed", exc_info=error)
        if not had_room and self.room > 0:
            self._on_free()

    async def _carry(self, message: Message, slot: Slot) -> None:
        target = (await self._traffic.look(None, message.workspace_id)).target
        verdict: End | HandBack | None = None
        entry: Entry | None = None
        if target is None or target.status in _GONE:
            reason = "removed" if target is None else target.status.value
            verdict = End(state=State.FAILED, error=f"workspace {reason}")
        else:
            verdict = self._obstacle(message, target) or await self._stopped(message)
            if verdict is None:
                delivery = await self._deliver(message, target)
                failpoints.reach("mailbox.dispatched")
                verdict = judge(delivery)
                if isinstance(verdict, HandBack) and verdict.is_counted and message.attempts >= MAX_ATTEMPTS:
                    reason = f"given up after {message.attempts} attempts: {verdict.reason}"
                    verdict = End(state=State.FAILED, error=reason, duration_ms=delivery.duration_ms)
            if isinstance(verdict, End) and message.source_kind is not SourceKind.SYSTEM:
                entry = _entry(message, target, verdict)
        await self._settle(message, slot, verdict, entry)
        failpoints.reach("mailbox.settled")

    def _obstacle(self, message: Message, target: Target) -> End | HandBack | None:
        """Why the message cannot go out right now."""
        if target.is_over_budget:
            if message.is_budget_fatal:
                return End(state=State.FAILED, error=OVER_BUDGET)
            return HandBack(reason=OVER_BUDGET, delay_seconds=OVER_BUDGET_SECONDS)
        if not target.is_live or not target.url:
            return HandBack(reason=f"workspace {target.status.value}", delay_seconds=BUSY_SECONDS)
        return None

    async def _stopped(self, message: Message) -> End | None:
        try:
            async with self._db.connection() as connection:
                await self._traffic.require_running(connection, message.chain_id)
        except ChainLimit:
            return End(state=State.DROPPED, error="chain stopped")
        return None

    async def _deliver(self, message: Message, target: Target) -> Delivery:
        delivery = await self._agents.deliver(
            target,
            msgspec.json.encode(message.body),
            ceiling_seconds=float(message.timeout_seconds or CEILING_SECONDS),
        )
        if isinstance(delivery, Streaming):
            raise TypeError("a stream was returned that nobody asked for")
        return delivery

    async def _settle(
        self, message: Message, slot: Slot, verdict: End | HandBack, entry: Entry | None
    ) -> None:
        async with self._db.transaction() as tx:
            if isinstance(verdict, HandBack):
                await self._hand_back(tx, message, slot, verdict)
            else:
                ended = await store.settle(
                    tx, message.id, slot.holder, verdict.state, verdict.response, verdict.error
                )
                if ended is None:
                    self.log.warning("delivery_overtaken", message_id=str(message.id))
                else:
                    await self._tell(tx, message, ended, verdict, entry)
            await self._traffic.leave(slot, tx=tx)

    async def _hand_back(self, tx: Connection, message: Message, slot: Slot, verdict: HandBack) -> None:
        delay = verdict.delay_seconds
        if verdict.is_counted:
            delay = BACKOFF_SECONDS[min(message.attempts, len(BACKOFF_SECONDS)) - 1]
        await store.hand_back(
            tx,
            message.id,
            slot.holder,
            delay=timedelta(seconds=delay),
            error=verdict.reason,
            counted=verdict.is_counted,
            uncertain=verdict.is_uncertain,
        )

    async def _tell(
        self, tx: Connection, message: Message, attempts: int, end: End, entry: Entry | None
    ) -> None:
        await self._mailbox.settled(
            tx,
            message,
            end.state,
            end.response,
            end.error,
            duration_ms=end.duration_ms,
            attempts=attempts,
        )
        if entry is None:
            return
        try:
            await self._activity.conclude(tx, entry)
        except ApiError as gone:  # the workspace went away meanwhile, and its log with it
            self.log.info("activity_lost", error=gone.text)


def judge(delivery: Delivery) -> End | HandBack:
    """What a delivery means for its message: done, failed, or once more."""
    spent = delivery.duration_ms
    match delivery.outcome:
        case Outcome.ANSWERED:
            return End(state=State.COMPLETED, response=_response(delivery.body), duration_ms=spent)
        case Outcome.BUSY:
            delay = delivery.retry_after or BUSY_SECONDS
            return HandBack(reason=delivery.reason, delay_seconds=delay)
        case Outcome.RESTARTING:
            return HandBack(reason="agent restarting", delay_seconds=BUSY_SECONDS)
        case Outcome.FAILED if delivery.status in _TRANSIENT:
            return HandBack(reason=delivery.reason, delay_seconds=0, is_counted=True)
        case Outcome.UNREACHABLE:
            return HandBack(reason=delivery.reason, delay_seconds=0, is_counted=True)
        case Outcome.INTERRUPTED | Outcome.ANSWER_LOST:
            return HandBack(reason=delivery.reason, delay_seconds=0, is_counted=True, is_uncertain=True)
        case _:
            return End(state=State.FAILED, error=_why(delivery), duration_ms=spent)


def _response(body: bytes) -> dict[str, Any]:
    answer = answer_json(body)
    if answer is not None:
        return answer
    return {"jsonrpc": "2.0", "id": None, "result": body.decode(errors="replace")[:_MAX_RAW_CHARS]}


def _why(delivery: Delivery) -> str:
    said = (answer_json(delivery.body) or {}).get("error")
    if isinstance(said, dict):
        said = said.get("message")
    return f"{delivery.reason}: {said}" if isinstance(said, str) and said else delivery.reason


def _entry(message: Message, target: Target, end: End) -> Entry:
    subject = Subject(
        target,
        message.body,
        caller_id=message.caller_id,
        source_kind=message.source_kind,
        source_label=message.source_label,
        chain=message.chain,
        key=delivery_key(message.id),
    )
    if end.state is State.COMPLETED:
        return subject.answered(end.response, end.duration_ms)
    return subject.failed(end.error or "", end.duration_ms)
