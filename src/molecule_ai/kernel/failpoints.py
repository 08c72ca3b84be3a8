"""Named points at durable boundaries where a test can stop the process as a crash would.

`MOLECULE_FAILPOINTS=mailbox.claimed,process.spawned:3` kills the process with SIGKILL the first
time `mailbox.claimed` is reached and the third time `process.spawned` is. `MOLECULE_FAILPOINTS_DIR`
names a folder in which points are armed while the server runs: whichever process first reaches a point
that has a file of its name there takes the file away and dies, and no other one does. Unset, a point
costs one dictionary lookup.
"""

from __future__ import annotations

import os
import signal

ENVIRONMENT = "MOLECULE_FAILPOINTS"
FOLDER = "MOLECULE_FAILPOINTS_DIR"


def _armed() -> dict[str, int]:
    points = {}
    for item in filter(None, os.environ.get(ENVIRONMENT, "").split(",")):
        name, _, count = item.partition(":")
        points[name.strip()] = int(count or 1)
    return points


_remaining = _armed()
_folder = os.environ.get(FOLDER, "")


def reach(name: str) -> None:
    """Die here if this point is armed."""
    left = _remaining.get(name)
    if left is None:
        if _folder and _take(name):
            os.kill(os.getpid(), signal.SIGKILL)
        return
    if left <= 1:
        os.kill(os.getpid(), signal.SIGKILL)
    _remaining[name] = left - 1


def _take(name: str) -> bool:
    """Whether this process is the one that removed the point's file."""
    try:
        os.unlink(os.path.join(_folder, name))
    except FileNotFoundError:
        return False
    return True
