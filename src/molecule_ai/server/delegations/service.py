"""The rules of delegation. The ledger is the truth; the mailbox does the work and reports back here."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from molecule_ai.kernel import failpoints
from molecule_ai.kernel.clock import Ids
from molecule_ai.kernel.db import Connection, Database
from molecule_ai.server.a2a import envelope
from molecule_ai.server.activity.schemas import SourceKind
from molecule_ai.server.auth.presented import parse_uuid
from molecule_ai.server.events.catalogue import Event
from molecule_ai.server.events.service import Events
from molecule_ai.server.mailbox import chain as chains
from molecule_ai.server.mailbox.schemas import Post, Settled, State
from molecule_ai.server.mailbox.service import Mailbox, clamped
from molecule_ai.server.traffic.errors import ChainLimit
from molecule_ai.server.traffic.schemas import Situation
from molecule_ai.server.traffic.service import Traffic
from molecule_ai.server.workspaces.status import Status

from . import store
from .errors import (
    BadStatus,
    BadTargetId,
    DelegationNotFound,
    OutsideHierarchy,
    SelfDelegation,
    TargetUnknown,
    TaskTooLarge,
)
from .log import DelegationLog
from .schemas import (
    Delegate,
    Delegated,
    DelegationRecord,
    DelegationRow,
    DelegationStatus,
    DelegationUpdate,
    Ledger,
    Recorded,
    Updated,
)

REPLY_KIND = "delegation"
MAX_TASK_BYTES = 256 * 1024
MAX_RESULT_CHARS = 1024 * 1024
_FAILED_TASKS = frozenset({"failed", "rejected", "canceled", "TASK_STATE_FAILED", "TASK_STATE_REJECTED"})


class Delegations:
    """Accepts, lists and follows delegations."""

    def __init__(
        self,
        db: Database,
        events: Events,
        mailbox: Mailbox,
        traffic: Traffic,
        log: DelegationLog,
        ids: Ids,
        *,
        key_window: timedelta,
    ) -> None:
        self._db = db
        self._events = events
        self._mailbox = mailbox
        self._traffic = traffic
        self._log = log
        self._ids = ids
        self._key_window = key_window
        mailbox.replies[REPLY_KIND] = self.settled
        mailbox.dispatches[REPLY_KIND] = self.dispatched

    async def delegate(self, source_id: UUID, target_id: UUID, data: Delegate) -> Delegated:
        """Hand a task to another workspace. Once this returns it is carried out or it fails with a reason."""
        if source_id == target_id:
            raise SelfDelegation
        if len(data.task.encode()) > MAX_TASK_BYTES:
            raise TaskTooLarge
        situation = await self._traffic.look(source_id, target_id)
        if situation.target is None or situation.target.status is Status.REMOVED:
            raise TargetUnknown
        if not situation.is_allowed:
            raise OutsideHierarchy
        said = chains.claimed({"metadata": data.metadata})
        try:
            chain, cause = self._traffic.chain_of(source_id, target_id, said, situation)
            async with self._db.transaction() as tx:
                return await self._accept(tx, source_id, situation, data, chain, cause)
        except ChainLimit as limit:
            await self._traffic.refused(limit, source_id, target_id)
            raise

    async def list_rows(self, source_id: UUID, wanted: store.Filter) -> list[DelegationRow]:
        """Requests and results of a workspace, freshest first."""
        async with self._db.connection() as connection:
            return await store.list_rows(connection, source_id, wanted)

    async def record(self, source_id: UUID, data: DelegationRecord) -> Recorded:
        """Note a delegation that the agent sends itself; noting it twice is noting it once."""
        target_id = parse_uuid(data.target_id)
        if target_id is None:
            raise BadTargetId
        new = Ledger(
            delegation_id=data.delegation_id,
            caller_id=source_id,
            callee_id=target_id,
            request_id=self._ids.new(),
            task=data.task[:MAX_TASK_BYTES],
            status=DelegationStatus.DISPATCHED,
            was_queued=False,
            is_recorded=True,
            chain_id=None,
        )
        async with self._db.transaction() as tx:
            if await store.insert(tx, new, preview(data.task, 100), None):
                await self._sent(tx, new)
        return Recorded(data.delegation_id, "recorded")

    async def update(self, source_id: UUID, delegation_id: str, data: DelegationUpdate) -> Updated:
        """Take the delegating agent's word on how it goes."""
        try:
            status = DelegationStatus(data.status)
        except ValueError:
            raise BadStatus from None
        if status in {DelegationStatus.PENDING, DelegationStatus.DISPATCHED, DelegationStatus.STUCK}:
            raise BadStatus
        async with self._db.transaction() as tx:
            ledger = await store.find(tx, source_id, delegation_id)
            if ledger is None:
                raise DelegationNotFound
            if status.is_final:
                await self._finish(tx, ledger, status, result=data.response_preview, error=data.error)
                await self._cancel(tx, ledger, f"{status.value} by the delegating agent")
            elif await store.progress(tx, ledger.request_id, status):
                await self._status(tx, ledger, status)
        return Updated(status, delegation_id)

    async def heard(self, caller_id: UUID, target_id: UUID, request: dict[str, Any]) -> None:
        """A message between agents: from a polling callee it may be the result that its caller waits for."""
        delegation_id = _answered_id(request)
        if delegation_id:
            await self.answered(target_id, caller_id, delegation_id, _text_of(request))

    async def answered(self, caller_id: UUID, callee_id: UUID, delegation_id: str, text: str) -> bool:
        """Complete an open delegation by a message of its callee (poll-mode peers answer so)."""
        async with self._db.transaction() as tx:
            ledger = await store.find_open(tx, caller_id, callee_id, delegation_id)
            if ledger is None or not await self._traffic.is_polling(tx, callee_id):
                return False
            await self._finish(tx, ledger, DelegationStatus.COMPLETED, result=text, error=None)
            await self._cancel(tx, ledger, "answered by a message")
        return True

    async def dispatched(self, tx: Connection, reply_id: str) -> None:
        """The mailbox hands the task to the target now."""
        ledger = await store.find_by_request(tx, UUID(reply_id))
        if ledger is None or ledger.status is DelegationStatus.DISPATCHED:
            return
        if await store.progress(tx, ledger.request_id, DelegationStatus.DISPATCHED):
            await self._status(tx, ledger, DelegationStatus.DISPATCHED)

    async def settled(self, tx: Connection, settled: Settled) -> None:
        """The mailbox is done with the task."""
        ledger = await store.find_by_request(tx, UUID(settled.reply_id))
        if ledger is None or ledger.status.is_final:
            return
        if settled.status is not State.COMPLETED or settled.response is None:
            error = settled.error or "delivery failed"
            await self._finish(tx, ledger, DelegationStatus.FAILED, result=None, error=error)
        elif settled.response.get("delivery_mode") == "poll":
            if await store.progress(tx, ledger.request_id, DelegationStatus.QUEUED):
                await self._status(tx, ledger, DelegationStatus.QUEUED)
        elif (reason := failure(settled.response)) is not None:
            await self._finish(tx, ledger, DelegationStatus.FAILED, result=None, error=reason)
        else:
            text = envelope.reply_text(settled.response)
            await self._finish(tx, ledger, DelegationStatus.COMPLETED, result=text, error=None)

    async def fail_overdue(self) -> int:
        """Fail what is past its deadline; returns how many."""
        async with self._db.transaction() as tx:
            await store.mark_stuck(tx)
            late = await store.overdue(tx)
            for ledger in late:
                await self._cancel(tx, ledger, "past its deadline")
                await self._finish(
                    tx, ledger, DelegationStatus.FAILED, result=None, error="no result before the deadline"
                )
        return len(late)

    async def sweep(self, days: int) -> int:
        """Forget what ended long ago."""
        async with self._db.transaction() as tx:
            return await store.sweep(tx, days)

    async def _accept(
        self,
        tx: Connection,
        source_id: UUID,
        situation: Situation,
        data: Delegate,
        chain: chains.Chain,
        cause: chains.Task | None,
    ) -> Delegated:
        target = situation.target
        if target is None:
            raise TargetUnknown
        key = clamped(data.idempotency_key) if data.idempotency_key else None
        if key is not None:
            await store.free_key(tx, source_id, key, self._key_window)
        request_id = self._ids.new()
        is_ready = target.is_live and target.has_capacity
        new = Ledger(
            delegation_id=str(request_id),
            caller_id=source_id,
            callee_id=target.id,
            request_id=request_id,
            task=data.task,
            status=DelegationStatus.PENDING if is_ready else DelegationStatus.QUEUED,
            was_queued=not is_ready,
            is_recorded=False,
            chain_id=chain.chain_id,
        )
        if not await store.insert(tx, new, preview(data.task, 100), key):
            return await self._hit(tx, source_id, key)
        await self._traffic.count(tx, source_id, target.id, chain.chain_id, cause)
        await self._sent(tx, new)
        if not is_ready:
            await self._status(tx, new, DelegationStatus.QUEUED)
        await self._mailbox.put(tx, _post(new, chain), is_bounded=True)
        failpoints.reach("delegations.accepted")
        return Delegated(new.delegation_id, "delegated", target.id)

    async def _hit(self, tx: Connection, source_id: UUID, key: str | None) -> Delegated:
        first = await store.find_by_key(tx, source_id, key) if key is not None else None
        if first is None:
            raise LookupError("a delegation conflicts with none that can be found")
        return Delegated(first.delegation_id, first.status.value, first.callee_id, idempotent_hit=True)

    async def _finish(
        self,
        tx: Connection,
        ledger: Ledger,
        status: DelegationStatus,
        *,
        result: str | None,
        error: str | None,
    ) -> None:
        text = None if result is None else result[:MAX_RESULT_CHARS]
        shown = None if text is None else preview(text, 300)
        was_open = not ledger.status.is_final
        changed = await store.finish(tx, ledger.request_id, status, result=text, preview=shown, error=error)
        if not (changed and was_open):
            return
        await self._log.ended(tx, ledger, status, text or "", error=error)
        if self._log.pushes(is_polling=await self._traffic.is_polling(tx, ledger.caller_id)):
            await self._log.push(tx, ledger, text or error or "")
        told: dict[str, Any] = {"delegation_id": ledger.delegation_id, "target_id": str(ledger.callee_id)}
        if status is DelegationStatus.COMPLETED:
            told["response_preview"] = preview(text or "", 200)
            if ledger.was_queued:
                told["via"] = "queue_drain"
            await self._tell(tx, Event.DELEGATION_COMPLETE, ledger, told)
        else:
            told["error"] = error or "delegation failed"
            await self._tell(tx, Event.DELEGATION_FAILED, ledger, told)

    async def _cancel(self, tx: Connection, ledger: Ledger, reason: str) -> None:
        await self._mailbox.cancel(tx, reply_kind=REPLY_KIND, reply_id=str(ledger.request_id), reason=reason)

    async def _sent(self, tx: Connection, ledger: Ledger) -> None:
        told = {
            "delegation_id": ledger.delegation_id,
            "target_id": str(ledger.callee_id),
            "task_preview": preview(ledger.task, 100),
        }
        await self._tell(tx, Event.DELEGATION_SENT, ledger, told)
        await self._log.sent(tx, ledger)

    async def _status(self, tx: Connection, ledger: Ledger, status: DelegationStatus) -> None:
        told = {
            "delegation_id": ledger.delegation_id,
            "target_id": str(ledger.callee_id),
            "status": status.value,
        }
        await self._tell(tx, Event.DELEGATION_STATUS, ledger, told)

    async def _tell(self, tx: Connection, event: Event, ledger: Ledger, told: dict[str, Any]) -> None:
        await self._events.append(
            tx, event, ledger.caller_id, told, chain_id=ledger.chain_id, target_id=ledger.callee_id
        )


