"""What agents print: one file per workspace, cut when it grows, read from its end."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

MiB = 1024 * 1024
ROTATE_BYTES = 10 * MiB


def previous_of(log: Path) -> Path:
    return log.with_name(f"{log.name}.1")


def open_for_agent(log: Path) -> int:
    """Open a log so that agents append to it, whoever cuts it meanwhile; the caller closes it."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(log, flags, 0o600)


def rotate(logs: Iterable[Path], max_bytes: int = ROTATE_BYTES) -> int:
    """Set aside the content of every log that is larger, and return how many there were.

    An agent holds its log open for its whole life, so the content is copied and the file emptied; lines
    written between the two steps are lost.
    """
    count = 0
    for log in logs:
        with suppress(FileNotFoundError):
            if log.stat().st_size > max_bytes:
                count += _rotate_one(log, max_bytes)
    return count


def _rotate_one(log: Path, max_bytes: int) -> bool:
    with log.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False  # another replica is at it
        if os.fstat(file.fileno()).st_size <= max_bytes:
            return False
        part = log.with_name(f"{log.name}.part")
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as copy:
            shutil.copyfileobj(file, copy)
        part.rename(previous_of(log))
        file.truncate(0)
        return True


def tail(log: Path, max_bytes: int) -> str:
    """Return the end of a log, going back into the part that was set aside; empty when there is none."""
    content = _last_bytes(log, max_bytes)
    if len(content) < max_bytes:
        content = _last_bytes(previous_of(log), max_bytes - len(content)) + content
    return content.decode(errors="replace")


def _last_bytes(path: Path, count: int) -> bytes:
    if count <= 0:
        return b""
    with suppress(FileNotFoundError), path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - count))
        return file.read(count)
    return b""
