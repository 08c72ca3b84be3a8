"""What is known of a message's target and caller, and what became of asking for a slot."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from msgspec import Struct

from molecule_ai.server.mailbox.chain import Chain, Task
from molecule_ai.server.workspaces.status import Status


class Target(Struct, frozen=True, kw_only=True):
    """A workspace as a message sees it."""

    id: UUID
    name: str
    status: Status
    url: str
    handle: dict[str, Any] | None
    delivery_mode: str
    runtime: str
    max_concurrent_tasks: int
    capabilities: dict[str, Any]
    idle_timeout_seconds: int | None
    is_over_budget: bool
    load: int

    @property
    def is_live(self) -> bool:
        return self.status in {Status.ONLINE, Status.DEGRADED}

    @property
    def is_polling(self) -> bool:
        return self.delivery_mode == "poll"

    @property
    def has_capacity(self) -> bool:
        return self.load < self.max_concurrent_tasks

    @property
    def trusted_url(self) -> str | None:
        """The address that our own provisioner gave to its agent."""
        url = (self.handle or {}).get("url")
        return url if isinstance(url, str) and url else None


class Situation(Struct, frozen=True, kw_only=True):
    """What one look at the database tells about a message: its target and what its caller is doing."""

    target: Target | None
    is_allowed: bool
    tasks: tuple[Task, ...] = ()
    """What the caller has under way, newest last."""
    target_chains: tuple[UUID, ...] = ()
    """The chains of what the target has under way."""


class Slot(Struct, frozen=True, kw_only=True):
    """The right to have one more message under way at a workspace, until it is left or its lease ends."""

    workspace_id: UUID
    slot: int
    holder: UUID


class Entrance(Struct, frozen=True, kw_only=True):
    """What asking for a slot found."""

    slot: int | None
    is_stopped: bool
    pair_messages: int
    twin_id: UUID | None
    """An equal message that waits in the mailbox or is under way from there."""


class Entry(Struct, frozen=True, kw_only=True):
    """Who wants to have which message under way where."""

    target: Target
    message_id: str
    chain: Chain
    caller_id: UUID | None = None
    cause: Task | None = None
    is_continuation: bool = False
