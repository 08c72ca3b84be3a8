"""Roles with their defaults resolved (contract 06 §3.4)."""

from collections.abc import Iterator

from msgspec import Struct

from molecule_ai.provisioners.base import WorkspaceAccess

from .attributes import (
    check_parent,
    comparable,
    read_access,
    read_idle_interval,
    read_inline_prompt,
    read_max_tasks,
    read_model,
    read_name,
    read_role,
    read_template,
    read_tier,
    read_url,
    read_usable_access,
    read_workspace_dir,
)
from .document import ApprovalRule, Memory, Workspace
from .environment import parse_env
from .fields import Fields
from .files import OrgFiles, UnreadableFile, UnsafePath
from .limits import MAX_TREE_DEPTH, MAX_WORKSPACES
from .parts import (
    read_approvals,
    read_channels,
    read_memories,
    read_plugins,
    read_position,
    read_requirements,
    read_routing,
    read_schedules,
    read_secrets,
)
from .prompts import Prompts
from .tree import Mapping, Sequence, Value, refuse

DEFAULT_RUNTIME = "langgraph"
EXTERNAL_RUNTIME = "external"
DEFAULT_TIER = 2
DEFAULT_IDLE_INTERVAL_SECONDS = 600


class Defaults(Struct, frozen=True, kw_only=True):
    """What a role gets when it says nothing itself."""

    runtime: str
    tier: int
    model: str | None
    initial_prompt: str | None
    idle_prompt: str | None
    idle_interval_seconds: int
    workspace_access: WorkspaceAccess
    plugins: tuple[str, ...]
    category_routing: dict[str, tuple[str, ...]]
    initial_memories: tuple[Memory, ...]
    max_concurrent_tasks: int
    approvals: tuple[ApprovalRule, ...]
    secrets: dict[str, str]


