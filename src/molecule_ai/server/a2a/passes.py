"""What the platform shows an agent, so that the agent knows who calls."""

from __future__ import annotations

from uuid import UUID

from molecule_ai.kernel.db import Database
from molecule_ai.server.workspaces.inbound import InboundSecrets

_KEPT = 10_000


class Passes:
    """The bearer for each agent; kept, because a workspace has one for its whole life."""

    def __init__(self, db: Database, secrets: InboundSecrets) -> None:
        self._db = db
        self._secrets = secrets
        self._known: dict[UUID, str] = {}

    async def headers(self, workspace_id: UUID) -> dict[str, str]:
        """The header to send; none to an agent that has never registered and was not started by us."""
        secret = self._known.get(workspace_id)
        if secret is None:
            async with self._db.connection() as connection:
                secret = await self._secrets.find(connection, workspace_id)
            if secret is None:
                return {}
            if len(self._known) >= _KEPT:
                del self._known[next(iter(self._known))]
            self._known[workspace_id] = secret
        return {"Authorization": f"Bearer {secret}"}

    def forget(self, workspace_id: UUID) -> None:
        """Read the secret anew; the agent did not accept the one that we know."""
        self._known.pop(workspace_id, None)
