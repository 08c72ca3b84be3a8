"""`PATCH /workspaces/:id`: who may change what, and what follows (contract 02 §4.5)."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import asyncpg
from msgspec import UNSET

from molecule_ai.kernel import failpoints
from molecule_ai.kernel.db import Connection, Database
from molecule_ai.server.auth.errors import MissingWorkspaceToken
from molecule_ai.server.auth.presented import parse_uuid
from molecule_ai.server.auth.principal import Kind, Principal
from molecule_ai.server.events.catalogue import Event
from molecule_ai.server.events.service import Events

from . import rules, runtimes, store
from .errors import (
    FieldRequiresAdmin,
    InvalidField,
    InvalidTier,
    NameTaken,
    ParentCycle,
    ParentNotFound,
    PlatformHasNoParent,
    RuntimeKindFixed,
    WorkspaceNotFound,
)
from .resolution import Resolver
from .schemas import WorkspaceUpdate, WorkspaceUpdated
from .service import removed
from .status import Status
from .store import Editable

SENSITIVE = (
    "tier",
    "parent_id",
    "runtime",
    "workspace_dir",
    "workspace_access",
    "max_concurrent_tasks",
    "hibernation_idle_minutes",
)
# What the running agent learns only at its next start.
_AT_NEXT_START = ("name", "role", "tier", "runtime", "workspace_dir", "workspace_access", "parent_id")
# Those that clients are told about: the others are seen without a restart by everybody but the agent.
_NEEDS_RESTART = ("runtime", "workspace_dir", "workspace_access")
_CONFIG_KEYS = ("name", "role", "tier", "runtime", "max_concurrent_tasks", "hibernation_idle_minutes")


class Editing:
    """Applies one PATCH: all of it or nothing."""

    def __init__(
        self, db: Database, events: Events, resolver: Resolver, *, self_patch_sensitive: bool
    ) -> None:
        self._db = db
        self._events = events
        self._resolver = resolver
        self._self_patch_sensitive = self_patch_sensitive

    async def update(self, caller: Principal, workspace_id: UUID, data: WorkspaceUpdate) -> WorkspaceUpdated:
        """Change fields. Raises the refusal of the first thing that is wrong; then nothing changed."""
        self._authorize(caller, data)
        _check(data)
        if data.runtime is not UNSET:
            await self._resolver.require_known(data.runtime)
        async with self._db.transaction() as tx:
            changed = await self._apply(tx, workspace_id, data, caller.label)
            failpoints.reach("workspaces.updated")
        return _answer(changed)

    def _authorize(self, caller: Principal, data: WorkspaceUpdate) -> None:
        sensitive = [field for field in SENSITIVE if getattr(data, field) is not UNSET]
        if not sensitive or caller.is_admin or caller.kind is Kind.SAME_ORIGIN:
            return
        if caller.kind is not Kind.WORKSPACE:
            raise MissingWorkspaceToken
        if not self._self_patch_sensitive:
            raise FieldRequiresAdmin(f"{sensitive[0]} can only be changed by an administrator")

    async def _apply(
        self, tx: Connection, workspace_id: UUID, data: WorkspaceUpdate, actor: str
    ) -> dict[str, Any]:
        if data.parent_id is not UNSET:
            await store.hold_tree(tx)
        row = await store.find_for_update(tx, workspace_id)
        if row is None:
            raise WorkspaceNotFound
        if row.status == Status.REMOVED:
            raise removed(row.id, row.removed_at)
        old_parent = row.parent_id
        changed = await self._edit(tx, row, data)
        if changed:
            try:
                await store.update(tx, row)
            except asyncpg.UniqueViolationError as clash:
                raise NameTaken from clash
        layout = await self._lay_out(tx, workspace_id, data)
        await self._announce(tx, workspace_id, changed, layout, old_parent, actor)
        return changed

    async def _edit(self, tx: Connection, row: Editable, data: WorkspaceUpdate) -> dict[str, Any]:
        """Write the new values into `row`; returns those that differ from the old ones."""
        wishes: dict[str, Any] = {}
        if data.name is not UNSET:
            wishes["name"] = data.name.strip()
        if data.role is not UNSET:
            wishes["role"] = (data.role or "").strip() or None
        for field in ("tier", "runtime", "max_concurrent_tasks"):
            if (value := getattr(data, field)) is not UNSET:
                wishes[field] = value
        if data.hibernation_idle_minutes is not UNSET:
            wishes["hibernation_idle_minutes"] = data.hibernation_idle_minutes or None
        if data.workspace_dir is not UNSET or data.workspace_access is not UNSET:
            wishes |= _mount(row, data)
        if data.parent_id is not UNSET:
            wishes["parent_id"] = await self._parent(tx, row, data.parent_id)
        changed = {field: value for field, value in wishes.items() if getattr(row, field) != value}
        if runtimes.EXTERNAL in (changed.get("runtime"), row.runtime if "runtime" in changed else None):
            raise RuntimeKindFixed
        for field, value in changed.items():
            setattr(row, field, value)
        self._amend(row, changed)
        return changed

    @staticmethod
    async def _parent(tx: Connection, row: Editable, text: str | None) -> UUID | None:
        if not text:
            return None
        parent_id = parse_uuid(text)
        if row.kind == "platform":
            raise PlatformHasNoParent
        if parent_id is None or not await store.is_live(tx, parent_id):
            raise ParentNotFound
        if await store.is_at_or_below(tx, row.id, parent_id):
            raise ParentCycle
        return parent_id

    @staticmethod
    def _amend(row: Editable, changed: dict[str, Any]) -> None:
        """Keep `config.yaml` in step with the row, at the next start also the agent's own."""
        keys = {key: changed[key] for key in _CONFIG_KEYS if key in changed}
        if not keys or row.runtime == runtimes.EXTERNAL:
            return
        if "role" in keys:
            keys["description"] = keys["role"]
        row.amend_config(keys)

    @staticmethod
    async def _lay_out(tx: Connection, workspace_id: UUID, data: WorkspaceUpdate) -> dict[str, Any]:
        layout: dict[str, Any] = {}
        if data.canvas is not UNSET:
            layout |= {"x": data.canvas.x, "y": data.canvas.y}
        if data.x is not UNSET and data.y is not UNSET:
            layout |= {"x": data.x, "y": data.y}
        if data.collapsed is not UNSET:
            layout["collapsed"] = data.collapsed
        if layout:
            await store.lay_out(tx, workspace_id, layout.get("x"), layout.get("y"), layout.get("collapsed"))
        return layout

    async def _announce(
        self,
        tx: Connection,
        workspace_id: UUID,
        changed: dict[str, Any],
        layout: dict[str, Any],
        old_parent: UUID | None,
        actor: str,
    ) -> None:
        if "parent_id" in changed:
            moved = {"old_parent_id": old_parent, "new_parent_id": changed["parent_id"]}
            await self._events.append(tx, Event.WORKSPACE_MOVED, workspace_id, moved, actor=actor)
        payload = changed | layout
        if not payload:
            return
        payload = {"changed": sorted(payload), **payload}
        if changed:
            await self._events.append(tx, Event.WORKSPACE_UPDATED, workspace_id, payload, actor=actor)
        else:
            await self._events.broadcast(Event.WORKSPACE_UPDATED, workspace_id, payload, tx=tx)


def _check(data: WorkspaceUpdate) -> None:
    fields = {
        field: value if isinstance(value := getattr(data, field), str) else None
        for field in ("name", "role", "runtime")
    }
    if problem := rules.complaint(fields):
        raise InvalidField(problem)
    if isinstance(data.name, str) and not data.name.strip():
        raise InvalidField("name must not be empty")
    if isinstance(data.tier, int) and not 1 <= data.tier <= 4:
        raise InvalidTier


def _mount(row: Editable, data: WorkspaceUpdate) -> dict[str, Any]:
    directory = row.workspace_dir if data.workspace_dir is UNSET else rules.directory(data.workspace_dir)
    wanted = row.workspace_access if data.workspace_access is UNSET else data.workspace_access
    if directory is None and data.workspace_access is UNSET:
        wanted = "none"
    return {"workspace_dir": directory, "workspace_access": str(rules.access(wanted, directory))}


def _answer(changed: dict[str, Any]) -> WorkspaceUpdated:
    if not any(field in changed for field in _NEEDS_RESTART):
        return WorkspaceUpdated()
    return WorkspaceUpdated(
        needs_restart=True, restart_reasons=[field for field in _AT_NEXT_START if field in changed]
    )
