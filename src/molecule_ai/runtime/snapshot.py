"""What survives a restart (contract 02 §14): written on shutdown, read on start."""

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

from molecule_ai.runtime.files import read_text, write_private
from molecule_ai.runtime.state import TRANSCRIPT_LINES, AgentState, Line

log = logging.getLogger(__name__)


class AdapterSnapshot(Struct):
    session_id: str = ""
    transcript_lines: list[Line] = field(default_factory=list)


class Snapshot(Struct):
    workspace_id: str
    timestamp: str
    current_task: str = ""
    active_tasks: int = 0
    uptime_seconds: int = 0
    session_id: str = ""
    adapter: AdapterSnapshot = field(default_factory=AdapterSnapshot)


def save_snapshot(path: Path, workspace_id: str, state: AgentState) -> None:
    """Write the snapshot; transcript and task text are redacted when they enter the state."""
    lines, _, _ = state.transcript(0, TRANSCRIPT_LINES)
    snapshot = Snapshot(
        workspace_id=workspace_id,
        timestamp=datetime.now(UTC).isoformat(timespec="seconds"),
        current_task=state.current_task,
        active_tasks=state.active_tasks,
        uptime_seconds=state.uptime_seconds,
        session_id=state.session_id,
        adapter=AdapterSnapshot(state.session_id, lines),
    )
    try:
        write_private(path, msgspec.json.encode(snapshot).decode())
    except OSError as error:
        log.warning("snapshot_failed path=%s error=%s", path, error)


def restore_snapshot(path: Path, workspace_id: str, state: AgentState) -> bool:
    """Continue where the previous agent of this workspace stopped; anything else is ignored."""
    text = read_text(path)
    if text is None:
        return False
    try:
        snapshot = msgspec.json.decode(text, type=Snapshot)
    except msgspec.DecodeError as error:
        log.warning("snapshot_ignored path=%s error=%s", path, error)
        return False
    if snapshot.workspace_id != workspace_id:
        return False
    state.restore(snapshot.adapter.transcript_lines[-TRANSCRIPT_LINES:], snapshot.session_id)
    return True


def transcript_page(state: AgentState, runtime: str, since: int, limit: int) -> dict[str, Any]:
    """Return the body of `GET /transcript`."""
    lines, cursor, more = state.transcript(since, limit)
    return {
        "runtime": runtime,
        "supported": True,
        "lines": [msgspec.to_builtins(line) for line in lines],
        "cursor": cursor,
        "more": more,
        "source": "memory",
    }
