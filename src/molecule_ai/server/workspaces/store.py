"""SQL of the workspaces room: rows, layouts and lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
from msgspec import Struct

from molecule_ai.kernel.db import Connection, first, many

from . import launch_config
from .schemas import NewWorkspace, Workspace
from .teams_schemas import TeamMember

# Adding below a parent is shared, moving and removing subtrees is exclusive: a child can neither be
# created under a parent that is just being removed, nor can two moves make a circle.
_TREE = 0x54524545
SHARE_TREE = "SELECT pg_advisory_xact_lock_shared($1)"
HOLD_TREE = "SELECT pg_advisory_xact_lock($1)"


async def share_tree(tx: Connection) -> None:
    """Keep subtrees from being moved or removed until `tx` ends."""
    await tx.execute(SHARE_TREE, _TREE)


async def hold_tree(tx: Connection) -> None:
    """Be the only one that changes the shape of the tree until `tx` ends."""
    await tx.execute(HOLD_TREE, _TREE)


FIND = """
    SELECT w.id, w.name, w.role, w.tier, w.status::text AS status, w.url, w.parent_id, w.active_tasks,
           w.max_concurrent_tasks, w.uptime_seconds, w.last_error_rate, w.last_sample_error, w.current_task,
           w.runtime, w.model, w.workspace_dir, w.workspace_access, w.budget_limit, w.monthly_spend,
           w.agent_card, w.last_heartbeat_at, w.last_outbound_at, w.broadcast_enabled, w.talk_to_user_enabled,
           w.kind, w.delivery_mode, w.hibernation_idle_minutes, w.status_reason, w.awareness_namespace,
           w.source_template, w.removed_at, w.created_at, w.updated_at, w.handle ->> 'isolation' AS isolation,
           COALESCE(l.x, 0) AS x, COALESCE(l.y, 0) AS y, COALESCE(l.collapsed, false) AS collapsed
      FROM workspaces w LEFT JOIN canvas_layouts l ON l.workspace_id = w.id WHERE w.id = $1"""


async def find(connection: Connection, workspace_id: UUID) -> Workspace | None:
    return await first(connection, Workspace, FIND, workspace_id)


# Floats and cards leave the database as text that is JSON already; keys in the order of the wire.
LIST = """
    SELECT w.id, w.name, w.role, w.tier, w.status::text AS status, w.url, w.parent_id, w.active_tasks,
           w.max_concurrent_tasks, w.uptime_seconds, w.last_error_rate::text AS last_error_rate,
           w.last_sample_error, w.current_task, w.runtime, w.model, w.workspace_dir, w.workspace_access,
           w.budget_limit, w.monthly_spend, COALESCE(l.x, 0)::text AS x, COALESCE(l.y, 0)::text AS y,
           COALESCE(l.collapsed, false) AS collapsed, w.agent_card::text AS agent_card, w.last_heartbeat_at,
           w.last_outbound_at, w.broadcast_enabled, w.talk_to_user_enabled, w.kind, w.delivery_mode,
           w.hibernation_idle_minutes, w.status_reason, w.awareness_namespace, w.source_template,
           w.removed_at, w.created_at, w.updated_at, w.handle ->> 'isolation' AS isolation
      FROM workspaces w LEFT JOIN canvas_layouts l ON l.workspace_id = w.id
     WHERE w.status <> 'removed'"""
_CONDITIONS = {
    "status": "w.status = ?::text::workspace_status",
    "parent_id": "w.parent_id = ?",
    "runtime": "w.runtime = ?",
    "kind": "w.kind = ?",
    "q": "w.name ILIKE ?",
    "after": "(w.created_at, w.id) > (?, ?)",
}
_ROOTS = "w.parent_id IS NULL"
_ORDER = "ORDER BY w.created_at, w.id"


class Filter(Struct, frozen=True, kw_only=True):
    """Which workspaces to list; all fields empty: every one that is not removed."""

    status: str | None = None
    parent_id: UUID | None = None
    roots: bool = False
    runtime: str | None = None
    kind: str | None = None
    q: str | None = None
    after: tuple[datetime, UUID] | None = None
    limit: int | None = None


def list_statement(wanted: Filter) -> tuple[str, list[Any]]:
    """The statement for a filter and its arguments.

    Assembled from constant fragments, so that each combination gets its own plan and its index.
    """
    parts: list[str] = [LIST]
    arguments: list[Any] = []
    for name, fragment in _CONDITIONS.items():
        value = getattr(wanted, name)
        if value is None:
            continue
        for argument in value if isinstance(value, tuple) else (value,):
            arguments.append(argument)
            fragment = fragment.replace("?", f"${len(arguments)}", 1)
        parts += ["AND", fragment]
    if wanted.roots:
        parts += ["AND", _ROOTS]
    parts.append(_ORDER)
    if wanted.limit is not None:
        arguments.append(wanted.limit)
        parts.append(f"LIMIT ${len(arguments)}")
    return " ".join(parts), arguments


async def list_rows(connection: Connection, wanted: Filter) -> list[asyncpg.Record]:
    """Rows ready to be encoded, oldest first; untyped, because a thousand of them are one answer."""
    statement, arguments = list_statement(wanted)
    return list(await connection.fetch(statement, *arguments))


FIND_NAME = """
    SELECT candidate FROM (
        SELECT n, CASE WHEN n = 1 THEN $2
                       ELSE left($2, 255 - length(' (' || n || ')')) || ' (' || n || ')' END AS candidate
          FROM generate_series(1, $3::int) n) c
     WHERE NOT EXISTS (
        SELECT 1 FROM workspaces w
         WHERE COALESCE(w.parent_id, '00000000-0000-0000-0000-000000000000')
             = COALESCE($1::uuid, '00000000-0000-0000-0000-000000000000')
           AND w.name = candidate AND w.status <> 'removed')
     ORDER BY n LIMIT 1"""


async def find_free_name(tx: Connection, parent_id: UUID | None, name: str, attempts: int) -> str | None:
    """The name, or the first of `name (2)`, `name (3)` … that no sibling has."""
    found: str | None = await tx.fetchval(FIND_NAME, parent_id, name, attempts)
    return found


# One statement for one or a hundred rows; a row whose name was just taken is not returned. Lists are
# ordered by time, so that each row of an import is a little younger than the one before it.
INSERT = """
    WITH given AS (
        SELECT * FROM jsonb_to_recordset($1::jsonb) AS g(
            id uuid, name text, role text, tier int, kind text, status text, runtime text, model text,
            model_source text, delivery_mode text, url text, parent_id uuid, template text,
            source_template text, workspace_dir text, workspace_access text, max_concurrent_tasks int,
            budget_limit bigint, hibernation_idle_minutes int, launch_files jsonb, x double precision,
            y double precision, position int)),
    inserted AS (
        INSERT INTO workspaces (
            id, name, role, tier, kind, status, runtime, model, model_source, delivery_mode, url, parent_id,
            template, source_template, workspace_dir, workspace_access, max_concurrent_tasks, budget_limit,
            hibernation_idle_minutes, launch_files, awareness_namespace, desired, observed_generation,
            created_at)
        SELECT id, name, role, tier, kind, status::workspace_status, runtime, model, model_source,
               delivery_mode, url, parent_id, template, source_template, workspace_dir, workspace_access,
               max_concurrent_tasks, budget_limit, hibernation_idle_minutes, launch_files,
               'workspace:' || id, CASE runtime WHEN 'external' THEN 'none' ELSE 'run' END,
               CASE runtime WHEN 'external' THEN 1 ELSE 0 END,
               clock_timestamp() + position * interval '1 microsecond'
          FROM given
        ON CONFLICT DO NOTHING RETURNING id, model, created_at),
    placed AS (
        INSERT INTO canvas_layouts (workspace_id, x, y)
        SELECT g.id, g.x, g.y FROM given g JOIN inserted i ON i.id = g.id),
    ledger AS (
        INSERT INTO agents (workspace_id, model) SELECT id, model FROM inserted WHERE model IS NOT NULL)
    SELECT id, created_at FROM inserted"""

_COLUMNS = (
    "id", "name", "role", "tier", "kind", "status", "runtime", "model", "model_source", "delivery_mode",
    "url", "parent_id", "template", "source_template", "workspace_dir", "workspace_access",
    "max_concurrent_tasks", "budget_limit", "hibernation_idle_minutes", "launch_files", "x", "y",
)  # fmt: skip


async def insert(tx: Connection, workspaces: Sequence[NewWorkspace]) -> dict[UUID, datetime]:
    """Insert rows with their layouts and first ledger entries; the creation time of each one inserted."""
    given = [
        {"position": position} | {column: getattr(new, column) for column in _COLUMNS}
        for position, new in enumerate(workspaces)
    ]
    return {row["id"]: row["created_at"] for row in await tx.fetch(INSERT, given)}


KEEP_PLAN = """
    INSERT INTO workspace_config (workspace_id, data)
    SELECT id, jsonb_build_object('name', name, 'runtime', runtime, 'tier', tier, 'template', template)
      FROM workspaces WHERE id = ANY($1) AND desired = 'run'
    ON CONFLICT (workspace_id) DO NOTHING"""


async def keep_plan(tx: Connection, ids: Sequence[UUID]) -> None:
    """Write where clients look what would have been started, had there been a back end (contract 02 §4.1)."""
    await tx.execute(KEEP_PLAN, list(ids))


LIVE = "SELECT id FROM workspaces WHERE id = $1 AND status <> 'removed'"


async def is_live(connection: Connection, workspace_id: UUID) -> bool:
    return await connection.fetchval(LIVE, workspace_id) is not None


PLATFORM_EXISTS = "SELECT EXISTS (SELECT 1 FROM workspaces WHERE kind = 'platform' AND status <> 'removed')"


async def platform_exists(connection: Connection) -> bool:
    return bool(await connection.fetchval(PLATFORM_EXISTS))


class Editable(Struct, kw_only=True):
    """What a PATCH compares with."""

    id: UUID
    name: str
    role: str | None
    tier: int
    status: str
    kind: str
    runtime: str
    model: str | None
    model_source: str
    template: str | None
    parent_id: UUID | None
    workspace_dir: str | None
    workspace_access: str
    max_concurrent_tasks: int
    hibernation_idle_minutes: int | None
    launch_files: dict[str, str]
    config_changes: dict[str, Any]
    removed_at: datetime | None

    def amend_config(self, keys: Mapping[str, Any]) -> None:
        """Have the agent's next start find these keys in its `config.yaml`; None takes one away."""
        self.config_changes = {**self.config_changes, **keys}
        if self.launch_files:
            self.launch_files = launch_config.amend(self.launch_files, keys)


