"""Routes of delegations."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from molecule_ai.kernel.errors import InvalidRequest
from molecule_ai.kernel.http import FromPath, FromQuery, Here, JSONBody, get, post
from molecule_ai.server.auth.presented import parse_uuid
from molecule_ai.server.auth.principal import Principal
from molecule_ai.server.auth.tiers import Tier
from molecule_ai.server.mailbox.errors import MailboxFull
from molecule_ai.server.traffic.errors import ChainLimit

from .errors import (
    BadLimit,
    BadStatus,
    BadTargetId,
    DelegationNotFound,
    OutsideHierarchy,
    SelfDelegation,
    TargetUnknown,
    TaskTooLarge,
)
from .schemas import (
    Delegate,
    Delegated,
    DelegationRecord,
    DelegationRow,
    DelegationUpdate,
    Recorded,
    Updated,
)
from .service import Delegations
from .store import Filter


@post(
    "/workspaces/{workspace_id:str}/delegate",
    Tier.DELEGATE,
    errors=[
        BadTargetId,
        SelfDelegation,
        TaskTooLarge,
        TargetUnknown,
        OutsideHierarchy,
        ChainLimit,
        MailboxFull,
    ],
    invalid_body="invalid delegation request",
    status=202,
    tags=["delegations"],
)
async def delegate(
    delegations: Here[Delegations],
    caller: Here[Principal],
    workspace_id: FromPath[UUID],
    data: JSONBody[Delegate],
) -> Delegated:
    """Hand a task to another workspace and get its result later."""
    if data.target_id:
        target_id = parse_uuid(data.target_id)
        if target_id is None:
            raise BadTargetId
        return await delegations.delegate(workspace_id, target_id, data)
    if caller.acting_for is None:
        raise InvalidRequest("invalid delegation request")
    return await delegations.delegate(caller.acting_for, workspace_id, data)


@get("/workspaces/{workspace_id:str}/delegations", Tier.WORKSPACE, errors=[BadLimit], tags=["delegations"])
async def list_delegations(
    delegations: Here[Delegations],
    workspace_id: FromPath[UUID],
    delegation_id: FromQuery[str | None] = None,
    status: FromQuery[str | None] = None,
    limit: FromQuery[int] = 50,
    before: FromQuery[datetime | None] = None,
) -> list[DelegationRow]:
    """List what a workspace delegated: requests and results, freshest first."""
    if not 1 <= limit <= 200:
        raise BadLimit
    wanted = Filter(delegation_id=delegation_id, status=status, limit=limit, before=before)
    return await delegations.list_rows(workspace_id, wanted)


@post(
    "/workspaces/{workspace_id:str}/delegations/record",
    Tier.WORKSPACE,
    errors=[BadTargetId],
    status=202,
    tags=["delegations"],
)
async def record_delegation(
    delegations: Here[Delegations], workspace_id: FromPath[UUID], data: JSONBody[DelegationRecord]
) -> Recorded:
    """Record a delegation that the agent sends itself."""
    return await delegations.record(workspace_id, data)


@post(
    "/workspaces/{workspace_id:str}/delegations/{delegation_id:str}/update",
    Tier.WORKSPACE,
    errors=[BadStatus, DelegationNotFound],
    tags=["delegations"],
)
async def update_delegation(
    delegations: Here[Delegations],
    workspace_id: FromPath[UUID],
    delegation_id: FromPath[str],
    data: JSONBody[DelegationUpdate],
) -> Updated:
    """Tell how a delegation is going or how it ended."""
    return await delegations.update(workspace_id, delegation_id, data)


handlers = [delegate, list_delegations, record_delegation, update_delegation]
