"""What agents send to the registry and what they get back (contract 02 §11)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType

from molecule_ai.server.workspaces.status import Status

Card = Annotated[dict[str, Any], Meta(description="The A2A agent card, stored as it is; at most 256 KiB.")]
DeliveryMode = Literal["push", "poll"]
Kind = Literal["workspace", "platform"]


class Registration(Struct, frozen=True, kw_only=True):
    """What an agent announces when it has started."""

    id: UUID
    url: Annotated[str, Meta(description="Base URL of its A2A server; not needed in poll mode.")] = ""
    agent_card: Card
    delivery_mode: DeliveryMode | None = None
    kind: Kind | None = None


class Registered(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to a registration; unknown keys are for newer clients."""

    status: Annotated[
        str,
        Meta(
            description="`registered`; or the status that keeps this agent out, such as `paused`.",
            examples=["registered"],
        ),
    ]
    workspace_id: UUID
    workspace_status: Status
    heartbeat_interval_seconds: int
    server_time: datetime
    auth_token: Annotated[
        str | UnsetType, Meta(description="Only when the workspace had no live token: shown this once.")
    ] = UNSET
    platform_inbound_secret: Annotated[
        str | UnsetType, Meta(description="What the platform presents to the agent's own internal routes.")
    ] = UNSET


class Capabilities(Struct, frozen=True, kw_only=True):
    """What the runtime does by itself, so that the platform keeps out of it."""

    heartbeat: bool = False
    scheduler: bool = False
    session: bool = False
    status_mgmt: bool = False
    retry: bool = False
    activity_decoration: bool = False
    channel_dispatch: bool = False


class RuntimeMetadata(Struct, frozen=True, kw_only=True):
    """Facts about the runtime that outlive one beat."""

    capabilities: Capabilities | None = None
    idle_timeout_seconds: int | None = None


class Beat(Struct, frozen=True, kw_only=True):
    """One heartbeat. A key that is absent changes nothing."""

    workspace_id: UUID
    error_rate: Annotated[float | None, Meta(description="0 to 1, since the previous beat.")] = None
    sample_error: str | None = None
    active_tasks: int | None = None
    current_task: str | None = None
    uptime_seconds: int | None = None
    monthly_spend: Annotated[int | None, Meta(description="Cents; 0 changes nothing.")] = None
    runtime_state: Annotated[str | None, Meta(description="`wedged`: alive but unusable.")] = None
    runtime_metadata: RuntimeMetadata | None = None


class Heartbeaten(Struct, frozen=True):
    """The answer to a heartbeat; an agent whose workspace is stopped ends itself."""

    status: Annotated[str, Meta(examples=["ok"])]
    workspace_status: Status
    server_time: datetime


class CardUpdate(Struct, frozen=True, kw_only=True):
    """A new card of an agent that runs."""

    workspace_id: UUID
    agent_card: Card


class CardUpdated(Struct, frozen=True):
    """The card is stored."""

    status: Annotated[str, Meta(examples=["updated"])] = "updated"


class Discovered(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a peer answers."""

    id: UUID
    url: str
    name: str
    delivery_mode: str | UnsetType = UNSET


class Peer(Struct, frozen=True, kw_only=True):
    """Somebody this workspace may talk to."""

    id: UUID
    name: str
    role: str | None
    description: Annotated[str | None, Meta(description="From the agent card.")]
    tier: int
    status: Status
    url: str
    parent_id: UUID | None
    active_tasks: int
    agent_card: dict[str, Any] | None
    kind: str
    runtime: str
    delivery_mode: str


class AccessQuestion(Struct, frozen=True, kw_only=True):
    """May one workspace talk to another?"""

    caller_id: str
    target_id: str


class AccessAnswer(Struct, frozen=True):
    """The rule of contract 02 §12."""

    allowed: bool
