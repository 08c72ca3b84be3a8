"""Runs as messages: the ledger's delivery through the mailbox."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from uuid import UUID

from molecule_ai.kernel.db import Connection
from molecule_ai.server.a2a import envelope
from molecule_ai.server.mailbox.schemas import Post, Settled, SourceKind, State
from molecule_ai.server.mailbox.service import Mailbox

from .delivery import REPLY_KIND, Fire, Settlement


class MailboxDelivery:
    """A run is one message whose reply id is the run's id."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    async def put(self, tx: Connection, fires: Sequence[Fire]) -> None:
        await self._mailbox.put_roots(tx, [_post(fire) for fire in fires])

    async def withdraw(self, tx: Connection, run_ids: Collection[UUID], *, reason: str) -> set[UUID]:
        back = set()
        for run_id in run_ids:
            if await self._mailbox.cancel(tx, reply_kind=REPLY_KIND, reply_id=str(run_id), reason=reason):
                back.add(run_id)
        return back


def _post(fire: Fire) -> Post:
    message_id = f"cron-{fire.schedule_id.hex[:8]}-{fire.run_id.hex[:8]}"
    metadata = {"schedule_id": str(fire.schedule_id), "run_id": str(fire.run_id), "trigger": fire.trigger}
    return Post(
        target_id=fire.workspace_id,
        body=envelope.message(fire.prompt, message_id=message_id, metadata=metadata),
        idempotency_key=str(fire.run_id),
        source_kind=SourceKind.SCHEDULER,
        reply_kind=REPLY_KIND,
        reply_id=str(fire.run_id),
        is_budget_fatal=True,
    )


def settlement_of(settled: Settled) -> Settlement:
    """What the mailbox says of a message, as the ledger understands it."""
    status: dict[State, str] = {State.COMPLETED: "completed", State.DROPPED: "dropped"}
    return Settlement(
        run_id=UUID(settled.reply_id),
        status=status.get(settled.status, "failed"),
        response=settled.response,
        error=settled.error or "",
        duration_ms=settled.duration_ms,
        attempts=settled.attempts,
    )
