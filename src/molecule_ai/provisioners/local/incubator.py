"""The server's side of new processes: asking a zygote for one, or starting an interpreter."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress

import msgspec
import structlog
from msgspec import structs

from molecule_ai.provisioners.errors import StartFailed

from . import marks
from .birth import GO, Birth, read_certificate
from .identity import HAS_PROC, Identity, is_alive
from .launch import CONTROL_FD, LISTENER_FD
from .zygote import HEADER_BYTES, READY

log = structlog.get_logger(__name__)

# -P keeps the agent's own directory out of the import path, -s the user's site packages.
PYTHON = (sys.executable, "-P", "-s")
ZYGOTE_READY_SECONDS = 60.0  # imports on a slow or busy machine
BIRTH_SECONDS = 60.0  # the same, for an interpreter of its own
REQUEST_SECONDS = 10.0  # a zygote reads a request at once, unless it hangs
RETRY_SECONDS = 60.0  # after a zygote that could not be had
CLEAR_OF_TARGETS = 64  # descriptors are kept above the numbers that a new process gets them under


class Newborn:
    """A process that waits for leave to live. Without it, it ends when this is closed."""

    def __init__(self, identity: Identity, control: socket.socket) -> None:
        self.identity = identity
        self._control = control

    def release(self) -> None:
        """Let it live."""
        try:
            self._control.send(GO)
        except OSError as error:
            raise StartFailed("the agent's process ended before it began") from error
        finally:
            self._control.close()

    def discard(self) -> None:
        self._control.close()


class Incubator:
    """Brings processes into the world, forked where that works and with an interpreter of their own else."""

    def __init__(self, home_id: str, environment: Mapping[str, str]) -> None:
        self._home_id = home_id
        self._environment = environment
        self._zygotes: dict[tuple[str, ...], Zygote] = {}

    async def bear(
        self, birth: Birth, preload: Sequence[str], listener: socket.socket, log_fd: int
    ) -> Newborn:
        """Return a new process with this listening socket, its output going to the log."""
        modules = tuple(preload)
        if modules and HAS_PROC:
            zygote = self._zygotes.setdefault(modules, Zygote(self._home_id, modules, self._environment))
            newborn = await zygote.fork(birth, listener, log_fd)
            if newborn is not None:
                return newborn
        return await _spawn(birth, listener, log_fd)

    async def warm(self, preload: Sequence[str]) -> None:
        """Have a zygote ready before the first agent needs it."""
        modules = tuple(preload)
        if modules and HAS_PROC:
            zygote = self._zygotes.setdefault(modules, Zygote(self._home_id, modules, self._environment))
            await zygote.ready()

    def close(self) -> None:
        for zygote in self._zygotes.values():
            zygote.close()
        self._zygotes.clear()


class Zygote:
    """One preloaded process, started when it is first needed and again after it died."""

    def __init__(self, home_id: str, modules: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self._modules = modules
        self._environment = {
            **environment,
            "MOLECULE_HOME_ID": home_id,
            marks.RESERVED_NAME: "." * marks.RESERVED_BYTES,
        }
        self._socket: socket.socket | None = None
        self._identity: Identity | None = None
        self._lock = asyncio.Lock()
        self._not_before = 0.0

    async def ready(self) -> bool:
        async with self._lock:
            return await self._ensure()

    async def fork(self, birth: Birth, listener: socket.socket, log_fd: int) -> Newborn | None:
        """Ask for an agent; `None` when this zygote cannot give one."""
        ours, theirs = socket.socketpair()
        try:
            async with self._lock:
                if not await self._ensure():
                    ours.close()
                    return None
                await self._ask(birth, (theirs.fileno(), listener.fileno(), log_fd))
        except OSError as error:
            ours.close()
            self._give_up(f"the request was not taken: {error}")
            return None
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        newborn = await _certified(ours)
        if newborn is None:
            log.warning("zygote_fork_failed", modules=self._modules)
        return newborn

    def close(self) -> None:
        """Let the zygote end; its agents do not notice."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def _ensure(self) -> bool:
        if self._socket is not None and not _is_closed(self._socket):
            return True
        self.close()
        loop = asyncio.get_running_loop()
        if loop.time() < self._not_before:
            return False
        ours, theirs = socket.socketpair()
        with theirs:
            fds = {0: None, CONTROL_FD: theirs.fileno()}
            argv = (*PYTHON, "-m", "molecule_ai.provisioners.local.zygote", str(CONTROL_FD))
            _start((*argv, ",".join(self._modules), "." * marks.RESERVED_BYTES), self._environment, fds)
        line = await _read_line(ours, ZYGOTE_READY_SECONDS)
        if line != READY:
            ours.close()
            self._give_up(line.decode(errors="replace") or "it ended before it was ready")
            return False
        self._socket = ours
        return True

    async def _ask(self, birth: Birth, fds: tuple[int, int, int]) -> None:
        try:
            await asyncio.to_thread(self._send, birth, fds)
        except asyncio.CancelledError:
            self.close()  # a request cut in the middle would be joined to the next one
            raise

    def _send(self, birth: Birth, fds: tuple[int, int, int]) -> None:
        assert self._socket is not None  # noqa: S101 - _ensure ran under the same lock
        payload = msgspec.json.encode(birth)
        self._socket.settimeout(REQUEST_SECONDS)
        socket.send_fds(self._socket, [len(payload).to_bytes(HEADER_BYTES)], fds)
        self._socket.sendall(payload)
        self._socket.setblocking(False)

    def _give_up(self, reason: str) -> None:
        log.warning("zygote_unavailable", modules=self._modules, reason=reason)
        self.close()
        self._not_before = asyncio.get_running_loop().time() + RETRY_SECONDS


