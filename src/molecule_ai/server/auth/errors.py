"""The gatekeeper's refusals, in the exact words of contract 01 §2."""

from __future__ import annotations

from molecule_ai.kernel.errors import InvalidRequest, NotFound, NotPermitted, Unauthenticated


class AdminAuthRequired(Unauthenticated):
    """admin auth required"""

    code = "admin_auth_required"


class InvalidAdminToken(Unauthenticated):
    """invalid admin auth token"""

    code = "invalid_admin_token"


class MissingWorkspaceToken(Unauthenticated):
    """missing workspace auth token"""

    code = "missing_workspace_token"


class InvalidWorkspaceToken(Unauthenticated):
    """invalid workspace auth token"""

    code = "invalid_workspace_token"


class InvalidSession(Unauthenticated):
    """invalid session"""

    code = "invalid_session"


class OriginNotAllowed(NotPermitted):
    """origin not allowed"""

    code = "origin_not_allowed"


class RoleTooLow(NotPermitted):
    """not permitted for this role"""

    code = "role_too_low"


class NotYourWorkspace(NotPermitted):
    """this key is bound to other workspaces"""

    code = "key_bound_elsewhere"


class SocketCredentialsRequired(Unauthenticated):
    """websocket credentials required"""

    code = "websocket_credentials_required"


class MissingCallerToken(Unauthenticated):
    """missing caller auth token"""

    code = "missing_caller_token"


class InvalidCallerToken(Unauthenticated):
    """invalid caller auth token"""

    code = "invalid_caller_token"


class CanvasAuthRequired(Unauthenticated):
    """canvas auth required"""

    code = "canvas_auth_required"


class CallerHeaderRequired(Unauthenticated):
    """X-Workspace-ID header required"""

    code = "caller_header_required"


class DiscoverHeaderRequired(InvalidRequest):
    """X-Workspace-ID header is required"""

    code = "caller_header_required"


class InvalidCallerId(NotPermitted):
    """invalid caller ID"""

    code = "invalid_caller_id"


class InvalidWorkspaceId(InvalidRequest):
    """invalid workspace ID"""

    code = "invalid_workspace_id"


class WorkspaceNotFound(NotFound):
    """workspace not found"""

    code = "WORKSPACE_NOT_FOUND"
