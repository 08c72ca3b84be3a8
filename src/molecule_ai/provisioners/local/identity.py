"""Who a process is, so that no other one is ever taken for it.

A process id alone is reused; together with the start time and the boot it names one process for ever.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil
from msgspec import Struct

HAS_PROC = Path("/proc/self/stat").exists()
PIDFD_SIGNAL_PROCESS_GROUP = 1 << 2  # pidfd_send_signal(2), Linux 6.9


class Identity(Struct, frozen=True):
    """One process of this machine, in this boot or an earlier one."""

    pid: int
    started_at: float
    boot_id: str


class Stat(Struct, frozen=True):
    """The parts of a process that identify it."""

    is_zombie: bool
    group: int
    started_at: float


@cache
def boot_id() -> str:
    """Name the running boot of this machine."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return f"boot-{psutil.boot_time():.0f}"


def stat_of(pid: int) -> Stat | None:
    """Look at a process, or return `None` when there is none of that id."""
    return _stat_from_proc(pid) if HAS_PROC else _stat_from_psutil(pid)


def identify(pid: int) -> Identity | None:
    stat = stat_of(pid)
    return Identity(pid, stat.started_at, boot_id()) if stat else None


def is_alive(identity: Identity) -> bool:
    """Whether exactly this process still runs; a zombie does not."""
    if identity.boot_id != boot_id():
        return False
    stat = stat_of(identity.pid)
    return stat is not None and stat.started_at == identity.started_at and not stat.is_zombie


def has_memory(pid: int) -> bool:
    """Whether this is a program: not a thread of the kernel, and not one that has come to its end."""
    if not HAS_PROC:
        return False
    with suppress(OSError), open(f"/proc/{pid}/statm", "rb") as file:
        return not file.read().startswith(b"0 ")
    return False


def send(identity: Identity, signum: signal.Signals) -> bool:
    """Signal one process if it is still the one; returns whether it was."""
    if not hasattr(os, "pidfd_open"):
        if not is_alive(identity):
            return False
        with suppress(ProcessLookupError):
            os.kill(identity.pid, signum)
        return True
    try:
        pidfd = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return False
    try:
        # The descriptor pins the process: what is checked now is what gets the signal.
        if not is_alive(identity):
            return False
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signum)
        return True
    finally:
        os.close(pidfd)


def send_to_group(leader: Identity, signum: signal.Signals) -> bool:
    """Signal the process group that a live process leads; returns whether there was one."""
    stat = stat_of(leader.pid)
    if stat is None or stat.group != leader.pid or not is_alive(leader):
        return False
    # While its leader lives the group keeps its id; the pidfd holds that id through the check.
    try:
        pidfd = os.pidfd_open(leader.pid) if hasattr(os, "pidfd_open") else -1
    except ProcessLookupError:
        return False
    try:
        if not is_alive(leader):
            return False
        try:
            signal.pidfd_send_signal(pidfd, signum, None, PIDFD_SIGNAL_PROCESS_GROUP)
        except (OSError, AttributeError, TypeError):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(leader.pid, signum)
        return True
    finally:
        if pidfd >= 0:
            os.close(pidfd)


def _stat_from_proc(pid: int) -> Stat | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            line = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name of the program, in parentheses, may itself hold blanks and parentheses.
    fields = line[line.rindex(b")") + 2 :].split()
    return Stat(is_zombie=fields[0] in (b"Z", b"X"), group=int(fields[2]), started_at=float(fields[19]))


def _stat_from_psutil(pid: int) -> Stat | None:
    try:
        process = psutil.Process(pid)
        return Stat(
            is_zombie=process.status() == psutil.STATUS_ZOMBIE,
            group=os.getpgid(pid),
            started_at=process.create_time(),
        )
    except (psutil.NoSuchProcess, ProcessLookupError):
        return None
