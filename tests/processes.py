"""What the process table says, without asking any server."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from msgspec import Struct

from molecule_ai.provisioners.process import ProcessProvisioner


class Agent(Struct, frozen=True):
    """A live process that an agent is, or that an agent started."""

    pid: int
    workspace_id: UUID
    instance_id: UUID


def pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def environment(pid: int) -> dict[str, str]:
    """What a process was started with; nothing for one that is gone or a zombie."""
    with suppress(OSError):
        pairs = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        return dict(pair.decode(errors="replace").partition("=")[::2] for pair in pairs if b"=" in pair)
    return {}


def command(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def describe(pid: int) -> str:
    """What it is, what it waits for, and below whom."""
    with suppress(OSError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        waits = Path(f"/proc/{pid}/wchan").read_text()
        return f"{command(pid)!r} {state} {waits} below {parent(pid)}"
    return "gone"


def parent(pid: int) -> int:
    with suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def children(pid: int) -> list[int]:
    return [other for other in pids() if parent(other) == pid]


def servers(home: Path) -> list[int]:
    """Main processes and workers, of whatever generation."""
    return [
        pid for pid in pids() if environment(pid).get("MOLECULE_FAILPOINTS_DIR") == str(home / "failpoints")
    ]


def agents(home: Path) -> list[Agent]:
    """Every live process that carries the marks of an agent of this home."""
    home_id = ProcessProvisioner(home, "").home_id
    found = []
    for pid in pids():
        marks = environment(pid)
        if marks.get("MOLECULE_HOME_ID") == home_id and "WORKSPACE_ID" in marks:
            found.append(Agent(pid, UUID(marks["WORKSPACE_ID"]), UUID(marks["MOLECULE_INSTANCE_ID"])))
    return found


def strays(home: Path, main: int) -> list[int]:
    """Processes of this home that are neither agents nor database, and that no living server started."""
    return [
        pid
        for pid in pids()
        if (marks := environment(pid))
        and "WORKSPACE_ID" not in marks
        and str(home) in (marks.get("HOME"), marks.get("MOLECULE_HOME"))
        and main not in _line(pid)
    ]


def of_home(home: Path) -> list[int]:
    """Everything that lives in this home: servers, agents and what they started, the database."""
    named = [pid for pid in pids() if any(str(home) in value for value in environment(pid).values())]
    return sorted({*named, *(agent.pid for agent in agents(home))})


def end_all(home: Path) -> bool:
    """Kill what still lives in this home; whether nothing was left."""
    left = of_home(home)
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return not left


def _line(pid: int) -> list[int]:
    """A process and its ancestors."""
    line = [pid]
    while (above := parent(line[-1])) > 1:
        line.append(above)
    return line
