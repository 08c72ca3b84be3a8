"""SQL of models and their ledger."""

from __future__ import annotations

from uuid import UUID

from msgspec import Struct

from molecule_ai.kernel.db import Connection, first, many, one

from .models_schemas import AgentView
from .store import Editable


class Occupant(Struct, frozen=True, kw_only=True):
    """A row of the ledger."""

    id: UUID
    model: str


FIND_ACTIVE = "SELECT id, model FROM agents WHERE workspace_id = $1 AND status = 'active'"


async def find_active(connection: Connection, workspace_id: UUID) -> Occupant | None:
    return await first(connection, Occupant, FIND_ACTIVE, workspace_id)


# The unique index on active rows decides between two who assign at once.
ASSIGN = """
    INSERT INTO agents (workspace_id, model) VALUES ($1, $2)
    ON CONFLICT (workspace_id) WHERE status = 'active' DO NOTHING RETURNING id, model"""


async def assign(tx: Connection, workspace_id: UUID, model: str) -> Occupant | None:
    """Take the role; None when somebody has it."""
    return await first(tx, Occupant, ASSIGN, workspace_id, model)


RETIRE = """
    UPDATE agents SET status = $2, removal_reason = $3, removed_at = now()
     WHERE workspace_id = $1 AND status = 'active' RETURNING id, model"""


async def retire(tx: Connection, workspace_id: UUID, status: str, reason: str) -> Occupant | None:
    """End the occupancy; None when there is none."""
    return await first(tx, Occupant, RETIRE, workspace_id, status, reason)


MOVE = "UPDATE agents SET workspace_id = $2 WHERE id = $1 RETURNING id, model"


async def move(tx: Connection, agent_id: UUID, target_id: UUID) -> Occupant:
    return await one(tx, Occupant, MOVE, agent_id, target_id)


class Choice(Struct, frozen=True, kw_only=True):
    """The model of a row and where it comes from."""

    model: str | None
    model_source: str


FIND_MODEL = "SELECT model, model_source FROM workspaces WHERE id = $1"


async def find_model(connection: Connection, workspace_id: UUID) -> Choice | None:
    return await first(connection, Choice, FIND_MODEL, workspace_id)


SET_MODEL = """
    UPDATE workspaces SET model = $2, model_source = $3, launch_files = $4, config_changes = $5,
           updated_at = now()
     WHERE id = $1"""


async def set_model(tx: Connection, row: Editable) -> None:
    """Write the model of the row, and the configuration that says so."""
    await tx.execute(SET_MODEL, row.id, row.model, row.model_source, row.launch_files, row.config_changes)


LIST = """
    SELECT a.id, w.name, a.workspace_id, w.status::text AS status, a.model, w.runtime, a.created_at
      FROM agents a JOIN workspaces w ON w.id = a.workspace_id
     WHERE a.status = 'active' AND w.status <> 'removed' ORDER BY a.created_at, a.id"""
LIST_OF_WORKSPACE = """
    SELECT a.id, w.name, a.workspace_id, w.status::text AS status, a.model, w.runtime, a.created_at
      FROM agents a JOIN workspaces w ON w.id = a.workspace_id
     WHERE a.workspace_id = $1 AND a.status = 'active' AND w.status <> 'removed'"""
FIND = """
    SELECT a.id, w.name, a.workspace_id, w.status::text AS status, a.model, w.runtime, a.created_at
      FROM agents a JOIN workspaces w ON w.id = a.workspace_id
     WHERE a.id = $1 AND a.status = 'active' AND w.status <> 'removed'"""


async def list_active(connection: Connection) -> list[AgentView]:
    return await many(connection, AgentView, LIST)


async def list_of_workspace(connection: Connection, workspace_id: UUID) -> list[AgentView]:
    return await many(connection, AgentView, LIST_OF_WORKSPACE, workspace_id)


async def find(connection: Connection, agent_id: UUID) -> AgentView | None:
    return await first(connection, AgentView, FIND, agent_id)
