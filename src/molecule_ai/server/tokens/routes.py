"""Routes of the tokens room."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from litestar import Response
from litestar.exceptions import SerializationException

from molecule_ai.kernel.http import ApiRequest, FromPath, FromQuery, Here, JSONBody, delete, get, post
from molecule_ai.server.auth.errors import InvalidWorkspaceId, WorkspaceNotFound
from molecule_ai.server.auth.principal import Principal
from molecule_ai.server.auth.tiers import Tier

from .errors import (
    InvalidBinding,
    InvalidExpiry,
    MintLimited,
    NameTooLong,
    TokenNotFound,
    TooManyTokens,
    UnknownRole,
    UnknownScope,
)
from .schemas import (
    OrgKeyCreate,
    OrgKeyMinted,
    OrgKeyRevoked,
    OrgKeys,
    TokenCreate,
    TokenMinted,
    TokenRevoked,
    WorkspaceTokens,
)
from .service import Tokens

_TAGS = ["tokens"]
_SECRET = {"Cache-Control": "no-store"}  # contract 01 §19.2
_MINTS = [WorkspaceNotFound, TooManyTokens, NameTooLong, UnknownScope]


@get("/workspaces/{workspace_id:str}/tokens", Tier.WORKSPACE, tags=_TAGS)
async def list_workspace_tokens(
    tokens: Here[Tokens],
    workspace_id: FromPath[UUID],
    limit: FromQuery[str | None] = None,
    offset: FromQuery[str | None] = None,
) -> WorkspaceTokens:
    """List the live tokens of a workspace."""
    return await tokens.page(workspace_id, limit, offset)


@post(
    "/workspaces/{workspace_id:str}/tokens",
    Tier.WORKSPACE,
    status=201,
    errors=_MINTS,
    tags=_TAGS,
    response_headers=_SECRET,
)
async def create_workspace_token(
    tokens: Here[Tokens],
    caller: Here[Principal],
    workspace_id: FromPath[UUID],
    data: JSONBody[TokenCreate | None] = None,
) -> TokenMinted:
    """Mint a token for a workspace."""
    return await tokens.create(caller, workspace_id, data)


@delete(
    "/workspaces/{workspace_id:str}/tokens/{token_id:str}",
    Tier.WORKSPACE,
    errors=[TokenNotFound],
    missing={"token_id": TokenNotFound},
    tags=_TAGS,
)
async def revoke_workspace_token(
    tokens: Here[Tokens], caller: Here[Principal], workspace_id: FromPath[UUID], token_id: FromPath[UUID]
) -> TokenRevoked:
    """Revoke a token of a workspace; it fails on the next request."""
    await tokens.revoke(caller, workspace_id, token_id)
    return TokenRevoked()


@post(
    "/admin/workspaces/{workspace_id:str}/tokens",
    Tier.ADMIN,
    status=201,
    errors=[InvalidWorkspaceId, *_MINTS],
    missing={"workspace_id": InvalidWorkspaceId},
    tags=_TAGS,
    response_headers=_SECRET,
)
async def admin_create_workspace_token(
    tokens: Here[Tokens],
    caller: Here[Principal],
    workspace_id: FromPath[UUID],
    data: JSONBody[TokenCreate | None] = None,
) -> TokenMinted:
    """Mint a token for any workspace as an operator."""
    return await tokens.create(caller, workspace_id, data)


@get("/org/tokens", Tier.ADMIN, tags=_TAGS)
async def list_org_tokens(tokens: Here[Tokens]) -> OrgKeys:
    """List the live keys of the organization."""
    return await tokens.org_keys()


async def _forgive_body(request: ApiRequest) -> None:
    """Contract 01 §13.1: an unparsable body mints an unnamed key."""
    try:
        await request.json()
    except SerializationException:
        request._json = None


@post(
    "/org/tokens",
    Tier.ADMIN,
    errors=[NameTooLong, InvalidExpiry, UnknownRole, InvalidBinding, MintLimited],
    tags=_TAGS,
    response_headers=_SECRET,
    before_request=_forgive_body,
)
async def create_org_token(
    tokens: Here[Tokens],
    caller: Here[Principal],
    address: Here[str],
    data: JSONBody[OrgKeyCreate | None] = None,
) -> Response[OrgKeyMinted]:
    """Mint a key of the organization: power over everything in it."""
    minted, limits = await tokens.create_org_key(caller, address, data)
    headers: dict[str, Any] = {**limits}
    return Response(minted, headers=headers)


@delete(
    "/org/tokens/{token_id:str}",
    Tier.ADMIN,
    errors=[TokenNotFound],
    missing={"token_id": TokenNotFound},
    tags=_TAGS,
)
async def revoke_org_token(
    tokens: Here[Tokens], caller: Here[Principal], token_id: FromPath[UUID]
) -> OrgKeyRevoked:
    """Revoke a key of the organization; it fails on the next request."""
    await tokens.revoke_org_key(caller, token_id)
    return OrgKeyRevoked(token_id)


handlers = [
    list_workspace_tokens,
    create_workspace_token,
    revoke_workspace_token,
    admin_create_workspace_token,
    list_org_tokens,
    create_org_token,
    revoke_org_token,
]
