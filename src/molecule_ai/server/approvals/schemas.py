"""Approvals on the wire (contract 03 §4)."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType, field


class ApprovalStatus(StrEnum):
    """`escalated` counts as open, and nothing of ours sets it."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    ESCALATED = "escalated"
    WITHDRAWN = "withdrawn"


class Approver(StrEnum):
    """Who may decide besides the people who run the org."""

    ANY = "any"  # every workspace above the requester
    USER = "user"  # nobody
    PARENT = "parent"  # every workspace above the requester, because a rule says so


class Choice(Struct, frozen=True):
    """One of several ways to approve."""

    id: Annotated[str, Meta(max_length=200)]
    label: Annotated[str, Meta(max_length=200)] = ""


class ApprovalCreate(Struct, kw_only=True):
    """What an agent wants to do and asks leave for."""

    action: Annotated[str | None, Meta(description="What would be done.", examples=["publish the post"])] = (
        None
    )
    action_description: Annotated[str | None, Meta(description="The same as `action`.")] = None
    description: Annotated[str | None, Meta(description="The same as `action`.")] = None
    reason: Annotated[str | None, Meta(description="Why; at most 8 KiB.")] = None
    task_id: str | None = None
    context: Annotated[
        dict[str, Any] | None,
        Meta(description="The exact arguments; the approval covers these and no others."),
    ] = None
    metadata: Annotated[
        dict[str, Any] | None, Meta(description="Anything else; not part of what is approved.")
    ] = None
    options: (
        Annotated[list[str | Choice], Meta(max_length=50, description="Choices for whoever decides.")] | None
    ) = None
    idempotency_key: (
        Annotated[str, Meta(max_length=256, description="The same key returns the first request.")] | None
    ) = None


class ApprovalCreated(Struct, kw_only=True):
    """The request, waiting."""

    approval_id: UUID
    id: UUID
    status: ApprovalStatus
    expires_at: datetime | None
    request_hash: str
    idempotent_hit: bool | UnsetType = UNSET


class Approval(Struct, kw_only=True):
    """A request and what became of it."""

    id: UUID
    workspace_id: UUID
    gate_workspace_id: UUID | None
    task_id: str
    action: str
    reason: str
    status: ApprovalStatus
    decided_by: Annotated[
        str | None, Meta(description="A name for display; who it really was is recorded apart.")
    ]
    decided_at: datetime | None
    comment: str
    chosen_option: str
    context: dict[str, Any]
    metadata: dict[str, Any]
    options: list[Any]
    approver: Approver
    request_hash: Annotated[str, Meta(description="SHA-256 of the canonical action and context.")]
    consumed_at: Annotated[
        datetime | None, Meta(description="When the approval was used; it is good for one use.")
    ]
    expires_at: datetime | None
    escalated_to: list[UUID]
    created_at: datetime


class PendingApproval(Struct, kw_only=True):
    """A request that waits, with the name of who asks."""

    id: UUID
    workspace_id: UUID
    workspace_name: str
    action: str
    reason: str
    status: ApprovalStatus
    created_at: datetime
    expires_at: datetime | None
    options: list[Any]
    context: dict[str, Any]
    gate_workspace_id: UUID | None


class Decision(Struct, kw_only=True):
    """A decision in any of the words that clients use; `decision` wins over `approved`."""

    decision: Annotated[str | None, Meta(description="approved or denied.", examples=["approved"])] = None
    approved: bool | None = None
    decided_by: Annotated[str | None, Meta(description="A name for display; `human` unless given.")] = None
    comment: str | None = None
    option: Annotated[str | None, Meta(description="One of the request's options.")] = None


class Verdict(Struct, kw_only=True):
    """What was decided, by whom, when."""

    status: ApprovalStatus
    approval_id: UUID
    decision: ApprovalStatus
    approved: bool
    decided_by: str
    decided_at: datetime | None
    already: bool | UnsetType = UNSET


class Withdrawn(Struct, kw_only=True):
    """The request was taken back."""

    status: ApprovalStatus
    approval_id: UUID
    decided_by: str


class ApprovalRule(Struct, frozen=True, kw_only=True):
    """Actions of a workspace that it must ask for, and who answers.

    `action` is a pattern in the manner of file names (`publish*`), compared without regard to case.
    """

    action: str
    approver: Approver = Approver.USER
    ttl_seconds: Annotated[
        int | None, Meta(description="How long a request waits; null: the server's default.")
    ] = None
    reason: str = ""


class ApprovalRules(Struct):
    """The rules of a workspace, the first match counts."""

    rules: list[ApprovalRule] = field(default_factory=list)
