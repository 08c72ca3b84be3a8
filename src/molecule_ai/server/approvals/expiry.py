"""The clock of approvals: silence ends as a denial, and is announced higher up before it does."""

from __future__ import annotations

from .service import EXPIRE_BATCH, Approvals


class ApprovalExpiry:
    """The engine `approval-expiry`."""

    name = "approval-expiry"
    interval_seconds = 15.0

    def __init__(self, approvals: Approvals) -> None:
        self._approvals = approvals

    async def tick(self) -> object:
        """Deny what is past its time, escalate what is past half of it."""
        expired = await self._approvals.expire()
        escalated = await self._approvals.escalate()
        if EXPIRE_BATCH in {expired, escalated}:
            return True
        return {"expired": expired, "escalated": escalated}
