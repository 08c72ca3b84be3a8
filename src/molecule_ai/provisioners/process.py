"""Agents as processes of this machine, the default: no container engine, no account.

Nothing about a running agent is kept in memory. A server that is killed leaves its agents alone; the next
one, or another replica on the node, takes them over by their handles.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import MappingProxyType
from uuid import UUID

import structlog

from molecule_ai.kernel import failpoints

from .base import Handle, Launch, Orphan, Record
from .environment import agent_environment
from .errors import Elsewhere, StartFailed
from .local import confinement, layout, logs, scan
from .local.birth import Birth
from .local.confinement import Confinement
from .local.ending import end
from .local.files import LocalFiles
from .local.identity import Identity, boot_id, is_alive
from .local.incubator import Incubator
from .local.layout import Layout
from .local.limits import describe, limits_for

log = structlog.get_logger(__name__)

ENTRY = "molecule_ai.runtime"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PATH = f"{Path(sys.executable).parent}:{SYSTEM_PATH}"
LANG = "C.UTF-8"
FULL_HOST_TIER = 4  # contract 02 §8
SHARED_TMP_TIER = 3  # tiers below have a temporary directory of their own and no other
LOOPBACK = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
BACKLOG = 128
LEFTOVER_GRACE = 2.0  # seconds for an agent that a new start replaces
YOUNG_SECONDS = 3.0  # an agent this young may be in no snapshot of the database yet
SETTLE_SECONDS = 15.0  # after which an agent that does not answer no longer holds up the next start
SETTLE_POLL_SECONDS = 0.05
MAX_LOG_BYTES = 1024 * 1024


class ProcessProvisioner:
    """Starts, judges and ends agents on this node.

    `preload` names the modules that agents of a runtime are forked with; without any, each gets an
    interpreter of its own. `entry` is the module, or the Python file, that an agent runs. With `confine`
    agents below tier 4 see the system and their own files only, where the kernel can do that.
    """

    name = "process"

    def __init__(
        self,
        home: Path,
        platform_url: str,
        *,
        entry: str = ENTRY,
        preload: Callable[[str], Sequence[str]] = lambda runtime: (),
        orphan_timeout: timedelta = timedelta(minutes=10),
        memory_mb_by_tier: Mapping[int, int] = MappingProxyType({}),
        concurrent_starts: int = 0,
        path: str = PATH,
        confine: bool = True,
    ) -> None:
        self.home = Path(os.path.realpath(home))
        self._platform_url = platform_url
        self._entry = entry
        self._preload = preload
        self._orphan_timeout = orphan_timeout
        self._memory_mb_by_tier = memory_mb_by_tier
        self._path = path
        self._confine = confine
        self.node = layout.node_id(self.home)
        self.home_id = hashlib.sha256(f"{self.node}:{self.home}".encode()).hexdigest()[:16]
        self._scanner = scan.Scanner(self.home_id)
        self._incubator = Incubator(self.home_id, {"PATH": path, "LANG": LANG, "HOME": str(self.home)})
        self._starts = asyncio.Semaphore(concurrent_starts or max(4, 2 * (os.cpu_count() or 1)))
        self._settling: set[asyncio.Task[None]] = set()

    async def start(self, launch: Launch, record: Record | None = None) -> Handle:
        """Bring an agent to life, in the place of any other one of its workspace."""
        here = layout.layout_of(self.home, launch.workspace_id)
        if (known := here.recall()) and known.instance_id == launch.instance_id and self._lives(known):
            if record is not None:
                await record(known)
            return known
        await self._starts.acquire()
        try:
            await self.stop(
                launch.workspace_id, known if known and known.node == self.node else None, LEFTOVER_GRACE
            )
            handle = await self._start(here, launch, record)
        except BaseException:
            self._starts.release()
            raise
        settling = asyncio.get_running_loop().create_task(self._settle(handle))
        self._settling.add(settling)
        settling.add_done_callback(self._settling.discard)
        return handle

    async def stop(self, workspace_id: UUID, handle: Handle | None, grace: float = 5) -> None:
        leader = self._identity(handle) if handle else None
        await end(partial(self._scanner.look, workspace_id), leader, grace)

    async def is_running(self, handle: Handle) -> bool:
        return is_alive(self._identity(handle))

    async def logs(self, workspace_id: UUID, tail_bytes: int = 64 * 1024) -> str:
        path = layout.layout_of(self.home, workspace_id).output
        return await asyncio.to_thread(logs.tail, path, min(tail_bytes, MAX_LOG_BYTES))

    async def remove(self, workspace_id: UUID, handle: Handle | None, purge: bool) -> None:
        await self.stop(workspace_id, handle)
        if purge:
            await asyncio.to_thread(layout.layout_of(self.home, workspace_id).purge)

    async def find_orphans(self, expected: Mapping[UUID, UUID]) -> list[Orphan]:
        """See `Provisioner.find_orphans`. The round also cuts logs that have grown too large."""
        await asyncio.to_thread(logs.rotate, layout.workspaces_of(self.home).glob("*/agent.log"))
        found: dict[tuple[UUID, UUID], Orphan] = {}
        for process in await self._scanner.look():
            if expected.get(process.workspace_id) == process.instance_id or process.is_owned:
                continue
            if scan.age_seconds(process.identity) < YOUNG_SECONDS:
                continue
            key = (process.workspace_id, process.instance_id)
            if key not in found or process.leads:
                found[key] = self._orphan(process)
        return list(found.values())

    async def kill_orphan(self, orphan: Orphan) -> None:
        if orphan.node != self.node:
            raise Elsewhere(orphan.node)
        await end(partial(self._scanner.look, orphan.workspace_id, orphan.instance_id))

    async def end_all(self, grace: float = 5) -> None:
        """End every agent of this installation: the last act of a server that goes with its agents."""
        await end(self._scanner.look, None, grace)

    def files(self, workspace_id: UUID) -> LocalFiles:
        here = layout.layout_of(self.home, workspace_id)
        return LocalFiles(
            here, workspace_id, self._scanner, {"LANG": LANG, **self._own_environment(here, here.workspace)}
        )

    async def warm(self, runtime: str) -> None:
        """Have the first agent of a runtime start as fast as the second one."""
        await self._incubator.warm(self._preload(runtime))

    async def close(self) -> None:
        for settling in self._settling:
            settling.cancel()
        self._incubator.close()

    async def _start(self, here: Layout, launch: Launch, record: Record | None) -> Handle:
        try:
            directory = await asyncio.to_thread(here.prepare, launch)
            failpoints.reach("process.prepared")
            log_fd = logs.open_for_agent(here.output)
        except OSError as error:
            raise StartFailed(f"the files of the workspace cannot be written: {error.strerror}") from error
        try:
            with _listen() as listener:
                url = _url_of(listener)
                birth = self._birth(here, launch, directory, url)
                newborn = await self._incubator.bear(birth, self._preload(launch.runtime), listener, log_fd)
        finally:
            os.close(log_fd)
        handle = self._handle(launch, newborn.identity, url)
        try:
            failpoints.reach("process.born")
            if record is not None:
                await record(handle)
        except BaseException:
            newborn.discard()
            raise
        failpoints.reach("process.recorded")
        newborn.release()
        failpoints.reach("process.released")
        # Not before: a repeated start must never take an agent for living that was not let live.
        here.remember(handle)
        failpoints.reach("process.remembered")
        log.info("agent_started", workspace_id=str(launch.workspace_id), pid=handle.pid, url=handle.url)
        return handle

    def _handle(self, launch: Launch, identity: Identity, url: str) -> Handle:
        return Handle(
            instance_id=launch.instance_id,
            url=url,
            node=self.node,
            pid=identity.pid,
            started_at=identity.started_at,
            boot_id=identity.boot_id,
            isolation=describe(
                limits_for(launch.tier, self._memory_mb_by_tier), is_confined=self._confines(launch)
            ),
        )

    def _birth(self, here: Layout, launch: Launch, directory: Path, url: str) -> Birth:
        own = {
            **self._own_environment(here, directory),
            "AGENT_URL": url,
            "AGENT_ORPHAN_TIMEOUT": f"{self._orphan_timeout.total_seconds():g}",
            scan.HOME_MARK: self.home_id,
        }
        return Birth(
            entry=self._entry,
            directory=str(directory),
            limits=limits_for(launch.tier, self._memory_mb_by_tier),
            confinement=self._confinement(here, launch, directory) if self._confines(launch) else None,
            environment=agent_environment(launch, self._platform_url, own),
        )

    def _confines(self, launch: Launch) -> bool:
        return self._confine and launch.tier != FULL_HOST_TIER and confinement.version() > 0

    def _confinement(self, here: Layout, launch: Launch, directory: Path) -> Confinement:
        own = (here.configs, here.workspace, here.plugins, here.temporary, directory)
        shared = ["/tmp"] if launch.tier == SHARED_TMP_TIER else []  # noqa: S108 - what tier 3 is given
        script = [os.path.dirname(self._entry)] if self._entry.endswith(".py") else []
        return Confinement(
            hidden=str(self.home),
            writable=(*(str(path) for path in own), *shared),
            readable=(*_program_directories(self._path), *script),
        )

    def _own_environment(self, here: Layout, directory: Path) -> dict[str, str]:
        return {
            "PATH": self._path,
            "HOME": str(here.workspace),
            "TMPDIR": str(here.temporary),
            "WORKSPACE_CONFIG_PATH": str(here.configs),
            "CONFIGS_DIR": str(here.configs),
            "WORKSPACE_DIR": str(directory),
            "PLUGINS_DIR": str(here.plugins),
        }

    async def _settle(self, handle: Handle) -> None:
        """Hold the place of a start until its agent answers, so that many starts do not starve each other."""
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                # Nothing tells us when another process is ready, so it is asked again and again.
                while self._lives(handle) and not await _answers(handle.url):  # noqa: ASYNC110
                    await asyncio.sleep(SETTLE_POLL_SECONDS)
        except TimeoutError:
            log.warning("agent_slow_to_answer", pid=handle.pid, url=handle.url)
        finally:
            self._starts.release()

    def _lives(self, handle: Handle) -> bool:
        return handle.node == self.node and is_alive(self._identity(handle))

    def _identity(self, handle: Handle) -> Identity:
        if handle.node != self.node:
            raise Elsewhere(handle.node)
        return Identity(handle.pid or 0, handle.started_at or 0.0, handle.boot_id or "")

    def _orphan(self, process: scan.Marked) -> Orphan:
        return Orphan(
            workspace_id=process.workspace_id,
            instance_id=process.instance_id,
            node=self.node,
            pid=process.identity.pid,
            started_at=process.identity.started_at,
            boot_id=boot_id(),
        )


def _program_directories(path: str) -> Iterator[str]:
    """The directories of a search path; of an installation like `prefix/bin`, all of the prefix."""
    for folder in map(Path, path.split(os.pathsep)):
        is_installation = folder.name == "bin" and (folder.parent / "lib").is_dir()
        yield str(folder.parent if is_installation and folder.parent != Path("/") else folder)


def _listen() -> socket.socket:
    """Listen on a free loopback port; the agent inherits the socket, so that none is lost meanwhile."""
    for family, address in LOOPBACK:
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.bind((address, 0))
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            continue
        return listener
    raise StartFailed("this machine has no loopback address to listen on")


def _url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _answers(url: str) -> bool:
    """Whether an HTTP server at this URL says anything at all."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    with suppress(OSError):
        reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        try:
            writer.write(b"GET /health HTTP/1.0\r\n\r\n")
            return await reader.read(1) != b""
        finally:
            writer.close()
    return False