FIND_FOR_UPDATE = """
    SELECT id, name, role, tier, status::text AS status, kind, runtime, model, model_source, template,
           parent_id, workspace_dir, workspace_access, max_concurrent_tasks, hibernation_idle_minutes,
           launch_files, config_changes, removed_at
      FROM workspaces WHERE id = $1 FOR NO KEY UPDATE"""


async def find_for_update(tx: Connection, workspace_id: UUID) -> Editable | None:
    return await first(tx, Editable, FIND_FOR_UPDATE, workspace_id)


UPDATE = """
    UPDATE workspaces
       SET name = $2, role = $3, tier = $4, parent_id = $5, runtime = $6, workspace_dir = $7,
           workspace_access = $8, max_concurrent_tasks = $9, hibernation_idle_minutes = $10,
           launch_files = $11, config_changes = $12, updated_at = now()
     WHERE id = $1"""


async def update(tx: Connection, row: Editable) -> None:
    """Write the edited columns. Raises `asyncpg.UniqueViolationError` when a sibling has the name."""
    await tx.execute(
        UPDATE,
        row.id,
        row.name,
        row.role,
        row.tier,
        row.parent_id,
        row.runtime,
        row.workspace_dir,
        row.workspace_access,
        row.max_concurrent_tasks,
        row.hibernation_idle_minutes,
        row.launch_files,
        row.config_changes,
    )


