"""Watching a workspace until it is where it was sent."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Annotated, Any

import typer

from .session import Session

RUNNING = frozenset({"online", "degraded"})
_ENDED = frozenset({"failed", "removed"})
_PAUSE_SECONDS = 0.2

Wait = Annotated[
    bool, typer.Option("--wait", help="Return when the new state is reached, telling each step.")
]
Timeout = Annotated[float, typer.Option(help="Seconds to wait at most.")]


class NotReached(Exception):
    """The workspace went somewhere else, or took too long."""


def watch(session: Session, workspace: str, wanted: Collection[str], timeout: float) -> dict[str, Any]:
    """Follow a workspace to one of the `wanted` states, saying each step on standard error.

    Raises `NotReached` with the reason when its start failed, it was removed, or time is over.
    """
    began = time.monotonic()
    last = ""
    while True:
        row: dict[str, Any] = session.call("GET", f"/workspaces/{workspace}", include_removed="true")
        status, seconds = row["status"], time.monotonic() - began
        if status != last:
            reason = f" ({row['status_reason']})" if row.get("status_reason") else ""
            typer.echo(f"{seconds:6.1f} s  {row['name']}: {status}{reason}", err=True)
        last = status
        if status in wanted:
            return row
        if status in _ENDED:
            detail = str(row.get("last_sample_error") or row.get("status_reason") or "").strip()
            raise NotReached(f"{row['name']} is {status}" + (f": {detail}" if detail else ""))
        if seconds > timeout:
            expected = " or ".join(sorted(wanted))
            raise NotReached(f"{row['name']} is still {status}, not {expected}, after {timeout:.0f} s")
        time.sleep(_PAUSE_SECONDS)
