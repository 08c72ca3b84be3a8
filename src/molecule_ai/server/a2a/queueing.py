"""Messages that cannot be delivered now go into the mailbox, and their answers find their way back."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from molecule_ai.kernel.clock import Clock
from molecule_ai.kernel.db import Connection, Database
from molecule_ai.server.activity.schemas import Entry, SourceKind
from molecule_ai.server.activity.service import Activity
from molecule_ai.server.events.catalogue import Event
from molecule_ai.server.events.service import Events
from molecule_ai.server.mailbox.schemas import Post, Priority, Settled, State
from molecule_ai.server.mailbox.service import Mailbox
from molecule_ai.server.traffic.service import Traffic

from .envelope import reply_text
from .errors import BUSY_RETRY_SECONDS, NativeSessionBusy
from .schemas import Exchange, Reply

REPLY_KIND = "a2a"
_CANVAS = "canvas"
_PRIORITIES = {
    "critical": Priority.CRITICAL,
    "urgent": Priority.CRITICAL,
    "high": Priority.CRITICAL,
    "task": Priority.TASK,
    "normal": Priority.TASK,
    "info": Priority.INFO,
    "low": Priority.INFO,
}
_INFO_SECONDS = 900  # contract 05 §1.2
_LONGEST_SECONDS = 366 * 86_400


class Queueing:
    """The way of an interactive message through the mailbox."""

    def __init__(
        self,
        db: Database,
        mailbox: Mailbox,
        traffic: Traffic,
        activity: Activity,
        events: Events,
        clock: Clock,
    ) -> None:
        self._db = db
        self._mailbox = mailbox
        self._traffic = traffic
        self._activity = activity
        self._events = events
        self._clock = clock
        mailbox.replies[REPLY_KIND] = self.settled

    async def put(self, exchange: Exchange, *, uncertain: bool = False, delay_seconds: int = 0) -> Reply:
        """Queue a message and tell its caller so. Raises `MailboxFull` and `NativeSessionBusy`."""
        target = exchange.target
        if target.capabilities.get("session") is True:
            raise NativeSessionBusy(busy=True, retry_after=BUSY_RETRY_SECONDS, native_session=True)
        post = self._post(exchange, uncertain=uncertain, delay_seconds=delay_seconds)
        async with self._db.transaction() as tx:
            put = await self._mailbox.put(tx, post, is_bounded=True)
            if not put.duplicate:
                await self._activity.record(exchange.subject(delivery_key(put.id)).queued(), tx=tx)
        return Reply(
            status=202,
            content={
                "queued": True,
                "queue_id": str(put.id),
                "queue_depth": await self._mailbox.depth(target.id),
                "message": "workspace agent busy — request queued, will dispatch when capacity available",
            },
        )

    async def settled(self, tx: Connection, settled: Settled) -> None:
        """Bring an answer to whoever asked: people see it, polling agents find it in their inbox."""
        if settled.status is not State.COMPLETED or settled.response is None:
            return
        if settled.reply_id == _CANVAS:
            told = {
                "response_body": settled.response,
                "method": "message/send",
                "duration_ms": settled.duration_ms,
            }
            await self._events.broadcast(Event.A2A_RESPONSE, settled.target_id, told, tx=tx)
            return
        caller_id = UUID(settled.reply_id)
        if await self._traffic.is_polling(tx, caller_id):
            await self._activity.record(_inbox(caller_id, settled), tx=tx)

    def _post(self, exchange: Exchange, *, uncertain: bool, delay_seconds: int) -> Post:
        params = exchange.draft.value.get("params")
        priority, seconds = _urgency(params if isinstance(params, dict) else {})
        now = self._clock.now()
        return Post(
            target_id=exchange.target.id,
            body=exchange.draft.value,
            idempotency_key=exchange.draft.message_id,
            priority=priority,
            not_before=now + timedelta(seconds=delay_seconds) if delay_seconds else None,
            expires_at=now + timedelta(seconds=seconds) if seconds else None,
            caller_id=exchange.caller_id,
            source_kind=exchange.source_kind,
            reply_kind=REPLY_KIND,
            reply_id=str(exchange.caller_id) if exchange.caller_id else _CANVAS,
            chain=exchange.chain,
            delivery_uncertain=uncertain,
        )


def delivery_key(message_id: UUID) -> str:
    """The activity key of a message in the mailbox: queued and answered, it is one row."""
    return f"mailbox:{message_id}"


def _urgency(params: dict[str, Any]) -> tuple[Priority, int | None]:
    priority = _PRIORITIES.get(str(params.get("priority", "")).lower(), Priority.TASK)
    asked = params.get("expires_in_seconds")
    if isinstance(asked, int) and not isinstance(asked, bool) and asked > 0:
        return priority, min(asked, _LONGEST_SECONDS)
    return priority, _INFO_SECONDS if priority is Priority.INFO else None


def _inbox(caller_id: UUID, settled: Settled) -> Entry:
    response = settled.response or {}
    return Entry(
        workspace_id=caller_id,
        activity_type="a2a_receive",
        source_kind=SourceKind.AGENT,
        source_id=settled.target_id,
        target_id=caller_id,
        method="message/send",
        summary="answer to a queued message",
        response_body={"result": reply_text(response)},
        duration_ms=settled.duration_ms,
        idempotency_key=f"answer:{settled.message_id}",
        chain_id=settled.chain_id,
    )
