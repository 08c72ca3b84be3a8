"""The process behind a data folder of PostgreSQL: alive, dead, or dead without anybody noticing."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import psutil

_STATUS_LINE = 7  # of postmaster.pid, from zero; PostgreSQL's own pg_ctl waits for it, too
_READY = "ready"
_SOCKET_LOCK = ".s.PGSQL.5432.lock"


class Postmaster:
    """What PostgreSQL's lock files say, compared with what runs."""

    def __init__(self, data: Path, sockets: Path) -> None:
        self._data = data
        self._file = data / "postmaster.pid"
        self._locks = (self._file, sockets / _SOCKET_LOCK)

    def is_alive(self) -> bool:
        """Whether it runs: neither a zombie that nobody has buried nor somebody else with its number."""
        pid = _pid(self._file)
        return pid is not None and self._is_ours(pid)

    def is_ready(self) -> bool:
        """Whether it takes connections, its recovery being done."""
        lines = _lines(self._file)
        return self.is_alive() and len(lines) > _STATUS_LINE and lines[_STATUS_LINE].strip() == _READY

    def bury(self) -> None:
        """Take away the lock files of a dead one whose number lives on.

        PostgreSQL asks whether a process of that number exists, and would refuse to start as long as the
        zombie stays or the other process runs. It removes the files of a number that nobody has by
        itself, and sees by its shared memory, not by these files, whether old backends are still there.
        """
        for lock in self._locks:
            pid = _pid(lock)
            if pid is not None and not self._is_ours(pid) and _is_taken(pid):
                lock.unlink(missing_ok=True)

    def _is_ours(self, pid: int) -> bool:
        try:
            process = psutil.Process(pid)
            return process.status() != psutil.STATUS_ZOMBIE and self._serves(process.cmdline())
        except psutil.Error:
            return False

    def _serves(self, command: list[str]) -> bool:
        return any(
            option == "-D" and Path(folder).resolve() == self._data.resolve()
            for option, folder in pairwise(command)
        )


def _pid(lock: Path) -> int | None:
    """Who wrote the file; it may be long gone."""
    try:
        return int(_lines(lock)[0])
    except (IndexError, ValueError):
        return None


def _lines(lock: Path) -> list[str]:
    try:
        return lock.read_text().split("\n")
    except OSError:
        return []


def _is_taken(pid: int) -> bool:
    """Whether the kernel knows the number, for whatever it stands now."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
