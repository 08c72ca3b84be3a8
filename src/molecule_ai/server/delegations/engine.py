"""What time does to delegations: silence makes them stuck, the deadline fails them, age removes them."""

from __future__ import annotations

from .service import Delegations


class DelegationSweeper:
    """Looks every few minutes; nothing here is urgent."""

    name = "delegations"
    interval_seconds = 300.0

    def __init__(self, delegations: Delegations, *, retention_days: int) -> None:
        self._delegations = delegations
        self._retention_days = retention_days

    async def tick(self) -> object:
        """One batch of each; full batches ask for another round."""
        failed = await self._delegations.fail_overdue()
        forgotten = await self._delegations.sweep(self._retention_days)
        return failed == 100 or forgotten == 5000 or {"failed": failed, "forgotten": forgotten}
