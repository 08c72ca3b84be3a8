"""No back end: workspaces are records, agents run elsewhere and register themselves."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from .base import Handle, Launch, Orphan, Record, WorkspaceFiles
from .errors import NoBackend


class NoProvisioner:
    """Refuses to start anything; asked to end something, it has nothing to end."""

    name = "none"
    node = ""

    async def start(self, launch: Launch, record: Record | None = None) -> Handle:
        raise NoBackend("no back end to run agents is configured")

    async def stop(self, workspace_id: UUID, handle: Handle | None, grace: float = 5) -> None:
        return None

    async def is_running(self, handle: Handle) -> bool:
        return False

    async def logs(self, workspace_id: UUID, tail_bytes: int = 64 * 1024) -> str:
        raise NoBackend("no back end keeps logs of this workspace")

    async def remove(self, workspace_id: UUID, handle: Handle | None, purge: bool) -> None:
        return None

    async def find_orphans(self, expected: Mapping[UUID, UUID]) -> list[Orphan]:
        return []

    async def kill_orphan(self, orphan: Orphan) -> None:
        return None

    def files(self, workspace_id: UUID) -> WorkspaceFiles:
        raise NoBackend("no back end keeps files of this workspace")

    async def close(self) -> None:
        return None
