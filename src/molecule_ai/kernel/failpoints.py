"""Named points at durable boundaries where a test can stop the process as a crash would.

`MOLECULE_FAILPOINTS=mailbox.claimed,process.spawned:3` kills the process with SIGKILL the first
time `mailbox.claimed` is reached and the third time `process.spawned` is. Unset, a point costs one
dictionary lookup.
"""

from __future__ import annotations

import os
import signal

ENVIRONMENT = "MOLECULE_FAILPOINTS"


def _armed() -> dict[str, int]:
    points = {}
    for item in filter(None, os.environ.get(ENVIRONMENT, "").split(",")):
        name, _, count = item.partition(":")
        points[name.strip()] = int(count or 1)
    return points


_remaining = _armed()


def reach(name: str) -> None:
    """Die here if this point is armed."""
    left = _remaining.get(name)
    if left is None:
        return
    if left <= 1:
        os.kill(os.getpid(), signal.SIGKILL)
    _remaining[name] = left - 1
