"""Creating, finding and changing workspaces (contract 02 §4)."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from msgspec import UNSET

from molecule_ai.kernel import failpoints
from molecule_ai.kernel.db import Connection, Database
from molecule_ai.kernel.notify import notify
from molecule_ai.server.auth.principal import Kind, Principal
from molecule_ai.server.events.catalogue import Event
from molecule_ai.server.events.service import Events
from molecule_ai.server.secrets.service import Secrets
from molecule_ai.server.tokens.service import Tokens

from . import external, runtimes, store
from .creation import Creation
from .errors import (
    NamesExhausted,
    ParentNotFound,
    PlatformExists,
    StateGone,
    WorkspaceNotFound,
    WorkspaceRemoved,
)
from .listing import Page, encode
from .schemas import (
    ExternalConnection,
    NewWorkspace,
    Notice,
    PublicWorkspace,
    Workspace,
    WorkspaceCreate,
    WorkspaceCreated,
    WorkspaceState,
)
from .status import Status
from .store import Filter
from .timeouts import Timeouts

RECONCILE = "molecule_reconcile"
MAX_NAME_ATTEMPTS = 20
REMOVED_HINT = "the workspace was deleted; add ?include_removed=true to read what is left of it"


class Workspaces:
    """The org chart's rows: who exists, and as what."""

    def __init__(
        self,
        db: Database,
        events: Events,
        secrets: Secrets,
        tokens: Tokens,
        creation: Creation,
        timeouts: Timeouts,
    ) -> None:
        self._db = db
        self._events = events
        self._secrets = secrets
        self._tokens = tokens
        self._creation = creation
        self._timeouts = timeouts

    async def count_by_status(self) -> dict[str, int]:
        """How many workspaces there are in each state."""
        async with self._db.connection() as connection:
            return await store.count_by_status(connection)

    async def create(
        self, caller: Principal, data: WorkspaceCreate, *, platform_url: str
    ) -> WorkspaceCreated:
        """Create one workspace; the reconciler starts its agent. External ones get how to connect."""
        new, notices = await self._creation.prepare(data)
        connection: ExternalConnection | None = None
        async with self._db.transaction() as tx:
            created = await self.insert(tx, new, actor=caller.label)
            facts = {"name": created.name}
            await self._events.append(tx, "workspace.create", created.id, facts, actor=caller.label)
            if created.status is Status.AWAITING_AGENT:
                minted = await self._tokens.mint(
                    tx, created.id, kind="external", created_by=caller.label, name="connection"
                )
                connection = external.connection(created.id, created.name, platform_url, minted.auth_token)
            failpoints.reach("workspaces.created")
        return _created(created, notices, connection)

    async def insert(self, tx: Connection, new: NewWorkspace, *, actor: str) -> Workspace:
        """Insert a row with layout, ledger entry, secrets and event; a taken name gets a number.

        Raises `ParentNotFound`, `PlatformExists`, `NamesExhausted`, and what is wrong with a secret.
        """
        await self.keep_shape(tx)
        if new.parent_id is not None and not await store.is_live(tx, new.parent_id):
            raise ParentNotFound
        if new.kind == "platform" and await store.platform_exists(tx):
            raise PlatformExists
        wanted = new.name
        # Another writer may take a free name first; the insert then returns nothing and we look again.
        for _ in range(MAX_NAME_ATTEMPTS):
            name = await store.find_free_name(tx, new.parent_id, wanted, MAX_NAME_ATTEMPTS)
            if name is None:
                break
            new.name = name
            if await self.insert_many(tx, [new], actor=actor):
                return await self.get(tx, new.id)
        raise NamesExhausted

    async def keep_shape(self, tx: Connection) -> None:
        """Nobody moves or removes a subtree until `tx` ends: parents that were found stay parents."""
        await store.share_tree(tx)

    async def insert_many(self, tx: Connection, workspaces: list[NewWorkspace], *, actor: str) -> bool:
        """Insert rows as they are, parents first, with one statement per table.

        False, with nothing else written, when one of them was not inserted because a sibling has its
        name; the caller rolls back or tries again.
        """
        if not workspaces:
            return True
        inserted = await store.insert(tx, workspaces)
        if len(inserted) < len(workspaces):
            return False
        if not self._creation.has_backend:
            await store.keep_plan(tx, list(inserted))
        await self._secrets.store_many(tx, {new.id: new.secrets for new in workspaces}, actor=actor)
        await self._events.append_many(tx, [_announcement(new) for new in workspaces], actor=actor)
        await notify(tx, RECONCILE)
        return True

    async def find(self, connection: Connection, workspace_id: UUID) -> Workspace | None:
        """The workspace, removed or not; None when there never was one."""
        found = await store.find(connection, workspace_id)
        if found is not None and (seconds := (await self._timeouts.declared()).get(found.runtime)):
            found.provision_timeout_ms = seconds * 1000
        return found

    async def get(
        self, connection: Connection, workspace_id: UUID, *, include_removed: bool = False
    ) -> Workspace:
        """The workspace. Raises `WorkspaceNotFound`, and `WorkspaceRemoved` unless asked otherwise."""
        found = await self.find(connection, workspace_id)
        if found is None:
            raise WorkspaceNotFound
        if found.status is Status.REMOVED and not include_removed:
            raise removed(found.id, found.removed_at)
        return found

    async def show(
        self, caller: Principal, workspace_id: UUID, *, include_removed: bool
    ) -> Workspace | PublicWorkspace:
        """As much of the workspace as the caller may see (contract 02 §4.4)."""
        async with self._db.connection() as connection:
            found = await self.get(connection, workspace_id, include_removed=include_removed)
        if sees_all(caller, workspace_id):
            return found
        return redacted(found)

    async def page(self, wanted: Filter) -> Page:
        """Workspaces that are not removed, encoded, oldest first."""
        async with self._db.connection() as connection:
            rows = await store.list_rows(connection, wanted)
        return encode(rows, wanted.limit, await self._timeouts.declared())

    async def state(self, workspace_id: UUID) -> WorkspaceState:
        """What a polling agent asks. Raises `StateGone` for one that is removed or unknown."""
        async with self._db.connection() as connection:
            found = await store.find_state(connection, workspace_id)
        status = None if found is None else Status(found.status)
        if status is None or status is Status.REMOVED:
            told: dict[str, Any] = {} if status is None else {"status": status}
            raise StateGone(workspace_id=workspace_id, deleted=True, **told)
        return WorkspaceState(
            workspace_id=workspace_id, status=status, paused=status is Status.PAUSED, deleted=False
        )


