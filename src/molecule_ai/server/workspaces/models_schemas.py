"""Models and the ledger of who occupied a role, on the wire (contract 02 §6.2, §6.3, §20)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType

from .status import Status


class Model(Struct, kw_only=True):
    """The chosen model; empty while the default applies."""

    model: Annotated[str, Meta(examples=["anthropic:claude-opus-4-7"])]
    source: Annotated[
        str, Meta(description="`workspace_secrets` (chosen), `template` or `default`.", examples=["default"])
    ]


class ModelInput(Struct, kw_only=True):
    """A model, or an empty text for the default."""

    model: str


class ModelSaved(Struct, kw_only=True):
    """Stored, or cleared; the agent restarts."""

    status: Annotated[str, Meta(examples=["saved"])]
    model: str | UnsetType = UNSET
    warnings: list[dict[str, str]] | UnsetType = UNSET


class AgentInput(Struct, kw_only=True):
    """Which model takes the role."""

    model: Annotated[str, Meta(min_length=1, max_length=100)]


class AgentAssigned(Struct, kw_only=True):
    """The new occupant."""

    agent_id: UUID
    model: str


class AgentReplaced(Struct, kw_only=True):
    """The new occupant and whom it followed."""

    agent_id: UUID
    model: str
    old_model: str


class AgentRemoved(Struct, kw_only=True):
    """The role has no occupant now."""

    agent_id: UUID
    status: Annotated[str, Meta(examples=["removed"])] = "removed"


class AgentMove(Struct, kw_only=True):
    """Where the occupant goes."""

    target_workspace_id: UUID


class AgentMoved(Struct, kw_only=True):
    """The occupant and its way."""

    agent_id: UUID
    model: str
    from_workspace: UUID
    to_workspace: UUID


class AgentView(Struct, kw_only=True):
    """An occupant as the command line lists it: its own id, the workspace's name and status."""

    id: UUID
    name: str
    workspace_id: UUID
    status: Status
    model: str
    runtime: str
    created_at: datetime
