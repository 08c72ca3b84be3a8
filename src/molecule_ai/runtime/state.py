"""What the agent is doing right now, as heartbeats, snapshots and transcripts show it."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

MAX_TASK_TEXT = 256
TRANSCRIPT_LINES = 200  # contract 02 §14
MAX_LINE_TEXT = 8000
REMEMBERED_MESSAGES = 200
PENDING_PUSHES = 4  # a burst of short tasks is told as its latest few changes


class Line(Struct, frozen=True):
    """One transcript line."""

    index: int
    at: str
    role: str
    text: str


class AgentState:
    """Owned by the event loop; nothing here needs a lock."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        self.redact = redact
        self._started = time.monotonic()
        self._tasks: dict[str, str] = {}
        self._finished = 0
        self._failed = 0
        self._last_error = ""
        self._wedged = ""
        self._messages: deque[str] = deque(maxlen=REMEMBERED_MESSAGES)
        self._transcript: deque[Line] = deque(maxlen=TRANSCRIPT_LINES)
        self._next_line = 0
        self._pushes: deque[dict[str, Any]] = deque(maxlen=PENDING_PUSHES)
        self.on_push: Callable[[], None] = lambda: None
        self.session_id = ""
        self.idle = asyncio.Event()
        self.idle.set()

    @property
    def active_tasks(self) -> int:
        """Return how many tasks are being worked on."""
        return len(self._tasks)

    @property
    def current_task(self) -> str:
        """Return what the latest of them is about."""
        return next(reversed(self._tasks.values()), "")

    @property
    def uptime_seconds(self) -> int:
        """Return whole seconds since the start."""
        return int(time.monotonic() - self._started)

    def begin(self, task_id: str, text: str) -> None:
        """Note that a task starts."""
        self._tasks[task_id] = self.redact(text)[:MAX_TASK_TEXT]
        self.idle.clear()
        self._push()

    def end(self, task_id: str, error: str = "") -> None:
        """Note that a task ended, and with what error."""
        self._tasks.pop(task_id, None)
        if not self._tasks:
            self.idle.set()
        self._finished += 1
        if error:
            self._failed += 1
            self._last_error = self.redact(error)[:MAX_TASK_TEXT]
        self._push()

    def note_message(self, message_id: str) -> None:
        """Note that a message has come, whatever becomes of it."""
        self._messages.append(message_id)

    def has_worked_on(self, message_id: str) -> bool:
        """Say whether a message of late has come."""
        return message_id in self._messages

    def mark_wedged(self, reason: str) -> None:
        """Say that this agent lives but cannot work; the first reason stays."""
        self._wedged = self._wedged or self.redact(reason)

    def say(self, role: str, text: str) -> None:
        """Add a line to the transcript."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._transcript.append(Line(self._next_line, at, role, self.redact(text)[:MAX_LINE_TEXT]))
        self._next_line += 1

    def transcript(self, since: int, limit: int) -> tuple[list[Line], int, bool]:
        """Return lines from an index on, the next index, and whether more are waiting."""
        waiting = [line for line in self._transcript if line.index >= since]
        lines = waiting[:limit]
        cursor = lines[-1].index + 1 if lines else max(since, self._next_line)
        return lines, cursor, len(waiting) > len(lines)

    def restore(self, lines: list[Line], session_id: str) -> None:
        """Continue the transcript of the previous process."""
        self._transcript.extend(lines)
        self._next_line = max((line.index for line in lines), default=-1) + 1
        self.session_id = session_id

    def take_pushes(self) -> list[dict[str, Any]]:
        """Return the task changes that no beat has told yet."""
        pushes = list(self._pushes)
        self._pushes.clear()
        return pushes

    def beat(self) -> dict[str, Any]:
        """Return the periodic heartbeat; error rate and last error count since the previous one."""
        rate = self._failed / self._finished if self._finished else 0.0
        error = self._wedged or self._last_error
        self._finished = self._failed = 0
        self._last_error = ""
        return {**self._activity(), "error_rate": rate, "sample_error": error}

    def _push(self) -> None:
        self._pushes.append(self._activity())
        self.on_push()

    def _activity(self) -> dict[str, Any]:
        return {
            "active_tasks": self.active_tasks,
            "current_task": self.current_task,
            "uptime_seconds": self.uptime_seconds,
            "runtime_state": "wedged" if self._wedged else "ok",
        }
