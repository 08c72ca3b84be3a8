"""How a run reaches its agent: what the ledger needs of the mailbox, and nothing else."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol
from uuid import UUID

from msgspec import Struct

from molecule_ai.kernel.db import Connection

REPLY_KIND = "schedule_run"


class Fire(Struct, frozen=True, kw_only=True):
    """A run to deliver."""

    run_id: UUID
    schedule_id: UUID
    workspace_id: UUID
    prompt: str
    trigger: str


class Settlement(Struct, frozen=True, kw_only=True):
    """What became of a delivery."""

    run_id: UUID
    status: str  # completed, failed or dropped
    response: Mapping[str, Any] | None
    error: str
    duration_ms: int | None
    attempts: int


class Delivery(Protocol):
    """Everything happens in the caller's transaction: a run and its message exist together or not at all."""

    async def put(self, tx: Connection, fires: Sequence[Fire]) -> None:
        """Hand over; the agent is told when it can take work."""
        ...

    async def withdraw(self, tx: Connection, run_ids: Collection[UUID], *, reason: str) -> set[UUID]:
        """Take back what waits; return the runs that were taken back. What is under way goes on."""
        ...
