"""Routes of models and agent records (contract 02 §6.2, §6.3, §20)."""

from __future__ import annotations

from uuid import UUID

from molecule_ai.kernel.http import FromPath, FromQuery, Here, JSONBody, delete, get, patch, post, put
from molecule_ai.server.auth.principal import Principal
from molecule_ai.server.auth.tiers import Tier

from .errors import (
    AgentNotFound,
    AgentOccupied,
    InvalidField,
    NoAgentToMove,
    NoAgentToRemove,
    NoAgentToReplace,
    NotBothWorkspaces,
    TargetNotFound,
    TargetOccupied,
    UnregisteredModel,
    WorkspaceRemoved,
)
from .models import Models
from .models_schemas import (
    AgentAssigned,
    AgentInput,
    AgentMove,
    AgentMoved,
    AgentRemoved,
    AgentReplaced,
    AgentView,
    Model,
    ModelInput,
    ModelSaved,
)

_ONE = "/workspaces/{workspace_id:str}"
_TAGS = ["agents"]
_REFUSED = [InvalidField, UnregisteredModel, WorkspaceRemoved]


@get(f"{_ONE}/model", Tier.WORKSPACE, tags=_TAGS)
async def get_workspace_model(models: Here[Models], workspace_id: FromPath[UUID]) -> Model:
    """Show the chosen model and where it comes from."""
    return await models.model(workspace_id)


@put(f"{_ONE}/model", Tier.WORKSPACE, errors=_REFUSED, tags=_TAGS)
async def set_workspace_model(
    models: Here[Models], caller: Here[Principal], workspace_id: FromPath[UUID], data: JSONBody[ModelInput]
) -> ModelSaved:
    """Choose the model, or clear the choice with an empty text; the agent restarts."""
    return await models.choose(caller, workspace_id, data.model)


@post(f"{_ONE}/agent", Tier.WORKSPACE, status=201, errors=[*_REFUSED, AgentOccupied], tags=_TAGS)
async def assign_agent(
    models: Here[Models],
    caller: Here[Principal],
    workspace_id: FromPath[UUID],
    data: JSONBody[AgentInput],
    restart: FromQuery[str | None] = None,
) -> AgentAssigned:
    """Give an empty role to a model; `restart=false` leaves the running agent alone."""
    return await models.assign(caller, workspace_id, data.model, restart=restart != "false")


@patch(f"{_ONE}/agent", Tier.WORKSPACE, errors=[*_REFUSED, NoAgentToReplace], tags=_TAGS)
async def replace_agent(
    models: Here[Models],
    caller: Here[Principal],
    workspace_id: FromPath[UUID],
    data: JSONBody[AgentInput],
    restart: FromQuery[str | None] = None,
) -> AgentReplaced:
    """Give an occupied role to another model; `restart=false` leaves the running agent alone."""
    return await models.replace(caller, workspace_id, data.model, restart=restart != "false")


@delete(f"{_ONE}/agent", Tier.WORKSPACE, errors=[NoAgentToRemove], tags=_TAGS)
async def remove_agent(
    models: Here[Models], caller: Here[Principal], workspace_id: FromPath[UUID]
) -> AgentRemoved:
    """End the occupancy in the ledger."""
    return await models.remove(caller, workspace_id)


@post(
    f"{_ONE}/agent/move",
    Tier.WORKSPACE,
    errors=[NotBothWorkspaces, TargetNotFound, NoAgentToMove, TargetOccupied],
    tags=_TAGS,
)
async def move_agent(
    models: Here[Models], caller: Here[Principal], workspace_id: FromPath[UUID], data: JSONBody[AgentMove]
) -> AgentMoved:
    """Hand the occupant to another, empty role."""
    return await models.move(caller, workspace_id, data.target_workspace_id)


@get("/agents", Tier.ADMIN, tags=_TAGS)
async def list_agents(models: Here[Models]) -> list[AgentView]:
    """List who occupies the roles of the organization."""
    return await models.agents()


@get(
    "/agents/{agent_id:str}",
    Tier.ADMIN,
    missing={"agent_id": AgentNotFound},
    errors=[AgentNotFound],
    tags=_TAGS,
)
async def get_agent(models: Here[Models], agent_id: FromPath[UUID]) -> AgentView:
    """Show one occupant."""
    return await models.agent(agent_id)


@get(f"{_ONE}/agents", Tier.WORKSPACE, tags=_TAGS)
async def list_workspace_agents(models: Here[Models], workspace_id: FromPath[UUID]) -> list[AgentView]:
    """List who occupies the role of one workspace."""
    return await models.agents(workspace_id)


handlers = [
    get_workspace_model,
    set_workspace_model,
    assign_agent,
    replace_agent,
    remove_agent,
    move_agent,
    list_agents,
    get_agent,
    list_workspace_agents,
]
