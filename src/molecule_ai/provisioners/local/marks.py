"""Rewriting what the system shows of a forked process.

`/proc/<pid>/environ` and `cmdline` show the memory that the *first* program of a process was given. A
forked agent would show its parent's; its marks are written over it, so that agents are found the same way
however they came to be. Secrets are not: nobody reads them in a list of processes.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

RESERVED_NAME = "MOLECULE_RESERVED"
RESERVED_BYTES = 512
"""Room that a process which will be forked must be started with, as a variable and as an argument."""


def show(environment: dict[str, str], command: str) -> bool:
    """Write the marks over the process's own first environment and command; false when there is no room.

    Call it when nothing refers to that memory any more: after the environment was replaced.
    """
    fields = Path("/proc/self/stat").read_bytes().rpartition(b") ")[2].split()
    # proc_pid_stat(5): arg_start, arg_end, env_start, env_end are fields 48 to 51, `fields` starts at 3.
    arg_start, arg_end, env_start, env_end = (int(field) for field in fields[45:49])
    marks = "".join(f"{name}={value}\0" for name, value in environment.items()).encode()
    if not arg_start < arg_end <= env_start or len(marks) >= env_end - env_start:
        return False
    _fill(env_start, env_end, marks)
    _fill(arg_start, arg_end, command.encode()[: arg_end - arg_start - 1])
    return True


def _fill(start: int, end: int, content: bytes) -> None:
    ctypes.memmove(start, content.ljust(end - start, b"\0"), end - start)
