"""What clients keep with a workspace, what it may do, and how an external agent connects."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from litestar.exceptions import SerializationException
from msgspec import UNSET

from molecule_ai.kernel.db import Database
from molecule_ai.kernel.errors import InvalidRequest
from molecule_ai.kernel.http import decode
from molecule_ai.server.auth.principal import Principal
from molecule_ai.server.events.catalogue import Event
from molecule_ai.server.events.service import Events
from molecule_ai.server.tokens.service import Tokens

from . import configuration_store, external, runtimes, store
from .configuration_schemas import AbilitiesInput, AbilitiesUpdated, Config, Connected
from .errors import (
    ConfigIsNoObject,
    ConfigTooLarge,
    InvalidConfigJson,
    NotExternal,
    StoredConfigTooLarge,
    WorkspaceNotFound,
)
from .schemas import Workspace
from .service import Workspaces

MAX_BODY_BYTES = 256 * 1024
MAX_STORED_BYTES = 1024 * 1024


class Configuration:
    """Settings of single workspaces beside the row's own fields."""

    def __init__(self, db: Database, events: Events, tokens: Tokens, workspaces: Workspaces) -> None:
        self._db = db
        self._events = events
        self._tokens = tokens
        self._workspaces = workspaces

    async def config(self, workspace_id: UUID) -> Config:
        """The free object; empty when nobody stored one."""
        async with self._db.connection() as connection:
            return Config(data=await configuration_store.read(connection, workspace_id))

    async def merge_config(self, caller: Principal, workspace_id: UUID, body: bytes) -> None:
        """Replace the top-level keys that the body names; a null is stored, not removed."""
        data = _parsed(body)
        async with self._db.transaction() as tx:
            size = await configuration_store.merge(tx, workspace_id, data)
            if size is None:
                raise WorkspaceNotFound
            if size > MAX_STORED_BYTES:
                raise StoredConfigTooLarge(max_bytes=MAX_STORED_BYTES)
            payload = {"keys": sorted(data)}
            await self._events.append(tx, Event.CONFIG_UPDATED, workspace_id, payload, actor=caller.label)

    async def set_abilities(
        self, caller: Principal, workspace_id: UUID, wish: AbilitiesInput
    ) -> AbilitiesUpdated:
        """Allow or forbid broadcasting and talking to the user."""
        given = {
            field: value
            for field in ("broadcast_enabled", "talk_to_user_enabled")
            if (value := getattr(wish, field)) is not UNSET
        }
        if not given:
            raise InvalidRequest
        async with self._db.transaction() as tx:
            now = await store.set_abilities(
                tx, workspace_id, given.get("broadcast_enabled"), given.get("talk_to_user_enabled")
            )
            if now is None:
                raise WorkspaceNotFound
            payload = {"changed": sorted(given), **given}
            await self._events.append(tx, Event.WORKSPACE_UPDATED, workspace_id, payload, actor=caller.label)
            await self._events.append(tx, "workspace.abilities", workspace_id, given, actor=caller.label)
        return AbilitiesUpdated(
            broadcast_enabled=now.broadcast_enabled, talk_to_user_enabled=now.talk_to_user_enabled
        )

    async def connection(self, workspace_id: UUID, *, platform_url: str) -> Connected:
        """How the external agent connects, without its token. Raises `NotExternal`."""
        async with self._db.connection() as connection:
            workspace = _external(await self._workspaces.get(connection, workspace_id))
        return Connected(connection=external.connection(workspace.id, workspace.name, platform_url))

    async def rotate(self, caller: Principal, workspace_id: UUID, *, platform_url: str) -> Connected:
        """Revoke every token of an external workspace and mint a new one, which is shown this once."""
        async with self._db.transaction() as tx:
            workspace = _external(await self._workspaces.get(tx, workspace_id))
            await self._tokens.revoke_all(tx, [workspace_id], actor=caller.label)
            minted = await self._tokens.mint(
                tx, workspace_id, kind="external", created_by=caller.label, name="connection"
            )
            await self._events.append(
                tx, Event.WORKSPACE_CREDENTIALS_ROTATED, workspace_id, {}, actor=caller.label
            )
        return Connected(
            connection=external.connection(workspace.id, workspace.name, platform_url, minted.auth_token)
        )


def _external(workspace: Workspace) -> Workspace:
    if workspace.runtime != runtimes.EXTERNAL:
        raise NotExternal(runtime=workspace.runtime)
    return workspace


def _parsed(body: bytes) -> dict[str, Any]:
    if len(body) > MAX_BODY_BYTES:
        raise ConfigTooLarge(max_bytes=MAX_BODY_BYTES)
    try:
        data = decode(body)
    except (SerializationException, UnicodeDecodeError) as problem:
        raise InvalidConfigJson from problem
    if not isinstance(data, dict):
        raise ConfigIsNoObject
    return data
