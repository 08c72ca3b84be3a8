"""The audit trail as lines for log shipping (contract 03 §15.5)."""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO
from uuid import UUID

import msgspec
from msgspec import Struct

from molecule_ai.server.auth.acts import Act

_MAX_WAITING = 10_000
_encoder = msgspec.json.Encoder()
_KINDS = {"session": "user", "workspace": "agent", "schedule": "cron", "scheduler": "cron"}


class Line(Struct, frozen=True):
    """One event. Fields are only ever added."""

    ts: datetime
    event_type: str
    workspace_id: UUID | None
    user_id: str
    actor_kind: str
    correlation_id: str
    fields: dict[str, Any]
    actor: str
    request: Act | None


def line(
    ts: datetime,
    event: str,
    workspace_id: UUID | None,
    payload: dict[str, Any],
    actor: str | None,
    request: Act | None,
) -> bytes:
    """The line of one event, without its end."""
    kind, _, name = (actor or "").partition(":")
    return _encoder.encode(
        Line(
            ts=ts,
            event_type=event,
            workspace_id=workspace_id,
            user_id=name if kind == "session" else "",
            actor_kind=_KINDS.get(kind, "admin"),
            correlation_id=request.id if request else "",
            fields=payload,
            actor=actor or "",
            request=request,
        )
    )


class AuditLog:
    """Writes lines from a thread of its own: no request waits for a pipe or a disk, or fails with it.

    Before `start` there is nobody to write for. A terminal is a person's, who sees no lines.
    """

    def __init__(self, file: Path | None, output: TextIO | None = None) -> None:
        self._file = file
        self._output = output
        self._waiting: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._write, name="audit-log", daemon=True)
            self._thread.start()

    def put(self, text: bytes) -> None:
        """Have a line written; where nobody takes them, new ones are dropped rather than kept."""
        if self._thread is not None and self._waiting.qsize() < _MAX_WAITING:
            self._waiting.put(text)

    def stop(self) -> None:
        """Write what waits, for a second at most."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join(1.0)
            self._thread = None

    def _write(self) -> None:
        while (text := self._waiting.get()) is not None:
            output = self._output or sys.stdout
            with contextlib.suppress(OSError, ValueError):
                if not output.isatty():
                    output.write(f"audit: {text.decode()}\n")
                    output.flush()
            if self._file is not None:
                with contextlib.suppress(OSError), self._file.open("ab") as file:
                    file.write(text + b"\n")
