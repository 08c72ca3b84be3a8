"""Routes of the mailbox."""

from __future__ import annotations

from uuid import UUID

from molecule_ai.kernel.errors import NotFound
from molecule_ai.kernel.http import FromPath, FromQuery, Here, JSONBody, get, post
from molecule_ai.server.auth.presented import parse_uuid
from molecule_ai.server.auth.principal import Principal
from molecule_ai.server.auth.tiers import Tier

from .errors import (
    BadMaxAge,
    BadWorkspaceFilter,
    QueueCredentialRequired,
    QueueItemHidden,
    QueueItemNotFound,
)
from .schemas import ChainStop, Dropped, QueueItem, StoppedChain
from .service import Mailbox


@get(
    "/workspaces/{workspace_id:str}/a2a/queue/{queue_id:str}",
    Tier.CALLER,
    errors=[QueueItemNotFound, QueueItemHidden, QueueCredentialRequired],
    missing={"queue_id": QueueItemNotFound},
    tags=["a2a"],
)
async def get_queue_item(
    mailbox: Here[Mailbox], caller: Here[Principal], workspace_id: FromPath[UUID], queue_id: FromPath[UUID]
) -> QueueItem:
    """Show what became of a message that was queued."""
    return await mailbox.item(caller, workspace_id, queue_id)


@post("/admin/a2a-queue/drop-stale", Tier.ADMIN, errors=[BadMaxAge, BadWorkspaceFilter], tags=["a2a"])
async def drop_stale_messages(
    mailbox: Here[Mailbox],
    caller: Here[Principal],
    max_age_minutes: FromQuery[str] = "60",
    workspace_id: FromQuery[str] = "",
) -> Dropped:
    """Drop messages that have waited too long, of one workspace or of all."""
    if not max_age_minutes.isascii() or not max_age_minutes.isdigit() or not 0 < int(max_age_minutes) < 2**31:
        raise BadMaxAge
    target_id = parse_uuid(workspace_id)
    if workspace_id and target_id is None:
        raise BadWorkspaceFilter
    return await mailbox.drop_stale(caller, int(max_age_minutes), target_id)


class ChainNotFound(NotFound):
    """chain not found"""

    code = "chain_not_found"


@post(
    "/chains/{chain_id:str}/stop",
    Tier.ADMIN,
    errors=[ChainNotFound],
    missing={"chain_id": ChainNotFound},
    tags=["a2a"],
)
async def stop_chain(
    mailbox: Here[Mailbox],
    caller: Here[Principal],
    chain_id: FromPath[UUID],
    data: JSONBody[ChainStop | None] = None,
) -> StoppedChain:
    """Stop a chain of messages: what waits is dropped, what would follow is refused."""
    return await mailbox.stop_chain(caller, chain_id, data.reason if data else "")


handlers = [get_queue_item, drop_stale_messages, stop_chain]
