"""Workers do not outlive the process that started them."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time

PARENT = "MOLECULE_SUPERVISOR_PID"
_PR_SET_PDEATHSIG = 1
_LOOK_SECONDS = 1.0
_MERCY_LOOKS = 10  # for work that can still be brought to an end; the port is needed by the next server


def end_with_parent() -> None:
    """Make this worker end when its main process dies, even by SIGKILL.

    The kernel sends the signal at once (Linux), but while a worker starts, one may fall between two
    handlers and is heard by nobody. So a thread looks, too, asks again, and does not ask for ever.
    """
    supervisor = os.environ.get(PARENT)
    if not supervisor:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "prctl"):
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    threading.Thread(target=_watch, args=(int(supervisor),), name="parent-watch", daemon=True).start()


def _watch(supervisor: int) -> None:
    while os.getppid() == supervisor:
        time.sleep(_LOOK_SECONDS)
    for _ in range(_MERCY_LOOKS):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