def sees_all(caller: Principal, workspace_id: UUID) -> bool:
    """Whether the caller reads every field: administrators, and the workspace itself."""
    own = caller.kind is Kind.WORKSPACE and caller.workspace_id == workspace_id
    return caller.is_admin or own


def redacted(workspace: Workspace) -> PublicWorkspace:
    """The part that anybody may see."""
    return PublicWorkspace(
        **{field.name: getattr(workspace, field.name) for field in msgspec.structs.fields(PublicWorkspace)}
    )


def removed(workspace_id: UUID, removed_at: Any) -> WorkspaceRemoved:
    """The 410 of contract 02 §4.4."""
    return WorkspaceRemoved(id=workspace_id, removed_at=removed_at, hint=REMOVED_HINT)


def _announcement(new: NewWorkspace) -> tuple[Event, UUID, dict[str, Any]]:
    if new.status is Status.ONLINE:
        return Event.WORKSPACE_ONLINE, new.id, {"name": new.name, "external": True}
    if new.status is Status.AWAITING_AGENT:
        return Event.WORKSPACE_AWAITING_AGENT, new.id, {"name": new.name, "external": True}
    payload: dict[str, Any] = {"name": new.name, "tier": new.tier, "runtime": new.runtime}
    if new.parent_id is not None:
        payload["parent_id"] = new.parent_id
    if new.position_in_event is not None:
        payload["x"], payload["y"] = new.position_in_event
    return Event.WORKSPACE_PROVISIONING, new.id, payload


def _created(
    workspace: Workspace, notices: list[Notice], connection: ExternalConnection | None
) -> WorkspaceCreated:
    return WorkspaceCreated(
        id=workspace.id,
        status=workspace.status,
        awareness_namespace=workspace.awareness_namespace or "",
        workspace_access=workspace.workspace_access,
        name=workspace.name,
        role=workspace.role,
        runtime=workspace.runtime,
        model=workspace.model,
        tier=workspace.tier,
        parent_id=workspace.parent_id,
        created_at=workspace.created_at,
        external=True if workspace.runtime == runtimes.EXTERNAL else UNSET,
        connection=connection or UNSET,
        warnings=notices or UNSET,
    )
