"""Registration, cards, and who finds whom (contract 02 §11)."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from msgspec import UNSET

from molecule_ai.kernel import ssrf
from molecule_ai.kernel.db import Connection, Database
from molecule_ai.server.auth.errors import WorkspaceNotFound
from molecule_ai.server.auth.identities import Identities
from molecule_ai.server.auth.presented import parse_uuid
from molecule_ai.server.auth.principal import Principal
from molecule_ai.server.events.catalogue import Event
from molecule_ai.server.events.service import Cleaner, Events
from molecule_ai.server.tokens.service import Tokens
from molecule_ai.server.workspaces import transitions
from molecule_ai.server.workspaces.arrivals import Arrivals
from molecule_ai.server.workspaces.errors import WorkspaceRemoved
from molecule_ai.server.workspaces.inbound import InboundSecrets
from molecule_ai.server.workspaces.status import Desired, Status
from molecule_ai.server.workspaces.transitions import LIVE, STOPPED
from molecule_ai.server.workspaces.tree import can_communicate

from . import store
from .errors import (
    CardTooLarge,
    NotAuthorizedToDiscover,
    PlatformExists,
    UnsafeUrl,
    UrlRejected,
    WorkspaceNotAvailable,
)
from .schemas import AccessQuestion, CardUpdate, Discovered, Peer, Registered, Registration
from .store import Address, Known

MAX_CARD_BYTES = 256 * 1024
NO_INBOUND = "remote://no-inbound"  # what the Python SDK sends instead of a URL
_LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost"})
_HOST_OF_CONTAINERS = "host.docker.internal"


class Registry:
    """What an agent needs to be known and to know others."""

    def __init__(
        self,
        db: Database,
        events: Events,
        tokens: Tokens,
        arrivals: Arrivals,
        inbound: InboundSecrets,
        identities: Identities,
        *,
        policy: ssrf.UrlPolicy,
        platform_url: str,
        heartbeat_interval_seconds: int,
        starts_agents: bool,
        prefers_proxy: bool,
    ) -> None:
        self._db = db
        self._events = events
        self._tokens = tokens
        self._arrivals = arrivals
        self._inbound = inbound
        self._identities = identities
        self._policy = policy
        self._platform_url = platform_url
        self._interval = heartbeat_interval_seconds
        self._starts_agents = starts_agents
        self._prefers_proxy = prefers_proxy
        self.cleaner: Cleaner | None = None

    async def register(self, caller: Principal, data: Registration) -> Registered:
        """Store what an agent says of itself and bring its workspace online.

        A stopped workspace stays stopped and tells the agent so; the first one to register a workspace
        without a live token gets its token.
        """
        _check_card(data.agent_card)
        data = msgspec.structs.replace(data, agent_card=await self._cleaned(data.id, data.agent_card))
        async with self._db.connection() as connection:
            known = await store.find(connection, data.id)
        is_new = known is None and (caller.is_admin or await self._identities.is_open())
        if known is None and not is_new:
            raise WorkspaceNotFound
        url = await self._url(data, known)
        async with self._db.transaction() as tx:
            if is_new:
                await store.insert_unknown(tx, data.id, data.kind or "workspace")
            known = await store.lock(tx, data.id)
            if known is None:
                raise WorkspaceNotFound
            if known.status is Status.REMOVED:
                raise WorkspaceRemoved
            return await self._register(tx, caller, data, known, url)

    async def _cleaned(self, workspace_id: UUID, card: dict[str, Any]) -> dict[str, Any]:
        if self.cleaner is None:
            return card
        cleaned: dict[str, Any] = await self.cleaner.clean([workspace_id], card)
        return cleaned

    async def _url(self, data: Registration, known: Known | None) -> str | None:
        """The URL to store, checked; None when what the agent says about itself does not count."""
        if _delivery_mode(data, known) == "poll" or (known is not None and known.has_provisioner_url):
            return None
        try:
            await ssrf.check_url(data.url, self._policy)
        except ssrf.UrlRefused as refused:
            raise UrlRejected(detail=str(refused)) from refused
        return data.url

    async def _register(
        self, tx: Connection, caller: Principal, data: Registration, known: Known, url: str | None
    ) -> Registered:
        mode = _delivery_mode(data, known)
        kind = data.kind or known.kind
        if known.status in STOPPED:
            at = await tx.fetchval("SELECT now()")
            return self._answer(data.id, known.status, known.status, at)
        if kind == "platform" and known.kind != kind and await store.cannot_be_platform(tx, data.id):
            raise PlatformExists
        stored = None if known.has_provisioner_url else url
        at = await store.register(tx, data.id, stored, data.agent_card, mode, kind)
        status = await self._arrive(tx, data, known, stored or known.url)
        answer = msgspec.structs.replace(
            self._answer(data.id, "registered", status, at),
            platform_inbound_secret=await self._inbound.ensure(tx, data.id),
        )
        if not known.has_live_token:
            minted = await self._tokens.mint(
                tx,
                data.id,
                kind="external" if known.desired is Desired.NONE else "agent",
                created_by=caller.label,
            )
            answer = msgspec.structs.replace(answer, auth_token=minted.auth_token)
        return answer

    async def _arrive(self, tx: Connection, data: Registration, known: Known, url: str) -> Status:
        """Online, unless this is the agent that is about to be replaced; return the status now."""
        payload = {"url": url, "agent_card": data.agent_card}
        if known.status is Status.PROVISIONING and self._awaits_start(known):
            return known.status
        if known.status in LIVE:
            is_repeated = (
                known.registered_just_now and known.agent_card == data.agent_card and url == known.url
            )
            if not is_repeated:
                await self._events.append(tx, Event.WORKSPACE_ONLINE, data.id, payload)
            return known.status
        moved = await transitions.move(
            tx, self._events, data.id, Status.ONLINE, only_from={known.status}, payload=payload
        )
        if moved is not None:
            await self._arrivals.announce(tx, moved)
        return Status.ONLINE

    def _awaits_start(self, known: Known) -> bool:
        return self._starts_agents and known.desired is not Desired.NONE and not known.is_launched

    def _answer(self, workspace_id: UUID, status: str, now: Status, at: Any) -> Registered:
        return Registered(
            status=str(status),
            workspace_id=workspace_id,
            workspace_status=now,
            heartbeat_interval_seconds=self._interval,
            server_time=at,
        )

    async def update_card(self, caller: Principal, data: CardUpdate) -> None:
        """Replace the card of an agent that runs."""
        _check_card(data.agent_card)
        card = await self._cleaned(data.workspace_id, data.agent_card)
        async with self._db.transaction() as tx:
            if not await store.update_card(tx, data.workspace_id, card):
                removed = await store.statuses(tx, [data.workspace_id])
                raise WorkspaceRemoved if removed else WorkspaceNotFound
            await self._events.append(
                tx,
                Event.AGENT_CARD_UPDATED,
                data.workspace_id,
                {"agent_card": card},
                actor=caller.label,
            )

    async def discover(self, caller: Principal, target_id: UUID) -> Discovered:
        """Tell where a workspace answers to one that may talk to it."""
        async with self._db.connection() as connection:
            if caller.acting_for is not None and not await can_communicate(
                connection, caller.acting_for, target_id
            ):
                if not await store.exists(connection, target_id):
                    raise WorkspaceNotFound
                raise NotAuthorizedToDiscover
            target = await store.find_address(connection, target_id)
            asker = await store.find(connection, caller.acting_for) if caller.acting_for else None
        if target is None:
            raise WorkspaceNotFound
        if target.delivery_mode == "poll" or self._prefers_proxy:
            mode = "poll" if target.delivery_mode == "poll" else UNSET
            return Discovered(id=target.id, url=self._proxy(target.id), name=target.name, delivery_mode=mode)
        if target.status not in LIVE or not target.url:
            raise WorkspaceNotAvailable(status=target.status)
        await self._require_safe(target)
        return Discovered(id=target.id, url=_reachable_url(target, asker), name=target.name)

    def _proxy(self, workspace_id: UUID) -> str:
        return f"{self._platform_url}/workspaces/{workspace_id}/a2a"

    async def _require_safe(self, target: Address) -> None:
        if target.has_provisioner_url:
            return
        try:
            await ssrf.check_url(target.url, self._policy)
        except ssrf.UrlRefused as refused:
            raise UnsafeUrl from refused

    async def peers(self, caller: Principal, workspace_id: UUID, q: str, *, reachable: bool) -> list[Peer]:
        """List siblings, children and parent; with `reachable` everybody this workspace may talk to."""
        async with self._db.connection() as connection:
            if not await store.exists(connection, workspace_id):
                raise WorkspaceNotFound
            return await store.peers(
                connection,
                workspace_id,
                q.strip(),
                shows_external_urls=caller.is_admin,
                reachable=reachable,
            )

    async def may_communicate(self, question: AccessQuestion) -> bool:
        """Apply the rule of contract 02 §12; unknown ids may not."""
        caller, target = parse_uuid(question.caller_id), parse_uuid(question.target_id)
        if caller is None or target is None:
            return False
        async with self._db.connection() as connection:
            return await can_communicate(connection, caller, target)


def _check_card(card: dict[str, Any]) -> None:
    if len(msgspec.json.encode(card)) > MAX_CARD_BYTES:
        raise CardTooLarge


def _delivery_mode(data: Registration, known: Known | None) -> str:
    if data.delivery_mode is not None:
        return data.delivery_mode
    if data.url == NO_INBOUND:
        return "poll"
    if known is None:
        return "push"
    if known.delivery_mode == "poll" or (known.runtime == "external" and not data.url):
        return "poll"
    return known.delivery_mode


def _reachable_url(target: Address, asker: Known | None) -> str:
    """Contract 02 §11.4: inside a container, the host's loopback has another name."""
    if target.runtime != "external" or asker is None or asker.runtime == "external":
        return target.url
    scheme, _, rest = target.url.partition("://")
    host, slash, path = rest.partition("/")
    name, colon, port = host.partition(":")
    return f"{scheme}://{_HOST_OF_CONTAINERS if name in _LOCAL_HOSTS else name}{colon}{port}{slash}{path}"
