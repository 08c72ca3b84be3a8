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


def _end_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


_remaining = _armed()
_folder = os.environ.get(FOLDER, "")
die = _end_process
"""What dying means. A test with several servers in one process lets a single one of them die instead."""


def arm(name: str) -> None:
    """Die the next time that this point is reached."""
    _remaining[name] = 1


def disarm() -> None:
    """Let every point be passed."""
    _remaining.clear()


def reach(name: str) -> None:
    """Die here if this point is armed."""
    left = _remaining.get(name)
    if left is None:
        if _folder and _take(name):
            die()
        return
    if left <= 1:
        die()
    _remaining[name] = left - 1


def _take(name: str) -> bool:
    """Whether this process is the one that removed the point's file."""
    try:
        os.unlink(os.path.join(_folder, name))
    except FileNotFoundError:
        return False
    return True
