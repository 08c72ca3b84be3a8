"""Seals on the way in, opens on the way to the agent, and shows only names in between."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Protocol
from uuid import UUID

from molecule_ai.kernel import failpoints, log
from molecule_ai.kernel.crypto import Keyring, SealBroken, row_of
from molecule_ai.kernel.db import Connection, Database
from molecule_ai.kernel.errors import InvalidRequest
from molecule_ai.kernel.notify import notify
from molecule_ai.server.auth.principal import Principal
from molecule_ai.server.events.service import Events

from . import names, store
from .errors import InvalidDelivery, InvalidSecretValue, SecretNotFound, SecretsBroken, TooManySecrets
from .redaction import CHANNEL, Holders, Redaction
from .schemas import Delivery, Dependents, Scope, Secret, SecretInput, SecretSaved
from .store import Write

MAX_KEYS = 200
_WORKSPACE_STORE = "workspace_secrets"
_GLOBAL_STORE = "global_secrets"


class Restarts(Protocol):
    """Who makes running agents notice a change."""

    async def request_restart(self, tx: Connection, workspace_ids: Sequence[UUID], *, reason: str) -> None:
        """Restart these workspaces after `tx` commits; requests close together are one restart."""
        ...


class Secrets:
    """The vault of the organization and of each workspace."""

    def __init__(self, db: Database, keyring: Keyring, events: Events) -> None:
        self._db = db
        self._keyring = keyring
        self._events = events
        self._log = log.get()
        self.restarts: Restarts | None = None
        self.redaction = Redaction(db, self._known_values, _holders)

    async def store(
        self, tx: Connection, workspace_id: UUID | None, values: Mapping[str, str], *, actor: str
    ) -> None:
        """Seal and keep values, org-wide when `workspace_id` is None. Raises what `names.check` raises."""
        await self.store_many(tx, {workspace_id: values}, actor=actor)

    async def store_many(
        self, tx: Connection, values: Mapping[UUID | None, Mapping[str, str]], *, actor: str
    ) -> None:
        """The same for many workspaces at once, as one statement."""
        await self._write(
            tx,
            [
                self._sealed(workspace_id, key, value, Delivery.ENVIRONMENT, [])
                for workspace_id, pairs in values.items()
                for key, value in pairs.items()
            ],
            actor,
        )

    async def environment(self, connection: Connection, workspace_id: UUID) -> dict[str, str]:
        """What the agent's process receives: org-wide values, the workspace's own on top.

        Raises `SecretsBroken` when any value does not open: a partial environment is worse than none.
        """
        opened: dict[str, str] = {}
        broken: list[str] = []
        for row in await store.read(connection, workspace_id):
            if row.key in names.RESERVED:
                continue
            try:
                opened[row.key] = self._keyring.open(row.sealed, _row(row.workspace_id, row.key)).decode()
            except (SealBroken, UnicodeDecodeError):
                broken.append(f"{Scope.GLOBAL if row.workspace_id is None else Scope.WORKSPACE}:{row.key}")
        if broken:
            self._log.error("secrets_do_not_open", workspace_id=str(workspace_id), failed_keys=broken)
            raise SecretsBroken(failed_keys=sorted(broken))
        return opened

    async def _known_values(
        self, connection: Connection, workspace_ids: Sequence[UUID]
    ) -> Mapping[UUID, Sequence[str]]:
        """Every value that these agents may have seen and that opens, without those that name a model."""
        common: list[str] = []
        own: dict[UUID, list[str]] = {workspace_id: [] for workspace_id in workspace_ids}
        for row in await store.read_many(connection, workspace_ids):
            if row.key in names.MODELS:
                continue
            values = common if row.workspace_id is None else own[row.workspace_id]
            with contextlib.suppress(SealBroken, UnicodeDecodeError):
                values.append(self._keyring.open(row.sealed, _row(row.workspace_id, row.key)).decode())
        return {workspace_id: [*common, *values] for workspace_id, values in own.items()}

    async def _changed(self, tx: Connection) -> None:
        """What agents say is looked through with the new values, in this process and in all others."""
        self.redaction.forget()
        await notify(tx, CHANNEL)

    async def global_names(self, connection: Connection) -> set[str]:
        """The keys that have an org-wide value."""
        return await store.global_keys(connection)

    async def list_for(self, workspace_id: UUID | None) -> list[Secret]:
        """Names and dates: of a workspace with what it inherits, or org-wide."""
        async with self._db.connection() as connection:
            if workspace_id is None:
                return await store.list_global(connection)
            return await store.list_for_workspace(connection, workspace_id)

    async def values(self, caller: Principal, workspace_id: UUID) -> dict[str, str]:
        """The agent's own environment in the clear; the reading is recorded."""
        async with self._db.transaction() as tx:
            opened = await self.environment(tx, workspace_id)
            await self._events.append(
                tx, "secret.read", workspace_id, {"keys": sorted(opened)}, actor=caller.label
            )
        return opened

    async def save(self, caller: Principal, workspace_id: UUID | None, data: SecretInput) -> SecretSaved:
        """Keep one value and restart whoever lives with it."""
        if data.delivery not in list(Delivery):
            raise InvalidDelivery
        if any("," in host or not host.strip() for host in data.hosts):
            raise InvalidSecretValue("hosts must be names without commas", key=data.key)
        row = self._sealed(workspace_id, data.key, data.value, Delivery(data.delivery), data.hosts)
        async with self._db.transaction() as tx:
            await self._write(tx, [row], caller.label)
            await self._restart(tx, workspace_id, data.key)
            failpoints.reach("secrets.saved")
        return SecretSaved(status="saved", key=data.key, scope=_scope(workspace_id))

    async def delete(self, caller: Principal, workspace_id: UUID | None, key: str) -> SecretSaved:
        """Forget one value. Raises `SecretNotFound`."""
        async with self._db.transaction() as tx:
            if not await store.delete(tx, workspace_id, [key]):
                raise SecretNotFound
            await self._events.append(
                tx, "secret.delete", workspace_id, _payload(workspace_id, key), actor=caller.label
            )
            await self._changed(tx)
            await self._restart(tx, workspace_id, key)
        return SecretSaved(status="deleted", key=key, scope=_scope(workspace_id))

    async def forget(self, tx: Connection, workspace_id: UUID, keys: Sequence[str], *, actor: str) -> None:
        """Delete values that something else replaces, if they are there."""
        deleted = await store.delete(tx, workspace_id, keys)
        for key in deleted:
            await self._events.append(
                tx, "secret.delete", workspace_id, _payload(workspace_id, key), actor=actor
            )
        if deleted:
            await self._changed(tx)

    async def dependents(self, workspace_id: UUID | None, key: str) -> Dependents:
        """Who would be restarted by a change of this secret."""
        async with self._db.connection() as connection:
            return Dependents(
                dependents=[str(found) for found in await self._affected(connection, workspace_id, key)]
            )

    async def _affected(self, connection: Connection, workspace_id: UUID | None, key: str) -> Sequence[UUID]:
        if workspace_id is not None:
            return [workspace_id]
        return await store.dependents_of_global(connection, key)

    async def _restart(self, tx: Connection, workspace_id: UUID | None, key: str) -> None:
        if self.restarts is not None:
            ids = await self._affected(tx, workspace_id, key)
            await self.restarts.request_restart(tx, ids, reason=f"secret {key} changed")

    def _sealed(
        self, workspace_id: UUID | None, key: str, value: str, delivery: Delivery, hosts: Sequence[str]
    ) -> Write:
        content = names.check(key, value)
        return Write(
            workspace_id=workspace_id,
            key=key,
            sealed=self._keyring.seal(content, _row(workspace_id, key)),
            delivery=delivery,
            hosts=[host.strip().lower() for host in hosts],
        )

    async def _write(self, tx: Connection, rows: Sequence[Write], actor: str) -> None:
        if not rows:
            return
        await store.put(tx, rows)
        await self._changed(tx)
        workspace_ids = list({row.workspace_id for row in rows if row.workspace_id is not None})
        with_global = any(row.workspace_id is None for row in rows)
        if await store.largest_store(tx, workspace_ids, with_global=with_global) > MAX_KEYS:
            raise TooManySecrets
        await self._events.append_many(
            tx,
            [("secret.set", row.workspace_id, _payload(row.workspace_id, row.key)) for row in rows],
            actor=actor,
        )


async def _holders(connection: Connection) -> Holders:
    everybody, some = await store.holders(connection)
    return Holders(everybody, frozenset(some))


def secret_problem(key: str, value: str) -> str | None:
    """What is wrong with a pair, for those who leave a bad one out; None when it can be kept."""
    try:
        names.check(key, value)
    except InvalidRequest as problem:
        return problem.text
    return None


def _row(workspace_id: UUID | None, key: str) -> bytes:
    return row_of(_GLOBAL_STORE if workspace_id is None else _WORKSPACE_STORE, workspace_id, key)


def _scope(workspace_id: UUID | None) -> str | None:
    return Scope.GLOBAL if workspace_id is None else None


def _payload(workspace_id: UUID | None, key: str) -> dict[str, str]:
    return {"key": key, "scope": Scope.GLOBAL if workspace_id is None else Scope.WORKSPACE}
