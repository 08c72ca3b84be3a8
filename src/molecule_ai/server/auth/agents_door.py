"""The tiers on which an agent says who it is: in a header, or in the body of what it registers."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any
from uuid import UUID

import msgspec
from litestar.exceptions import SerializationException

from molecule_ai.server.settings import Settings

from . import errors
from .callers import Callers
from .identities import Identities
from .presented import Request, bearer_of, body_workspace, parse_uuid, path_workspace, subprotocol_token
from .principal import ANONYMOUS, Kind, Principal

RESERVED_CALLERS = ("webhook:", "system:", "test:", "channel:")
AsWorkspace = Callable[..., Coroutine[Any, Any, Principal]]

# The stock SDK registers without the token that it was given (contract 02 §11.1).
BEARER_HINT = "this workspace has a token: send it as Authorization: Bearer, or rotate it if it is lost"


class AgentsDoor:
    """Compares who an agent says it is with what its credential proves.

    `as_workspace` is the gatekeeper's way to admit a workspace by its path.
    """

    def __init__(
        self, identities: Identities, callers: Callers, as_workspace: AsWorkspace, settings: Settings
    ) -> None:
        self._identities = identities
        self._callers = callers
        self._as_workspace = as_workspace
        self._settings = settings

    async def registry(self, connection: Request) -> Principal:
        """Contract 01 §4.5: the workspace is named in the body."""
        workspace_id = await body_workspace(connection)
        token = bearer_of(connection)
        caller = await self._callers.find(connection)
        if caller is not None and (caller.is_admin or caller.workspace_id == workspace_id):
            return _acting(caller, workspace_id) if caller.is_limited else caller
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
        if token:
            raise errors.InvalidWorkspaceToken
        raise errors.MissingWorkspaceToken(hint=BEARER_HINT)

    async def discovery(self, connection: Request) -> Principal:
        """Contract 01 §4.7: the caller is the header, for peers the path."""
        path_id = path_workspace(connection)
        named = connection.headers.get("x-workspace-id", "")
        is_peers = connection.scope["path"].rstrip("/").endswith("/peers")
        if not named and not is_peers:
            raise errors.DiscoverHeaderRequired
        caller_id = parse_uuid(named) if named else path_id
        caller = await self._callers.find(connection)
        if caller is not None and caller.is_admin:
            return _acting(caller, path_id if is_peers else caller_id)
        if caller_id is None or (is_peers and caller_id != path_id):
            raise errors.InvalidWorkspaceToken
        if caller is not None and caller.workspace_id == caller_id:
            return _acting(caller, caller_id)
        if await self._grandfathered(caller_id):
            return Principal(kind=Kind.ANONYMOUS, acting_for=caller_id)
        if bearer_of(connection):
            raise errors.InvalidWorkspaceToken
        has_cookie = self._callers.presents_session(connection)
        raise errors.InvalidSession if has_cookie else errors.MissingWorkspaceToken

    async def caller(self, connection: Request) -> Principal:
        """Contract 01 §4.6 and 05 §1: an agent in its own name, or a human."""
        headers = connection.headers
        named = headers.get("x-workspace-id") or headers.get("x-source-workspace-id") or ""
        if named.startswith(RESERVED_CALLERS):
            raise errors.InvalidCallerId
        path_workspace(connection)
        token = bearer_of(connection)
        caller = await self._callers.find(connection)
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

    async def delegate(self, connection: Request) -> Principal:
        """Contract 05 §2: the SDK posts to the target's path and names the source in the header."""
        named = parse_uuid(connection.headers.get("x-workspace-id", ""))
        if named is None or named == path_workspace(connection):
            return await self._as_workspace(connection, own_only=False)
        try:
            body = await connection.json()  # type: ignore[attr-defined]  # guards of HTTP routes get a Request
        except SerializationException:
            body = None
        if not isinstance(body, dict) or body.get("target_id"):
            return await self._as_workspace(connection, own_only=False)
        return await self.caller(connection)

    async def peer(self, connection: Request) -> Principal:
        """Contract 03 §2.10: a teammate in its own name; whoever runs the org needs no name."""
        if connection.headers.get("x-workspace-id"):
            return await self.caller(connection)
        path_workspace(connection)
        caller = await self._callers.find(connection)
        if caller is None or not caller.is_admin:
            raise errors.CallerHeaderRequired
        return caller

    def _canvas_caller(self, connection: Request, token: str, caller: Principal | None) -> Principal:
        if caller is not None:
            target = parse_uuid(connection.path_params["workspace_id"])
            if caller.kind is Kind.WORKSPACE and caller.workspace_id != target:
                return _acting(caller, caller.workspace_id)
            return caller
        if token or self._settings.strict or self._identities.admin_token_set:
            raise errors.CanvasAuthRequired
        return Principal(kind=Kind.ANONYMOUS)

    async def socket(self, connection: Request) -> Principal:
        """Contract 03 §8.1 for the credentials; the origin is the hub's business."""
        named = connection.headers.get("x-workspace-id", "")
        token = bearer_of(connection) or subprotocol_token(connection)
        caller = await self._callers.find(connection, token)
        if not named:
            if caller is not None and caller.is_admin:
                return caller
            if self._settings.strict or token:
                raise errors.InvalidWorkspaceToken if token else errors.SocketCredentialsRequired
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


def _acting(caller: Principal, workspace_id: UUID | None) -> Principal:
    return msgspec.structs.replace(caller, acting_for=workspace_id)
