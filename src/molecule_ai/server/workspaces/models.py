"""Which model occupies a role: the row holds the truth, the ledger follows it (contract 02 §6.2, §6.3)."""

from __future__ import annotations

from uuid import UUID

from msgspec import UNSET

from molecule_ai.kernel import failpoints
from molecule_ai.kernel.db import Connection, Database
from molecule_ai.server.auth.principal import Principal
from molecule_ai.server.events.catalogue import Event
from molecule_ai.server.events.service import Events
from molecule_ai.server.secrets.service import Restarts, Secrets

from . import models_store, resolution, rules, runtimes, store
from .errors import (
    AgentNotFound,
    AgentOccupied,
    InvalidField,
    NoAgentToMove,
    NoAgentToRemove,
    NoAgentToReplace,
    NotBothWorkspaces,
    TargetNotFound,
    TargetOccupied,
    WorkspaceNotFound,
)
from .models_schemas import (
    AgentAssigned,
    AgentMoved,
    AgentRemoved,
    AgentReplaced,
    AgentView,
    Model,
    ModelSaved,
)
from .resolution import Resolver
from .service import removed
from .status import Status
from .store import Editable

# Secrets that override the row at start (contract 05 §5); a choice made here replaces them.
OVERRIDES = ("MODEL", "MODEL_PROVIDER")
_SOURCES = {"override": "workspace_secrets", "template": "template", "default": "default"}