LAY_OUT = """
    INSERT INTO canvas_layouts (workspace_id, x, y, collapsed)
    VALUES ($1, COALESCE($2, 0), COALESCE($3, 0), COALESCE($4, false))
    ON CONFLICT (workspace_id) DO UPDATE
       SET x = COALESCE($2, canvas_layouts.x), y = COALESCE($3, canvas_layouts.y),
           collapsed = COALESCE($4, canvas_layouts.collapsed)"""


async def lay_out(
    tx: Connection, workspace_id: UUID, x: float | None, y: float | None, collapsed: bool | None
) -> None:
    await tx.execute(LAY_OUT, workspace_id, x, y, collapsed)


IS_BELOW = """
    WITH RECURSIVE up(id, parent_id) AS (
        SELECT id, parent_id FROM workspaces WHERE id = $2
        UNION
        SELECT w.id, w.parent_id FROM up JOIN workspaces w ON w.id = up.parent_id)
    SELECT EXISTS (SELECT 1 FROM up WHERE id = $1)"""


async def is_at_or_below(connection: Connection, top: UUID, below: UUID) -> bool:
    return bool(await connection.fetchval(IS_BELOW, top, below))


class State(Struct, frozen=True, kw_only=True):
    """The answer to a polling agent."""

    status: str


