"""Workspaces on the wire (contract 02 §3 and §4)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType, field

from molecule_ai.kernel.http import Number, number

from .status import Status

Coordinate = Annotated[float, Meta(ge=-1e9, le=1e9)]


class Point(Struct):
    """A spot on the canvas."""

    x: Number
    y: Number

    def __post_init__(self) -> None:
        self.x, self.y = number(self.x), number(self.y)


class PublicWorkspace(Struct, kw_only=True):
    """What anybody may see of a workspace."""

    id: UUID
    name: Annotated[str, Meta(examples=["Scout"])]
    role: str | None
    tier: int
    status: Status
    url: Annotated[str, Meta(description="Where the agent listens; empty when unknown.")]
    parent_id: UUID | None
    active_tasks: int
    max_concurrent_tasks: int
    uptime_seconds: int
    last_error_rate: Number
    runtime: Annotated[str, Meta(examples=["langgraph"])]
    model: str | None
    x: Number
    y: Number
    canvas: Point = field(default_factory=lambda: Point(0, 0))
    collapsed: bool
    agent_card: dict[str, Any] | None
    broadcast_enabled: bool
    talk_to_user_enabled: bool
    kind: Annotated[str, Meta(description="`workspace` or `platform`.", examples=["workspace"])]
    delivery_mode: Annotated[str, Meta(description="`push` or `poll`.", examples=["push"])]
    workspace_access: Annotated[str, Meta(examples=["none"])]
    hibernation_idle_minutes: int | None
    status_reason: Annotated[str, Meta(description="Why it is in this status, in one line.")]
    last_heartbeat_at: datetime | None
    last_outbound_at: datetime | None
    created_at: datetime
    updated_at: datetime
    provision_timeout_ms: Annotated[
        int | UnsetType, Meta(description="Only where the runtime declares its own.")
    ] = UNSET

    def __post_init__(self) -> None:
        self.last_error_rate, self.x, self.y = number(self.last_error_rate), number(self.x), number(self.y)
        self.canvas = Point(self.x, self.y)


class Workspace(PublicWorkspace, kw_only=True):
    """A durable agent role, as administrators and the agent itself see it."""

    last_sample_error: str
    current_task: str
    workspace_dir: str | None
    budget_limit: Annotated[int | None, Meta(description="US cents per month.")]
    monthly_spend: Annotated[int, Meta(description="US cents.")]
    awareness_namespace: str | None
    source_template: str | None
    removed_at: datetime | None
    isolation: Annotated[str | None, Meta(description="What really confines the running agent.")]


class CanvasInput(Struct):
    """Where to put it."""

    x: Coordinate = 0.0
    y: Coordinate = 0.0


class MemoryInput(Struct):
    """Something the workspace knows from the start."""

    content: str = ""
    scope: str = "LOCAL"


class WorkspaceCreate(Struct, kw_only=True):
    """A new workspace. Only the name is needed."""

    name: Annotated[str, Meta(min_length=1, description="At most 255 characters.", examples=["Scout"])]
    role: str | None = None
    template: str | None = None
    tier: Annotated[int | None, Meta(description="1 to 4; 3 unless given.")] = None
    model: str | None = None
    runtime: str | None = None
    external: bool = False
    url: Annotated[str | None, Meta(description="Only of external agents.")] = None
    workspace_dir: str | None = None
    workspace_access: str | None = None
    parent_id: str | None = None
    budget_limit: Annotated[int, Meta(ge=0)] | None = None
    secrets: dict[str, str] | None = None
    max_concurrent_tasks: Annotated[int, Meta(le=1000)] | None = None
    canvas: CanvasInput | None = None
    initial_memories: list[MemoryInput] | None = None
    delivery_mode: Annotated[str | None, Meta(description="`push` or `poll`.")] = None
    kind: str | None = None
    hibernation_idle_minutes: Annotated[int, Meta(ge=0, le=525_600)] | None = None


class Notice(Struct, frozen=True):
    """Something the caller should know although the call succeeded."""

    code: Annotated[str, Meta(examples=["UNLISTED_MODEL"])]
    message: str


class ExternalConnection(Struct, kw_only=True):
    """Everything an external agent needs in order to connect. The token is shown once."""

    workspace_id: UUID
    platform_url: str
    auth_token: str
    registry_endpoint: str
    heartbeat_endpoint: str
    curl_register_template: str
    python_snippet: str


class WorkspaceCreated(Struct, kw_only=True):
    """The new workspace; external ones carry `external` and, when they await their agent, `connection`."""

    id: UUID
    status: Annotated[str, Meta(examples=["provisioning"])]
    awareness_namespace: str
    workspace_access: str
    name: str
    role: str | None
    runtime: str
    model: str | None
    tier: int
    parent_id: UUID | None
    created_at: datetime
    external: bool | UnsetType = UNSET
    connection: ExternalConnection | UnsetType = UNSET
    warnings: list[Notice] | UnsetType = UNSET


class WorkspaceUpdate(Struct, kw_only=True):
    """Changes; an absent field stays as it is, other keys are ignored."""

    name: Annotated[str, Meta(min_length=1)] | UnsetType = UNSET
    role: str | UnsetType | None = UNSET
    x: Coordinate | UnsetType = UNSET
    y: Coordinate | UnsetType = UNSET
    canvas: CanvasInput | UnsetType = UNSET
    collapsed: bool | UnsetType = UNSET
    tier: int | UnsetType = UNSET
    parent_id: str | UnsetType | None = UNSET
    runtime: str | UnsetType = UNSET
    workspace_dir: str | UnsetType | None = UNSET
    workspace_access: str | UnsetType = UNSET
    max_concurrent_tasks: Annotated[int, Meta(ge=1, le=1000)] | UnsetType = UNSET
    hibernation_idle_minutes: Annotated[int, Meta(ge=0, le=525600)] | UnsetType | None = UNSET


class WorkspaceUpdated(Struct, kw_only=True):
    """Done. `needs_restart` when the running agent does not know of it yet."""

    status: Annotated[str, Meta(examples=["updated"])] = "updated"
    needs_restart: bool | UnsetType = UNSET
    restart_reasons: list[str] | UnsetType = UNSET


class WorkspaceState(Struct, kw_only=True):
    """What a polling agent asks: may I go on?"""

    workspace_id: UUID
    status: Status
    paused: bool
    deleted: bool


class NewWorkspace(Struct, kw_only=True):
    """A row to insert, resolved and checked."""

    id: UUID
    name: str
    role: str | None = None
    tier: int = 3
    kind: str = "workspace"
    status: Status = Status.PROVISIONING
    runtime: str = "langgraph"
    model: str | None = None
    model_source: str = "default"
    delivery_mode: str = "push"
    url: str = ""
    parent_id: UUID | None = None
    template: str | None = None
    source_template: str | None = None
    workspace_dir: str | None = None
    workspace_access: str = "none"
    max_concurrent_tasks: int = 1
    budget_limit: int | None = None
    hibernation_idle_minutes: int | None = None
    launch_files: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    x: float = 0.0
    y: float = 0.0
    position_in_event: tuple[float, float] | None = None

    @property
    def is_external(self) -> bool:
        return self.runtime == "external"

    @property
    def awareness_namespace(self) -> str:
        return f"workspace:{self.id}"
