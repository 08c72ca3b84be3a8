"""SQL of the secrets room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from msgspec import Struct

from molecule_ai.kernel.crypto import Sealed
from molecule_ai.kernel.db import Connection, many

from .schemas import Secret


class SealedRow(Struct, frozen=True, kw_only=True):
    """A value as it lies in the database; `workspace_id` is null for an org-wide one."""

    workspace_id: UUID | None
    key: str
    encrypted_value: bytes
    encryption_version: int

    @property
    def sealed(self) -> Sealed:
        return Sealed(self.encryption_version, self.encrypted_value)


class Write(Struct, frozen=True, kw_only=True):
    """One value to write."""

    workspace_id: UUID | None
    key: str
    sealed: Sealed
    delivery: str
    hosts: list[str]


# Hosts travel as one comma-separated text, because arrays of arrays must be rectangular.
PUT_WORKSPACE = """
    INSERT INTO workspace_secrets (workspace_id, key, encrypted_value, encryption_version, delivery, hosts)
    SELECT workspace_id, key, value, version, delivery, string_to_array(hosts, ',')
      FROM unnest($1::uuid[], $2::text[], $3::bytea[], $4::int[], $5::text[], $6::text[])
        AS given(workspace_id, key, value, version, delivery, hosts)
    ON CONFLICT (workspace_id, key) DO UPDATE
       SET encrypted_value = EXCLUDED.encrypted_value, encryption_version = EXCLUDED.encryption_version,
           delivery = EXCLUDED.delivery, hosts = EXCLUDED.hosts, updated_at = now()"""
PUT_GLOBAL = """
    INSERT INTO global_secrets (key, encrypted_value, encryption_version, delivery, hosts)
    SELECT key, value, version, delivery, string_to_array(hosts, ',')
      FROM unnest($1::text[], $2::bytea[], $3::int[], $4::text[], $5::text[])
        AS given(key, value, version, delivery, hosts)
    ON CONFLICT (key) DO UPDATE
       SET encrypted_value = EXCLUDED.encrypted_value, encryption_version = EXCLUDED.encryption_version,
           delivery = EXCLUDED.delivery, hosts = EXCLUDED.hosts, updated_at = now()"""


async def put(tx: Connection, rows: Sequence[Write]) -> None:
    """Write all rows; those of workspaces and the org-wide ones as one statement each."""
    for statement, chosen in (
        (PUT_WORKSPACE, [row for row in rows if row.workspace_id is not None]),
        (PUT_GLOBAL, [row for row in rows if row.workspace_id is None]),
    ):
        if not chosen:
            continue
        columns: list[list[Any]] = [
            [row.key for row in chosen],
            [row.sealed.blob for row in chosen],
            [row.sealed.version for row in chosen],
            [row.delivery for row in chosen],
            [",".join(row.hosts) for row in chosen],
        ]
        if statement is PUT_WORKSPACE:
            columns.insert(0, [row.workspace_id for row in chosen])
        await tx.execute(statement, *columns)


COUNT_WORKSPACES = """
    SELECT count(*) FROM workspace_secrets WHERE workspace_id = ANY($1) GROUP BY workspace_id
     ORDER BY 1 DESC LIMIT 1"""
COUNT_GLOBAL = "SELECT count(*) FROM global_secrets"


async def largest_store(tx: Connection, workspace_ids: Sequence[UUID], *, with_global: bool) -> int:
    """How many secrets the fullest of these stores holds."""
    largest = 0
    if workspace_ids:
        largest = int(await tx.fetchval(COUNT_WORKSPACES, workspace_ids) or 0)
    if with_global:
        largest = max(largest, int(await tx.fetchval(COUNT_GLOBAL)))
    return largest


LIST = """
    SELECT key, true AS has_value, 'workspace' AS scope, delivery, hosts, created_at, updated_at, 0 AS place
      FROM workspace_secrets WHERE workspace_id = $1
    UNION ALL
    SELECT key, true, 'global', delivery, hosts, created_at, updated_at, 1 FROM global_secrets g
     WHERE NOT EXISTS (SELECT 1 FROM workspace_secrets w WHERE w.workspace_id = $1 AND w.key = g.key)
     ORDER BY place, key"""
LIST_GLOBAL = """
    SELECT key, true AS has_value, 'global' AS scope, delivery, hosts, created_at, updated_at
      FROM global_secrets ORDER BY key"""


async def list_for_workspace(connection: Connection, workspace_id: UUID) -> list[Secret]:
    return await many(connection, Secret, LIST, workspace_id)


async def list_global(connection: Connection) -> list[Secret]:
    return await many(connection, Secret, LIST_GLOBAL)


READ = """
    SELECT NULL::uuid AS workspace_id, key, encrypted_value, encryption_version FROM global_secrets g
     WHERE delivery = 'environment'
       AND NOT EXISTS (SELECT 1 FROM workspace_secrets w WHERE w.workspace_id = $1 AND w.key = g.key)
    UNION ALL
    SELECT workspace_id, key, encrypted_value, encryption_version FROM workspace_secrets
     WHERE workspace_id = $1 AND delivery = 'environment'"""


async def read(connection: Connection, workspace_id: UUID) -> list[SealedRow]:
    """The sealed environment of a workspace; its own value shadows the org's."""
    return await many(connection, SealedRow, READ, workspace_id)