def preview(text: str, limit: int) -> str:
    """The beginning of a text, marked when it goes on."""
    return text if len(text) <= limit else text[:limit] + "..."


def _answered_id(request: dict[str, Any]) -> str:
    said = envelope.message_of(request)
    metadata = (said or {}).get("metadata")
    named = metadata.get("delegation_id") if isinstance(metadata, dict) else None
    if not named:
        params = request.get("params")
        metadata = params.get("metadata") if isinstance(params, dict) else None
        named = metadata.get("parent_task_id") if isinstance(metadata, dict) else None
    return named if isinstance(named, str) else ""


def _text_of(request: dict[str, Any]) -> str:
    said = envelope.message_of(request) or {}
    return envelope.reply_text({"result": said})


def failure(response: dict[str, Any]) -> str | None:
    """Why an answer is a failure; None when it is a result."""
    if (error := envelope.rpc_error(response)) is not None:
        return error
    result = response.get("result")
    task = result.get("task", result) if isinstance(result, dict) else None
    status = task.get("status") if isinstance(task, dict) else None
    state = status.get("state") if isinstance(status, dict) else None
    if state not in _FAILED_TASKS:
        return None
    return envelope.reply_text(response) if envelope.has_content(response) else f"the task is {state}"


def _post(ledger: Ledger, chain: chains.Chain) -> Post:
    body = envelope.message(
        ledger.task, message_id=ledger.delegation_id, metadata={"delegation_id": ledger.delegation_id}
    )
    return Post(
        target_id=ledger.callee_id,
        body=body,
        idempotency_key=ledger.delegation_id,
        caller_id=ledger.caller_id,
        source_kind=SourceKind.AGENT,
        reply_kind=REPLY_KIND,
        reply_id=str(ledger.request_id),
        chain=chain,
        is_budget_fatal=True,
    )
