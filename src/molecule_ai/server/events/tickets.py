"""One-time passes for clients that cannot send headers, such as an EventSource (contract 03 §8.1)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Any
from uuid import UUID

import msgspec

from molecule_ai.kernel.crypto import mint_token, sha256
from molecule_ai.kernel.db import Database
from molecule_ai.server.auth.principal import Principal

from . import store
from .schemas import Ticket
from .service import Events

_LIFE_SECONDS = 60


class Tickets:
    """Issues and takes tickets. A ticket stands for the caller that asked for it."""

    def __init__(
        self,
        db: Database,
        events: Events,
        dead_tokens: Callable[[Collection[UUID]], Awaitable[set[UUID]]],
    ) -> None:
        self._db = db
        self._events = events
        self._dead_tokens = dead_tokens

    async def issue(self, caller: Principal) -> Ticket:
        """Make a ticket that works once, within a minute."""
        text = mint_token()
        principal: dict[str, Any] = msgspec.to_builtins(caller)
        async with self._db.transaction() as tx:
            expires_at = await store.insert_ticket(tx, sha256(text), principal, _LIFE_SECONDS)
            await self._events.append(tx, "ticket.issue", None, {}, actor=caller.label)
        return Ticket(text, expires_at)

    async def redeem(self, text: str) -> Principal | None:
        """Whom the ticket stands for, if it still works; it never does again.

        A ticket dies with the credential that it was issued for.
        """
        async with self._db.transaction() as tx:
            found = await store.take_ticket(tx, sha256(text))
        if found is None:
            return None
        principal = msgspec.convert(found, Principal)
        if principal.token_id is not None and await self._dead_tokens([principal.token_id]):
            return None
        return principal
