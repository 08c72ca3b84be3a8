"""Why a message between agents goes no further."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from molecule_ai.kernel.errors import Conflict
from molecule_ai.server.mailbox.chain import Exceeded

_ADVICE = {
    "hops": "this chain of messages is too long; answer with what you have instead of asking another agent",
    "depth": "this chain of messages is nested too deep; answer with what you have instead of delegating on",
    "cycle": "this chain of messages keeps coming back to the same workspace; answer with what you have",
    "fan_out": "too many messages were sent for one task; work with the answers you have",
    "pair_rate": "too many messages to this workspace within a minute; wait before you send the next one",
    "stopped": "this chain of messages was stopped by an operator; do not send further messages for it",
}


class ChainLimit(Conflict):
    """message refused: this chain of messages has reached a limit"""

    code = "chain_limit"

    def __init__(self, chain_id: UUID, exceeded: Exceeded) -> None:
        extra: dict[str, Any] = {
            "reason": exceeded.reason,
            "limit": exceeded.limit,
            "chain_id": str(chain_id),
        }
        if exceeded.reason == "pair_rate":
            extra["retry_after"] = 60
        super().__init__(f"message refused: {_ADVICE[exceeded.reason]}", **extra)
        self.chain_id = chain_id
        self.exceeded = exceeded
