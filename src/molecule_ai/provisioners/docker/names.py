"""What the containers and volumes of a workspace are called, and the labels by which they are found."""

from __future__ import annotations

from uuid import UUID

AGENT_PORT = 8000
PREFIX = "molecule."

MANAGED = "molecule.platform.managed"  # contract 02 §9.4
INSTALLATION = f"{PREFIX}installation"
WORKSPACE = f"{PREFIX}workspace"
INSTANCE = f"{PREFIX}instance"
GENERATION = f"{PREFIX}generation"
ORG = f"{PREFIX}org"
KIND = f"{PREFIX}kind"
RUNTIME = f"{PREFIX}runtime"
TIER = f"{PREFIX}tier"
URL = f"{PREFIX}url"
ISOLATION = f"{PREFIX}isolation"
DEADLINE = f"{PREFIX}deadline"
"""Unix time after which a call can no longer be under way."""

AGENT, CALL = "agent", "call"


def container(workspace_id: UUID) -> str:
    """The agent's name, also on the network. There is one, so a repeated creation cannot double it."""
    return f"ws-{str(workspace_id)[:12]}"


def call(workspace_id: UUID, call_id: UUID) -> str:
    return f"{container(workspace_id)}-call-{call_id.hex[:12]}"


def configs(workspace_id: UUID) -> str:
    return f"{container(workspace_id)}-configs"


def workspace(workspace_id: UUID) -> str:
    return f"ws-{workspace_id}-workspace"


def home(workspace_id: UUID) -> str:
    return f"{container(workspace_id)}-home"


def plugins(workspace_id: UUID) -> str:
    return f"{container(workspace_id)}-plugins"


def volumes(workspace_id: UUID) -> tuple[str, ...]:
    return tuple(name(workspace_id) for name in (configs, workspace, home, plugins))
