"""Who is connected to this process, and which of them gets an event (contract 03 §8.3)."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from typing import Protocol
from uuid import UUID

from molecule_ai.server.auth.principal import Principal
from molecule_ai.server.workspaces.tree import Chart, Tree

from .catalogue import AGENTS_ONLY, MOVES_TREE, PEER_VISIBLE, REVOCATIONS, Event, is_audit
from .delivery import Bundle, Delivery

GOING_AWAY = 1001
TOO_LARGE = 1009
TOO_SLOW = 1013
REVOKED = 4401
REMOVED = 4404
_WATCH_SECONDS = 1.0
_RECHECK_ROUNDS = 30  # watches between two looks at the credentials of all clients

DeadTokens = Callable[[Collection[UUID]], Awaitable[set[UUID]]]


class Subscriber(Protocol):
    """A connection that receives events."""

    principal: Principal

    def offer(self, bundle: Bundle) -> None:
        """Take events, or close the connection when it cannot."""

    def close(self, code: int) -> None:
        """End the connection for this reason."""

    def watch(self) -> None:
        """Called every second: give up on a peer that does not take what it is sent."""


class Hub:
    """The clients of this process: canvases see all, agents their own and their peers' structure."""

    def __init__(self, tree: Tree, dead_tokens: DeadTokens) -> None:
        self._tree = tree
        self._dead_tokens = dead_tokens
        self._canvases: set[Subscriber] = set()
        self._agents: dict[UUID, set[Subscriber]] = defaultdict(set)
        self._streams: dict[UUID, set[Subscriber]] = defaultdict(set)
        self._is_going_away = False

    @property
    def sockets(self) -> int:
        """Open WebSocket connections."""
        return len(self._canvases) + sum(map(len, self._agents.values()))

    @property
    def streams(self) -> int:
        """Open event streams."""
        return sum(map(len, self._streams.values()))

    def is_empty(self) -> bool:
        """Whether nobody is connected."""
        return not (self.sockets or self.streams)

    def sockets_of(self, workspace_id: UUID) -> int:
        """Open WebSocket connections of one workspace's agent."""
        return len(self._agents.get(workspace_id, ()))

    def join(self, client: Subscriber, agent_of: UUID | None) -> None:
        """Add a socket, of an agent or of a canvas."""
        (self._canvases if agent_of is None else self._agents[agent_of]).add(client)
        self._turn_away(client)

    def leave(self, client: Subscriber, agent_of: UUID | None) -> None:
        if agent_of is None:
            self._canvases.discard(client)
        else:
            _remove(self._agents, agent_of, client)

    def join_stream(self, client: Subscriber, workspace_id: UUID) -> None:
        """Add whoever follows the events of one workspace."""
        self._streams[workspace_id].add(client)
        self._turn_away(client)

    def leave_stream(self, client: Subscriber, workspace_id: UUID) -> None:
        _remove(self._streams, workspace_id, client)

    async def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """Hand events to everybody who may see them. Raises nothing once it has begun to deliver."""
        before = self._tree.known
        if any(delivery.event in MOVES_TREE or delivery.event == Event.RESYNC for delivery in deliveries):
            self._tree.drop()
        chart = await self._tree.load() if self._agents else before
        told = []
        for delivery in deliveries:
            if is_audit(delivery.event):
                self._revoke(delivery)
            else:
                told.append(delivery)
        self._to_canvases([delivery for delivery in told if delivery.event not in AGENTS_ONLY])
        for client, parcel in self._parcels(told, chart, before).items():
            client.offer(Bundle(parcel))
        for delivery in told:
            if delivery.event == Event.WORKSPACE_REMOVED and delivery.workspace_id is not None:
                self._close(self._agents.get(delivery.workspace_id, ()), REMOVED)

    def visible(self, delivery: Delivery, agent_of: UUID | None) -> bool:
        """Whether a socket may see this event: the same rule for one client, for what it missed."""
        if is_audit(delivery.event):
            return False
        if agent_of is None:
            return delivery.event not in AGENTS_ONLY
        if delivery.workspace_id is None:
            return False
        if delivery.workspace_id == agent_of:
            return True
        return delivery.event in PEER_VISIBLE and self._tree.known.can_communicate(
            agent_of, delivery.workspace_id
        )

    def close_all(self) -> None:
        """The process is going away: whoever is here is told, and so is whoever still comes in."""
        self._is_going_away = True
        self._close(self._everybody(), GOING_AWAY)

    def _turn_away(self, client: Subscriber) -> None:
        if self._is_going_away:
            client.close(GOING_AWAY)

    async def run(self) -> None:
        """Watch over slow peers and revoked credentials until cancelled."""
        rounds = 0
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            rounds += 1
            for client in self._everybody():
                client.watch()
            if rounds % _RECHECK_ROUNDS == 0:
                await self.recheck()

    async def recheck(self) -> None:
        """Close whoever's token no longer works; catches what no event announced."""
        by_token: dict[UUID, list[Subscriber]] = defaultdict(list)
        for client in self._everybody():
            if client.principal.token_id is not None:
                by_token[client.principal.token_id].append(client)
        for token_id in await self._dead_tokens(by_token.keys()) if by_token else ():
            self._close(by_token[token_id], REVOKED)

    def _to_canvases(self, deliveries: Sequence[Delivery]) -> None:
        if deliveries:
            bundle = Bundle(deliveries)
            for client in self._canvases:
                client.offer(bundle)

    def _parcels(
        self, deliveries: Sequence[Delivery], chart: Chart, before: Chart
    ) -> dict[Subscriber, list[Delivery]]:
        """What each agent and each follower of a workspace gets."""
        parcels: dict[Subscriber, list[Delivery]] = defaultdict(list)
        for delivery in deliveries:
            for client in self._audience(delivery, chart, before):
                parcels[client].append(delivery)
        return parcels

    def _audience(self, delivery: Delivery, chart: Chart, before: Chart) -> Iterator[Subscriber]:
        about = delivery.workspace_id
        if delivery.event == Event.RESYNC:
            for clients in self._agents.values():
                yield from clients
        if about is None:
            return
        yield from self._agents.get(about, ())
        yield from self._streams.get(about, ())
        if delivery.event not in PEER_VISIBLE:
            return
        # A removed or moved workspace has its peers in the chart of a moment ago.
        charts = (chart, before) if delivery.event in MOVES_TREE else (chart,)
        for agent, clients in self._agents.items():
            if agent != about and any(seen.can_communicate(agent, about) for seen in charts):
                yield from clients

    def _revoke(self, delivery: Delivery) -> None:
        if delivery.event not in REVOCATIONS:
            return
        token_id = str(delivery.payload.get("token_id", ""))
        for client in self._everybody():
            principal = client.principal
            if principal.token_id is None:
                continue
            is_named = str(principal.token_id) == token_id
            is_all = not token_id and principal.workspace_id == delivery.workspace_id
            if is_named or is_all:
                client.close(REVOKED)

    def _everybody(self) -> list[Subscriber]:
        groups = (self._canvases, *self._agents.values(), *self._streams.values())
        return [client for group in groups for client in group]

    @staticmethod
    def _close(clients: Iterable[Subscriber], code: int) -> None:
        for client in tuple(clients):
            client.close(code)


def _remove(groups: dict[UUID, set[Subscriber]], key: UUID, client: Subscriber) -> None:
    groups[key].discard(client)
    if not groups[key]:
        del groups[key]
