"""Who else is in the organization, as seen from this workspace."""

import logging
import time
from typing import Any

from msgspec import Struct

from molecule_ai.runtime.platform import Platform, PlatformRefused, PlatformUnreachable

log = logging.getLogger(__name__)

FRESH_SECONDS = 5.0  # one task asks several times within a moment


class Peer(Struct, frozen=True):
    """A workspace that this agent may talk to."""

    id: str
    name: str
    role: str
    status: str
    relation: str
    has_card: bool = False
    skills: tuple[str, ...] = ()


class Peers:
    """The peers, read again when the last answer is a few seconds old."""

    def __init__(self, platform: Platform, parent_id: str) -> None:
        self._platform = platform
        self._parent_id = parent_id
        self._known: list[Peer] = []
        self._read_at = float("-inf")

    async def current(self) -> list[Peer]:
        """Return the peers; raises what the platform client raises."""
        if time.monotonic() - self._read_at > FRESH_SECONDS:
            rows = await self._platform.peers()
            self._known = [_peer(row, self._platform.workspace_id, self._parent_id) for row in rows]
            self._read_at = time.monotonic()
        return self._known

    async def last_known(self) -> list[Peer]:
        """Return the peers, or those of the last good answer while the platform is away."""
        try:
            return await self.current()
        except (PlatformRefused, PlatformUnreachable) as error:
            log.warning("peers_failed error=%s", error)
            return self._known


def _peer(row: dict[str, Any], own_id: str, parent_id: str) -> Peer:
    peer_id = str(row.get("id", ""))
    if row.get("parent_id") == own_id:
        relation = "child"
    elif parent_id and peer_id == parent_id:
        relation = "parent"
    else:
        relation = "sibling"
    card = row.get("agent_card")
    listed = card.get("skills") if isinstance(card, dict) else None
    skills = tuple(str(skill.get("name", "")) for skill in listed or () if isinstance(skill, dict))
    return Peer(
        id=peer_id,
        name=str(row.get("name") or peer_id),
        role=str(row.get("role") or ""),
        status=str(row.get("status") or ""),
        relation=relation,
        has_card=isinstance(card, dict),
        skills=skills,
    )
