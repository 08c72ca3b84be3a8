"""Workers do not outlive the process that started them."""

from __future__ import annotations

import ctypes
import os
import signal

PARENT = "MOLECULE_SUPERVISOR_PID"
_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Make this worker end when its main process dies, even by SIGKILL (Linux)."""
    supervisor = os.environ.get(PARENT)
    if not supervisor:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "prctl"):
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(supervisor):
        os.kill(os.getpid(), signal.SIGTERM)
