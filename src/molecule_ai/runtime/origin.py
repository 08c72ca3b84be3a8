"""Which message the current code works for, so that its consequences can be traced to it."""

import hashlib
from contextvars import ContextVar
from typing import Any

from msgspec import Struct


class Origin(Struct, frozen=True):
    """The message that a task answers, and the causal chain it arrived with."""

    message_id: str
    molecule: dict[str, Any] | None = None

    def key(self, *parts: str) -> str:
        """Return an idempotency key that a redelivery of the same message repeats."""
        digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        return f"{self.message_id}:{digest[:24]}"


current_origin: ContextVar[Origin | None] = ContextVar("current_origin", default=None)


def chain_metadata() -> dict[str, Any]:
    """Return the metadata that forwards the causal chain, unchanged, or nothing."""
    origin = current_origin.get()
    if origin is None or origin.molecule is None:
        return {}
    return {"molecule": origin.molecule}
