"""The bearer that the platform presents to an agent (contract 02 §2.1 and §21, row 53)."""

from __future__ import annotations

from uuid import UUID

from molecule_ai.kernel.crypto import BOUND, Keyring, SealBroken, Sealed, mint_token, row_of
from molecule_ai.kernel.db import Connection

from . import lifecycle_store as store

_COLUMN = "platform_inbound_secret"


class InboundSecrets:
    """One secret for each workspace, sealed to its row; made when it is first needed."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    async def ensure(self, tx: Connection, workspace_id: UUID) -> str:
        """The secret of a workspace; a new one where there is none that opens."""
        known = self._opened(workspace_id, await store.inbound_secret(tx, workspace_id))
        if known is not None:
            return known
        secret = mint_token()
        sealed = self._keyring.seal(secret.encode(), _row(workspace_id))
        await store.keep_inbound_secret(tx, workspace_id, sealed.blob)
        return secret

    async def find(self, connection: Connection, workspace_id: UUID) -> str | None:
        """The secret of a workspace, if it has one."""
        return self._opened(workspace_id, await store.read_inbound_secret(connection, workspace_id))

    def _opened(self, workspace_id: UUID, blob: bytes | None) -> str | None:
        try:
            return (
                None if blob is None else self._keyring.open(Sealed(BOUND, blob), _row(workspace_id)).decode()
            )
        except SealBroken:
            return None  # the key it was sealed with is gone; the agent learns the new one when it registers


def _row(workspace_id: UUID) -> bytes:
    return row_of("workspaces", workspace_id, _COLUMN)
