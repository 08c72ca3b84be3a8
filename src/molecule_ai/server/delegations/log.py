"""Delegations in the activity log of the workspace that delegates, where clients look for them."""

from __future__ import annotations

from molecule_ai.kernel.db import Connection
from molecule_ai.server.activity.schemas import Entry, SourceKind
from molecule_ai.server.activity.service import Activity

from .schemas import DelegationStatus, Ledger


class DelegationLog:
    """One row for the request, which follows its state, and one for the result."""

    def __init__(self, activity: Activity, *, inbox_push: str) -> None:
        self._activity = activity
        self._inbox_push = inbox_push.strip()

    async def sent(self, tx: Connection, ledger: Ledger) -> None:
        """The request, as it was made."""
        await self._activity.record(_request(ledger, ledger.status, None), tx=tx)

    async def ended(
        self, tx: Connection, ledger: Ledger, status: DelegationStatus, text: str, *, error: str | None
    ) -> None:
        """The result, and what became of the request."""
        await self._activity.conclude(tx, _request(ledger, status, error))
        is_done = status is DelegationStatus.COMPLETED
        summary = f"Delegation completed ({text[:80]})" if is_done else "Delegation failed"
        body = {"text": text} if is_done else {}
        body["delegation_id"] = ledger.delegation_id
        row = _row(ledger, "delegate_result", summary, status, error, key="result", response=body)
        await self._activity.record(row, tx=tx)

    def pushes(self, *, is_polling: bool) -> bool:
        """Whether a result also goes into the inbox of the agent that delegated."""
        return self._inbox_push == "1" or (self._inbox_push != "0" and is_polling)

    async def push(self, tx: Connection, ledger: Ledger, text: str) -> None:
        """The result as a message from the callee, for agents that read their inbox."""
        await self._activity.record(
            Entry(
                workspace_id=ledger.caller_id,
                activity_type="a2a_receive",
                source_kind=SourceKind.AGENT,
                source_id=ledger.callee_id,
                target_id=ledger.caller_id,
                method="delegate_result",
                summary=f"Result of delegation {ledger.delegation_id}",
                response_body={"result": text},
                metadata={"delegation_id": ledger.delegation_id},
                idempotency_key=f"delegation-inbox:{ledger.request_id}",
                chain_id=ledger.chain_id,
            ),
            tx=tx,
        )


def _request(ledger: Ledger, status: DelegationStatus, error: str | None) -> Entry:
    body = {"task": ledger.task, "delegation_id": ledger.delegation_id}
    summary = f"Delegating to {ledger.callee_id}"
    return _row(ledger, "delegate", summary, status, error, key="request", request=body)


def _row(
    ledger: Ledger,
    method: str,
    summary: str,
    status: DelegationStatus,
    error: str | None,
    *,
    key: str,
    request: dict[str, str] | None = None,
    response: dict[str, str] | None = None,
) -> Entry:
    return Entry(
        workspace_id=ledger.caller_id,
        activity_type="delegation",
        source_kind=SourceKind.AGENT,
        source_id=ledger.caller_id,
        target_id=ledger.callee_id,
        method=method,
        summary=summary,
        request_body=request,
        response_body=response,
        status=status.value,
        error_detail=error,
        idempotency_key=f"delegation-{key}:{ledger.request_id}",
        chain_id=ledger.chain_id,
    )
