"""The one door through which a workspace changes its status (contract 02 §5.1)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any
from uuid import UUID

from msgspec import UNSET, UnsetType

from molecule_ai.kernel.db import Connection
from molecule_ai.server.events.catalogue import Event
from molecule_ai.server.events.service import Events

from . import lifecycle_store as store
from .lifecycle_store import Change, Moved
from .status import Status

__all__ = ["ALLOWED", "LIVE", "STOPPED", "Change", "IllegalTransition", "Moved", "move", "move_many"]

LIVE = frozenset({Status.ONLINE, Status.DEGRADED})
STOPPED = frozenset({Status.PAUSED, Status.HIBERNATING, Status.HIBERNATED, Status.REMOVED})
_PRESENT = frozenset(Status) - {Status.REMOVED}

# To each status: the ones it may follow. `hibernating` goes back to what it was when the stop failed.
ALLOWED: Mapping[Status, frozenset[Status]] = MappingProxyType(
    {
        Status.PROVISIONING: _PRESENT - {Status.PROVISIONING},
        Status.ONLINE: frozenset(
            {
                Status.PROVISIONING,
                Status.DEGRADED,
                Status.OFFLINE,
                Status.FAILED,
                Status.AWAITING_AGENT,
                Status.HIBERNATING,
            }
        ),
        Status.DEGRADED: frozenset({Status.ONLINE, Status.HIBERNATING}),
        Status.OFFLINE: LIVE,
        Status.FAILED: frozenset({Status.PROVISIONING, Status.OFFLINE, Status.ONLINE, Status.DEGRADED}),
        Status.PAUSED: _PRESENT - {Status.PAUSED},
        Status.HIBERNATING: LIVE,
        Status.HIBERNATED: frozenset({Status.HIBERNATING}),
        Status.AWAITING_AGENT: LIVE | {Status.PAUSED, Status.OFFLINE, Status.FAILED, Status.PROVISIONING},
        Status.REMOVED: _PRESENT,
    }
)

_EVENTS: Mapping[Status, Event | None] = MappingProxyType(
    {
        Status.PROVISIONING: Event.WORKSPACE_PROVISIONING,
        Status.ONLINE: Event.WORKSPACE_ONLINE,
        Status.DEGRADED: Event.WORKSPACE_DEGRADED,
        Status.OFFLINE: Event.WORKSPACE_OFFLINE,
        Status.FAILED: Event.WORKSPACE_PROVISION_FAILED,
        Status.PAUSED: Event.WORKSPACE_PAUSED,
        Status.HIBERNATING: None,
        Status.HIBERNATED: Event.WORKSPACE_HIBERNATED,
        Status.AWAITING_AGENT: Event.WORKSPACE_AWAITING_AGENT,
        Status.REMOVED: Event.WORKSPACE_REMOVED,
    }
)


class IllegalTransition(ValueError):
    """The code asked for a way that contract 02 §5.1 does not know."""


async def move(
    tx: Connection,
    events: Events,
    workspace_id: UUID,
    to: Status,
    *,
    only_from: Collection[Status],
    reason: str = "",
    event: Event | UnsetType | None = UNSET,
    payload: dict[str, Any] | None = None,
    actor: str | None = None,
    change: Change | None = None,
) -> Moved | None:
    """Move one workspace, or return None when it is not in one of `only_from`.

    The event belongs to the target status unless another one, or None, is given; it is recorded in
    `tx` and only when the row changed. `change` holds what is written in the same statement.
    """
    moved = await move_many(
        tx,
        events,
        [workspace_id],
        to,
        only_from=only_from,
        reason=reason,
        event=event,
        payload=payload,
        actor=actor,
        change=change,
    )
    return moved[0] if moved else None


async def move_many(
    tx: Connection,
    events: Events,
    workspace_ids: Sequence[UUID],
    to: Status,
    *,
    only_from: Collection[Status],
    reason: str = "",
    event: Event | UnsetType | None = UNSET,
    payload: dict[str, Any] | None = None,
    actor: str | None = None,
    change: Change | None = None,
) -> list[Moved]:
    """Move the workspaces that are in one of `only_from`; rows are locked in the order of their ids."""
    if illegal := set(only_from) - ALLOWED[to]:
        raise IllegalTransition(f"{', '.join(sorted(illegal))} to {to}")
    rows = await store.move(tx, workspace_ids, to, only_from, reason, change or Change())
    name = _EVENTS[to] if event is UNSET else event
    if name is not None:
        for row in rows:
            await events.append(
                tx, name, row.id, _payload(name, row) if payload is None else payload, actor=actor
            )
    return rows


def _payload(event: Event, row: Moved) -> dict[str, Any]:
    """Contract 02 §18, for the events whose payload is told by the row."""
    match event:
        case Event.WORKSPACE_PROVISIONING:
            return {"name": row.name, "tier": row.tier, "runtime": row.runtime}
        case Event.WORKSPACE_HIBERNATED:
            return {"name": row.name, "tier": row.tier}
        case Event.WORKSPACE_PAUSED:
            return {"name": row.name}
        case Event.WORKSPACE_AWAITING_AGENT:
            return {"name": row.name, "external": row.runtime == "external"}
        case _:
            return {}
