"""What an admin-level caller may not do: by its role, and outside of the workspaces it is bound to.

Whoever gets here is authenticated, so the answer is a 403 and never a 401, which a canvas would take
for the end of its session (contract 01 §2).
"""

from __future__ import annotations

from uuid import UUID

from .errors import NotYourWorkspace, RoleTooLow
from .presented import Request
from .principal import Principal, Role

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
# Contract 07 §6: what a member of the organization is not given, nor any role below an admin's.
_ADMINS_ONLY = ("/admin", "/settings/secrets", "/org/tokens")


def check(caller: Principal, connection: Request, *named: UUID | None) -> None:
    """Raise if the caller's role or binding forbids the request; `named` are the workspaces it is about."""
    if caller.role is not Role.ADMIN:
        path = connection.scope["path"]
        if caller.role is Role.READER and connection.scope.get("method", "GET") not in _READING:
            raise RoleTooLow
        if any(path == prefix or path.startswith(f"{prefix}/") for prefix in _ADMINS_ONLY):
            raise RoleTooLow
    if caller.workspace_ids is not None:
        about = [workspace_id for workspace_id in (*named, caller.acting_for) if workspace_id is not None]
        if not about or not caller.reaches(*about):
            raise NotYourWorkspace
