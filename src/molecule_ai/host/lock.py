"""One server per home folder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class AlreadyRunning(Exception):
    """Another server uses this home folder."""


class HomeLock:
    """An exclusive lock that the kernel releases when its holder dies, however it dies."""

    def __init__(self, home: Path) -> None:
        self._path = home / "server.lock"
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as busy:
            holder = os.pread(self._file, 100, 0).decode(errors="replace").strip()
            os.close(self._file)
            raise AlreadyRunning(f"a server already runs on {home} ({holder or 'starting'})") from busy

    def describe(self, text: str) -> None:
        """Say who holds the lock, for the message of the next one who tries."""
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, text.encode(), 0)

    def release(self) -> None:
        os.close(self._file)
