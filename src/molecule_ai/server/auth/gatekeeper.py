"""One function turns a request into a `Principal`; one guard compares it with the route's tier."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import UUID

import msgspec
from litestar.exceptions import SerializationException
from litestar.handlers import BaseRouteHandler

from molecule_ai.kernel.errors import ApiError
from molecule_ai.server.settings import Settings

from . import errors
from .identities import Identities
from .presented import (
    Request,
    bearer_of,
    body_workspace,
    is_own_origin,
    parse_uuid,
    path_workspace,
    subprotocol_token,
)
from .principal import ANONYMOUS, Kind, Principal
from .tiers import Tier

RESERVED_CALLERS = ("webhook:", "system:", "test:", "channel:")


class Gatekeeper:
    """Authenticates every request and compares the caller with what the route asks for."""

    def __init__(self, identities: Identities, settings: Settings) -> None:
        self._identities = identities
        self._settings = settings
        self.redeem: Callable[[str], Awaitable[Principal | None]] | None = None

    async def guard(self, connection: Request, handler: BaseRouteHandler) -> None:
        """Litestar guard of every route: authenticate, then check ids, in the order of contract 01 §1.2."""
        if connection.scope.get("method") == "OPTIONS" and "tier" not in handler.opt:
            return  # the framework's own answer: which methods there are
        tier: Tier = handler.opt["tier"]
        if (
            handler.opt.get("takes_ticket")
            and not bearer_of(connection)
            and "token" in connection.query_params
        ):
            principal = await self._ticket(connection)
        else:
            principal = await self.admit(connection, tier)
        connection.scope["state"]["principal"] = principal
        if "workspace_id" in connection.path_params and "workspace_id" not in handler.opt.get("missing", {}):
            path_workspace(connection)
        for name, missing in handler.opt.get("missing", {}).items():
            if parse_uuid(str(connection.path_params.get(name, ""))) is None:
                raise missing()

    async def admit(self, connection: Request, tier: Tier) -> Principal:
        """The caller, if this tier lets them in; raises the tier's refusal otherwise."""
        match tier:
            case Tier.NONE | Tier.SIGNATURE:
                return ANONYMOUS
            case Tier.ADMIN:
                return await self._admin(connection)
            case Tier.WORKSPACE | Tier.WORKSPACE_OWN:
                return await self._workspace(connection, own_only=tier is Tier.WORKSPACE_OWN)
            case Tier.WORKSPACE_STATE:
                return await self._state_reader(connection)
            case Tier.WORKSPACE_OR_COSMETIC:
                return await self._cosmetic(connection)
            case Tier.WORKSPACE_OR_REDACTED:
                return await self._reader(connection)
            case Tier.CANVAS_OR_BEARER:
                return await self._canvas(connection)
            case Tier.REGISTRY:
                return await self._registry(connection)
            case Tier.DISCOVERY:
                return await self._discovery(connection)
            case Tier.CALLER:
                return await self._caller(connection)
            case Tier.DELEGATE:
                return await self._delegate(connection)
            case Tier.PEER:
                return await self._peer(connection)
            case Tier.SOCKET:
                return await self._socket(connection)

    async def _admin(self, connection: Request) -> Principal:
        token = bearer_of(connection)
        if not token:
            if await self._identities.is_open():
                return Principal(kind=Kind.BOOTSTRAP)
            raise errors.AdminAuthRequired
        caller = await self._identities.identify(token)
        if caller is not None and (caller.is_admin or self._workspace_token_is_admin(caller)):
            return caller
        if caller is None and await self._identities.is_open():
            return Principal(kind=Kind.BOOTSTRAP)
        raise errors.InvalidAdminToken

    async def _ticket(self, connection: Request) -> Principal:
        """A one-time ticket in place of the header that an EventSource cannot send."""
        caller = None
        if self.redeem is not None:
            caller = await self.redeem(str(connection.query_params["token"]))
        if caller is None:
            raise errors.InvalidWorkspaceToken
        await self._known_workspace(connection)
        return caller

    def _workspace_token_is_admin(self, caller: Principal) -> bool:
        return (
            caller.kind is Kind.WORKSPACE
            and not self._identities.admin_token_set
            and not self._settings.strict
        )

    async def _workspace(self, connection: Request, *, own_only: bool) -> Principal:
        token = bearer_of(connection)
        if not token:
            if not own_only and self._same_origin_counts(connection):
                await self._known_workspace(connection)
                return Principal(kind=Kind.SAME_ORIGIN)
            raise errors.MissingWorkspaceToken
        caller = await self._identities.identify(token)
        if caller is None:
            raise errors.InvalidWorkspaceToken
        if caller.is_admin:
            if own_only:
                raise errors.InvalidWorkspaceToken
            await self._known_workspace(connection)
            return caller
        target = parse_uuid(connection.path_params["workspace_id"])
        if caller.workspace_id != target:
            raise errors.InvalidWorkspaceToken
        return caller

    async def _state_reader(self, connection: Request) -> Principal:
        """Contract 02 §5.7: an agent learns that it was removed, although that revoked its token."""
        try:
            return await self._workspace(connection, own_only=False)
        except errors.InvalidWorkspaceToken:
            workspace_id = path_workspace(connection)
            if not await self._identities.was_removed_with(workspace_id, bearer_of(connection)):
                raise
            return ANONYMOUS

    async def _cosmetic(self, connection: Request) -> Principal:
        """Contract 02 §4.5: without a credential only while nothing could authenticate the canvas."""
        settings = self._settings
        is_open = settings.molecule_allow_anon_cosmetic and not (
            self._identities.admin_token_set or settings.strict or settings.saas
        )
        if bearer_of(connection) or not is_open:
            return await self._workspace(connection, own_only=False)
        if await self._identities.is_open():
            return Principal(kind=Kind.BOOTSTRAP)
        return Principal(kind=Kind.SAME_ORIGIN) if self._same_origin_counts(connection) else ANONYMOUS

    async def _reader(self, connection: Request) -> Principal:
        """Contract 02 §4.4: anybody, unless the operator closed the redacted form."""
        path_workspace(connection)
        token = bearer_of(connection)
        caller = await self._identities.identify(token)
        if caller is None and self._settings.workspace_get_requires_auth:
            raise errors.InvalidWorkspaceToken if token else errors.MissingWorkspaceToken
        return caller or ANONYMOUS

    async def _canvas(self, connection: Request) -> Principal:
        token = bearer_of(connection)
        if token:
            caller = await self._identities.identify(token)
            if caller is None:
                raise errors.InvalidAdminToken
            return caller
        origin = connection.headers.get("origin", "")
        if origin and (origin in self._settings.origins or is_own_origin(connection)):
            return Principal(kind=Kind.SAME_ORIGIN)
        if await self._identities.is_open():
            return Principal(kind=Kind.BOOTSTRAP)
        raise errors.AdminAuthRequired

    async def _registry(self, connection: Request) -> Principal:
        """Contract 01 §4.5: the workspace is named in the body."""
        workspace_id = await body_workspace(connection)
        token = bearer_of(connection)
        caller = await self._identities.identify(token)
        if caller is not None and (caller.is_admin or caller.workspace_id == workspace_id):
            return caller
        binding = await self._identities.binding(workspace_id)
        if binding is None and caller is None and not token and await self._identities.is_open():
            return Principal(kind=Kind.BOOTSTRAP)
        registering = connection.scope["path"].rstrip("/").endswith("/register")
        if (
            binding is not None
            and not (binding.has_live_token or binding.removed)
            and (not self._settings.strict or (registering and binding.in_registration_window))
        ):
            return ANONYMOUS
        if binding is not None and binding.removed:
            # The service answers 410, so that the agent ends itself instead of asking again.
            return ANONYMOUS
        if binding is None and not self._settings.strict:
            # The service answers 404; the id of an absent workspace protects nothing.
            return ANONYMOUS
        raise errors.InvalidWorkspaceToken if token else errors.MissingWorkspaceToken

    async def _discovery(self, connection: Request) -> Principal:
        """Contract 01 §4.7: the caller is the header, for peers the path."""
        path_id = path_workspace(connection)
        named = connection.headers.get("x-workspace-id", "")
        is_peers = connection.scope["path"].rstrip("/").endswith("/peers")
        if not named and not is_peers:
            raise errors.DiscoverHeaderRequired
        caller_id = parse_uuid(named) if named else path_id
        caller = await self._identities.identify(bearer_of(connection))
        if caller is not None and caller.is_admin:
            return _acting(caller, path_id if is_peers else caller_id)
        if caller_id is None or (is_peers and caller_id != path_id):
            raise errors.InvalidWorkspaceToken
        if caller is not None and caller.workspace_id == caller_id:
            return _acting(caller, caller_id)
        if await self._grandfathered(caller_id):
            return Principal(kind=Kind.ANONYMOUS, acting_for=caller_id)
        raise errors.InvalidWorkspaceToken if bearer_of(connection) else errors.MissingWorkspaceToken

    async def _caller(self, connection: Request) -> Principal:
        """Contract 01 §4.6 and 05 §1: an agent in its own name, or a human."""
        headers = connection.headers
        named = headers.get("x-workspace-id") or headers.get("x-source-workspace-id") or ""
        if named.startswith(RESERVED_CALLERS):
            raise errors.InvalidCallerId
        path_workspace(connection)
        token = bearer_of(connection)
        caller = await self._identities.identify(token)
        if not named:
            return self._canvas_caller(connection, token, caller)
        caller_id = parse_uuid(named)
        if caller is not None and caller.is_admin:
            return _acting(caller, caller_id)
        if caller_id is not None:
            if caller is not None and caller.workspace_id == caller_id:
                return _acting(caller, caller_id)
            if await self._grandfathered(caller_id):
                return Principal(kind=Kind.ANONYMOUS, acting_for=caller_id)
        raise errors.InvalidCallerToken if token else errors.MissingCallerToken

    async def _delegate(self, connection: Request) -> Principal:
        """Contract 05 §2: the SDK posts to the target's path and names the source in the header."""
        named = parse_uuid(connection.headers.get("x-workspace-id", ""))
        if named is None or named == path_workspace(connection):
            return await self._workspace(connection, own_only=False)
        try:
            body = await connection.json()  # type: ignore[attr-defined]  # guards of HTTP routes get a Request
        except SerializationException:
            body = None
        if not isinstance(body, dict) or body.get("target_id"):
            return await self._workspace(connection, own_only=False)
        return await self._caller(connection)

    async def _peer(self, connection: Request) -> Principal:
        """Contract 03 §2.10: a teammate in its own name; whoever runs the org needs no name."""
        if connection.headers.get("x-workspace-id"):
            return await self._caller(connection)
        path_workspace(connection)
        caller = await self._identities.identify(bearer_of(connection))
        if caller is None or not caller.is_admin:
            raise errors.CallerHeaderRequired
        return caller

    def _canvas_caller(self, connection: Request, token: str, caller: Principal | None) -> Principal:
        if token:
            if caller is None:
                raise errors.CanvasAuthRequired
            target = parse_uuid(connection.path_params["workspace_id"])
            if caller.kind is Kind.WORKSPACE and caller.workspace_id != target:
                return _acting(caller, caller.workspace_id)
            return caller
        if self._settings.strict or self._identities.admin_token_set:
            raise errors.CanvasAuthRequired
        return Principal(kind=Kind.ANONYMOUS)

    async def _socket(self, connection: Request) -> Principal:
        """Contract 03 §8.1 for the credentials; the origin is the hub's business."""
        named = connection.headers.get("x-workspace-id", "")
        token = bearer_of(connection) or subprotocol_token(connection)
        caller = await self._identities.identify(token)
        if not named:
            if caller is not None and caller.is_admin:
                return caller
            if self._settings.strict or token:
                raise errors.InvalidWorkspaceToken if token else _SocketCredentialsRequired
            return Principal(kind=Kind.ANONYMOUS)
        caller_id = parse_uuid(named)
        if caller is not None and (caller.is_admin or caller.workspace_id == caller_id):
            return _acting(caller, caller_id)
        if caller_id is not None and await self._grandfathered(caller_id):
            return Principal(kind=Kind.ANONYMOUS, acting_for=caller_id)
        raise errors.InvalidWorkspaceToken if token else errors.MissingWorkspaceToken

    async def _grandfathered(self, workspace_id: UUID) -> bool:
        """A known workspace that never got a token speaks without one, except in strict mode."""
        if self._settings.strict:
            return False
        binding = await self._identities.binding(workspace_id)
        return binding is not None and not binding.has_live_token and not binding.removed

    async def _known_workspace(self, connection: Request) -> None:
        if await self._identities.binding(path_workspace(connection)) is None:
            raise errors.WorkspaceNotFound

    def _same_origin_counts(self, connection: Request) -> bool:
        """Contract 01 §6 (c): only where nothing else could authenticate the canvas."""
        settings = self._settings
        if (
            not settings.canvas_proxy_url
            or settings.strict
            or settings.cp_upstream_url
            or self._identities.admin_token_set
        ):
            return False
        return is_own_origin(connection)


class _SocketCredentialsRequired(ApiError):
    """websocket credentials required"""

    status = 401
    code = "websocket_credentials_required"


def _acting(caller: Principal, workspace_id: UUID | None) -> Principal:
    return msgspec.structs.replace(caller, acting_for=workspace_id)
