"""Routes of the secrets room."""

from __future__ import annotations

from uuid import UUID

from litestar import Response

from molecule_ai.kernel.http import FromPath, Here, JSONBody, delete, get, post
from molecule_ai.kernel.http import put as put_route
from molecule_ai.server.auth.principal import Principal
from molecule_ai.server.auth.tiers import Tier

from .errors import (
    InvalidDelivery,
    InvalidSecretKey,
    InvalidSecretValue,
    ReservedSecretKey,
    SecretNotFound,
    SecretsBroken,
    TooManySecrets,
)
from .schemas import Dependents, Secret, SecretInput, SecretSaved
from .service import Secrets

_OWN = "/workspaces/{workspace_id:str}/secrets"
_ORG = ["/settings/secrets", "/admin/secrets"]
_REFUSED = [InvalidSecretKey, ReservedSecretKey, InvalidSecretValue, InvalidDelivery, TooManySecrets]


@get(_OWN, Tier.WORKSPACE, tags=["secrets"])
async def list_workspace_secrets(secrets: Here[Secrets], workspace_id: FromPath[UUID]) -> list[Secret]:
    """List a workspace's secrets by name, its own first, then what it inherits."""
    return await secrets.list_for(workspace_id)


@get(f"{_OWN}/values", Tier.WORKSPACE_OWN, errors=[SecretsBroken], tags=["secrets"])
async def get_workspace_secret_values(
    secrets: Here[Secrets], caller: Here[Principal], workspace_id: FromPath[UUID]
) -> Response[dict[str, str]]:
    """Hand an agent its own environment."""
    values = await secrets.values(caller, workspace_id)
    return Response(values, headers={"Cache-Control": "no-store"})


@post(_OWN, Tier.WORKSPACE, errors=_REFUSED, tags=["secrets"])
async def set_workspace_secret(
    secrets: Here[Secrets], caller: Here[Principal], workspace_id: FromPath[UUID], data: JSONBody[SecretInput]
) -> SecretSaved:
    """Set a workspace's secret and restart it."""
    return await secrets.save(caller, workspace_id, data)


@put_route(_OWN, Tier.WORKSPACE, errors=_REFUSED, tags=["secrets"])
async def replace_workspace_secret(
    secrets: Here[Secrets], caller: Here[Principal], workspace_id: FromPath[UUID], data: JSONBody[SecretInput]
) -> SecretSaved:
    """Set a workspace's secret and restart it."""
    return await secrets.save(caller, workspace_id, data)


@delete(f"{_OWN}/{{key:str}}", Tier.WORKSPACE, errors=[SecretNotFound], tags=["secrets"])
async def delete_workspace_secret(
    secrets: Here[Secrets], caller: Here[Principal], workspace_id: FromPath[UUID], key: FromPath[str]
) -> SecretSaved:
    """Delete a workspace's secret and restart it."""
    return await secrets.delete(caller, workspace_id, key)


@get(f"{_OWN}/{{key:str}}/dependents", Tier.WORKSPACE, tags=["secrets"])
async def list_workspace_secret_dependents(
    secrets: Here[Secrets], workspace_id: FromPath[UUID], key: FromPath[str]
) -> Dependents:
    """List the workspaces that a change would restart."""
    return await secrets.dependents(workspace_id, key)


@get(_ORG, Tier.ADMIN, tags=["secrets"])
async def list_org_secrets(secrets: Here[Secrets]) -> list[Secret]:
    """List the secrets that every workspace inherits."""
    return await secrets.list_for(None)


@post(_ORG, Tier.ADMIN, errors=_REFUSED, tags=["secrets"])
async def set_org_secret(
    secrets: Here[Secrets], caller: Here[Principal], data: JSONBody[SecretInput]
) -> SecretSaved:
    """Set an org-wide secret and restart the workspaces that inherit it."""
    return await secrets.save(caller, None, data)


@put_route(_ORG, Tier.ADMIN, errors=_REFUSED, tags=["secrets"])
async def replace_org_secret(
    secrets: Here[Secrets], caller: Here[Principal], data: JSONBody[SecretInput]
) -> SecretSaved:
    """Set an org-wide secret and restart the workspaces that inherit it."""
    return await secrets.save(caller, None, data)


@delete([f"{path}/{{key:str}}" for path in _ORG], Tier.ADMIN, errors=[SecretNotFound], tags=["secrets"])
async def delete_org_secret(
    secrets: Here[Secrets], caller: Here[Principal], key: FromPath[str]
) -> SecretSaved:
    """Delete an org-wide secret and restart the workspaces that inherited it."""
    return await secrets.delete(caller, None, key)


@get("/settings/secrets/{key:str}/dependents", Tier.ADMIN, tags=["secrets"])
async def list_org_secret_dependents(secrets: Here[Secrets], key: FromPath[str]) -> Dependents:
    """List the workspaces that a change would restart."""
    return await secrets.dependents(None, key)


handlers = [
    list_workspace_secrets,
    get_workspace_secret_values,
    set_workspace_secret,
    replace_workspace_secret,
    delete_workspace_secret,
    list_workspace_secret_dependents,
    list_org_secrets,
    set_org_secret,
    replace_org_secret,
    delete_org_secret,
    list_org_secret_dependents,
]
