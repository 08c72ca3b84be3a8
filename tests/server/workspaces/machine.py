"""A machine that exists in memory only: agents are entries, and the server's death is an exception."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from uuid import UUID

from molecule_ai.provisioners.base import Handle, Launch, Orphan, WorkspaceFiles
from molecule_ai.provisioners.errors import NoBackend

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

    `dies_at` names the step at which this server is killed; without `may_go_on` it stalls before a start.
    """

    name = "machine"
    node = NODE

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.dies_at = ""
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()

    def _reach(self, point: str) -> None:
        if self.dies_at == point:
            self.dies_at = ""
            raise Killed(point)

    async def start(self, launch: Launch) -> Handle:
        self._reach("before start")
        await self.may_go_on.wait()
        self._machine.crash(launch.workspace_id)  # in the place of any other one, as the real ones do
        self._machine.running[launch.instance_id] = launch.workspace_id
        self._reach("after start")
        return Handle(
            instance_id=launch.instance_id, url=f"http://127.0.0.1:1/{launch.instance_id}", node=NODE
        )

    async def stop(self, workspace_id: UUID, handle: Handle | None, grace: float = 5) -> None:
        self._reach("before stop")
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
        raise NoBackend("this machine keeps no files")

    async def close(self) -> None:
        return None
