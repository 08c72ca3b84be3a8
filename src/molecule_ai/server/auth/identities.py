"""Who holds a token. No answer is kept longer than the statement that gave it."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from uuid import UUID

from molecule_ai.kernel.batch import Coalescer
from molecule_ai.kernel.db import Connection, Database
from molecule_ai.kernel.errors import DatastoreUnavailable
from molecule_ai.server.settings import Settings

from . import store
from .principal import Kind, Principal
from .store import Binding, Credential

_TOUCH_SECONDS = 1.0


def digest(token: str) -> bytes:
    """What is stored of a token."""
    return hashlib.sha256(token.encode()).digest()


class Identities:
    """Turns tokens into principals, and knows which openings of contract 01 §5 hold."""

    def __init__(self, db: Database, settings: Settings) -> None:
        self._db = db
        self._settings = settings
        self._admin_tokens = [
            t.strip().encode() for t in (settings.admin_token, settings.admin_token_previous) if t.strip()
        ]
        self._bootstrap_token = b""
        self._credentials: Coalescer[bytes, Credential] = Coalescer(self._load_credentials)
        self._bindings: Coalescer[UUID, Binding] = Coalescer(self._load_bindings)
        self._used: set[UUID] = set()

    def accept_bootstrap(self, token: str) -> None:
        """Take this token like the admin token; it does not count as a configured one."""
        self._bootstrap_token = token.encode()

    @property
    def admin_token_set(self) -> bool:
        return bool(self._admin_tokens)

    async def identify(self, token: str) -> Principal | None:
        """Whoever holds `token`, or None. One statement for all lookups that arrive together."""
        if not token:
            return None
        given = token.encode()
        if any(hmac.compare_digest(given, known) for known in self._admin_tokens):
            return Principal(kind=Kind.ADMIN)
        if self._bootstrap_token and hmac.compare_digest(given, self._bootstrap_token):
            return Principal(kind=Kind.ADMIN)
        found = await self._credentials.get(digest(token))
        if found is None or found.scopes is not None:
            return None  # a token with scopes opens the routes of those scopes alone (contract 01 §11)
        await self.note_use(found.id, rotates=found.rotates)
        kind = Kind.ORG_KEY if found.workspace_id is None else Kind.WORKSPACE
        return Principal(
            kind=kind,
            workspace_id=found.workspace_id,
            token_id=found.id,
            prefix=found.prefix,
            org_anchor=found.org_id,
            role=found.role,
            workspace_ids=found.workspace_ids,
        )

    async def is_credential(self, token: str) -> bool:
        """Whether this is a live bearer of any kind, also one that opens next to nothing."""
        return await self.identify(token) is not None or (
            bool(token) and await self._credentials.get(digest(token)) is not None
        )

    async def note_use(self, token_id: UUID, *, rotates: bool) -> None:
        """Have `last_used_at` of a token written soon; at once when its first use ends another token."""
        self._used.add(token_id)
        if rotates:
            await self.flush()

    async def is_open(self) -> bool:
        """The lazy open state of contract 01 §4.2: nothing is configured and nothing was handed out."""
        settings = self._settings
        if self._admin_tokens or settings.strict or settings.molecule_org_id:
            return False
        async with self._db.connection() as connection:
            return not await store.any_credential(connection)

    async def has_operator(self, db: Connection) -> bool:
        """Whether an operator has set up a credential: then no agent answers its own questions."""
        settings = self._settings
        if self._admin_tokens or settings.strict or settings.molecule_org_id or settings.cp_upstream_url:
            return True
        return await store.any_org_key(db)

    async def run(self) -> None:
        """Write `last_used_at` of the tokens used, once a second at most."""
        while True:
            await asyncio.sleep(_TOUCH_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        if not self._used:
            return
        used, self._used = self._used, set()
        try:
            async with self._db.transaction() as tx:
                await store.touch(tx, list(used))
        except DatastoreUnavailable:
            self._used |= used

    async def binding(self, workspace_id: UUID) -> Binding | None:
        """What lazily bound routes ask of a workspace; None when there is no such workspace."""
        return await self._bindings.get(workspace_id)

    async def was_removed_with(self, workspace_id: UUID, token: str) -> bool:
        """Whether `token` was this workspace's until the workspace was removed."""
        token_hash = digest(token)
        async with self._db.connection() as connection:
            return await store.was_removed_with(connection, workspace_id, token_hash)

    async def _load_credentials(self, hashes: Sequence[bytes]) -> Mapping[bytes, Credential]:
        async with self._db.connection() as connection:
            found = await store.find_credentials(connection, hashes)
        return {credential.token_hash: credential for credential in found}

    async def _load_bindings(self, ids: Sequence[UUID]) -> Mapping[UUID, Binding]:
        async with self._db.connection() as connection:
            return {binding.id: binding for binding in await store.find_bindings(connection, ids)}
