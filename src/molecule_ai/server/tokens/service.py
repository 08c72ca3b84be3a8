"""Minting, listing and revoking bearers. Only digests are stored; every act leaves an audit event."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Literal
from uuid import UUID

from molecule_ai.kernel.clock import Ids
from molecule_ai.kernel.crypto import PREFIX_CHARS, mint_token, sha256
from molecule_ai.kernel.db import Connection, Database
from molecule_ai.server.auth.errors import WorkspaceNotFound
from molecule_ai.server.auth.principal import Principal, Role
from molecule_ai.server.events.service import Events

from . import store
from .errors import (
    InvalidBinding,
    InvalidExpiry,
    MintLimited,
    NameTooLong,
    TokenNotFound,
    TooManyTokens,
    UnknownRole,
    UnknownScope,
)
from .schemas import (
    COPY_IT,
    SAVE_IT,
    Minted,
    OrgKeyCreate,
    OrgKeyMinted,
    OrgKeys,
    Scope,
    TokenCreate,
    TokenMinted,
    WorkspaceTokens,
)
from .store import NewToken

Kind = Literal["agent", "user", "external"]
MAX_LIVE = 50
MAX_MINTS_PER_HOUR = 10
_MAX_NAME = 100
_MAX_DAYS = 3650
_MAX_BOUND = 100
_DEFAULT_PAGE = 50
_MAX_PAGE = 200


class Tokens:
    """The bearers of workspaces and of the organization."""

    def __init__(self, db: Database, events: Events, ids: Ids) -> None:
        self._db = db
        self._events = events
        self._ids = ids

    async def mint(
        self,
        tx: Connection,
        workspace_id: UUID,
        *,
        kind: Kind,
        created_by: str,
        name: str | None = None,
        scopes: list[str] | None = None,
    ) -> Minted:
        """Issue a token. Raises `WorkspaceNotFound`, also for a removed one, and `TooManyTokens`.

        The cap does not hold for agents: a workspace whose users minted fifty must still start.
        """
        plaintext, new = self._new(kind, created_by, name, scopes)
        if not await store.insert(tx, workspace_id, new, cap=None if kind == "agent" else MAX_LIVE):
            if await store.workspace_lives(tx, workspace_id):
                raise TooManyTokens
            raise WorkspaceNotFound
        facts = {"token_id": new.id, "prefix": new.prefix, "kind": kind}
        await self._events.append(tx, "token.mint", workspace_id, facts, actor=created_by)
        return Minted(new.id, new.prefix, plaintext)

    async def rotate_agent(self, tx: Connection, workspace_id: UUID, *, created_by: str = "system") -> Minted:
        """Issue the agent's next token; the last one works until this one is used, at most ten minutes."""
        await store.retire_agent(tx, workspace_id)
        return await self.mint(tx, workspace_id, kind="agent", created_by=created_by)

    async def revoke_all(
        self, tx: Connection, workspace_ids: Sequence[UUID], *, actor: str = "system"
    ) -> int:
        """Revoke every token of these workspaces; returns how many there were."""
        counts = Counter(await store.revoke_all(tx, workspace_ids))
        for workspace_id, count in counts.items():
            await self._events.append(tx, "token.revoke", workspace_id, {"count": count}, actor=actor)
        return counts.total()

    async def page(self, workspace_id: UUID, limit: str | None, offset: str | None) -> WorkspaceTokens:
        """Live tokens, newest first. Bounds that make no sense become the defaults (contract 01 §10)."""
        async with self._db.connection() as connection:
            tokens = await store.list_live(
                connection,
                workspace_id,
                _bounded(limit, _DEFAULT_PAGE, lowest=1, highest=_MAX_PAGE),
                _bounded(offset, 0, lowest=0, highest=2**31),
            )
            total = await store.count_live(connection, workspace_id)
        return WorkspaceTokens(tokens, len(tokens), total)

    async def create(self, caller: Principal, workspace_id: UUID, wish: TokenCreate | None) -> TokenMinted:
        """Mint a token at somebody's request."""
        wish = wish or TokenCreate()
        _check_name(wish.name)
        if any(scope not in frozenset(Scope) for scope in wish.scopes or ()):
            raise UnknownScope
        async with self._db.transaction() as tx:
            minted = await self.mint(
                tx,
                workspace_id,
                kind="user",
                created_by=caller.label,
                name=wish.name or None,
                scopes=wish.scopes,
            )
        return TokenMinted(minted.auth_token, workspace_id, SAVE_IT, minted.id, minted.prefix)

    async def revoke(self, caller: Principal, workspace_id: UUID, token_id: UUID) -> None:
        """Kill one token; its next request fails. Raises `TokenNotFound`."""
        async with self._db.transaction() as tx:
            prefix = await store.revoke(tx, token_id, workspace_id)
            if prefix is None:
                raise TokenNotFound
            facts = {"token_id": token_id, "prefix": prefix}
            await self._events.append(tx, "token.revoke", workspace_id, facts, actor=caller.label)

    async def dead(self, token_ids: Collection[UUID]) -> set[UUID]:
        """Which of these no longer prove anything: revoked, run out, or of a removed workspace."""
        async with self._db.connection() as connection:
            return await store.dead(connection, list(token_ids))

    async def org_keys(self) -> OrgKeys:
        async with self._db.connection() as connection:
            keys = await store.list_keys(connection)
        return OrgKeys(keys, len(keys))

    async def create_org_key(
        self, caller: Principal, address: str, wish: OrgKeyCreate | None
    ) -> tuple[OrgKeyMinted, dict[str, str]]:
        """Mint a key of the organization; also the limiter's headers. Raises `MintLimited`.

        The limit is counted in the table, so it holds across replicas and restarts
        (contract 01 §16.2).
        """
        wish = wish or OrgKeyCreate()
        name = wish.name or ""
        _check_name(name)
        limits = _key_limits(wish)
        plaintext, new = self._new("user", caller.label, name or None, None)
        async with self._db.transaction() as tx:
            mints = await store.mints_within_the_hour(tx, caller.label, address)
            left = MAX_MINTS_PER_HOUR - mints.used
            reset = max(1, math.ceil(mints.resets_in))
            headers = _limit_headers(max(0, left - 1), reset)
            if left <= 0:
                raise MintLimited(headers=headers, retry_after=reset)
            if limits.workspace_ids and await store.absent_workspaces(tx, limits.workspace_ids):
                raise InvalidBinding
            times = await store.insert_key(tx, new, address, caller.org_anchor, caller.token_id, limits)
            facts = {"token_id": new.id, "prefix": new.prefix, "name": name, "role": limits.role}
            await self._events.append(tx, "org_token.mint", None, facts, actor=caller.label)
        return OrgKeyMinted(
            id=new.id,
            prefix=new.prefix,
            name=name,
            auth_token=plaintext,
            warning=COPY_IT,
            created_by=caller.label,
            created_at=times.created_at,
            expires_at=times.expires_at,
            role=None if limits.role == Role.ADMIN else limits.role,
            workspace_ids=limits.workspace_ids,
        ), headers

    async def revoke_org_key(self, caller: Principal, key_id: UUID) -> None:
        """Kill one key; its next request fails. Raises `TokenNotFound`."""
        async with self._db.transaction() as tx:
            prefix = await store.revoke_key(tx, key_id, caller.label)
            if prefix is None:
                raise TokenNotFound
            facts = {"token_id": key_id, "prefix": prefix}
            await self._events.append(tx, "org_token.revoke", None, facts, actor=caller.label)

    def _new(
        self, kind: str, created_by: str, name: str | None, scopes: list[str] | None
    ) -> tuple[str, NewToken]:
        plaintext = mint_token()
        prefix = plaintext[:PREFIX_CHARS]
        return plaintext, NewToken(self._ids.new(), sha256(plaintext), prefix, kind, created_by, name, scopes)


def _check_name(name: str | None) -> None:
    if len(name or "") > _MAX_NAME:
        raise NameTooLong


def _key_limits(wish: OrgKeyCreate) -> store.KeyLimits:
    """What the wish asks for. Raises `InvalidExpiry`, `UnknownRole`, `InvalidBinding`."""
    days, named = wish.expires_in_days, wish.workspace_ids
    if days is not None and not 1 <= days <= _MAX_DAYS:
        raise InvalidExpiry
    role = wish.role or Role.ADMIN
    if role not in frozenset(Role):
        raise UnknownRole
    if named is not None and not 1 <= len(named) <= _MAX_BOUND:
        raise InvalidBinding
    return store.KeyLimits(days, role, named)


def _bounded(text: str | None, default: int, *, lowest: int, highest: int) -> int:
    try:
        number = int(text or "")
    except ValueError:
        return default
    return number if lowest <= number <= highest else default


def _limit_headers(remaining: int, reset: int) -> dict[str, str]:
    return {
        "X-RateLimit-Limit": str(MAX_MINTS_PER_HOUR),
        "X-RateLimit-Remaining": str(remaining),
        "X-RateLimit-Reset": str(reset),
    }
