"""The viewport that a canvas opens with. The last one to save it wins."""

from __future__ import annotations

import math

from molecule_ai.kernel import log
from molecule_ai.kernel.db import Database
from molecule_ai.kernel.errors import DatastoreUnavailable
from molecule_ai.kernel.http import number
from molecule_ai.server.auth.principal import Principal

from . import store
from .errors import InvalidViewport
from .schemas import Viewport, ViewportUpdate

_DEFAULT = Viewport(0, 0, 1)


class Canvas:
    """One shared viewport, and one of each person who is known by a session."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def viewport(self, caller: Principal) -> Viewport:
        """The caller's own, else the shared one, else the default: also while the database is away."""
        try:
            async with self._db.connection() as connection:
                found = await store.find(connection, caller.user_id or None)
        except DatastoreUnavailable as away:
            log.get().warning("viewport_unavailable", error=str(away))
            return _DEFAULT
        return _DEFAULT if found is None else Viewport(number(found.x), number(found.y), number(found.zoom))

    async def save(self, caller: Principal, seen: ViewportUpdate) -> None:
        """Keep it. Raises `InvalidViewport`."""
        if not all(map(math.isfinite, (seen.x, seen.y, seen.zoom))) or seen.zoom <= 0:
            raise InvalidViewport
        async with self._db.transaction() as tx:
            await store.save(tx, caller.user_id or None, store.Row(seen.x, seen.y, seen.zoom))
