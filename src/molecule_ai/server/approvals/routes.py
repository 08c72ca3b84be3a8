"""Routes of approvals (contract 03 §4)."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode
from uuid import UUID

from litestar import Response
from litestar.params import FromHeader
from litestar.response import Redirect

from molecule_ai.kernel.http import FromPath, FromQuery, Here, JSONBody, get, post
from molecule_ai.server.auth.errors import InvalidWorkspaceId, WorkspaceNotFound
from molecule_ai.server.auth.presented import parse_uuid
from molecule_ai.server.auth.principal import Principal
from molecule_ai.server.auth.tiers import Tier
from molecule_ai.server.settings import Settings

from . import errors
from .schemas import (
    Approval,
    ApprovalCreate,
    ApprovalCreated,
    ApprovalRules,
    ApprovalStatus,
    Decision,
    PendingApproval,
    Verdict,
    Withdrawn,
)
from .service import Approvals

_ALL = "/workspaces/{workspace_id:str}/approvals"
_ONE = "/workspaces/{workspace_id:str}/approvals/{approval_id:str}"
_TAGS = ["approvals"]
_DEFAULT_LIMIT = 50
_DECIDING = [
    errors.DecisionRequired,
    errors.UnknownDecision,
    errors.UnknownOption,
    errors.OwnApproval,
    errors.HumanRequired,
    errors.GateNeedsHuman,
    errors.NotPending,
]
_UNDECIDABLE = {"approval_id": errors.NotPending}


@post(
    _ALL,
    Tier.WORKSPACE,
    status=201,
    also={200: ApprovalCreated},
    errors=[
        errors.ActionRequired,
        errors.ActionTooLong,
        errors.ReasonTooLong,
        errors.ContextTooLarge,
        WorkspaceNotFound,
    ],
    tags=_TAGS,
)
async def create_approval(
    approvals: Here[Approvals],
    caller: Here[Principal],
    workspace_id: FromPath[UUID],
    data: JSONBody[ApprovalCreate],
) -> Response[ApprovalCreated]:
    """Ask for leave to act; 200 with `idempotent_hit` when this key has asked before."""
    created = await approvals.create(caller, workspace_id, data)
    return Response(created, status_code=200 if created.idempotent_hit is True else 201)


@get(_ALL, Tier.WORKSPACE, tags=_TAGS)
async def list_approvals(
    approvals: Here[Approvals],
    workspace_id: FromPath[UUID],
    status: FromQuery[str] = "",
    limit: FromQuery[str] = "",
) -> Sequence[Approval]:
    """List the requests of a workspace, newest first."""
    count = int(limit) if limit.isascii() and limit.isdigit() and int(limit) > 0 else _DEFAULT_LIMIT
    return await approvals.list_all(workspace_id, status=status or None, limit=count)


@get("/approvals/pending", Tier.ADMIN, tags=_TAGS)
async def list_pending_approvals(approvals: Here[Approvals]) -> Sequence[PendingApproval]:
    """List the open requests of every workspace, newest first."""
    return await approvals.list_pending()


@get(
    _ONE,
    Tier.WORKSPACE,
    errors=[errors.ApprovalNotFound],
    missing={"approval_id": errors.ApprovalNotFound},
    tags=_TAGS,
)
async def get_approval(
    approvals: Here[Approvals], workspace_id: FromPath[UUID], approval_id: FromPath[UUID]
) -> Approval:
    """Show one request."""
    return await approvals.get(workspace_id, approval_id)


@post(f"{_ONE}/decide", Tier.WORKSPACE, errors=_DECIDING, missing=_UNDECIDABLE, tags=_TAGS)
async def decide_approval(
    approvals: Here[Approvals],
    caller: Here[Principal],
    workspace_id: FromPath[UUID],
    approval_id: FromPath[UUID],
    data: JSONBody[Decision],
    origin: FromHeader[str] = "",
) -> Verdict:
    """Approve or deny a pending request; of two decisions the later loses."""
    return await approvals.decide(caller, workspace_id, approval_id, data, origin=origin)


@post(f"{_ONE}/approve", Tier.WORKSPACE, errors=_DECIDING, missing=_UNDECIDABLE, tags=_TAGS)
async def approve_approval(
    approvals: Here[Approvals],
    caller: Here[Principal],
    workspace_id: FromPath[UUID],
    approval_id: FromPath[UUID],
    data: JSONBody[Decision | None] = None,
    origin: FromHeader[str] = "",
) -> Verdict:
    """Approve a pending request."""
    return await approvals.decide(
        caller,
        workspace_id,
        approval_id,
        data or Decision(),
        status=ApprovalStatus.APPROVED,
        origin=origin,
    )


@post(f"{_ONE}/deny", Tier.WORKSPACE, errors=_DECIDING, missing=_UNDECIDABLE, tags=_TAGS)
async def deny_approval(
    approvals: Here[Approvals],
    caller: Here[Principal],
    workspace_id: FromPath[UUID],
    approval_id: FromPath[UUID],
    data: JSONBody[Decision | None] = None,
    origin: FromHeader[str] = "",
) -> Verdict:
    """Deny a pending request."""
    return await approvals.decide(
        caller,
        workspace_id,
        approval_id,
        data or Decision(),
        status=ApprovalStatus.DENIED,
        origin=origin,
    )


@post(
    f"{_ONE}/withdraw",
    Tier.WORKSPACE,
    errors=[errors.NotRequester, errors.ApprovalNotFound, errors.NoLongerPending],
    missing={"approval_id": errors.ApprovalNotFound},
    tags=_TAGS,
)
async def withdraw_approval(
    approvals: Here[Approvals],
    caller: Here[Principal],
    workspace_id: FromPath[UUID],
    approval_id: FromPath[UUID],
) -> Withdrawn:
    """Take back a pending request; only the workspace that raised it may."""
    return await approvals.withdraw(caller, workspace_id, approval_id)


@get(f"{_ONE}/approve", Tier.NONE, status=302, errors=[InvalidWorkspaceId], tags=_TAGS)
async def show_approve(
    settings: Here[Settings], workspace_id: FromPath[str], approval_id: FromPath[str]
) -> Redirect:
    """Lead whoever follows a notification's link to the canvas; changes nothing."""
    return _to_canvas(settings, workspace_id, approval_id)


