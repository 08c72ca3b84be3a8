"""One function turns a request into a `Principal`; one guard compares it with the route's tier."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from litestar.connection import ASGIConnection
from litestar.exceptions import SerializationException
from litestar.handlers import BaseRouteHandler

from molecule_ai.kernel.batch import Coalescer
from molecule_ai.kernel.db import Connection, Database
from molecule_ai.kernel.errors import ApiError, DatastoreUnavailable, InvalidRequest
from molecule_ai.server.settings import Settings

from . import errors, store
from .principal import ANONYMOUS, Kind, Principal
from .store import Binding, Credential
from .tiers import Tier

Request = ASGIConnection[Any, Any, Any, Any]
RESERVED_CALLERS = ("webhook:", "system:", "test:", "channel:")
_TOUCH_SECONDS = 1.0


def bearer_of(connection: Request) -> str:
    """The bearer token, or "" (contract 01 §3.1: any case of the scheme, the first header counts)."""
    scheme, _, token = (connection.headers.get("authorization") or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def parse_uuid(text: str) -> UUID | None:
    """A UUID in its 36-character form, any case; None for anything else."""
    if len(text) != 36:
        return None
    try:
        return UUID(text)
    except ValueError:
        return None


class Gatekeeper:
    """Authenticates every request. Keeps no answer longer than the statement that gave it."""

    def __init__(self, db: Database, settings: Settings) -> None:
        self._db = db
        self._settings = settings
        self._admin_tokens = [
            t.strip().encode() for t in (settings.admin_token, settings.admin_token_previous) if t.strip()
        ]
        self._bootstrap_token = b""
        self._credentials: Coalescer[bytes, Credential] = Coalescer(self._load_credentials)
        self._bindings: Coalescer[UUID, Binding] = Coalescer(self._load_bindings)
        self._used: set[UUID] = set()
        self.redeem: Callable[[str], Awaitable[Principal | None]] | None = None

    def accept_bootstrap(self, token: str) -> None:
        """Take this token like the admin token; it does not count as a configured one."""
        self._bootstrap_token = token.encode()

    @property
    def admin_token_set(self) -> bool:
        return bool(self._admin_tokens)

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
            self._path_workspace(connection)
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

    async def identify(self, token: str) -> Principal | None:
        """Whoever holds `token`, or None. One statement for all lookups that arrive together."""
        if not token:
            return None
        given = token.encode()
        if any(hmac.compare_digest(given, known) for known in self._admin_tokens):
            return Principal(kind=Kind.ADMIN)
        if self._bootstrap_token and hmac.compare_digest(given, self._bootstrap_token):
            return Principal(kind=Kind.ADMIN)
        found = await self._credentials.get(hashlib.sha256(given).digest())
        if found is None:
            return None
        self._used.add(found.id)
        if found.rotates:
            await self.flush()
        kind = Kind.ORG_KEY if found.workspace_id is None else Kind.WORKSPACE
        return Principal(
            kind=kind,
            workspace_id=found.workspace_id,
            token_id=found.id,
            prefix=found.prefix,
            org_anchor=found.org_id,
            scopes=found.scopes,
        )

    async def is_open(self) -> bool:
        """The lazy open state of contract 01 §4.2: nothing is configured and nothing was handed out."""
        settings = self._settings
        if self._admin_tokens or settings.strict or settings.molecule_org_id:
            return False
        async with self._db.connection() as connection:
            return not await store.any_credential(connection)

    async def has_operator(self, db: Connection) -> bool:
        """Whether an operator has set up a credential: then no agent answers its own questions."""
        settings = self._settings
        if self._admin_tokens or settings.strict or settings.molecule_org_id:
            return True
        return await store.any_org_key(db)

    async def run(self) -> None:
        """Write `last_used_at` of the tokens used, once a second at most."""
        while True:
            await asyncio.sleep(_TOUCH_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        if not self._used:
            return
        used, self._used = self._used, set()
        try:
            async with self._db.transaction() as tx:
                await store.touch(tx, list(used))
        except DatastoreUnavailable:
            self._used |= used

    async def _admin(self, connection: Request) -> Principal:
        token = bearer_of(connection)
        if not token:
            if await self.is_open():
                return Principal(kind=Kind.BOOTSTRAP)
            raise errors.AdminAuthRequired
        caller = await self.identify(token)
        if caller is not None and (caller.is_admin or self._workspace_token_is_admin(caller)):
            return caller
        if caller is None and await self.is_open():
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
            and caller.scopes is None
            and not self._admin_tokens
            and not self._settings.strict
        )

    async def _workspace(self, connection: Request, *, own_only: bool) -> Principal:
        token = bearer_of(connection)
        if not token:
            if not own_only and self._same_origin_counts(connection):
                await self._known_workspace(connection)
                return Principal(kind=Kind.SAME_ORIGIN)
            raise errors.MissingWorkspaceToken
        caller = await self.identify(token)
        if caller is None or caller.scopes is not None:
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
            token_hash = hashlib.sha256(bearer_of(connection).encode()).digest()
            workspace_id = self._path_workspace(connection)
            async with self._db.connection() as database:
                if not await store.was_removed_with(database, workspace_id, token_hash):
                    raise
            return ANONYMOUS

    async def _cosmetic(self, connection: Request) -> Principal:
        """Contract 02 §4.5: without a credential only while nothing could authenticate the canvas."""
        settings = self._settings
        is_open = settings.molecule_allow_anon_cosmetic and not (
            self._admin_tokens or settings.strict or settings.saas
        )
        if bearer_of(connection) or not is_open:
            return await self._workspace(connection, own_only=False)
        if await self.is_open():
            return Principal(kind=Kind.BOOTSTRAP)
        return Principal(kind=Kind.SAME_ORIGIN) if self._same_origin_counts(connection) else ANONYMOUS

    async def _reader(self, connection: Request) -> Principal:
        """Contract 02 §4.4: anybody, unless the operator closed the redacted form."""
        self._path_workspace(connection)
        token = bearer_of(connection)
        caller = await self.identify(token)
        if caller is None and self._settings.workspace_get_requires_auth:
            raise errors.InvalidWorkspaceToken if token else errors.MissingWorkspaceToken
        return caller or ANONYMOUS

    async def _canvas(self, connection: Request) -> Principal:
        token = bearer_of(connection)
        if token:
            caller = await self.identify(token)
            if caller is None:
                raise errors.InvalidAdminToken
            return caller
        origin = connection.headers.get("origin", "")
        if origin and (origin in self._settings.origins or self._is_own_origin(connection)):
            return Principal(kind=Kind.SAME_ORIGIN)
        if await self.is_open():
            return Principal(kind=Kind.BOOTSTRAP)
        raise errors.AdminAuthRequired

    async def _registry(self, connection: Request) -> Principal:
        """Contract 01 §4.5: the workspace is named in the body."""
        workspace_id = await self._body_workspace(connection)
        token = bearer_of(connection)
        caller = await self.identify(token)
        if caller is not None and (caller.is_admin or caller.workspace_id == workspace_id):
            return caller
        binding = await self._bindings.get(workspace_id)
        if binding is None and caller is None and not token and await self.is_open():
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
        path_id = self._path_workspace(connection)
        named = connection.headers.get("x-workspace-id", "")
        is_peers = connection.scope["path"].rstrip("/").endswith("/peers")
        if not named and not is_peers:
            raise errors.DiscoverHeaderRequired
        caller_id = parse_uuid(named) if named else path_id
        caller = await self.identify(bearer_of(connection))
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
        self._path_workspace(connection)
        token = bearer_of(connection)
        caller = await self.identify(token)
        if not named:
            return self._canvas_caller(connection, token, caller)
        caller_id = parse_uuid(named)
        if caller is not None and caller.is_admin:
            return _acting(caller, caller_id)
        if caller_id is not None:
            if caller is not None and caller.workspace_id == caller_id and caller.scopes is None:
                return _acting(caller, caller_id)
            if await self._grandfathered(caller_id):
                return Principal(kind=Kind.ANONYMOUS, acting_for=caller_id)
        raise errors.InvalidCallerToken if token else errors.MissingCallerToken

    async def _delegate(self, connection: Request) -> Principal:
        """Contract 05 §2: the SDK posts to the target's path and names the source in the header."""
        named = parse_uuid(connection.headers.get("x-workspace-id", ""))
        if named is None or named == self._path_workspace(connection):
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
        self._path_workspace(connection)
        caller = await self.identify(bearer_of(connection))
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
        if self._settings.strict or self._admin_tokens:
            raise errors.CanvasAuthRequired
        return Principal(kind=Kind.ANONYMOUS)

    async def _socket(self, connection: Request) -> Principal:
        """Contract 03 §8.1 for the credentials; the origin is the hub's business."""
        named = connection.headers.get("x-workspace-id", "")
        token = bearer_of(connection) or _subprotocol_token(connection)
        caller = await self.identify(token)
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
        binding = await self._bindings.get(workspace_id)
        return binding is not None and not binding.has_live_token and not binding.removed

    async def _known_workspace(self, connection: Request) -> None:
        if await self._bindings.get(self._path_workspace(connection)) is None:
            raise errors.WorkspaceNotFound

    @staticmethod
    def _path_workspace(connection: Request) -> UUID:
        workspace_id = parse_uuid(connection.path_params["workspace_id"])
        if workspace_id is None:
            raise errors.InvalidWorkspaceId
        return workspace_id

    @staticmethod
    async def _body_workspace(connection: Request) -> UUID:
        try:
            body = await connection.json()  # type: ignore[attr-defined]  # guards of HTTP routes get a Request
        except SerializationException as problem:
            raise InvalidRequest from problem
        if not isinstance(body, dict):
            raise InvalidRequest
        named = body.get("id") or body.get("workspace_id")
        workspace_id = parse_uuid(named) if isinstance(named, str) else None
        if workspace_id is None:
            raise InvalidRequest
        return workspace_id

    def _same_origin_counts(self, connection: Request) -> bool:
        """Contract 01 §6 (c): only where nothing else could authenticate the canvas."""
        settings = self._settings
        if not settings.canvas_proxy_url or settings.strict or settings.cp_upstream_url or self._admin_tokens:
            return False
        return self._is_own_origin(connection)

    @staticmethod
    def _is_own_origin(connection: Request) -> bool:
        host = connection.headers.get("host", "")
        own = (f"http://{host}", f"https://{host}")
        referer = connection.headers.get("referer", "")
        return (
            connection.headers.get("origin") in own
            or referer in own
            or referer.startswith(tuple(f"{o}/" for o in own))
        )

    async def _load_credentials(self, hashes: Sequence[bytes]) -> Mapping[bytes, Credential]:
        async with self._db.connection() as connection:
            found = await store.find_credentials(connection, hashes)
        return {credential.token_hash: credential for credential in found}

    async def _load_bindings(self, ids: Sequence[UUID]) -> Mapping[UUID, Binding]:
        async with self._db.connection() as connection:
            return {binding.id: binding for binding in await store.find_bindings(connection, ids)}


class _SocketCredentialsRequired(ApiError):
    """websocket credentials required"""

    status = 401
    code = "websocket_credentials_required"


def _acting(caller: Principal, workspace_id: UUID | None) -> Principal:
    return Principal(
        kind=caller.kind,
        workspace_id=caller.workspace_id,
        token_id=caller.token_id,
        prefix=caller.prefix,
        user_id=caller.user_id,
        org_anchor=caller.org_anchor,
        scopes=caller.scopes,
        acting_for=workspace_id,
    )


def _subprotocol_token(connection: Request) -> str:
    offered = connection.headers.get("sec-websocket-protocol", "")
    for protocol in (p.strip() for p in offered.split(",")):
        if protocol.startswith("molecule.bearer."):
            return protocol.removeprefix("molecule.bearer.")
    return ""
