"""A process that imports what agents need, once, and forks them: `python -m … .zygote FD MODULES`.

A forked agent skips the seconds that imports cost and shares their memory with its siblings until it
writes to it. The server holds the other end of one socket; when that closes, the zygote ends. Agents are
sessions of their own and live on.

It must never start a thread and never write to a buffer: both would be copied half-done into the agents.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import select
import signal
import socket
import sys
from contextlib import suppress

import msgspec
from msgspec import Struct

from . import marks
from .birth import Birth, close_above, live, settle
from .scan import HOME_MARK, INSTANCE_MARK, WORKSPACE_MARK

HEADER_BYTES = 4  # the length of a request, big-endian
READY = b"ready"
FD_COUNT = 3  # control line, listening socket, log
RECEIVE_TIMEOUT = 5.0  # seconds for the rest of a request; the server writes it in one go


class Agent(Struct, frozen=True):
    """What a fork that became an agent has to go on with."""

    birth: Birth
    control: socket.socket
    listener: int


def main() -> None:
    server = socket.socket(fileno=int(sys.argv[1]))
    close_above(server.fileno())
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    problem = _prepare(sys.argv[2].split(","))
    server.sendall((problem.encode() if problem else READY) + b"\n")
    agent = None if problem else _serve(server)
    if agent is None:
        return
    server.close()
    settle(agent.birth, agent.control, agent.listener)
    gc.enable()
    os._exit(_status_of(agent.birth.entry))


def _status_of(entry: str) -> int:
    """Run the agent to its end, whatever that is, and return its exit status.

    The caller leaves without taking the interpreter apart, which would copy all memory that the agent
    shares with its siblings only to free it.
    """
    try:
        live(entry)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    return status


def _prepare(modules: list[str]) -> str | None:
    """Import everything; return what makes this process unfit to be forked."""
    gc.disable()
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:
            return f"{module} cannot be imported: {error!r}".replace("\n", " ")
    if len(os.listdir("/proc/self/task")) > 1:
        return "an import started a thread"
    gc.collect()
    gc.freeze()  # a collection in an agent would touch, and so copy, every shared page
    return None


def _serve(server: socket.socket) -> Agent | None:
    """Fork agents until the server is gone; return an agent in the fork and nothing in the zygote."""
    wake_reader, wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        readable, _, _ = select.select([server.fileno(), wake_reader], [], [])
        if wake_reader in readable:
            _reap(wake_reader)
        if server.fileno() in readable:
            request = _receive(server)
            if request is None:
                return None
            payload, fds = request
            pid = _fork()
            if pid == 0:
                os.close(wake_reader)
                os.close(wake_writer)
                return _become(payload, fds)
            for fd in fds:
                os.close(fd)


def _receive(server: socket.socket) -> tuple[bytes, list[int]] | None:
    try:
        server.settimeout(RECEIVE_TIMEOUT)
        header, fds, _, _ = socket.recv_fds(server, HEADER_BYTES, FD_COUNT)
        if len(header) < HEADER_BYTES or len(fds) < FD_COUNT:
            return None
        length = int.from_bytes(header)
        payload = bytearray()
        while len(payload) < length:
            chunk = server.recv(min(length - len(payload), 1 << 20))
            if not chunk:
                return None
            payload += chunk
        return bytes(payload), fds
    except OSError:
        return None


def _fork() -> int:
    try:
        return os.fork()
    except OSError:
        return -1  # the request's descriptors are closed, which tells the server


def _become(payload: bytes, fds: list[int]) -> Agent:
    birth = msgspec.json.decode(payload, type=Birth)
    control, listener, log = fds
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    environment = birth.environment
    os.environ.clear()
    marks.show(
        {name: environment[name] for name in (HOME_MARK, WORKSPACE_MARK, INSTANCE_MARK)},
        f"molecule agent {environment[WORKSPACE_MARK]} {environment.get('MOLECULE_WORKSPACE_NAME', '')}",
    )
    return Agent(birth, socket.socket(fileno=control), listener)


def _reap(wake_reader: int) -> None:
    os.read(wake_reader, 4096)
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


if __name__ == "__main__":
    main()
