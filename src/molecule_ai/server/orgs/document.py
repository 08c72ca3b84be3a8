"""The types of an organization document, with every default and every file reference resolved."""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from fnmatch import fnmatchcase

from msgspec import Struct, field

from molecule_ai.provisioners.base import WorkspaceAccess


class MemoryScope(StrEnum):
    LOCAL = "LOCAL"
    TEAM = "TEAM"
    GLOBAL = "GLOBAL"


class Approver(StrEnum):
    """Who decides a request that an approval rule holds back."""

    USER = "user"
    PARENT = "parent"


class EnvRequirement(Struct, frozen=True):
    """Names of which at least one must be set; usually there is just one."""

    any_of: tuple[str, ...]

    def to_wire(self) -> str | dict[str, list[str]]:
        """The form of `required_env` in answers: a bare name, or a group."""
        return self.any_of[0] if len(self.any_of) == 1 else {"any_of": list(self.any_of)}


class Memory(Struct, frozen=True):
    content: str
    scope: MemoryScope = MemoryScope.LOCAL


class Schedule(Struct, frozen=True, kw_only=True):
    """A prompt at a time; `cron_expr` is checked and in the five-field form."""

    name: str
    cron_expr: str
    timezone: str
    prompt: str
    is_enabled: bool


class Channel(Struct, frozen=True, kw_only=True):
    """A chat connection; values may still hold `${NAME}`, for the importer to expand."""

    type: str
    config: Mapping[str, str]
    allowed_users: tuple[str, ...]
    categories: tuple[str, ...]
    is_enabled: bool


class ApprovalRule(Struct, frozen=True, kw_only=True):
    """Actions of one workspace that wait for a decision.

    `action` is a pattern in the manner of file names (`publish*`), compared without regard to case.
    """

    action: str
    approver: Approver
    ttl_minutes: int
    reason: str

    def covers(self, action: str) -> bool:
        """Whether the rule is about this action."""
        return fnmatchcase(action.strip().casefold(), self.action.casefold())


class Position(Struct, frozen=True):
    """A spot on the canvas."""

    x: float
    y: float


class Workspace(Struct, frozen=True, kw_only=True):
    """One role. Unset means that the document leaves it to the runtime or the server."""

    name: str
    role: str
    runtime: str
    tier: int
    model: str | None
    template: str | None
    files_dir: str | None
    system_prompt: str | None
    initial_prompt: str | None
    idle_prompt: str | None
    idle_interval_seconds: int
    workspace_dir: str | None
    workspace_access: WorkspaceAccess
    plugins: tuple[str, ...]
    category_routing: Mapping[str, tuple[str, ...]]
    initial_memories: tuple[Memory, ...]
    max_concurrent_tasks: int
    schedules: tuple[Schedule, ...]
    channels: tuple[Channel, ...]
    approvals: tuple[ApprovalRule, ...]
    is_external: bool
    url: str | None
    canvas: Position | None
    required_env: tuple[EnvRequirement, ...]
    recommended_env: tuple[EnvRequirement, ...]
    # What `.env` files and `secrets` say, later layers over earlier ones; `${NAME}` is not expanded.
    secrets: Mapping[str, str] = field(default_factory=dict)
    is_spawning: bool = True
    # Where it stands in the document, for messages about it.
    path: str = ""
    children: "tuple[Workspace, ...]" = ()

    def walk(self) -> "Iterator[Workspace]":
        """This workspace and all below it, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()


class Org(Struct, frozen=True, kw_only=True):
    """A whole organization, ready to be created."""

    name: str
    description: str
    workspaces: tuple[Workspace, ...]
    global_memories: tuple[Memory, ...]
    # Of the document, of its defaults and of every node, without repetitions (contract 06 §3.5).
    required_env: tuple[EnvRequirement, ...]
    recommended_env: tuple[EnvRequirement, ...]
    warnings: tuple[str, ...] = ()

    def walk(self) -> Iterator[Workspace]:
        """Every workspace, parents first, the ones that do not spawn included."""
        for root in self.workspaces:
            yield from root.walk()

    def spawning(self) -> Iterator[tuple[Workspace, Workspace | None]]:
        """Each workspace to create with its parent, parents first.

        One that does not spawn takes everything below it along.
        """
        pending: list[tuple[Workspace, Workspace | None]] = [
            (root, None) for root in reversed(self.workspaces)
        ]
        while pending:
            workspace, parent = pending.pop()
            if workspace.is_spawning:
                yield workspace, parent
                pending.extend((child, workspace) for child in reversed(workspace.children))
