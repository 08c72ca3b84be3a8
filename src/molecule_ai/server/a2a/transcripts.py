"""What an agent says it has been doing (contract 05 §15). Nothing of the caller's reaches the agent."""

from __future__ import annotations

from uuid import UUID

import msgspec

from molecule_ai.server.traffic.service import Traffic

from . import errors
from .agents import Agents, Outcome
from .schemas import Transcript

_SECONDS = 10.0
_MAX_BYTES = 1024 * 1024
MAX_LINES = 1000


class Transcripts:
    """Asks an agent for its transcript, with the platform's own bearer."""

    def __init__(self, traffic: Traffic, agents: Agents) -> None:
        self._traffic = traffic
        self._agents = agents

    async def page(self, workspace_id: UUID, since: int, limit: int) -> Transcript:
        """Lines from number `since` on. Raises what the route declares."""
        target = (await self._traffic.look(None, workspace_id)).target
        if target is None:
            raise errors.TargetNotFound
        if target.is_polling:
            return Transcript(supported=False, reason="poll")
        if not target.url:
            raise errors.NotRegistered
        path = f"/transcript?since={since}&limit={limit}"
        found = await self._agents.look(target, path, seconds=_SECONDS, max_bytes=_MAX_BYTES)
        if found.outcome is Outcome.NOT_ROUTABLE:
            raise errors.UrlNotAllowed
        if found.status in (404, 405, 501):
            return Transcript(supported=False, runtime=target.runtime, reason="runtime")
        if found.outcome is not Outcome.ANSWERED:
            raise errors.NoTranscript
        try:
            return msgspec.json.decode(found.body, type=Transcript)
        except msgspec.DecodeError as unreadable:
            raise errors.NoTranscript from unreadable
