"""One function turns a request into a `Principal`; one guard compares it with the route's tier."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from litestar.handlers import BaseRouteHandler

from molecule_ai.kernel import log
from molecule_ai.server.settings import Settings

from . import acts, errors, powers
from .agents_door import AgentsDoor
from .callers import Callers
from .identities import Identities
from .presented import (
    Request,
    bearer_of,
    is_own_origin,
    parse_uuid,
    path_workspace,
)
from .principal import ANONYMOUS, Kind, Principal
from .sessions import Sessions
from .tiers import Tier

_WARN_SECONDS = 60.0


class Gatekeeper:
    """Authenticates every request and compares the caller with what the route asks for."""

    def __init__(self, identities: Identities, sessions: Sessions, settings: Settings) -> None:
        self._identities = identities
        self._settings = settings
        self._warned_at = -_WARN_SECONDS
        self._callers = Callers(identities, sessions, settings)
        self._agents = AgentsDoor(identities, self._callers, self._workspace, settings)
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
        if handler.opt.get("knows_person") and principal.kind is Kind.ANONYMOUS:
            # An open route whose answer may still be this person's own.
            principal = await self._callers.session(connection) or principal
        connection.scope["state"]["principal"] = principal
        acts.begin(principal, connection, handler)
        if "workspace_id" in connection.path_params and "workspace_id" not in handler.opt.get("missing", {}):
            path_workspace(connection)
        for name, missing in handler.opt.get("missing", {}).items():
            if parse_uuid(str(connection.path_params.get(name, ""))) is None:
                raise missing()

    async def admit(self, connection: Request, tier: Tier) -> Principal:
        """The caller, if this tier lets them in; raises the tier's refusal otherwise."""
        caller = await self._admit(connection, tier)
        if caller.is_limited and tier is not Tier.WORKSPACE_OR_REDACTED:
            powers.check(caller, connection, parse_uuid(connection.path_params.get("workspace_id", "")))
        return caller

    async def _admit(self, connection: Request, tier: Tier) -> Principal:
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
                return await self._agents.registry(connection)
            case Tier.DISCOVERY:
                return await self._agents.discovery(connection)
            case Tier.CALLER:
                return await self._agents.caller(connection)
            case Tier.DELEGATE:
                return await self._agents.delegate(connection)
            case Tier.PEER:
                return await self._agents.peer(connection)
            case Tier.SOCKET:
                return await self._agents.socket(connection)

    async def _admin(self, connection: Request) -> Principal:
        token = bearer_of(connection)
        caller = await self._identities.identify(token)
        if caller is not None and (caller.is_admin or self._workspace_token_is_admin(caller)):
            return caller
        member = await self._callers.session(connection)
        if member is not None:
            return member
        if caller is None and await self._identities.is_open():
            return Principal(kind=Kind.BOOTSTRAP)
        raise errors.InvalidAdminToken if token else errors.AdminAuthRequired

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
        if caller.kind is not Kind.WORKSPACE or self._identities.admin_token_set or self._settings.strict:
            return False
        if time.monotonic() - self._warned_at > _WARN_SECONDS:
            self._warned_at = time.monotonic()
            log.get().warning("workspace_token_used_as_admin", caller=caller.label, cure="set ADMIN_TOKEN")
        return True

    async def _workspace(self, connection: Request, *, own_only: bool) -> Principal:
        token = bearer_of(connection)
        caller = await self._identities.identify(token)
        if caller is None and not own_only:
            caller = await self._callers.session(connection)
        if caller is None:
            if token:
                raise errors.InvalidWorkspaceToken
            if own_only or not self._same_origin_counts(connection):
                raise errors.MissingWorkspaceToken
            await self._known_workspace(connection)
            return Principal(kind=Kind.SAME_ORIGIN)
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
        if bearer_of(connection) or self._callers.presents_session(connection) or not is_open:
            return await self._workspace(connection, own_only=False)
        if await self._identities.is_open():
            return Principal(kind=Kind.BOOTSTRAP)
        return Principal(kind=Kind.SAME_ORIGIN) if self._same_origin_counts(connection) else ANONYMOUS

    async def _reader(self, connection: Request) -> Principal:
        """Contract 02 §4.4: anybody, unless the operator closed the redacted form."""
        workspace_id = path_workspace(connection)
        caller = await self._callers.find(connection)
        if caller is None and self._settings.workspace_get_requires_auth:
            raise errors.InvalidWorkspaceToken if bearer_of(connection) else errors.MissingWorkspaceToken
        return caller if caller is not None and caller.reaches(workspace_id) else ANONYMOUS

    async def _canvas(self, connection: Request) -> Principal:
        caller = await self._callers.find(connection)
        if caller is not None:
            return caller
        if bearer_of(connection):
            raise errors.InvalidAdminToken
        origin = connection.headers.get("origin", "")
        is_canvas = bool(self._settings.canvas_proxy_url) and is_own_origin(connection)
        if is_canvas or origin in self._settings.origins:
            return Principal(kind=Kind.SAME_ORIGIN)
        if await self._identities.is_open():
            return Principal(kind=Kind.BOOTSTRAP)
        raise errors.AdminAuthRequired

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
