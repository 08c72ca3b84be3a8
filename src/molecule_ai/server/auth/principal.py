"""Who is calling."""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

from msgspec import Struct


class Kind(StrEnum):
    """What proved the caller's identity (contract 01 §3, 03 §1.1)."""

    ADMIN = "admin"  # ADMIN_TOKEN
    ORG_KEY = "org_key"
    SESSION = "session"
    WORKSPACE = "workspace"
    SAME_ORIGIN = "same_origin"
    BOOTSTRAP = "bootstrap"  # the open state: nothing is configured yet
    ANONYMOUS = "anonymous"
    SYSTEM = "system"  # the server's own engines


class Principal(Struct, frozen=True, kw_only=True):
    """The authenticated caller of one request."""

    kind: Kind
    workspace_id: UUID | None = None
    token_id: UUID | None = None
    prefix: str = ""
    user_id: str = ""
    org_anchor: UUID | None = None
    # A2A and discovery: the workspace named in X-Workspace-ID, once it is proven.
    acting_for: UUID | None = None

    @property
    def is_admin(self) -> bool:
        """Tenant-wide power: contract 01 §4, "admin-level"."""
        return self.kind in {Kind.ADMIN, Kind.ORG_KEY, Kind.SESSION, Kind.BOOTSTRAP, Kind.SYSTEM}

    @property
    def label(self) -> str:
        """Who did it, for `created_by` columns and the audit trail (contract 01 §9)."""
        match self.kind:
            case Kind.ADMIN:
                return "admin-token"
            case Kind.ORG_KEY:
                return f"org-token:{self.prefix}"
            case Kind.SESSION:
                return f"session:{self.user_id}"
            case Kind.WORKSPACE:
                return f"workspace:{self.workspace_id}"
            case _:
                return self.kind.value


SYSTEM = Principal(kind=Kind.SYSTEM)
ANONYMOUS = Principal(kind=Kind.ANONYMOUS)
