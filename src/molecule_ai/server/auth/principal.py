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


class Role(StrEnum):
    """What an admin-level caller may do (contract 01 §24 row 34, 07 §6)."""

    ADMIN = "admin"
    EDITOR = "editor"  # everything but /admin, /settings/secrets and /org/tokens
    READER = "reader"  # of that, only what changes nothing


class Principal(Struct, frozen=True, kw_only=True):
    """The authenticated caller of one request."""

    kind: Kind
    workspace_id: UUID | None = None
    token_id: UUID | None = None
    prefix: str = ""
    user_id: str = ""
    org_anchor: UUID | None = None
    role: Role = Role.ADMIN
    # An org key may be bound to some workspaces; None: the whole organization.
    workspace_ids: tuple[UUID, ...] | None = None
    # A2A and discovery: the workspace named in X-Workspace-ID, once it is proven.
    acting_for: UUID | None = None

    @property
    def is_admin(self) -> bool:
        """Tenant-wide power: contract 01 §4, "admin-level"."""
        return self.kind in {Kind.ADMIN, Kind.ORG_KEY, Kind.SESSION, Kind.BOOTSTRAP, Kind.SYSTEM}

    @property
    def is_limited(self) -> bool:
        """Whether something admin-level may be refused to it: see `powers`."""
        return self.role is not Role.ADMIN or self.workspace_ids is not None

    def reaches(self, *workspace_ids: UUID) -> bool:
        """Whether its binding covers all of these."""
        return self.workspace_ids is None or set(workspace_ids) <= set(self.workspace_ids)

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
