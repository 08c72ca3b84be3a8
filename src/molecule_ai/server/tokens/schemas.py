"""Tokens on the wire. Plaintext appears in the answer that mints it and nowhere else."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from msgspec import Meta, Struct

SAVE_IT = "Save this token now — it cannot be retrieved again."
COPY_IT = "copy this token now; it will not be shown again"

Prefix = Annotated[str, Meta(description="The first 8 characters.", examples=["Zk3uQ9aB"])]
Plaintext = Annotated[
    str,
    Meta(description="The bearer, shown once.", examples=["q0sK3n1xvT8yBz0eJ5mC4hLr9PdWuA2gFoI6S7QXyEw"]),
]


class Scope(StrEnum):
    """What a narrowed token may do; it is good for `/workspaces/:id/mcp*` only."""

    READ = "mcp:read"
    DELEGATE = "mcp:delegate"


class TokenCreate(Struct, frozen=True):
    """Everything is optional; a token without scopes speaks for its workspace everywhere."""

    name: Annotated[str | None, Meta(description="A label of at most 100 characters.")] = None
    scopes: Annotated[
        list[str] | None, Meta(description="`mcp:read`, `mcp:delegate`; absent: the whole workspace.")
    ] = None


class TokenMinted(Struct, frozen=True):
    """A new token of a workspace."""

    auth_token: Plaintext
    workspace_id: UUID
    message: Annotated[str, Meta(examples=[SAVE_IT])]
    id: UUID
    prefix: Prefix


class WorkspaceToken(Struct, frozen=True):
    """A live token, without its secret."""

    id: UUID
    prefix: Prefix
    name: str | None
    kind: Annotated[
        str, Meta(description="`agent` (issued to the agent), `user` (minted by API) or `external`.")
    ]
    scopes: list[str] | None
    created_at: datetime
    last_used_at: datetime | None


class WorkspaceTokens(Struct, frozen=True):
    """One page of live tokens, newest first."""

    tokens: list[WorkspaceToken]
    count: Annotated[int, Meta(description="Tokens in this page.")]
    total: Annotated[int, Meta(description="Live tokens of the workspace.")]


class TokenRevoked(Struct, frozen=True):
    """The token is dead."""

    status: Annotated[str, Meta(examples=["revoked"])] = "revoked"


class OrgKeyCreate(Struct, frozen=True):
    """An unnamed key is fine too."""

    name: Annotated[str | None, Meta(description="A label of at most 100 characters.")] = None
    expires_in_days: Annotated[
        int | None, Meta(description="1 to 3650; absent: until revoked. A key never outlives its minter.")
    ] = None
    role: Annotated[
        str | None,
        Meta(
            description="`admin` (default), `editor` (without `/admin`, `/settings/secrets` and "
            "`/org/tokens`) or `reader` (of that, what changes nothing)."
        ),
    ] = None
    workspace_ids: Annotated[
        list[UUID] | None,
        Meta(description="1 to 100 workspaces; the key then opens only what is about these."),
    ] = None


class OrgKeyMinted(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A new key of the organization."""

    id: UUID
    prefix: Prefix
    name: str = ""
    auth_token: Plaintext
    warning: Annotated[str, Meta(examples=[COPY_IT])]
    created_by: Annotated[str, Meta(examples=["admin-token"])]
    created_at: datetime
    expires_at: datetime | None = None
    role: Annotated[str | None, Meta(description="Absent: `admin`.")] = None
    workspace_ids: list[UUID] | None = None


class OrgKey(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A live key, without its secret."""

    id: UUID
    prefix: Prefix
    created_at: datetime
    name: str | None = None
    org_id: Annotated[UUID | None, Meta(description="The root workspace that the key is bound to.")] = None
    created_by: Annotated[str | None, Meta(examples=["org-token:Pq7_xY2k"])] = None
    last_used_at: datetime | None = None
    expires_at: datetime | None = None
    role: Annotated[str | None, Meta(description="Absent: `admin`.")] = None
    workspace_ids: list[UUID] | None = None


class OrgKeys(Struct, frozen=True):
    """Live keys, newest first, at most 500."""

    tokens: list[OrgKey]
    count: int


class OrgKeyRevoked(Struct, frozen=True):
    """The key is dead."""

    revoked: Annotated[UUID, Meta(description="The id of the key.")]


class Minted(Struct, frozen=True):
    """A token as the room that asked for it gets it."""

    id: UUID
    prefix: str
    auth_token: str

    def __repr__(self) -> str:
        return f"Minted(id={self.id!r}, prefix={self.prefix!r}, auth_token='***')"
