"""SQL of the gatekeeper: what a bearer proves, and which openings hold."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from msgspec import Struct

from molecule_ai.kernel.db import Connection, many

from .principal import Role


class Credential(Struct, frozen=True):
    """What a live bearer proves. `workspace_id` is null for an org API key."""

    token_hash: bytes
    id: UUID
    prefix: str
    workspace_id: UUID | None
    org_id: UUID | None
    scopes: tuple[str, ...] | None
    role: Role
    workspace_ids: tuple[UUID, ...] | None
    rotates: bool


# A rotated agent token carries `expires_at`; its successor's first use ends it (contract 02 §21.45).
FIND_CREDENTIALS = """
    SELECT t.token_hash, t.id, t.prefix, t.workspace_id, NULL::uuid AS org_id, t.scopes,
           'admin' AS role, NULL::uuid[] AS workspace_ids,
           t.kind = 'agent' AND t.last_used_at IS NULL AS rotates
      FROM workspace_auth_tokens t JOIN workspaces w ON w.id = t.workspace_id
     WHERE t.token_hash = ANY($1) AND t.revoked_at IS NULL AND w.status <> 'removed'
       AND (t.expires_at IS NULL OR t.expires_at > now())
    UNION ALL
    SELECT token_hash, id, prefix, NULL, org_id, NULL, role, workspace_ids, false
      FROM org_api_tokens
     WHERE token_hash = ANY($1) AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())"""


async def find_credentials(connection: Connection, hashes: Sequence[bytes]) -> list[Credential]:
    return await many(connection, Credential, FIND_CREDENTIALS, hashes)


# At most one write a minute and token; a successor's first use revokes the token it replaced.
TOUCH = """
    WITH used AS (
        UPDATE workspace_auth_tokens SET last_used_at = now()
         WHERE id = ANY($1) AND (last_used_at IS NULL OR last_used_at < now() - interval '60 seconds')
        RETURNING workspace_id, kind, created_at),
    retired AS (
        UPDATE workspace_auth_tokens old SET revoked_at = now() FROM used
         WHERE used.kind = 'agent' AND old.workspace_id = used.workspace_id AND old.kind = 'agent'
           AND old.expires_at IS NOT NULL AND old.revoked_at IS NULL AND old.created_at < used.created_at)
    UPDATE org_api_tokens SET last_used_at = now()
     WHERE id = ANY($1) AND (last_used_at IS NULL OR last_used_at < now() - interval '60 seconds')"""


async def touch(connection: Connection, token_ids: Sequence[UUID]) -> None:
    await connection.execute(TOUCH, token_ids)


ANY_CREDENTIAL = """
    SELECT EXISTS (SELECT 1 FROM workspace_auth_tokens t JOIN workspaces w ON w.id = t.workspace_id
                    WHERE t.revoked_at IS NULL AND w.status <> 'removed')
        OR EXISTS (SELECT 1 FROM org_api_tokens
                    WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()))"""


async def any_credential(connection: Connection) -> bool:
    """Whether anything has ever been handed out that still works (contract 01 §4.2 step 2)."""
    return bool(await connection.fetchval(ANY_CREDENTIAL))


WAS_REMOVED_WITH = """
    SELECT EXISTS (SELECT 1 FROM workspace_auth_tokens t JOIN workspaces w ON w.id = t.workspace_id
                    WHERE t.token_hash = $2 AND t.workspace_id = $1 AND w.status = 'removed')"""


async def was_removed_with(connection: Connection, workspace_id: UUID, token_hash: bytes) -> bool:
    """Whether the workspace is removed and this token, live or not, was its own."""
    return bool(await connection.fetchval(WAS_REMOVED_WITH, workspace_id, token_hash))


class Binding(Struct, frozen=True):
    """What lazily bound routes ask of the workspace a caller names (contract 01 §4.5 to 4.7)."""

    id: UUID
    has_live_token: bool
    removed: bool
    in_registration_window: bool


FIND_BINDINGS = """
    SELECT w.id, w.status = 'removed' AS removed,
           EXISTS (SELECT 1 FROM workspace_auth_tokens t WHERE t.workspace_id = w.id AND t.revoked_at IS NULL
                      AND (t.expires_at IS NULL OR t.expires_at > now())) AS has_live_token,
           w.status IN ('provisioning', 'awaiting_agent')
               AND w.status_changed_at > now() - interval '10 minutes' AS in_registration_window
      FROM workspaces w WHERE w.id = ANY($1)"""


async def find_bindings(connection: Connection, ids: Sequence[UUID]) -> list[Binding]:
    return await many(connection, Binding, FIND_BINDINGS, ids)


ANY_ORG_KEY = """
    SELECT EXISTS (SELECT 1 FROM org_api_tokens
                    WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()))"""


async def any_org_key(connection: Connection) -> bool:
    """Whether somebody holds an org API key."""
    return bool(await connection.fetchval(ANY_ORG_KEY))
