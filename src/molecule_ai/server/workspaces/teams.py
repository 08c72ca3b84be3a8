"""Expand and collapse: the team that a config declares, brought up and taken down (contract 02 §6.5)."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from msgspec import Struct

from molecule_ai.kernel.db import Connection, Database
from molecule_ai.kernel.errors import ApiError
from molecule_ai.provisioners.base import Provisioner, Root
from molecule_ai.provisioners.errors import ProvisionError
from molecule_ai.server.auth.principal import Principal
from molecule_ai.server.events.catalogue import Event
from molecule_ai.server.events.service import Events

from . import launch_config, store
from .creation import Creation
from .errors import BrokenConfig, NoConfig, NoSubWorkspaces
from .lifecycle import Lifecycle
from .schemas import NewWorkspace, Workspace, WorkspaceCreate
from .service import Workspaces
from .teams_schemas import Collapsed, Expanded, TeamMember

MAX_MEMBERS = 100


class Member(Struct, frozen=True):
    """One entry of `sub_workspaces`."""

    config: str
    name: str
    role: str | None


class Teams:
    """Direct children as the parent's own `config.yaml` names them."""

    def __init__(
        self,
        db: Database,
        events: Events,
        workspaces: Workspaces,
        creation: Creation,
        lifecycle: Lifecycle,
        provisioner: Provisioner,
    ) -> None:
        self._db = db
        self._events = events
        self._workspaces = workspaces
        self._creation = creation
        self._lifecycle = lifecycle
        self._provisioner = provisioner

    async def expand(self, caller: Principal, workspace_id: UUID) -> Expanded:
        """Create the members that are not there; those that are, by name, are returned as they are."""
        async with self._db.connection() as connection:
            parent = await self._workspaces.get(connection, workspace_id)
            files = await store.launch_files(connection, workspace_id)
        members = _members(await self._config(workspace_id, files))
        prepared = [await self._prepared(parent, member) for member in members]
        async with self._db.transaction() as tx:
            await self._workspaces.keep_shape(tx)
            await self._workspaces.get(tx, workspace_id)
            found = [await self._member(tx, workspace_id, new, caller) for new in prepared]
            told = {"children": [{"id": child.id, "name": child.name} for child in found]}
            await self._events.append(tx, Event.WORKSPACE_EXPANDED, workspace_id, told, actor=caller.label)
        return Expanded(children=found)

    async def collapse(self, caller: Principal, workspace_id: UUID) -> Collapsed:
        """Remove every direct child with all below it; files stay for the usual time."""
        async with self._db.connection() as connection:
            await self._workspaces.get(connection, workspace_id)
            children = await store.find_children(connection, workspace_id)
        for child in children:
            await self._lifecycle.remove(caller, child.id, confirm_name=child.name, confirm=True, purge=False)
        names = [child.name for child in children]
        async with self._db.transaction() as tx:
            told = {"removed_children": names}
            await self._events.append(tx, Event.WORKSPACE_COLLAPSED, workspace_id, told, actor=caller.label)
        return Collapsed(removed=names)

    async def _config(self, workspace_id: UUID, launched_with: dict[str, str]) -> dict[str, Any]:
        """The config as it is now, else as it was at the first start."""
        try:
            content = await self._provisioner.files(workspace_id).read(Root.CONFIGS, launch_config.CONFIG)
            text = content.decode(errors="replace")
        except (ProvisionError, ApiError, OSError):
            text = launched_with.get(launch_config.CONFIG, "")
        if not text.strip():
            raise NoConfig
        try:
            return launch_config.read(text)
        except launch_config.InvalidConfigFile as problem:
            raise BrokenConfig(detail=str(problem)) from problem

    async def _prepared(self, parent: Workspace, member: Member) -> NewWorkspace:
        new, _ = await self._creation.prepare(
            WorkspaceCreate(
                name=member.name,
                role=member.role,
                template=member.config,
                tier=parent.tier,
                parent_id=str(parent.id),
            )
        )
        return new

    async def _member(
        self, tx: Connection, parent_id: UUID, new: NewWorkspace, caller: Principal
    ) -> TeamMember:
        known = await store.find_child(tx, parent_id, new.name)
        if known is not None:
            return known
        made = await self._workspaces.insert(tx, new, actor=caller.label)
        return TeamMember(id=made.id, name=made.name, role=made.role)


def _members(config: dict[str, Any]) -> list[Member]:
    declared = config.get("sub_workspaces")
    if not isinstance(declared, list) or not declared:
        raise NoSubWorkspaces
    members: dict[str, Member] = {}
    for entry in declared[:MAX_MEMBERS]:
        template = entry.get("config") if isinstance(entry, dict) else None
        if not isinstance(template, str) or not template.strip():
            raise BrokenConfig(detail="every entry of sub_workspaces needs a config")
        name = entry.get("name") or template
        role = entry.get("role")
        members.setdefault(str(name), Member(template, str(name), str(role) if role else None))
    return list(members.values())
