"""Routes of expand and collapse."""

from __future__ import annotations

from uuid import UUID

from molecule_ai.kernel.http import FromPath, Here, post
from molecule_ai.server.auth.principal import Principal
from molecule_ai.server.auth.tiers import Tier

from . import errors
from .teams import Teams
from .teams_schemas import Collapsed, Expanded

_ONE = "/workspaces/{workspace_id:str}"


@post(
    f"{_ONE}/expand",
    Tier.WORKSPACE,
    errors=[
        errors.NoConfig,
        errors.NoSubWorkspaces,
        errors.BrokenConfig,
        errors.InvalidTemplate,
        errors.InvalidWorkspaceFields,
        errors.RuntimeUnresolved,
        errors.UnknownRuntime,
        errors.NamesExhausted,
        errors.WorkspaceRemoved,
    ],
    tags=["workspaces"],
)
async def expand_workspace(
    teams: Here[Teams], caller: Here[Principal], workspace_id: FromPath[UUID]
) -> Expanded:
    """Create the children that the workspace's config declares under `sub_workspaces`."""
    return await teams.expand(caller, workspace_id)


@post(f"{_ONE}/collapse", Tier.WORKSPACE, errors=[errors.WorkspaceRemoved], tags=["workspaces"])
async def collapse_workspace(
    teams: Here[Teams], caller: Here[Principal], workspace_id: FromPath[UUID]
) -> Collapsed:
    """Remove the direct children with all below them; to fold a team on the canvas, PATCH `collapsed`."""
    return await teams.collapse(caller, workspace_id)


handlers = [expand_workspace, collapse_workspace]
