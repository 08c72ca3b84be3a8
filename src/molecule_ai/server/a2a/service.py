"""The proxy: the checks of contract 05 §1 in their order, one delivery, and what it leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from http import HTTPStatus
from typing import Any
from uuid import UUID

import msgspec

from molecule_ai.kernel import log
from molecule_ai.kernel.clock import Clock, Ids
from molecule_ai.kernel.db import Database
from molecule_ai.kernel.errors import ApiError
from molecule_ai.server.activity.service import Activity
from molecule_ai.server.events.catalogue import Event
from molecule_ai.server.events.schemas import Frame
from molecule_ai.server.mailbox.chain import Task
from molecule_ai.server.mailbox.service import clamped
from molecule_ai.server.traffic.errors import ChainLimit
from molecule_ai.server.traffic.schemas import Entry as Entering
from molecule_ai.server.traffic.schemas import Situation, Slot, Target
from molecule_ai.server.traffic.service import Traffic
from molecule_ai.server.workspaces.status import Status

from . import envelope
from .aftermath import Aftermath
from .agents import CEILING_SECONDS, Agents, Delivery, Outcome, Streaming
from .errors import (
    WAKE_RETRY_SECONDS,
    AgentRestarting,
    AgentTimeout,
    AgentUnreachable,
    AnswerLost,
    AnswerTooLarge,
    CallerTimeout,
    NotRoutable,
    NoUrl,
    OutsideHierarchy,
    OverBudget,
    TargetNotFound,
    TargetRemoved,
    Waking,
)
from .log import LOST_BUT_DELIVERED, answer_json
from .queueing import Queueing
from .relay import Relay
from .schemas import Exchange, Reply, Wish
from .waking import Sleepers

_DIALLED = frozenset({Status.ONLINE, Status.DEGRADED, Status.OFFLINE})
_COMING = frozenset({Status.PROVISIONING, Status.OFFLINE, Status.HIBERNATING, Status.AWAITING_AGENT})
_DRAIN_SECONDS = 10.0
_MANUAL_RUN = b"manual-cron-"  # how such a message's id begins (contract 03 §2.8)

Joins = Callable[[UUID, str], Awaitable[UUID | None]]
Listener = Callable[[UUID, UUID, dict[str, Any]], Coroutine[Any, Any, object]]


class Proxy:
    """Passes messages of people and agents on to agents."""

    def __init__(
        self,
        db: Database,
        activity: Activity,
        aftermath: Aftermath,
        traffic: Traffic,
        queueing: Queueing,
        agents: Agents,
        sleepers: Sleepers,
        clock: Clock,
        ids: Ids,
        *,
        canvas_budget_seconds: float | None,
        joins: Joins,
    ) -> None:
        self._db = db
        self._activity = activity
        self._aftermath = aftermath
        self._traffic = traffic
        self._queueing = queueing
        self._agents = agents
        self._sleepers = sleepers
        self._clock = clock
        self._ids = ids
        self._canvas_budget = canvas_budget_seconds
        self._joins = joins
        self.listeners: list[Listener] = []
        """Told of each message between agents that was admitted."""
        self._under_way: set[asyncio.Task[Any]] = set()
        self._log = log.get()

    async def call(self, caller_id: UUID | None, target_id: UUID, raw: bytes, wish: Wish) -> Reply:
        """Deliver a message and answer with what the agent says, or with what became of it."""
        situation = await self._traffic.look(caller_id, target_id)
        target = _admitted(situation)
        if caller_id is None and _MANUAL_RUN in raw and (run_id := await self._joined(target_id, raw)):
            return Reply(status=HTTPStatus.ACCEPTED, content={"queued": True, "run_id": str(run_id)})
        must_wait = await self._must_wait(target, wish)
        draft = envelope.normalize(raw, lambda: str(self._ids.new()))
        try:
            chain, cause = self._traffic.chain_of(caller_id, target_id, draft.claimed_chain, situation)
            draft.mark(chain)
            exchange = Exchange(
                target=target, draft=draft, chain=chain, caller_id=caller_id, slot=None, wish=wish
            )
            self._announce(exchange)
            if target.is_polling:
                return await self._leave_for_polling(exchange, cause)
            if must_wait:
                return await self._queueing.put(exchange)
            return await self._enter_and_deliver(exchange, situation, cause)
        except ChainLimit as limit:
            await self._traffic.refused(limit, caller_id, target_id)
            raise

    async def _joined(self, target_id: UUID, raw: bytes) -> UUID | None:
        """The run that this message repeats: a canvas asks for a run and then posts its prompt, too."""
        draft = envelope.normalize(raw, lambda: str(self._ids.new()))
        if not draft.message_id.startswith(_MANUAL_RUN.decode()):
            return None
        text = "".join(
            part.get("text", "") for part in (draft.message or {}).get("parts", ()) if isinstance(part, dict)
        )
        return await self._joins(target_id, text)

    def _announce(self, exchange: Exchange) -> None:
        caller_id = exchange.caller_id
        if caller_id is not None and caller_id != exchange.target.id:
            for listener in self.listeners:
                self._spawn(listener(caller_id, exchange.target.id, exchange.draft.value))

    async def drain(self) -> None:
        """Wait a moment for what is under way, then let go of it."""
        if self._under_way:
            _, left = await asyncio.wait(self._under_way, timeout=_DRAIN_SECONDS)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
        await self._traffic.settle()
        await self._aftermath.drain()

    async def _must_wait(self, target: Target, wish: Wish) -> bool:
        """Whether the message goes into the mailbox at once. Raises what the target's state says."""
        if target.is_polling and target.status is not Status.REMOVED:
            return False
        if target.status is Status.HIBERNATED:
            if wish.prefers_async:
                return True
            if await self._sleepers.wake(target.id):
                raise Waking(waking=True, retry_after=WAKE_RETRY_SECONDS)
            raise NoUrl(status=target.status.value, blocked_by="paused_parent")
        if target.status in _DIALLED and target.url:
            return False
        if wish.prefers_async and target.status in _COMING:
            return True
        raise NoUrl(status=target.status.value)

    async def _enter_and_deliver(self, exchange: Exchange, situation: Situation, cause: Task | None) -> Reply:
        slot = None
        if exchange.draft.message is not None:
            found = await self._traffic.enter(_entering(exchange, situation, cause))
            if not isinstance(found, Slot):
                return await self._queueing.put(exchange)
            slot = found
        entered = msgspec.structs.replace(exchange, slot=slot)
        return await self._wait(entered, self._spawn(self._deliver(entered)))

    async def _wait(self, exchange: Exchange, task: asyncio.Task[Reply]) -> Reply:
        """The reply, or what a caller is told who does not wait for it."""
        wish, budget = exchange.wish.timeout_seconds, self._canvas_budget
        limit = float(wish) if wish else (budget if exchange.caller_id is None else None)
        done, _ = await asyncio.wait({task}, timeout=limit)
        if done:
            return task.result()
        if wish:
            raise CallerTimeout(delivery_confirmed=False, in_flight=True)
        told = {"status": "queued", "delivery_mode": "push", "method": exchange.draft.method}
        return Reply(content=told)

    async def _deliver(self, exchange: Exchange) -> Reply:
        """Call the agent. Its slot is on its way back before the caller hears of the answer."""
        is_streaming = False
        try:
            delivery = await self._agents.deliver(
                exchange.target,
                exchange.draft.encode(),
                ceiling_seconds=None if exchange.caller_id is None else CEILING_SECONDS,
                headers=exchange.wish.passed_on,
                streams=exchange.streams,
            )
            if isinstance(delivery, Streaming):
                is_streaming = True
                return self._relay(exchange, delivery)
        finally:
            if exchange.slot is not None and not is_streaming:
                self._traffic.leave_soon(exchange.slot)
        return await self._reply(exchange, delivery)

    async def _reply(self, exchange: Exchange, delivery: Delivery) -> Reply:
        match delivery.outcome:
            case Outcome.BUSY | Outcome.INTERRUPTED if exchange.draft.message is not None:
                return await self._queueing.put(
                    exchange,
                    uncertain=delivery.outcome is Outcome.INTERRUPTED,
                    delay_seconds=delivery.retry_after or 0,
                )
            case Outcome.ANSWERED:
                self._answered(exchange, delivery)
                return Reply(status=delivery.status, content=delivery.body)
        self._aftermath.note(exchange.subject().ended(delivery))
        if delivery.outcome in {Outcome.FAILED, Outcome.BUSY}:
            return Reply(status=delivery.status, content=_failed(delivery))
        raise _trouble(delivery)

    def _relay(self, exchange: Exchange, source: Streaming) -> Reply:
        began = asyncio.get_running_loop().time()

        async def ended(last: dict[str, Any] | None, error: str) -> None:
            if exchange.slot is not None:
                await self._traffic.leave(exchange.slot)
            spent = max(1, round((asyncio.get_running_loop().time() - began) * 1000))
            subject = exchange.subject()
            if error:
                self._aftermath.note(subject.failed(error, spent, last))
            else:
                self._aftermath.note(subject.answered(last, spent), self._frame(exchange, last, spent))

        relay = Relay(source, self._agents.idle_seconds(exchange.target), ended)
        self._spawn(relay.pump())
        if exchange.caller_id is not None:
            self._traffic.spoke(exchange.caller_id)
        return Reply(
            content=relay.chunks(),
            headers={
                "Content-Type": "text/event-stream",
                "X-Accel-Buffering": "no",
                "Cache-Control": "no-cache",
            },
        )

    async def _leave_for_polling(self, exchange: Exchange, cause: Task | None) -> Reply:
        """The agent fetches it from the log, so the row is all there is and must be there first."""
        caller_id, target = exchange.caller_id, exchange.target
        async with self._db.transaction() as tx:
            await self._traffic.require_running(tx, exchange.chain.chain_id)
            if caller_id is not None:
                await self._traffic.count(tx, caller_id, target.id, exchange.chain.chain_id, cause)
            key = f"message:{clamped(exchange.draft.message_id)}" if exchange.draft.message_id else None
            await self._activity.record(exchange.subject(key).received(), tx=tx)
        if caller_id is not None:
            self._traffic.spoke(caller_id)
        return Reply(content=polled(exchange.draft.method))

    def _answered(self, exchange: Exchange, delivery: Delivery) -> None:
        if exchange.caller_id is not None:
            self._traffic.spoke(exchange.caller_id)
        entry = exchange.subject().ended(delivery)
        self._aftermath.note(entry, self._frame(exchange, entry.response_body, delivery.duration_ms))

    def _frame(self, exchange: Exchange, answer: dict[str, Any] | None, duration_ms: int) -> Frame | None:
        """People see the answer at once; agents get it where they asked."""
        if exchange.caller_id is not None or answer is None:
            return None
        told = {"response_body": answer, "method": exchange.draft.method, "duration_ms": duration_ms}
        return Frame(
            event=Event.A2A_RESPONSE,
            workspace_id=exchange.target.id,
            timestamp=self._clock.now(),
            payload=told,
        )

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run what outlives the request that began it."""
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._gone)
        return task

    def _gone(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, ApiError):
            self._log.error("a2a_background_failed", exc_info=error)


def polled(method: str) -> dict[str, Any]:
    """What is answered for a target that fetches its messages itself."""
    return {"status": "queued", "delivery_mode": "poll", "method": method}


def _admitted(situation: Situation) -> Target:
    target = situation.target
    if not situation.is_allowed:
        raise OutsideHierarchy
    if target is None:
        raise TargetNotFound
    if target.is_over_budget:
        raise OverBudget
    if target.status is Status.REMOVED:
        raise TargetRemoved
    return target


def _entering(exchange: Exchange, situation: Situation, cause: Task | None) -> Entering:
    # The target waits for this very chain, so that queueing behind its own task would wait for ever.
    is_continuation = exchange.caller_id is not None and exchange.chain.chain_id in situation.target_chains
    return Entering(
        target=exchange.target,
        message_id=clamped(exchange.draft.message_id),
        chain=exchange.chain,
        caller_id=exchange.caller_id,
        cause=cause,
        is_continuation=is_continuation,
    )


def _failed(delivery: Delivery) -> dict[str, Any]:
    """An agent's failure: its own word for it, and its JSON-RPC error so that nothing is lost."""
    said = answer_json(delivery.body) or {}
    error = said.get("error")
    if isinstance(error, str):
        return {"error": error, "code": "agent_failed"}
    try:
        text = HTTPStatus(delivery.status).phrase
    except ValueError:
        text = f"HTTP {delivery.status}"
    return {"error": text, "code": "agent_failed"} | ({"agent_error": error} if error is not None else {})


def _trouble(delivery: Delivery) -> ApiError:
    match delivery.outcome:
        case Outcome.RESTARTING:
            return AgentRestarting(restarting=True)
        case Outcome.NOT_ROUTABLE:
            return NotRoutable(reason=delivery.reason)
        case Outcome.ANSWER_LOST:
            return AnswerLost(delivery_confirmed=delivery.status in LOST_BUT_DELIVERED)
        case Outcome.TOO_LARGE:
            return AnswerTooLarge(delivery_confirmed=True)
        case Outcome.TIMED_OUT:
            return AgentTimeout(delivery_confirmed=True)
        case _:
            return AgentUnreachable()
