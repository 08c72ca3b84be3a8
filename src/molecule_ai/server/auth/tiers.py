"""The tiers of contract 01 §4 and what each can refuse with."""

from __future__ import annotations

from enum import Enum

from molecule_ai.kernel.errors import ApiError, DatastoreUnavailable

from . import errors


class Tier(Enum):
    """What a route asks of its caller. Every route has exactly one."""

    NONE = "None"
    ADMIN = "AdminAuth"
    WORKSPACE = "WorkspaceAuth"
    WORKSPACE_OWN = "WorkspaceAuth (own token only)"
    WORKSPACE_STATE = "WorkspaceAuth (also the revoked token of a removed workspace)"
    WORKSPACE_OR_COSMETIC = "WorkspaceAuth (cosmetic fields also without a credential)"
    WORKSPACE_OR_REDACTED = "None (redacted without a credential)"
    CANVAS_OR_BEARER = "CanvasOrBearer"
    REGISTRY = "Registry"
    DISCOVERY = "Discovery"
    CALLER = "Caller"
    DELEGATE = "WorkspaceAuth (the target's path: Caller)"
    PEER = "Caller (header required)"
    SIGNATURE = "Signature"
    SOCKET = "WebSocket"

    @property
    def raises(self) -> tuple[type[ApiError], ...]:
        """The refusals that the gatekeeper itself may answer on this tier."""
        refused = _RAISES.get(self, ())
        return (*refused, *_LIMITED) if refused else ()


# What a session or a narrowed key may be refused with once it is known.
_LIMITED = (errors.OriginNotAllowed, errors.RoleTooLow, errors.NotYourWorkspace)
_WORKSPACE = (
    errors.MissingWorkspaceToken,
    errors.InvalidWorkspaceToken,
    errors.InvalidWorkspaceId,
    errors.WorkspaceNotFound,
    DatastoreUnavailable,
)
_RAISES: dict[Tier, tuple[type[ApiError], ...]] = {
    Tier.ADMIN: (errors.AdminAuthRequired, errors.InvalidAdminToken, DatastoreUnavailable),
    Tier.WORKSPACE: _WORKSPACE,
    Tier.WORKSPACE_OWN: _WORKSPACE,
    Tier.WORKSPACE_STATE: _WORKSPACE,
    Tier.WORKSPACE_OR_COSMETIC: _WORKSPACE,
    Tier.WORKSPACE_OR_REDACTED: (
        errors.MissingWorkspaceToken,
        errors.InvalidWorkspaceToken,
        errors.InvalidWorkspaceId,
        DatastoreUnavailable,
    ),
    Tier.CANVAS_OR_BEARER: (errors.AdminAuthRequired, errors.InvalidAdminToken, DatastoreUnavailable),
    Tier.REGISTRY: (errors.MissingWorkspaceToken, errors.InvalidWorkspaceToken, DatastoreUnavailable),
    Tier.DISCOVERY: (
        errors.InvalidSession,
        errors.MissingWorkspaceToken,
        errors.InvalidWorkspaceToken,
        errors.InvalidWorkspaceId,
        DatastoreUnavailable,
    ),
    Tier.CALLER: (
        errors.MissingCallerToken,
        errors.InvalidCallerToken,
        errors.CanvasAuthRequired,
        errors.InvalidCallerId,
        errors.InvalidWorkspaceId,
        DatastoreUnavailable,
    ),
    Tier.DELEGATE: (
        *_WORKSPACE,
        errors.MissingCallerToken,
        errors.InvalidCallerToken,
        errors.InvalidCallerId,
    ),
    Tier.PEER: (
        errors.CallerHeaderRequired,
        errors.MissingCallerToken,
        errors.InvalidCallerToken,
        errors.InvalidCallerId,
        errors.InvalidWorkspaceId,
        DatastoreUnavailable,
    ),
    Tier.SOCKET: (
        errors.SocketCredentialsRequired,
        errors.MissingWorkspaceToken,
        errors.InvalidWorkspaceToken,
        DatastoreUnavailable,
    ),
}