FIND_STATE = "SELECT status::text AS status FROM workspaces WHERE id = $1"


async def find_state(connection: Connection, workspace_id: UUID) -> State | None:
    return await first(connection, State, FIND_STATE, workspace_id)


SET_ABILITIES = """
    UPDATE workspaces SET broadcast_enabled = COALESCE($2, broadcast_enabled),
           talk_to_user_enabled = COALESCE($3, talk_to_user_enabled), updated_at = now()
     WHERE id = $1 AND status <> 'removed' RETURNING broadcast_enabled, talk_to_user_enabled"""


class Abilities(Struct, frozen=True, kw_only=True):
    """What a workspace may do beyond its peers."""

    broadcast_enabled: bool
    talk_to_user_enabled: bool


async def set_abilities(
    tx: Connection, workspace_id: UUID, broadcast: bool | None, talk_to_user: bool | None
) -> Abilities | None:
    return await first(tx, Abilities, SET_ABILITIES, workspace_id, broadcast, talk_to_user)


LAUNCH_FILES = "SELECT launch_files FROM workspaces WHERE id = $1"


async def launch_files(connection: Connection, workspace_id: UUID) -> dict[str, str]:
    """What the workspace was created with."""
    files: dict[str, str] | None = await connection.fetchval(LAUNCH_FILES, workspace_id)
    return files or {}


FIND_CHILD = """
    SELECT id, name, role FROM workspaces WHERE parent_id = $1 AND name = $2 AND status <> 'removed'"""
FIND_CHILDREN = """
    SELECT id, name, role FROM workspaces WHERE parent_id = $1 AND status <> 'removed'
     ORDER BY created_at, id"""


async def find_child(connection: Connection, parent_id: UUID, name: str) -> TeamMember | None:
    return await first(connection, TeamMember, FIND_CHILD, parent_id, name)


async def find_children(connection: Connection, parent_id: UUID) -> list[TeamMember]:
    return await many(connection, TeamMember, FIND_CHILDREN, parent_id)


COUNT_BY_STATUS = "SELECT status::text, count(*) AS total FROM workspaces GROUP BY status"


async def count_by_status(connection: Connection) -> dict[str, int]:
    return {row["status"]: row["total"] for row in await connection.fetch(COUNT_BY_STATUS)}
