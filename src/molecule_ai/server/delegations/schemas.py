"""Delegations on the wire."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType


class DelegationStatus(StrEnum):
    """Where a delegation is; completed and failed are final."""

    PENDING = "pending"
    QUEUED = "queued"
    DISPATCHED = "dispatched"
    IN_PROGRESS = "in_progress"
    STUCK = "stuck"
    COMPLETED = "completed"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        return self in {DelegationStatus.COMPLETED, DelegationStatus.FAILED}


class Delegate(Struct, frozen=True):
    """A task for another workspace."""

    task: Annotated[str, Meta(min_length=1, examples=["Check the three invoices of last week"])]
    target_id: Annotated[
        str | None,
        Meta(description="The workspace that shall do it. Absent: `:id`, and X-Workspace-ID is the source."),
    ] = None
    idempotency_key: Annotated[
        str | None, Meta(description="A repeat while the first is open, or soon after, returns the first.")
    ] = None
    metadata: Annotated[
        dict[str, Any] | None,
        Meta(description="The metadata of the message being worked on: keeps its chain."),
    ] = None


class Delegated(Struct, omit_defaults=True):
    """A delegation that will be carried out, whatever happens to this server."""

    delegation_id: str
    status: Annotated[str, Meta(description="`delegated`, or the state of the first with this key.")]
    target_id: UUID
    idempotent_hit: bool = False


class DelegationRow(Struct, kw_only=True):
    """The request of a delegation, or its result."""

    id: UUID
    type: Annotated[str, Meta(examples=["delegation"])]
    method: Annotated[str, Meta(description="`delegate` or `delegate_result`.", examples=["delegate"])]
    source_id: UUID
    target_id: UUID
    summary: str
    status: DelegationStatus
    created_at: datetime
    delegation_id: str
    error: str | UnsetType = UNSET
    response_preview: Annotated[str, Meta(description="The first 300 characters.")] | UnsetType = UNSET
    result: Annotated[str, Meta(description="The whole result.")] | UnsetType = UNSET


class DelegationRecord(Struct, frozen=True):
    """A delegation that the agent sends on its own."""

    target_id: Annotated[str, Meta(min_length=1)]
    task: Annotated[str, Meta(min_length=1)]
    delegation_id: Annotated[str, Meta(min_length=1, max_length=200)]


class Recorded(Struct):
    """A recorded delegation."""

    delegation_id: str
    status: Annotated[str, Meta(examples=["recorded"])]


class DelegationUpdate(Struct, frozen=True):
    """How a delegation is going."""

    status: Annotated[str, Meta(description="completed, failed, queued or in_progress.")]
    error: str | None = None
    response_preview: str | None = None


class Updated(Struct):
    """The state as told."""

    status: DelegationStatus
    delegation_id: str


class Ledger(Struct, frozen=True, kw_only=True):
    """A delegation as it is stored."""

    delegation_id: str
    caller_id: UUID
    callee_id: UUID
    request_id: UUID
    task: str
    status: DelegationStatus
    was_queued: bool
    is_recorded: bool
    chain_id: UUID | None
