"""Routes of the registry."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from litestar.params import QueryParameter

from molecule_ai.kernel.http import FromPath, FromQuery, Here, JSONBody, get, post
from molecule_ai.server.auth.errors import WorkspaceNotFound
from molecule_ai.server.auth.principal import Principal
from molecule_ai.server.auth.tiers import Tier
from molecule_ai.server.workspaces.errors import WorkspaceRemoved

from .beats import Beats
from .errors import (
    CardTooLarge,
    NotAuthorizedToDiscover,
    PlatformExists,
    UnsafeUrl,
    UrlRejected,
    WorkspaceNotAvailable,
)
from .schemas import (
    AccessAnswer,
    AccessQuestion,
    Beat,
    CardUpdate,
    CardUpdated,
    Discovered,
    Heartbeaten,
    Peer,
    Registered,
    Registration,
)
from .service import Registry

_TAGS = ["registry"]


@post(
    "/registry/register",
    Tier.REGISTRY,
    errors=[UrlRejected, CardTooLarge, WorkspaceNotFound, WorkspaceRemoved, PlatformExists],
    tags=_TAGS,
)
async def register_agent(
    registry: Here[Registry], caller: Here[Principal], data: JSONBody[Registration]
) -> Registered:
    """Announce an agent that has started."""
    return await registry.register(caller, data)


@post("/registry/heartbeat", Tier.REGISTRY, errors=[WorkspaceNotFound, WorkspaceRemoved], tags=_TAGS)
async def send_heartbeat(beats: Here[Beats], data: JSONBody[Beat]) -> Heartbeaten:
    """Tell that an agent lives, and how it does."""
    outcome = await beats.put(data)
    return Heartbeaten("ok", outcome.status, outcome.at)


@post(
    "/registry/update-card",
    Tier.REGISTRY,
    errors=[CardTooLarge, WorkspaceNotFound, WorkspaceRemoved],
    tags=_TAGS,
)
async def update_agent_card(
    registry: Here[Registry], caller: Here[Principal], data: JSONBody[CardUpdate]
) -> CardUpdated:
    """Replace the card of an agent."""
    await registry.update_card(caller, data)
    return CardUpdated()


@get(
    "/registry/discover/{workspace_id:str}",
    Tier.DISCOVERY,
    errors=[WorkspaceNotFound, NotAuthorizedToDiscover, WorkspaceNotAvailable, UnsafeUrl],
    tags=_TAGS,
)
async def discover_workspace(
    registry: Here[Registry], caller: Here[Principal], workspace_id: FromPath[UUID]
) -> Discovered:
    """Find where a workspace answers."""
    return await registry.discover(caller, workspace_id)


@get("/registry/{workspace_id:str}/peers", Tier.DISCOVERY, errors=[WorkspaceNotFound], tags=_TAGS)
async def list_peers(
    registry: Here[Registry],
    caller: Here[Principal],
    workspace_id: FromPath[UUID],
    q: FromQuery[str] = "",
    wanted: Annotated[str, QueryParameter(name="scope")] = "",
) -> list[Peer]:
    """List siblings, children and parent; `scope=reachable` lists everybody it may talk to."""
    return await registry.peers(caller, workspace_id, q, reachable=wanted == "reachable")


@post("/registry/check-access", Tier.NONE, tags=_TAGS)
async def check_access(registry: Here[Registry], data: JSONBody[AccessQuestion]) -> AccessAnswer:
    """Tell whether one workspace may talk to another."""
    return AccessAnswer(await registry.may_communicate(data))


handlers = [register_agent, send_heartbeat, update_agent_card, discover_workspace, list_peers, check_access]
