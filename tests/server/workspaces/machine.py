"""A machine that exists in memory only: agents are entries, and the server's death is an exception."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

from molecule_ai.provisioners.base import Handle, Launch, Orphan, Record, WorkspaceFiles
from molecule_ai.provisioners.errors import NoBackend, StartFailed
from molecule_ai.provisioners.local.files import LocalFiles
from molecule_ai.provisioners.local.layout import Layout
from molecule_ai.provisioners.local.scan import Scanner

NODE = "machine-of-the-test"


class Killed(BaseException):
    """The server process ends here, between two instructions."""


class Machine:
    """What survives every server: the agents that run, by instance."""

    def __init__(self) -> None:
        self.running: dict[UUID, UUID] = {}
        """Workspace by instance."""

    def of(self, workspace_id: UUID) -> list[UUID]:
        return [instance for instance, owner in self.running.items() if owner == workspace_id]

    def crash(self, workspace_id: UUID) -> None:
        """The agent of a workspace dies."""
        for instance in self.of(workspace_id):
            del self.running[instance]


class MachineProvisioner:
    """One server's hands on the machine.

    `dies_at` names the step at which this server is killed; without `may_go_on` it stalls before a start or
    a stop; one that `refuses_to_stop` has an engine that does not answer.
    """

    name = "machine"
    node = NODE

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.dies_at = ""
        self.refuses_to_stop = False
        self.starts = 0
        self._folder = TemporaryDirectory(prefix="molecule-machine-")
        self._kept: dict[UUID, Layout] = {}
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()

    def _reach(self, point: str) -> None:
        if self.dies_at == point:
            self.dies_at = ""
            raise Killed(point)

    async def start(self, launch: Launch, record: Record | None = None) -> Handle:
        self._reach("before start")
        await self.may_go_on.wait()
        self._machine.crash(launch.workspace_id)  # in the place of any other one, as the real ones do
        handle = Handle(
            instance_id=launch.instance_id, url=f"http://127.0.0.1:1/{launch.instance_id}", node=NODE
        )
        if record is not None:
            await record(handle)
        self._reach("after record")
        self.starts += 1
        self._machine.running[launch.instance_id] = launch.workspace_id
        self._reach("after start")
        return handle

    async def stop(self, workspace_id: UUID, handle: Handle | None, grace: float = 5) -> None:
        self._reach("before stop")
        await self.may_go_on.wait()
        if self.refuses_to_stop:
            raise StartFailed("the engine does not answer")
        for instance in self._machine.of(workspace_id):
            if handle is None or handle.instance_id == instance:
                del self._machine.running[instance]
        self._reach("after stop")

    async def is_running(self, handle: Handle) -> bool:
        return handle.instance_id in self._machine.running

    async def logs(self, workspace_id: UUID, tail_bytes: int = 64 * 1024) -> str:
        return ""

    async def remove(self, workspace_id: UUID, handle: Handle | None, purge: bool) -> None:
        await self.stop(workspace_id, None)

    async def find_orphans(self, expected: Mapping[UUID, UUID]) -> list[Orphan]:
        return [
            Orphan(workspace_id=owner, instance_id=instance, node=NODE)
            for instance, owner in self._machine.running.items()
            if expected.get(owner) != instance
        ]

    async def kill_orphan(self, orphan: Orphan) -> None:
        self._machine.running.pop(orphan.instance_id, None)

    def files(self, workspace_id: UUID) -> WorkspaceFiles:
        if workspace_id not in self._kept:
            raise NoBackend("this machine keeps no files")
        return LocalFiles(self._kept[workspace_id], workspace_id, Scanner("no processes here"), {})

    def put(self, workspace_id: UUID, path: str, content: bytes) -> None:
        """Keep a file of a workspace, as its agent or a user would."""
        if workspace_id not in self._kept:
            self._kept[workspace_id] = Layout(Path(self._folder.name) / str(workspace_id))
        file = self._kept[workspace_id].configs / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    def read(self, workspace_id: UUID, path: str) -> bytes:
        return (self._kept[workspace_id].configs / path).read_bytes()

    async def close(self) -> None:
        return None