DELETE = "DELETE FROM workspace_secrets WHERE workspace_id = $1 AND key = ANY($2) RETURNING key"
DELETE_GLOBAL = "DELETE FROM global_secrets WHERE key = ANY($1) RETURNING key"


async def delete(tx: Connection, workspace_id: UUID | None, keys: Sequence[str]) -> list[str]:
    """Delete values; the keys of those that were there."""
    rows = (
        await tx.fetch(DELETE_GLOBAL, keys)
        if workspace_id is None
        else await tx.fetch(DELETE, workspace_id, keys)
    )
    return [row["key"] for row in rows]


GLOBAL_KEYS = "SELECT key FROM global_secrets WHERE octet_length(encrypted_value) > 0 LIMIT 10000"


async def global_keys(connection: Connection) -> set[str]:
    return {row["key"] for row in await connection.fetch(GLOBAL_KEYS)}


DEPENDENTS = """
    SELECT w.id FROM workspaces w
     WHERE w.status NOT IN ('removed', 'paused') AND w.runtime <> 'external'
       AND NOT EXISTS (SELECT 1 FROM workspace_secrets s WHERE s.workspace_id = w.id AND s.key = $1)
     ORDER BY w.created_at"""


async def dependents_of_global(connection: Connection, key: str) -> list[UUID]:
    """The workspaces that live with the org-wide value of this key."""
    return [row["id"] for row in await connection.fetch(DEPENDENTS, key)]


READ_MANY = """
    SELECT NULL::uuid AS workspace_id, key, encrypted_value, encryption_version FROM global_secrets
     WHERE delivery = 'environment'
    UNION ALL
    SELECT workspace_id, key, encrypted_value, encryption_version FROM workspace_secrets
     WHERE workspace_id = ANY($1) AND delivery = 'environment'"""


async def read_many(connection: Connection, workspace_ids: Sequence[UUID]) -> list[SealedRow]:
    """Everything org-wide, and what these workspaces have of their own."""
    return await many(connection, SealedRow, READ_MANY, list(workspace_ids))


HOLDERS = """
    SELECT EXISTS (SELECT 1 FROM global_secrets) AS everybody,
           ARRAY(SELECT DISTINCT workspace_id FROM workspace_secrets) AS some"""


async def holders(connection: Connection) -> tuple[bool, list[UUID]]:
    """Whether there are org-wide values, and who has values of its own."""
    row = await connection.fetchrow(HOLDERS)
    return (row["everybody"], row["some"]) if row is not None else (False, [])
