"""What the activity log keeps of a message (contract 05 §1, side effects)."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec

from molecule_ai.server.activity.schemas import Entry, SourceKind
from molecule_ai.server.mailbox.chain import Chain
from molecule_ai.server.traffic.schemas import Target

from .agents import Delivery, Outcome

LOST_BUT_DELIVERED = range(200, 400)


def answer_json(body: bytes) -> dict[str, Any] | None:
    """An answer as JSON; None when it is no object."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def tool_trace(answer: dict[str, Any] | None) -> list[Any] | None:
    """`result.metadata.tool_trace`, when the agent sent one."""
    result = (answer or {}).get("result")
    metadata = result.get("metadata") if isinstance(result, dict) else None
    trace = metadata.get("tool_trace") if isinstance(metadata, dict) else None
    return trace if isinstance(trace, list) and trace else None


class Subject:
    """One message as the log tells of it: who sent what to whom."""

    def __init__(
        self,
        target: Target,
        request: dict[str, Any],
        *,
        caller_id: UUID | None,
        source_kind: SourceKind,
        source_label: str = "",
        chain: Chain | None = None,
        key: str | None = None,
    ) -> None:
        self._target = target
        self._request = request
        self._caller_id = caller_id
        self._source_kind = source_kind
        self._source_label = source_label
        self._chain = chain
        self._key = key
        method = request.get("method")
        self.method = method if isinstance(method, str) else ""

    def queued(self) -> Entry:
        """The row of a message that waits."""
        return self._entry("queued", f"{self.method} → {self._target.name}")

    def received(self) -> Entry:
        """The row from which a polling agent reads the message."""
        return self._entry("ok", f"{self.method} → {self._target.name}")

    def answered(self, answer: Any, duration_ms: int) -> Entry:
        trace = tool_trace(answer if isinstance(answer, dict) else None)
        return self._entry(
            "ok",
            f"{self.method} → {self._target.name}",
            response_body=answer,
            tool_trace=trace,
            duration_ms=duration_ms,
        )

    def failed(self, reason: str, duration_ms: int, answer: Any = None) -> Entry:
        return self._entry(
            "error",
            f"A2A request to {self._target.name} failed: {reason}",
            response_body=answer,
            duration_ms=duration_ms,
            error_detail=reason,
        )

    def ended(self, delivery: Delivery) -> Entry:
        """The row of a call that is over."""
        if delivery.outcome is Outcome.ANSWERED:
            return self.answered(answer_json(delivery.body), delivery.duration_ms)
        if delivery.outcome is Outcome.ANSWER_LOST and delivery.status in LOST_BUT_DELIVERED:
            return self.answered(None, delivery.duration_ms)
        return self.failed(delivery.reason, delivery.duration_ms, answer_json(delivery.body))

    def _entry(self, status: str, summary: str, **values: Any) -> Entry:
        chain = self._chain
        return Entry(
            workspace_id=self._target.id,
            activity_type="a2a_receive",
            source_kind=self._source_kind,
            source_id=self._caller_id,
            source_label=self._source_label or None,
            target_id=self._target.id,
            method=self.method,
            summary=summary,
            request_body=self._request,
            status=status,
            idempotency_key=self._key,
            chain_id=chain.chain_id if chain else None,
            chain_depth=chain.depth if chain else None,
            **values,
        )
