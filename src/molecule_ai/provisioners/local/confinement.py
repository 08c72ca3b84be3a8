"""What an agent can see of this machine's files, enforced by the kernel (Landlock, Linux 5.13).

An agent runs as the user of its server, so that file modes do not keep the two apart. This does: the
system and the libraries can be read, the agent's own directories written, and nothing else opened, least
of all the keys of the installation and the other workspaces. It cannot be taken back, and everything the
agent starts inherits it. A confined process can also neither read the memory and environment of a process
outside (ptrace(2) rules) nor, since Linux 6.12, signal it.

Not covered: connecting to a Unix socket by its path, and the network.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from msgspec import Struct

# landlock(7); the numbers of the system calls are the same on every architecture.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
GET_VERSION = 1
RULE_PATH_BENEATH = 1
PR_SET_NO_NEW_PRIVS = 38
PR_CAPBSET_DROP = 24
CAPABILITY_VERSION = 0x20080522  # capset(2), version 3
CAPABILITY_SETS_BYTES = 24  # effective, permitted and inheritable, twice 32 bits each

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
TRUNCATE, IOCTL_DEVICE = 1 << 14, 1 << 15
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEVICE
READ = EXECUTE | READ_FILE | READ_DIR
RIGHTS_BY_VERSION = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # how many rights a kernel knows; later ones no more
SCOPES = 0b11  # abstract Unix sockets and signals, version 6

SYSTEM = (
    "/bin", "/sbin", "/usr", "/lib", "/lib32", "/lib64", "/etc", "/opt", "/nix", "/snap", "/run", "/var/lib",
    "/proc", "/sys",
)  # fmt: skip
DEVICES = (
    "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/ptmx", "/dev/pts",
    "/dev/shm",  # noqa: S108 - a device of the system, not a place that is chosen here
)  # fmt: skip


class Confinement(Struct, frozen=True, kw_only=True):
    """What one agent may open beside the system."""

    hidden: str
    """The directory of the installation. Nothing that holds it is opened as a whole."""
    writable: tuple[str, ...]
    readable: tuple[str, ...] = ()


@cache
def version() -> int:
    """How much of this the kernel offers; 0 when it offers nothing."""
    if sys.platform != "linux":
        return 0
    return max(0, _call(CREATE_RULESET, None, 0, GET_VERSION))


def apply(confinement: Confinement) -> None:
    """Confine the calling process for good; raises `OSError` when the kernel refuses."""
    rights = (1 << RIGHTS_BY_VERSION.get(version(), 16)) - 1
    attributes = struct.pack("QQQ", rights, 0, SCOPES if version() >= 6 else 0)
    known_bytes = {1: 8, 2: 8, 3: 8, 4: 16, 5: 16}.get(version(), 24)
    ruleset = _checked(CREATE_RULESET, attributes[:known_bytes], known_bytes, 0)
    try:
        hidden = Path(confinement.hidden)
        for path in (*SYSTEM, *_libraries(), *confinement.readable):
            _allow(ruleset, beside(Path(path), hidden), READ & rights)
        for path in (*DEVICES, *confinement.writable):
            _allow(ruleset, beside(Path(path), hidden), rights)
        _drop_capabilities()
        if _libc().prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")
        _checked(RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _drop_capabilities() -> None:
    """Leave root nothing that others do not have; some of it reaches around Landlock."""
    if os.geteuid() != 0:
        return
    capability = 0
    while _libc().prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
        capability += 1
    header = struct.pack("Ii", CAPABILITY_VERSION, 0)
    if _libc().capset(header, bytes(CAPABILITY_SETS_BYTES)) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def beside(path: Path, hidden: Path) -> Iterator[Path]:
    """The path itself, or, when it holds the hidden directory, everything in it that does not."""
    resolved = Path(os.path.realpath(path))
    if resolved == hidden:
        return
    if not hidden.is_relative_to(resolved):
        yield resolved
        return
    with suppress(OSError):
        for entry in resolved.iterdir():
            if not entry.is_symlink():
                yield from beside(entry, hidden)


def _libraries() -> Iterator[str]:
    """Where this interpreter and its modules are."""
    yield from {
        sys.prefix,
        sys.base_prefix,
        sys.exec_prefix,
        os.path.dirname(os.path.realpath(sys.executable)),
    }
    yield from (path for path in sys.path if os.path.isabs(path))


def _allow(ruleset: int, paths: Iterable[Path], rights: int) -> None:
    for path in paths:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # what does not exist needs no rule
        try:
            is_directory = stat.S_ISDIR(os.fstat(fd).st_mode)
            rule = struct.pack("=Qi", rights if is_directory else rights & OF_FILES, fd)
            _checked(ADD_RULE, ruleset, RULE_PATH_BENEATH, rule, 0)
        finally:
            os.close(fd)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: int | bytes | None) -> int:
    return int(_libc().syscall(number, *arguments))


def _checked(number: int, *arguments: int | bytes | None) -> int:
    result = _call(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"landlock: {os.strerror(ctypes.get_errno())}")
    return result