class Reader:
    """Reads the tree of roles of one document."""

    def __init__(self, files: OrgFiles | None, known_runtimes: frozenset[str] | None) -> None:
        self._files = files
        self._known_runtimes = known_runtimes
        self._count = 0
        self._org_env: dict[str, str] = {}

    def defaults(self, fields: Fields) -> Defaults:
        """The `defaults` of the document."""
        prompts = Prompts(self._files)
        self._org_env = self._env_file(fields, "")
        return Defaults(
            runtime=self._runtime(fields) or DEFAULT_RUNTIME,
            tier=read_tier(fields) or DEFAULT_TIER,
            model=read_model(fields),
            initial_prompt=prompts.read(fields, "initial_prompt"),
            idle_prompt=prompts.read(fields, "idle_prompt"),
            idle_interval_seconds=read_idle_interval(fields) or DEFAULT_IDLE_INTERVAL_SECONDS,
            workspace_access=read_access(fields) or WorkspaceAccess.NONE,
            plugins=read_plugins(fields, ()),
            category_routing=read_routing(fields, {}),
            initial_memories=read_memories(fields, "initial_memories"),
            max_concurrent_tasks=read_max_tasks(fields) or 1,
            approvals=read_approvals(fields),
            secrets=read_secrets(fields),
        )

    def roots(self, org: Fields, key: str, defaults: Defaults) -> tuple[Workspace, ...]:
        """The top of the org chart and all below it."""
        return self._siblings(org, key, defaults, level=1, parent_names=set())

    def _siblings(
        self, holder: Fields, key: str, defaults: Defaults, *, level: int, parent_names: set[str]
    ) -> tuple[Workspace, ...]:
        found: list[Workspace] = []
        lines_by_name: dict[str, int | None] = {}
        for fields, slug in _children(holder, key):
            self._count += 1
            if self._count > MAX_WORKSPACES:
                refuse(f"more than {MAX_WORKSPACES} workspaces", fields.place)
            if level > MAX_TREE_DEPTH:
                refuse(f"the org chart is more than {MAX_TREE_DEPTH} levels deep", fields.place)
            workspace = self._workspace(fields, slug, defaults, level, parent_names)
            if workspace.is_spawning and workspace.name:
                if workspace.name in lines_by_name:
                    first = lines_by_name[workspace.name]
                    seen = f"; the first is on line {first}" if first else ""
                    fields.problem(f"two workspaces at one level are named '{workspace.name}'{seen}", "name")
                lines_by_name.setdefault(workspace.name, fields.place.line)
            found.append(workspace)
        return tuple(found)

    def _workspace(
        self, fields: Fields, slug: str | None, defaults: Defaults, level: int, parent_names: set[str]
    ) -> Workspace:
        name = read_name(fields, slug)
        fields.role = name
        files_dir = self._files_dir(fields)
        prompts = Prompts(self._files, files_dir or "")
        is_external = fields.flag("external", False)
        workspace_dir = read_workspace_dir(fields)
        check_parent(fields, parent_names)
        workspace = Workspace(
            name=name,
            role=read_role(fields),
            runtime=self._runtime(fields) or (EXTERNAL_RUNTIME if is_external else defaults.runtime),
            tier=read_tier(fields) or defaults.tier,
            model=read_model(fields) or defaults.model,
            template=read_template(fields),
            files_dir=files_dir,
            system_prompt=read_inline_prompt(fields, "system_prompt"),
            initial_prompt=prompts.read(fields, "initial_prompt") or defaults.initial_prompt,
            idle_prompt=prompts.read(fields, "idle_prompt") or defaults.idle_prompt,
            idle_interval_seconds=read_idle_interval(fields) or defaults.idle_interval_seconds,
            workspace_dir=workspace_dir,
            workspace_access=read_usable_access(fields, workspace_dir, defaults.workspace_access),
            plugins=read_plugins(fields, defaults.plugins),
            category_routing=read_routing(fields, defaults.category_routing),
            initial_memories=read_memories(fields, "initial_memories") or defaults.initial_memories,
            max_concurrent_tasks=read_max_tasks(fields) or defaults.max_concurrent_tasks,
            schedules=read_schedules(fields, prompts),
            channels=read_channels(fields),
            approvals=(*defaults.approvals, *read_approvals(fields)),
            is_external=is_external,
            url=read_url(fields, is_external),
            canvas=read_position(fields),
            required_env=read_requirements(fields, "required_env"),
            recommended_env=read_requirements(fields, "recommended_env"),
            secrets=self._env(fields, files_dir) | defaults.secrets | read_secrets(fields),
            is_spawning=fields.flag("spawning", True),
            path=fields.path,
            children=self._siblings(
                fields,
                "children",
                defaults,
                level=level + 1,
                parent_names={comparable(known) for known in (name, slug, files_dir) if known},
            ),
        )
        fields.warn_of_unknown()
        return workspace

    def _runtime(self, fields: Fields) -> str | None:
        runtime = (fields.text("runtime", max_characters=100, one_line=True) or "").strip()
        if not runtime:
            return None
        known = self._known_runtimes
        if known is not None and runtime not in known and runtime != EXTERNAL_RUNTIME:
            fields.problem(f"unknown runtime '{runtime}'; known are {', '.join(sorted(known))}", "runtime")
        return runtime

    def _files_dir(self, fields: Fields) -> str | None:
        named = (fields.text("files_dir") or "").strip()
        if not named:
            return None
        if self._files is None:
            fields.problem("files_dir needs an organization directory", "files_dir")
            return None
        try:
            path = self._files.resolve(named)
        except UnsafePath as error:
            fields.problem(f"files_dir: {error}", "files_dir")
            return None
        if not path.is_dir():
            fields.leave_out(f"files_dir: there is no directory '{named}'", "files_dir")
            return None
        return self._files.name(path)

    def _env(self, fields: Fields, files_dir: str | None) -> dict[str, str]:
        return self._org_env | (self._env_file(fields, files_dir) if files_dir else {})

    def _env_file(self, fields: Fields, directory: str) -> dict[str, str]:
        if self._files is None:
            return {}
        try:
            path = self._files.resolve(f"{directory or '.'}/.env")
            return parse_env(self._files.prompt(path)) if path.exists() else {}
        except (UnsafePath, UnreadableFile) as error:
            fields.problem(f".env: {error}")
            return {}


def _children(holder: Fields, key: str) -> Iterator[tuple[Fields, str | None]]:
    """The roles under a key: a list, or a mapping from a short name to the role."""
    value = holder.value(key)
    entries: list[tuple[str, str | None, Value]] = []
    if isinstance(value, Sequence):
        entries = [(f"[{index}]", None, item) for index, item in enumerate(value.items)]
    elif isinstance(value, Mapping):
        entries = [(f".{slug}", slug, item) for slug, (_, item) in value.entries.items()]
    elif value is not None:
        holder.problem(f"{key} must be a list of workspaces", key, value.place)
    for suffix, slug, item in entries:
        if isinstance(item, Mapping):
            yield Fields(item, holder.findings, holder.at(key) + suffix, slug or ""), slug
        else:
            holder.problem(f"{key}{suffix} must be a workspace", key, item.place)
