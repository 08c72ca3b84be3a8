"""Finding the processes of this installation by the marks in their environment.

The environment of a process is inherited by everything that it starts, through new sessions and after
its own death, so that nothing an agent leaves behind goes unseen.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import psutil
from msgspec import Struct

from .identity import HAS_PROC, Identity, boot_id, has_memory, is_alive, stat_of

HOME_MARK = "MOLECULE_HOME_ID"
WORKSPACE_MARK = "WORKSPACE_ID"
INSTANCE_MARK = "MOLECULE_INSTANCE_ID"
OWNER_MARK = "MOLECULE_EXEC_OWNER"
"""On a command that a server runs beside an agent: `pid:start time` of that server."""

BLANK_LOOKS = 3
BLANK_SECONDS = 0.002  # becoming another program takes less


class Marked(Struct, frozen=True):
    """A live process that belongs to a workspace of this installation."""

    identity: Identity
    group: int
    workspace_id: UUID
    instance_id: UUID
    is_owned: bool
    """Whether a live server waits for it."""

    @property
    def leads(self) -> bool:
        return self.group == self.identity.pid


class Scanner:
    """Looks for the processes of one installation; who asks while a look is under way shares the next.

    A hundred agents that are ended at once cost a few looks and not hundreds.
    """

    def __init__(self, home_id: str) -> None:
        self.home_id = home_id
        self._running: asyncio.Future[list[Marked]] | None = None
        self._next: asyncio.Future[list[Marked]] | None = None

    async def look(self, workspace_id: UUID | None = None, instance_id: UUID | None = None) -> list[Marked]:
        """Every live marked process, or those of one workspace or instance, as of after this call."""
        if self._next is None:
            self._next = asyncio.ensure_future(self._round(self._running))
        return [
            process
            for process in await asyncio.shield(self._next)
            if workspace_id in (None, process.workspace_id) and instance_id in (None, process.instance_id)
        ]

    async def _round(self, before: asyncio.Future[list[Marked]] | None) -> list[Marked]:
        if before is not None:
            await asyncio.wait([before])
        self._running, self._next = self._next, None
        return await asyncio.to_thread(marked, self.home_id)


def marked(home_id: str) -> list[Marked]:
    """Every live process that carries the marks of this installation."""
    found, blank = _read(_pids(), home_id)
    for _ in range(BLANK_LOOKS):
        if not blank:
            break
        time.sleep(BLANK_SECONDS)
        more, blank = _read(blank, home_id)
        found += more
    return found


def _read(pids: Iterable[int], home_id: str) -> tuple[list[Marked], list[int]]:
    """The marked ones, and those that showed no environment, as one does while it becomes another program."""
    needle = f"{HOME_MARK}={home_id}".encode()
    found, blank = [], []
    for pid in pids:
        environ = _environ(pid)
        if environ == b"" and has_memory(pid):
            blank.append(pid)
        elif environ and needle in environ and (process := _read_marks(pid, environ, home_id)):
            found.append(process)
    return found, blank


def age_seconds(identity: Identity) -> float:
    """How long ago a live process started."""
    if not HAS_PROC:
        return max(0.0, time.time() - identity.started_at)
    return time.clock_gettime(time.CLOCK_BOOTTIME) - identity.started_at / os.sysconf("SC_CLK_TCK")


def _read_marks(pid: int, environ: bytes, home_id: str) -> Marked | None:
    values = dict(item.partition("=")[::2] for item in environ.decode(errors="replace").split("\0"))
    stat = stat_of(pid)
    if values.get(HOME_MARK) != home_id or stat is None or stat.is_zombie:
        return None
    try:
        workspace_id, instance_id = UUID(values[WORKSPACE_MARK]), UUID(values[INSTANCE_MARK])
    except (KeyError, ValueError):
        return None
    return Marked(
        identity=Identity(pid, stat.started_at, boot_id()),
        group=stat.group,
        workspace_id=workspace_id,
        instance_id=instance_id,
        is_owned=_owner_lives(values.get(OWNER_MARK, "")),
    )


def _owner_lives(mark: str) -> bool:
    pid, _, started_at = mark.partition(":")
    try:
        return is_alive(Identity(int(pid), float(started_at), boot_id()))
    except ValueError:
        return False


def _pids() -> Iterator[int]:
    if not HAS_PROC:
        yield from psutil.pids()
        return
    yield from (int(name) for name in os.listdir("/proc") if name.isdecimal())


def _environ(pid: int) -> bytes | None:
    """The environment that a process was started with; `None` when it is not ours to read."""
    if HAS_PROC:
        with suppress(OSError):
            return Path(f"/proc/{pid}/environ").read_bytes()
        return None
    with suppress(psutil.Error, OSError):
        return "\0".join(f"{name}={value}" for name, value in psutil.Process(pid).environ().items()).encode()
    return None
