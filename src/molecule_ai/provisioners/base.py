"""The seams between the servers and the places where agents run.

The server decides *that* an agent runs and records it; a provisioner knows *how*. Everything a back
end must remember about a running agent is in the `Handle`, which the server keeps in the workspace's
row: any replica, also one started after a crash, hands it back and goes on where the other stopped.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import BinaryIO, Protocol, runtime_checkable
from uuid import UUID

from msgspec import Struct, field

from molecule_ai.kernel.archives import TAR_LIMITS, TarLimits

MiB = 1024 * 1024


class WorkspaceAccess(StrEnum):
    """What the agent may do in the operator's own directory."""

    NONE = "none"
    READ_ONLY = "read_only"
    READ_WRITE = "read_write"


class Launch(Struct, frozen=True, kw_only=True):
    """Everything one start of one agent needs."""

    workspace_id: UUID
    instance_id: UUID
    """Fresh for every start, recorded before it; what tells this agent from its predecessor."""
    generation: int = 0
    """Of the workspace's wish that this start fulfils."""
    name: str
    token: str
    """The workspace token, delivered as `.auth_token` and `MOLECULE_WORKSPACE_TOKEN`."""
    tier: int = 3
    runtime: str = "langgraph"
    role: str | None = None
    model: str | None = None
    parent_id: UUID | None = None
    org_id: str | None = None
    """Only under a control plane."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Secrets and what the environment hooks added. Reserved names in it are ignored."""
    platform_env: Mapping[str, str] = field(default_factory=dict)
    """What the platform itself sets beyond the fixed names, such as its LLM gateway. Wins over `env`."""
    config_files: Mapping[str, bytes] = field(default_factory=dict)
    """Content by path relative to the configs directory."""
    overwrite: bool = False
    """Whether `config_files` replace files that exist; without it the agent's own edits win."""
    inbound_secret: str | None = None
    workspace_dir: str | None = None
    workspace_access: WorkspaceAccess = WorkspaceAccess.NONE
    reset_session: bool = False
    """Forget the conversation state that the runtime kept on disk."""

    def __repr__(self) -> str:
        return f"Launch(workspace_id={self.workspace_id}, instance_id={self.instance_id}, token=***, env=***)"


class Handle(Struct, frozen=True, kw_only=True):
    """What identifies one running agent, now and after every crash. Plain JSON."""

    instance_id: UUID
    url: str
    node: str
    pid: int | None = None
    started_at: float | None = None
    """Start of the process in the operating system's own units; only ever compared for equality."""
    boot_id: str | None = None
    container_id: str | None = None
    isolation: str | None = None
    """One line on what really confines this agent, for the admin view."""
    image: str | None = None
    image_digest: str | None = None
    """What tells the image of this agent from every other one of its name."""


Record = Callable[[Handle], Awaitable[None]]


class Orphan(Struct, frozen=True, kw_only=True):
    """A live process of this installation that no workspace expects."""

    workspace_id: UUID
    instance_id: UUID
    node: str
    pid: int | None = None
    started_at: float | None = None
    boot_id: str | None = None
    container_id: str | None = None


class Root(StrEnum):
    """The places of a workspace that files live in (contract 06 §5.1)."""

    CONFIGS = "configs"
    WORKSPACE = "workspace"
    PLUGINS = "plugins"
    HOME = "home"
    AGENT_HOME = "agent-home"


class FileEntry(Struct, frozen=True, kw_only=True):
    """One file or directory, its path relative to the directory that was listed."""

    path: str
    size: int
    is_dir: bool
    mode: int
    modified_at: float


class ExecResult(Struct, frozen=True, kw_only=True):
    """How a command in the workspace ended; output beyond the limit is cut and said to be."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    truncated: bool = False
    timed_out: bool = False


class WorkspaceFiles(Protocol):
    """The files of one workspace, wherever they are and whether or not its agent runs.

    Paths are relative to their root and pass one sanitizer: a path that leaves the root, also by a
    symlink, is refused. The agent's credentials can neither be read, written, packed nor deleted here.
    """

    async def stat(self, root: Root, path: str) -> FileEntry | None: ...

    async def read(self, root: Root, path: str, *, max_bytes: int = 5 * MiB) -> bytes: ...

    async def write(self, root: Root, path: str, content: bytes, *, mode: int = 0o644) -> None:
        """Replace the file as a whole, creating its parents: a reader sees the old or the new one."""
        ...

    async def write_many(self, root: Root, files: Mapping[str, bytes], *, prune: bool = False) -> None:
        """Write all or none; with `prune` every file that is not named goes."""
        ...

    async def list(self, root: Root, path: str = "", *, depth: int = 1) -> list[FileEntry]: ...

    async def delete(self, root: Root, path: str) -> None:
        """Remove a file, or a directory with all it holds; never a root itself."""
        ...

    async def tar_in(self, root: Root, path: str, archive: BinaryIO, limits: TarLimits = TAR_LIMITS) -> int:
        """Unpack into a directory, created when missing; returns the number of files."""
        ...

    async def tar_out(self, root: Root, path: str = "", *, max_bytes: int = 256 * MiB) -> BinaryIO:
        """Pack a directory, complete before the first byte is handed out; links are left out."""
        ...

    async def exec(
        self,
        argv: Sequence[str],
        *,
        root: Root = Root.WORKSPACE,
        stdin: bytes | None = None,
        timeout: timedelta = timedelta(seconds=60),
        max_output_bytes: int = MiB,
    ) -> ExecResult:
        """Run a command beside the agent, without its secrets. Nothing of it outlives the call."""
        ...


@runtime_checkable
class Prepares(Protocol):
    """A back end that can do some of a start before anybody asks for one."""

    async def warm(self, runtime: str) -> None:
        """Have the first agent of a runtime start as fast as the second one. Idempotent."""
        ...


class Provisioner(Protocol):
    """Starts, stops and judges agents. Every method may be called from any replica of its node."""

    name: str
    node: str
    """The machine whose agents this process can reach; empty: it reaches them all."""

    async def start(self, launch: Launch, record: Record | None = None) -> Handle:
        """Bring the agent to life and return how to find it; it goes online when it registers.

        `record` is awaited when the handle is known and nothing of the agent has run yet: what it writes
        is there before the agent registers, and if it raises, or its process dies, no agent lives. A
        start repeated with the same instance returns the living agent of the first one, recorded anew.
        Raises `ProvisionError`.
        """
        ...

    async def stop(self, workspace_id: UUID, handle: Handle | None, grace: float = 5) -> None:
        """End the agent and all it started: ask, wait `grace` seconds, kill, reap. Idempotent.

        Without a handle whatever runs for the workspace is ended. A process that is not the one the
        handle names is never signalled.
        """
        ...

    async def is_running(self, handle: Handle) -> bool: ...

    async def logs(self, workspace_id: UUID, tail_bytes: int = 64 * 1024) -> str: ...

    async def remove(self, workspace_id: UUID, handle: Handle | None, purge: bool) -> None:
        """Stop the agent; with `purge` its files go too, without it they stay for a restore."""
        ...

    async def find_orphans(self, expected: Mapping[UUID, UUID]) -> list[Orphan]:
        """Live agents of this installation and node that `expected` does not name.

        `expected` holds the instance by workspace, read from the database just before the call: an
        agent younger than a few seconds is never an orphan, so that a start in flight is left alone.
        """
        ...

    async def kill_orphan(self, orphan: Orphan) -> None: ...

    def files(self, workspace_id: UUID) -> WorkspaceFiles: ...

    async def close(self) -> None:
        """Let go of what this process holds. Agents live on."""
        ...
