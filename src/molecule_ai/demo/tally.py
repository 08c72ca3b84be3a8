"""What truly happened, counted from what the server says, never from what was asked."""

from __future__ import annotations

from collections import deque
from typing import Any

from msgspec import Struct, field

_LINES = 200


class Line(Struct):
    """One line of the message flow: seconds since the start, who, what."""

    at: float
    who: str
    what: str


class Tally(Struct):
    """Counts and the picture they are drawn from; fed with event frames."""

    workspaces: dict[str, dict[str, Any]] = field(default_factory=dict)
    online: set[str] = field(default_factory=set)
    messages: int = 0
    delegations_completed: int = 0
    schedule_runs: int = 0
    approvals_decided: int = 0
    woken: set[str] = field(default_factory=set)
    asleep: set[str] = field(default_factory=set)
    pending_approval: dict[str, Any] | None = None
    flow: deque[Line] = field(default_factory=lambda: deque(maxlen=_LINES))

    def name(self, workspace_id: str | None) -> str:
        """The workspace's name, or the beginning of its id."""
        known = self.workspaces.get(workspace_id or "")
        return known["name"] if known else (workspace_id or "-")[:8]

    def take(self, frame: dict[str, Any], at: float) -> None:
        """Count one event frame."""
        workspace_id = frame.get("workspace_id") or ""
        payload = frame.get("payload") or {}
        self._take_status(frame["event"], workspace_id)
        text = self._read(frame["event"], workspace_id, payload)
        if text:
            self.flow.append(Line(at, self.name(workspace_id), text))

    def _take_status(self, event: str, workspace_id: str) -> None:
        status = _STATUS.get(event)
        if status is None or workspace_id not in self.workspaces:
            return
        self.workspaces[workspace_id]["status"] = status
        if status == "online":
            self.online.add(workspace_id)
            if workspace_id in self.asleep:
                self.asleep.discard(workspace_id)
                self.woken.add(workspace_id)
        elif status == "hibernated":
            self.asleep.add(workspace_id)

    def _read(self, event: str, workspace_id: str, payload: dict[str, Any]) -> str:
        match event:
            case "ACTIVITY_LOGGED" if payload.get("activity_type") == "a2a_receive":
                self.messages += payload.get("status") == "ok"
                sender = payload.get("source_id")
                asker = self.name(sender) if sender else "a human"
                return f"answered {asker} in {payload.get('duration_ms') or 0} ms"
            case "TASK_UPDATED":
                if workspace_id in self.workspaces:
                    self.workspaces[workspace_id]["current_task"] = payload.get("current_task") or ""
                return ""
            case "DELEGATION_SENT":
                return f"→ {self.name(payload.get('target_id'))}: {payload.get('task_preview', '')}"
            case "DELEGATION_COMPLETE":
                self.delegations_completed += 1
                return f"← {self.name(payload.get('target_id'))}: {payload.get('response_preview', '')}"
            case "DELEGATION_FAILED":
                return f"✗ {self.name(payload.get('target_id'))}: {payload.get('error', '')}"
            case "CRON_EXECUTED":
                self.schedule_runs += payload.get("status") == "ok" and payload.get("trigger") == "cron"
                return f"schedule {payload.get('schedule_name')!r} fired: {payload.get('status')}"
            case "APPROVAL_REQUESTED":
                self.pending_approval = {"workspace_id": workspace_id, **payload}
                return f"asks for approval: {payload.get('action')}"
            case "APPROVAL_APPROVED" | "APPROVAL_DENIED":
                self.approvals_decided += 1
                return f"{payload.get('decision')} by {payload.get('decided_by')}"
            case _:
                return _STATUS.get(event, "")


_STATUS = {
    "WORKSPACE_PROVISIONING": "provisioning",
    "WORKSPACE_ONLINE": "online",
    "WORKSPACE_DEGRADED": "degraded",
    "WORKSPACE_OFFLINE": "offline",
    "WORKSPACE_PROVISION_FAILED": "failed",
    "WORKSPACE_PAUSED": "paused",
    "WORKSPACE_HIBERNATED": "hibernated",
}