@get(f"{_ONE}/deny", Tier.NONE, status=302, errors=[InvalidWorkspaceId], tags=_TAGS)
async def show_deny(
    settings: Here[Settings], workspace_id: FromPath[str], approval_id: FromPath[str]
) -> Redirect:
    """Lead whoever follows a notification's link to the canvas; changes nothing."""
    return _to_canvas(settings, workspace_id, approval_id)


@get("/workspaces/{workspace_id:str}/approval-rules", Tier.WORKSPACE, tags=_TAGS)
async def get_approval_rules(approvals: Here[Approvals], workspace_id: FromPath[UUID]) -> ApprovalRules:
    """List what a workspace must ask for; the first rule that matches counts."""
    return await approvals.rules(workspace_id)


def _to_canvas(settings: Settings, workspace_id: str, approval_id: str) -> Redirect:
    workspace = parse_uuid(workspace_id)
    if workspace is None:
        raise InvalidWorkspaceId
    approval = parse_uuid(approval_id)
    wanted = {"workspace": str(workspace), "approval": str(approval) if approval else "pending"}
    base = settings.external_platform_url.rstrip("/")
    return Redirect(f"{base}/?{urlencode(wanted)}", status_code=302)


handlers = [
    create_approval,
    list_approvals,
    list_pending_approvals,
    get_approval,
    decide_approval,
    approve_approval,
    deny_approval,
    withdraw_approval,
    show_approve,
    show_deny,
    get_approval_rules,
]
