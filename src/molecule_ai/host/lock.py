"""One server per home folder."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import msgspec
import psutil

_LEAVING_SECONDS = 20.0  # workers that lost their main process end within ten
_LOOK_SECONDS = 0.1


class AlreadyRunning(Exception):
    """Another server uses this home folder."""


class RunningServer(msgspec.Struct):
    """Who holds a home folder, as written into its lock."""

    pid: int
    url: str


class HomeLock:
    """An exclusive lock that the kernel releases when its holder dies, however it dies.

    Workers share the lock of their main process. Those of one that was killed are waited for: they are
    on their way out.
    """

    def __init__(self, home: Path) -> None:
        self._file = os.open(home / "server.lock", os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + _LEAVING_SECONDS
        while not self._take():
            holder = _read(home)
            if holder is None or psutil.pid_exists(holder.pid) or time.monotonic() > deadline:
                os.close(self._file)
                who = f"pid {holder.pid}, {holder.url}" if holder else "it is starting"
                raise AlreadyRunning(f"a server already runs on {home} ({who})")
            time.sleep(_LOOK_SECONDS)
        os.ftruncate(self._file, 0)

    def _take(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def describe(self, url: str) -> None:
        """Say who holds the lock, for command lines on this machine."""
        os.pwrite(self._file, msgspec.json.encode(RunningServer(os.getpid(), url)), 0)

    def release(self) -> None:
        os.close(self._file)


def running_server(home: Path) -> RunningServer | None:
    """The server that runs on `home` right now, if one does."""
    try:
        file = os.open(home / "server.lock", os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _read(home)
    finally:
        os.close(file)
    return None


def _read(home: Path) -> RunningServer | None:
    try:
        return msgspec.json.decode((home / "server.lock").read_bytes(), type=RunningServer)
    except (OSError, msgspec.DecodeError):
        return None
