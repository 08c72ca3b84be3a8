"""The last steps of a new process before it is an agent, the same for every way it came to be.

It reports who it is to the server that wants it and waits for leave to go on. A server that dies in
between closes the line, and the unborn agent ends without having run anything.
"""

from __future__ import annotations

import os
import runpy
import signal
import socket
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from . import confinement, limits
from .confinement import Confinement
from .identity import Identity, identify
from .limits import Limits

GO = b"!"


class Birth(Struct, frozen=True, kw_only=True):
    """What becomes of a new process."""

    entry: str
    """A module to run as `__main__`, or the path of a Python file."""
    directory: str
    limits: Limits
    confinement: Confinement | None
    environment: dict[str, str]
    """Empty when the process was already started with its environment."""


def close_above(last: int) -> None:
    """Close what the server left open for its children by mistake or for others."""
    os.closerange(last + 1, os.sysconf("SC_OPEN_MAX"))


def settle(birth: Birth, control: socket.socket, listener: int) -> None:
    """Become a session of its own, confined and silent, and wait for leave to live."""
    os.setsid()
    _reset_signals()
    if birth.environment:
        _replace_environment(birth.environment)
    os.environ["AGENT_LISTEN_FD"] = str(listener)
    os.set_inheritable(listener, False)
    os.umask(0o077)
    limits.apply(birth.limits)
    os.chdir(birth.directory)
    with suppress(OSError):
        Path("/proc/self/comm").write_text("molecule-agent")
    if birth.confinement is not None:
        confinement.apply(birth.confinement)
    with control:
        control.settimeout(None)
        me = identify(os.getpid())
        control.sendall(msgspec.json.encode(me) + b"\n")
        if control.recv(1) != GO:
            os._exit(0)


def live(entry: str) -> None:
    """Run the agent; returns or raises when it ends."""
    sys.argv = [entry]
    if entry.endswith(".py"):
        runpy.run_path(entry, run_name="__main__")
    else:
        runpy.run_module(entry, run_name="__main__", alter_sys=True)


def read_certificate(line: bytes) -> Identity:
    """Understand what a new process reported."""
    return msgspec.json.decode(line, type=Identity)


def _reset_signals() -> None:
    """Undo what the parent ignores or blocks; Python itself keeps ignoring broken pipes."""
    signal.set_wakeup_fd(-1)
    for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGQUIT):
        signal.signal(signum, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _replace_environment(environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    time.tzset()
