"""The note that an agent gets after a restart (contract 02 §5.8)."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec

from molecule_ai.kernel.db import Connection
from molecule_ai.server.a2a import envelope
from molecule_ai.server.mailbox.schemas import Post, Priority, SourceKind
from molecule_ai.server.mailbox.service import Mailbox
from molecule_ai.server.secrets.errors import SecretsBroken
from molecule_ai.server.secrets.service import Secrets

from . import lifecycle_store as store
from .transitions import Moved

DELIVERABLE_FOR = timedelta(minutes=15)
METADATA = {"source": "platform", "kind": "restart_context", "layer": 1, "restart_context": True}


class Notes:
    """Remembers that a restart happened until the agent is there to be told."""

    def __init__(self, secrets: Secrets, mailbox: Mailbox) -> None:
        self._secrets = secrets
        self._mailbox = mailbox

    async def drop(self, tx: Connection, workspace_id: UUID) -> None:
        """The configuration says that this agent wants no notes."""
        await store.drop_restart_context(tx, workspace_id)

    async def agent_online(self, tx: Connection, moved: Moved) -> None:
        """Hand the pending note to the mailbox, once; one that is too old is dropped."""
        if moved.restart_context is None:
            return
        await store.drop_restart_context(tx, moved.id)
        at = msgspec.convert(moved.restart_context["at"], datetime)
        if moved.at - at > DELIVERABLE_FOR:
            return
        previous = moved.restart_context.get("previous")
        try:
            names = list(await self._secrets.environment(tx, moved.id))
        except SecretsBroken:
            names = []
        text = note(at, msgspec.convert(previous, datetime) if previous else None, names)
        key = f"restart-context:{moved.id}:{at.isoformat()}"
        await self._mailbox.put(
            tx,
            Post(
                target_id=moved.id,
                body=envelope.message(text, message_id=key, metadata=METADATA),
                idempotency_key=key,
                priority=Priority.CRITICAL,
                expires_at=moved.at + DELIVERABLE_FOR,
                source_kind=SourceKind.SYSTEM,
                source_label="restart-context",
            ),
        )


def note(at: datetime, previous: datetime | None, names: Collection[str]) -> str:
    """The text: names of secrets, never their values."""
    ended = f"{_stamp(previous)} ({age(at - previous)} ago)" if previous else "(no prior session on record)"
    return "\n".join(
        [
            "=== WORKSPACE RESTART CONTEXT ===",
            f"Restart at: {_stamp(at)}",
            f"Previous session ended: {ended}",
            f"Env vars now available: {', '.join(sorted(names)) or '(none)'}",
            "=== END RESTART CONTEXT ===",
        ]
    )


def age(delta: timedelta) -> str:
    """`2h14m`, `3m9s`, `45s`; never negative."""
    minutes, seconds = divmod(max(0, round(delta.total_seconds())), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m"
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
