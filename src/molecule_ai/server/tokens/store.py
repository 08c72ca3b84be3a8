"""SQL of the credentials."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from msgspec import Struct

from molecule_ai.kernel.db import Connection, first, many, one

from .schemas import OrgKey, WorkspaceToken

# Two mints for one workspace take turns; the count of the second statement then sees the first.
LOCK_CAP = "SELECT pg_advisory_xact_lock(hashtextextended('workspace_auth_tokens:' || $1::uuid::text, 0))"
INSERT = """
    INSERT INTO workspace_auth_tokens (id, workspace_id, token_hash, prefix, kind, created_by, name, scopes)
    SELECT $2, w.id, $3, $4, $5, $6, $7, $8 FROM workspaces w
     WHERE w.id = $1 AND w.status <> 'removed'
       AND ($9::int IS NULL OR $9 > (
            SELECT count(*) FROM workspace_auth_tokens t
             WHERE t.workspace_id = $1 AND t.revoked_at IS NULL
               AND (t.expires_at IS NULL OR t.expires_at > now())))
    RETURNING id"""


class NewToken(Struct, frozen=True):
    """A row to insert."""

    id: UUID
    token_hash: bytes
    prefix: str
    kind: str
    created_by: str
    name: str | None
    scopes: list[str] | None


async def insert(tx: Connection, workspace_id: UUID, new: NewToken, *, cap: int | None) -> bool:
    """Insert unless the workspace is absent, removed, or already has `cap` live tokens."""
    if cap is not None:
        await tx.execute(LOCK_CAP, workspace_id)
    inserted = await tx.fetchval(
        INSERT,
        workspace_id,
        new.id,
        new.token_hash,
        new.prefix,
        new.kind,
        new.created_by,
        new.name,
        new.scopes,
        cap,
    )
    return inserted is not None


WORKSPACE_LIVES = "SELECT EXISTS (SELECT 1 FROM workspaces WHERE id = $1 AND status <> 'removed')"


async def workspace_lives(connection: Connection, workspace_id: UUID) -> bool:
    return bool(await connection.fetchval(WORKSPACE_LIVES, workspace_id))


# What ran out already is closed for good, what still works gets its ten minutes.
RETIRE_AGENT = """
    UPDATE workspace_auth_tokens
       SET revoked_at = CASE WHEN expires_at <= now() THEN now() END,
           expires_at = LEAST(COALESCE(expires_at, 'infinity'), now() + interval '10 minutes')
     WHERE workspace_id = $1 AND kind = 'agent' AND revoked_at IS NULL"""


async def retire_agent(tx: Connection, workspace_id: UUID) -> None:
    await tx.execute(RETIRE_AGENT, workspace_id)


LIST = """
    SELECT id, prefix, name, kind, scopes, created_at, last_used_at FROM workspace_auth_tokens
     WHERE workspace_id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
     ORDER BY created_at DESC, id LIMIT $2 OFFSET $3"""
COUNT = """
    SELECT count(*) FROM workspace_auth_tokens
     WHERE workspace_id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())"""


async def list_live(
    connection: Connection, workspace_id: UUID, limit: int, offset: int
) -> list[WorkspaceToken]:
    return await many(connection, WorkspaceToken, LIST, workspace_id, limit, offset)


async def count_live(connection: Connection, workspace_id: UUID) -> int:
    return int(await connection.fetchval(COUNT, workspace_id))


REVOKE = """
    UPDATE workspace_auth_tokens SET revoked_at = now()
     WHERE id = $1 AND workspace_id = $2 AND revoked_at IS NULL RETURNING prefix"""


async def revoke(tx: Connection, token_id: UUID, workspace_id: UUID) -> str | None:
    """The prefix of the token that died, or None when there was nothing to revoke."""
    prefix: str | None = await tx.fetchval(REVOKE, token_id, workspace_id)
    return prefix


REVOKE_ALL = """
    UPDATE workspace_auth_tokens SET revoked_at = now()
     WHERE workspace_id = ANY($1) AND revoked_at IS NULL RETURNING workspace_id"""


async def revoke_all(tx: Connection, workspace_ids: Sequence[UUID]) -> list[UUID]:
    """The workspace of each token that died."""
    return [row["workspace_id"] for row in await tx.fetch(REVOKE_ALL, workspace_ids)]


DEAD = """
    SELECT asked.id FROM unnest($1::uuid[]) AS asked (id)
     WHERE NOT EXISTS (SELECT 1 FROM workspace_auth_tokens t JOIN workspaces w ON w.id = t.workspace_id
                        WHERE t.id = asked.id AND t.revoked_at IS NULL AND w.status <> 'removed'
                          AND (t.expires_at IS NULL OR t.expires_at > now()))
       AND NOT EXISTS (SELECT 1 FROM org_api_tokens o
                        WHERE o.id = asked.id AND o.revoked_at IS NULL
                          AND (o.expires_at IS NULL OR o.expires_at > now()))"""


async def dead(connection: Connection, token_ids: Sequence[UUID]) -> set[UUID]:
    return {row["id"] for row in await connection.fetch(DEAD, token_ids)}


LOCK_MINTS = "SELECT pg_advisory_xact_lock(hashtextextended('org_api_tokens:' || $1 || ' ' || $2, 0))"
MINTS = """
    SELECT count(*) AS used,
           COALESCE(EXTRACT(epoch FROM min(created_at) + interval '1 hour' - now()), 3600)::float8
               AS resets_in
      FROM org_api_tokens
     WHERE created_by = $1 AND created_from = $2 AND created_at > now() - interval '1 hour'"""


class Mints(Struct, frozen=True):
    """What one credential at one address minted in the last hour; revoked keys count."""

    used: int
    resets_in: float


async def mints_within_the_hour(tx: Connection, created_by: str, address: str) -> Mints:
    """Counted under a lock until the end of the transaction, so that a crowd cannot pass together."""
    await tx.execute(LOCK_MINTS, created_by, address)
    return await one(tx, Mints, MINTS, created_by, address)


class KeyLimits(Struct, frozen=True):
    """What narrows a new key; nothing by default."""

    expires_in_days: int | None
    role: str
    workspace_ids: list[UUID] | None


# A key does not outlive the one that minted it.
INSERT_KEY = """
    INSERT INTO org_api_tokens (id, token_hash, prefix, name, created_by, created_from, org_id,
                                expires_at, role, workspace_ids)
    VALUES ($1, $2, $3, $4, $5, $6, $7,
            LEAST(now() + $8::int * interval '1 day', (SELECT expires_at FROM org_api_tokens WHERE id = $9)),
            $10, $11)
    RETURNING created_at, expires_at"""


class KeyTimes(Struct, frozen=True):
    """When a key was made and when it ends."""

    created_at: datetime
    expires_at: datetime | None


async def insert_key(
    tx: Connection,
    new: NewToken,
    address: str,
    org_id: UUID | None,
    minted_with: UUID | None,
    wish: KeyLimits,
) -> KeyTimes:
    return await one(
        tx,
        KeyTimes,
        INSERT_KEY,
        *(new.id, new.token_hash, new.prefix, new.name, new.created_by, address, org_id),
        *(wish.expires_in_days, minted_with, wish.role, wish.workspace_ids),
    )


ABSENT = """
    SELECT asked.id FROM unnest($1::uuid[]) AS asked (id)
     WHERE NOT EXISTS (SELECT 1 FROM workspaces w WHERE w.id = asked.id AND w.status <> 'removed')"""


async def absent_workspaces(tx: Connection, workspace_ids: Sequence[UUID]) -> list[UUID]:
    """Which of these are no workspaces of this organization."""
    return [row["id"] for row in await tx.fetch(ABSENT, workspace_ids)]


LIST_KEYS = """
    SELECT id, prefix, name, org_id, created_by, created_at, last_used_at, expires_at, workspace_ids,
           NULLIF(role, 'admin') AS role
      FROM org_api_tokens
     WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
     ORDER BY created_at DESC, id LIMIT 500"""


async def list_keys(connection: Connection) -> list[OrgKey]:
    return await many(connection, OrgKey, LIST_KEYS)


REVOKE_KEY = """
    UPDATE org_api_tokens SET revoked_at = now(), revoked_by = $2
     WHERE id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()) RETURNING prefix"""


class _Revoked(Struct, frozen=True):
    prefix: str


async def revoke_key(tx: Connection, key_id: UUID, revoked_by: str) -> str | None:
    revoked = await first(tx, _Revoked, REVOKE_KEY, key_id, revoked_by)
    return None if revoked is None else revoked.prefix
