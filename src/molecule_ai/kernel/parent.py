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
_MERCY_SECONDS = 10  # for work that can still be brought to an end; the next server needs the port


def end_with_parent() -> None:
    """Make this worker end when its main process dies, even by SIGKILL.

    The kernel sends the signal at once (Linux), but one that comes while the worker starts is heard by
    nobody. So a thread looks, too, and leaves the end of its patience to the kernel, which needs no
    interpreter that still runs.
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
    signal.alarm(_MERCY_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
