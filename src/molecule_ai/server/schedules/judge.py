"""What an agent's answer is worth: text, a file, or nothing (contract 03 §3.7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from molecule_ai.server.a2a import envelope

from .schemas import RunStatus

EMPTY_LIMIT = 3
NO_RESPONSE = "(no response generated)"
PREVIEW_CHARACTERS = 500
_FAILED = frozenset({"failed", "rejected", "canceled"})
_UNFINISHED = frozenset({"submitted", "working"})


class Verdict(Struct, frozen=True, kw_only=True):
    """The status of a delivered run, and how many empty ones in a row it makes."""

    status: RunStatus
    error: str = ""
    preview: str = ""
    empty_runs: int


def judge(response: Mapping[str, Any] | None, empty_runs: int) -> Verdict:
    """Judge an answer. One that only says "accepted" is no result, and is not judged."""
    answer = response or {}
    failure = envelope.rpc_error(answer)
    if failure:
        return Verdict(status=RunStatus.ERROR, error=failure, empty_runs=empty_runs)
    if "result" not in answer:
        return Verdict(status=RunStatus.OK, empty_runs=empty_runs)
    has_content = envelope.has_content(answer)
    text = envelope.reply_text(answer).strip() if has_content else ""
    preview, state = text[:PREVIEW_CHARACTERS], _state(answer["result"])
    if state in _FAILED:
        error = preview or f"task {state}"
        return Verdict(status=RunStatus.ERROR, error=error, preview=preview, empty_runs=empty_runs)
    if state in _UNFINISHED and not has_content:
        return Verdict(status=RunStatus.OK, empty_runs=empty_runs)
    if has_content and text != NO_RESPONSE:
        return Verdict(status=RunStatus.OK, preview=preview, empty_runs=0)
    return _empty(preview, empty_runs + 1)


def _empty(preview: str, empty_runs: int) -> Verdict:
    if empty_runs < EMPTY_LIMIT:
        return Verdict(status=RunStatus.OK, preview=preview, empty_runs=empty_runs)
    error = f"empty response {empty_runs} consecutive times — agent may be phantom-producing (#795)"
    return Verdict(status=RunStatus.STALE, error=error, preview=preview, empty_runs=empty_runs)


def _state(result: Any) -> str:
    task = result.get("task", result) if isinstance(result, dict) else None
    status = task.get("status") if isinstance(task, dict) else None
    state = status.get("state") if isinstance(status, dict) else None
    return str(state or "").lower().removeprefix("task_state_")
