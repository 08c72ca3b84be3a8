"""Routes of config, abilities and external connections (contract 02 §6.1, §6.4, §7)."""

from __future__ import annotations

from uuid import UUID

from litestar.openapi.spec import OpenAPIType, Schema

from molecule_ai.kernel.http import ApiRequest, FromPath, Here, JSONBody, get, patch, post
from molecule_ai.server.auth.principal import Principal
from molecule_ai.server.auth.tiers import Tier
from molecule_ai.server.settings import Settings

from .broadcasts import Broadcasts
from .configuration import Configuration
from .configuration_schemas import (
    AbilitiesInput,
    AbilitiesUpdated,
    BroadcastInput,
    BroadcastSent,
    Config,
    Connected,
    Done,
)
from .errors import (
    ConfigIsNoObject,
    ConfigTooLarge,
    InvalidConfigJson,
    InvalidWorkspaceId,
    MayNotBroadcast,
    NotExternal,
    SharedContextRemoved,
    StoredConfigTooLarge,
    TooManyBroadcasts,
    WorkspaceNotFound,
    WorkspaceRemoved,
)
from .public_url import public_url

_ONE = "/workspaces/{workspace_id:str}"
_TAGS = ["workspaces"]


@get(f"{_ONE}/config", Tier.WORKSPACE, tags=_TAGS)
async def get_workspace_config(configuration: Here[Configuration], workspace_id: FromPath[UUID]) -> Config:
    """Read the free configuration object; `config.yaml` is a file and read through the files API."""
    return await configuration.config(workspace_id)


@patch(
    f"{_ONE}/config",
    Tier.WORKSPACE,
    reads={"application/json": Schema(type=OpenAPIType.OBJECT)},
    errors=[InvalidConfigJson, ConfigIsNoObject, ConfigTooLarge, StoredConfigTooLarge],
    tags=_TAGS,
)
async def update_workspace_config(
    configuration: Here[Configuration],
    caller: Here[Principal],
    workspace_id: FromPath[UUID],
    request: ApiRequest,
) -> Done:
    """Replace top-level keys of the free configuration object; the body is any JSON object."""
    await configuration.merge_config(caller, workspace_id, await request.body())
    return Done()


@patch(f"{_ONE}/abilities", Tier.ADMIN, errors=[InvalidWorkspaceId, WorkspaceNotFound], tags=_TAGS)
async def update_workspace_abilities(
    configuration: Here[Configuration],
    caller: Here[Principal],
    workspace_id: FromPath[UUID],
    data: JSONBody[AbilitiesInput],
) -> AbilitiesUpdated:
    """Let a workspace broadcast, or keep it from talking to the user."""
    return await configuration.set_abilities(caller, workspace_id, data)


@post(
    f"{_ONE}/broadcast",
    Tier.WORKSPACE,
    errors=[MayNotBroadcast, TooManyBroadcasts, WorkspaceRemoved],
    tags=_TAGS,
)
async def broadcast_message(
    broadcasts: Here[Broadcasts],
    caller: Here[Principal],
    workspace_id: FromPath[UUID],
    data: JSONBody[BroadcastInput],
) -> BroadcastSent:
    """Tell every other workspace something; at most 10 times a minute, and only where it is enabled."""
    return await broadcasts.send(caller, workspace_id, data.message)


@get(f"{_ONE}/external/connection", Tier.WORKSPACE, errors=[NotExternal, WorkspaceRemoved], tags=_TAGS)
async def get_external_connection(
    configuration: Here[Configuration],
    settings: Here[Settings],
    workspace_id: FromPath[UUID],
    request: ApiRequest,
) -> Connected:
    """Show how an external agent connects; its token is never shown again."""
    return await configuration.connection(workspace_id, platform_url=public_url(request, settings))


@post(f"{_ONE}/external/rotate", Tier.WORKSPACE, errors=[NotExternal, WorkspaceRemoved], tags=_TAGS)
async def rotate_external_credentials(
    configuration: Here[Configuration],
    caller: Here[Principal],
    settings: Here[Settings],
    workspace_id: FromPath[UUID],
    request: ApiRequest,
) -> Connected:
    """Revoke all tokens of an external workspace and show a new one."""
    return await configuration.rotate(caller, workspace_id, platform_url=public_url(request, settings))


@get(f"{_ONE}/shared-context", Tier.WORKSPACE, errors=[SharedContextRemoved], tags=_TAGS)
async def get_shared_context(workspace_id: FromPath[UUID]) -> Done:
    """Refuse: files of a parent's own are no way to share; team memory is."""
    raise SharedContextRemoved


handlers = [
    get_shared_context,
    get_workspace_config,
    update_workspace_config,
    update_workspace_abilities,
    broadcast_message,
    get_external_connection,
    rotate_external_credentials,
]