class Models:
    """Models and the record of who held which role."""

    def __init__(
        self, db: Database, events: Events, secrets: Secrets, restarts: Restarts, resolver: Resolver
    ) -> None:
        self._db = db
        self._events = events
        self._secrets = secrets
        self._restarts = restarts
        self._resolver = resolver

    async def model(self, workspace_id: UUID) -> Model:
        """The model in force when somebody or the template chose one."""
        async with self._db.connection() as connection:
            found = await models_store.find_model(connection, workspace_id)
        if found is None:
            raise WorkspaceNotFound
        chosen = found.model if found.model_source != "default" else None
        return Model(model=chosen or "", source=_SOURCES[found.model_source])

    async def choose(self, caller: Principal, workspace_id: UUID, model: str) -> ModelSaved:
        """Set the model, or with an empty text go back to the default; the agent restarts."""
        wanted = _checked(model)
        async with self._db.transaction() as tx:
            row = await self._row(tx, workspace_id)
            notices = resolution.check_model(row.runtime, wanted) if wanted else []
            if wanted:
                await self._adopt(tx, row, wanted, "override", caller.label)
            else:
                source, default = await self._resolver.default_model(
                    template=row.template, runtime=row.runtime
                )
                await self._adopt(tx, row, default, source, caller.label)
            if row.model:
                await self._succeed(tx, workspace_id, row.model, caller.label)
            await self._restart(tx, workspace_id)
            failpoints.reach("workspaces.model_chosen")
        if not wanted:
            return ModelSaved(status="cleared")
        told = [{"code": notice.code, "message": notice.message} for notice in notices]
        return ModelSaved(status="saved", model=wanted, warnings=told or UNSET)

    async def assign(
        self, caller: Principal, workspace_id: UUID, model: str, *, restart: bool
    ) -> AgentAssigned:
        """Give an empty role to a model. Raises `AgentOccupied`."""
        wanted = _checked(model)
        async with self._db.transaction() as tx:
            row = await self._row(tx, workspace_id)
            resolution.check_model(row.runtime, wanted)
            occupant = await models_store.assign(tx, workspace_id, wanted)
            if occupant is None:
                raise AgentOccupied
            await self._adopt(tx, row, wanted, "override", caller.label)
            told = {"agent_id": occupant.id, "model": wanted}
            await self._events.append(tx, Event.AGENT_ASSIGNED, workspace_id, told, actor=caller.label)
            if restart:
                await self._restart(tx, workspace_id)
        return AgentAssigned(agent_id=occupant.id, model=wanted)

    async def replace(
        self, caller: Principal, workspace_id: UUID, model: str, *, restart: bool
    ) -> AgentReplaced:
        """Give an occupied role to another model. Raises `NoAgentToReplace`."""
        wanted = _checked(model)
        async with self._db.transaction() as tx:
            row = await self._row(tx, workspace_id)
            resolution.check_model(row.runtime, wanted)
            if await models_store.find_active(tx, workspace_id) is None:
                raise NoAgentToReplace
            await self._adopt(tx, row, wanted, "override", caller.label)
            replaced = await self._succeed(tx, workspace_id, wanted, caller.label)
            if restart:
                await self._restart(tx, workspace_id)
        return replaced

    async def remove(self, caller: Principal, workspace_id: UUID) -> AgentRemoved:
        """End the occupancy in the ledger; what runs goes on running. Raises `NoAgentToRemove`."""
        async with self._db.transaction() as tx:
            gone = await models_store.retire(tx, workspace_id, "removed", "manual_removal")
            if gone is None:
                raise NoAgentToRemove
            told = {"agent_id": gone.id, "model": gone.model}
            await self._events.append(tx, Event.AGENT_REMOVED, workspace_id, told, actor=caller.label)
        return AgentRemoved(agent_id=gone.id)

    async def move(self, caller: Principal, workspace_id: UUID, target_id: UUID) -> AgentMoved:
        """Hand the occupant of one role to another, empty one; takes power over both workspaces."""
        if not caller.is_admin:
            raise NotBothWorkspaces
        async with self._db.transaction() as tx:
            rows = {}
            # Two moves in opposite directions lock in the same order.
            for one_id in sorted({workspace_id, target_id}):
                rows[one_id] = await store.find_for_update(tx, one_id)
            target = rows[target_id]
            if target is None or target.status == Status.REMOVED:
                raise TargetNotFound
            occupant = await models_store.find_active(tx, workspace_id)
            if occupant is None:
                raise NoAgentToMove
            if await models_store.find_active(tx, target_id) is not None:
                raise TargetOccupied
            await models_store.move(tx, occupant.id, target_id)
            await self._adopt(tx, target, occupant.model, "override", caller.label)
            told = {"agent_id": occupant.id, "model": occupant.model}
            await self._events.append_many(
                tx,
                [
                    (Event.AGENT_MOVED, workspace_id, {**told, "target_workspace_id": target_id}),
                    (Event.AGENT_MOVED, target_id, {**told, "source_workspace_id": workspace_id}),
                ],
                actor=caller.label,
            )
            await self._restart(tx, target_id)
        return AgentMoved(
            agent_id=occupant.id, model=occupant.model, from_workspace=workspace_id, to_workspace=target_id
        )

    async def agents(self, workspace_id: UUID | None = None) -> list[AgentView]:
        """The occupants of all roles, or of one."""
        async with self._db.connection() as connection:
            if workspace_id is None:
                return await models_store.list_active(connection)
            return await models_store.list_of_workspace(connection, workspace_id)

    async def agent(self, agent_id: UUID) -> AgentView:
        """One occupant. Raises `AgentNotFound`."""
        async with self._db.connection() as connection:
            found = await models_store.find(connection, agent_id)
        if found is None:
            raise AgentNotFound
        return found

    async def _row(self, tx: Connection, workspace_id: UUID) -> Editable:
        row = await store.find_for_update(tx, workspace_id)
        if row is None:
            raise WorkspaceNotFound
        if row.status == Status.REMOVED:
            raise removed(row.id, row.removed_at)
        return row

    async def _adopt(self, tx: Connection, row: Editable, model: str | None, source: str, actor: str) -> None:
        """Write the model into the row and the config of its next start; no secret overrides it then."""
        row.model, row.model_source = model, source
        if row.runtime != runtimes.EXTERNAL:
            row.amend_config({"model": model})
        await models_store.set_model(tx, row)
        await self._secrets.forget(tx, row.id, OVERRIDES, actor=actor)

    async def _succeed(self, tx: Connection, workspace_id: UUID, model: str, actor: str) -> AgentReplaced:
        """Let the ledger follow the row: the occupant is replaced, an empty role is assigned."""
        old = await models_store.find_active(tx, workspace_id)
        if old is not None and old.model == model:
            return AgentReplaced(agent_id=old.id, model=model, old_model=old.model)
        if old is not None:
            await models_store.retire(tx, workspace_id, "replaced", "model_replaced")
        new = await models_store.assign(tx, workspace_id, model)
        if new is None:
            raise AgentOccupied
        told = {"agent_id": new.id, "model": model}
        if old is None:
            await self._events.append(tx, Event.AGENT_ASSIGNED, workspace_id, told, actor=actor)
        else:
            told["old_model"] = old.model
            await self._events.append(tx, Event.AGENT_REPLACED, workspace_id, told, actor=actor)
        return AgentReplaced(agent_id=new.id, model=model, old_model=old.model if old else "")

    async def _restart(self, tx: Connection, workspace_id: UUID) -> None:
        await self._restarts.request_restart(tx, [workspace_id], reason="model changed")


def _checked(model: str) -> str:
    wanted = model.strip()
    if problem := rules.complaint({"model": wanted}):
        raise InvalidField(problem)
    return wanted
