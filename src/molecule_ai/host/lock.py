"""One server per home folder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import msgspec


class AlreadyRunning(Exception):
    """Another server uses this home folder."""


class RunningServer(msgspec.Struct):
    """Who holds a home folder, as written into its lock."""

    pid: int
    url: str


class HomeLock:
    """An exclusive lock that the kernel releases when its holder dies, however it dies."""

    def __init__(self, home: Path) -> None:
        self._file = os.open(home / "server.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as busy:
            os.close(self._file)
            holder = _read(home)
            who = f"pid {holder.pid}, {holder.url}" if holder else "it is starting"
            raise AlreadyRunning(f"a server already runs on {home} ({who})") from busy
        os.ftruncate(self._file, 0)

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