async def _spawn(birth: Birth, listener: socket.socket, log_fd: int) -> Newborn:
    """Start an interpreter of its own."""
    bare = structs.replace(birth, environment={})
    argv = (*PYTHON, "-m", "molecule_ai.provisioners.local.launch", msgspec.json.encode(bare).decode())
    ours, theirs = socket.socketpair()
    with theirs:
        fds = {0: None, 1: log_fd, 2: log_fd, CONTROL_FD: theirs.fileno(), LISTENER_FD: listener.fileno()}
        try:
            _start(argv, birth.environment, fds)
        except OSError as error:
            ours.close()
            raise StartFailed("the agent's process could not be started") from error
    newborn = await _certified(ours)
    if newborn is None:
        raise StartFailed("the agent's process ended before it began")
    return newborn


def _start(argv: Sequence[str], environment: Mapping[str, str], fds: Mapping[int, int | None]) -> int:
    """Start a program with exactly these descriptors; `None` stands for the null device."""
    copies: list[int] = []
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = []
    try:
        for target, source in fds.items():
            if source is None:
                actions.append((os.POSIX_SPAWN_OPEN, target, os.devnull, os.O_RDONLY, 0))
                continue
            copy = fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, CLEAR_OF_TARGETS)
            copies.append(copy)
            actions.append((os.POSIX_SPAWN_DUP2, copy, target))
        pid = os.posix_spawn(argv[0], list(argv), dict(environment), file_actions=actions)
    finally:
        for copy in copies:
            os.close(copy)
    # Nobody else waits for this child, and a thread works in any event loop.
    threading.Thread(target=_wait_for, args=(pid,), name=f"reap-{pid}", daemon=True).start()
    return pid


def _wait_for(pid: int) -> None:
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)


async def _certified(control: socket.socket) -> Newborn | None:
    try:
        line = await _read_line(control, BIRTH_SECONDS)
        identity = read_certificate(line) if line else None
    except BaseException:
        control.close()
        raise
    if identity is None or not is_alive(identity):
        control.close()
        return None
    return Newborn(identity, control)


async def _read_line(source: socket.socket, timeout: float) -> bytes:
    """Read up to a line end; what came so far, often nothing, when the other side ends or is too slow."""
    source.setblocking(False)
    loop = asyncio.get_running_loop()
    line = b""
    with suppress(TimeoutError, OSError):
        async with asyncio.timeout(timeout):
            while not line.endswith(b"\n") and (chunk := await loop.sock_recv(source, 4096)):
                line += chunk
    return line.removesuffix(b"\n")


def _is_closed(connection: socket.socket) -> bool:
    """Whether the other side is gone; it never sends anything once it is ready."""
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
