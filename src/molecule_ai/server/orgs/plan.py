"""From a document to rows: templates, files, secrets and mounts of each role (contract 06 §3.4).

Reads the disk and nothing else; call it in a thread.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from msgspec import Struct, field

from molecule_ai.kernel.paths import PathRejected, inside
from molecule_ai.server.secrets.service import secret_problem
from molecule_ai.server.workspaces import launch_config
from molecule_ai.server.workspaces.errors import InvalidTemplate, InvalidWorkspaceDirectory
from molecule_ai.server.workspaces.resolution import Resolver
from molecule_ai.server.workspaces.rules import directory as workspace_directory
from molecule_ai.server.workspaces.schemas import NewWorkspace
from molecule_ai.server.workspaces.status import Status
from molecule_ai.server.workspaces.templates import Template, Templates, read_directory

from .document import Org, Workspace
from .environment import expand
from .problems import InvalidOrg, Problem
from .schemas import SkippedChannel

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
# The document itself is no file of a role: it may hold secrets in the clear.
_DOCUMENTS = frozenset({"org.yaml", "org.yml", "workspace.yaml"})
_NOWHERE = UUID(int=0)


class Node(Struct, kw_only=True):
    """One role of the plan."""

    document: Workspace
    parent: Node | None
    new: NewWorkspace
    channels_skipped: list[SkippedChannel]
    children: list[Node] = field(default_factory=list)


class Plan(Struct, kw_only=True):
    """Everything an import will do, root by root, parents before children."""

    org: Org
    roots: list[list[Node]]
    warnings: list[str]

    @property
    def nodes(self) -> list[Node]:
        return [node for tree in self.roots for node in tree]


class Planner:
    """Plans one document."""

    def __init__(
        self, templates: Templates, resolver: Resolver, environment: Mapping[str, str], root: Path | None
    ) -> None:
        self._templates = templates
        self._resolver = resolver
        self._environment = environment
        self._root = root
        self._found: dict[str, Template | None] = {}
        self._warnings: list[str] = []
        self._problems: list[Problem] = []

    def plan(self, org: Org, source: str) -> Plan:
        """Resolve every role that spawns. Raises `InvalidOrg` with all roles that cannot be created."""
        self._warnings = list(org.warnings)
        roots: list[list[Node]] = []
        by_document: dict[int, Node] = {}
        for document, parent in org.spawning():
            above = by_document[id(parent)] if parent is not None else None
            node = self._node(document, above, source)
            by_document[id(document)] = node
            if above is None:
                roots.append([node])
            else:
                above.children.append(node)
                roots[-1].append(node)
        if self._problems:
            raise InvalidOrg(self._problems)
        self._warn_of_what_is_not_kept(org)
        return Plan(org=org, roots=roots, warnings=list(dict.fromkeys(self._warnings)))

    def _node(self, document: Workspace, parent: Node | None, source: str) -> Node:
        template = self._layers(document)
        model_source, model = self._resolver.choose_model(document.runtime, document.model, template)
        directory = self._directory(document)
        new = NewWorkspace(
            id=_NOWHERE,
            name=document.name,
            role=document.role or None,
            tier=document.tier,
            runtime=document.runtime,
            model=model,
            model_source=model_source,
            template=document.template,
            source_template=source,
            workspace_dir=directory,
            workspace_access=document.workspace_access if directory else "none",
            max_concurrent_tasks=document.max_concurrent_tasks,
            secrets=self._secrets(document),
        )
        if document.is_external:
            new.url = document.url or ""
            new.status = Status.ONLINE if new.url else Status.AWAITING_AGENT
        else:
            new.launch_files = self._files(document, parent, new, template)
        return Node(document=document, parent=parent, new=new, channels_skipped=_channels(document))

    def _layers(self, document: Workspace) -> Template | None:
        """The template with the role's own directory on top, read as one."""
        base = self._template(document)
        if document.files_dir is None or self._root is None:
            return base
        own = self._role_files(document, document.files_dir)
        layers = [*([base.config] if base else []), own.config]
        config: dict[str, Any] = {}
        for layer in layers:
            config = launch_config.merge(config, layer)
        files = {**(base.files if base else {}), **own.files}
        if config:
            files[launch_config.CONFIG] = launch_config.write(config)
        return Template(name=document.files_dir, files=files, config=config, left_out=[])

    def _template(self, document: Workspace) -> Template | None:
        name = document.template or f"{document.runtime}-default"
        if name not in self._found:
            try:
                self._found[name] = self._templates.find(name)
            except InvalidTemplate as problem:
                self._found[name] = None
                self._warnings.append(f"template {name}: {problem.extra.get('detail', problem.text)}")
        if document.template and self._found[name] is None:
            self._warnings.append(f"{document.name}: there is no template {name}")
        return self._found[name]

    def _role_files(self, document: Workspace, files_dir: str) -> Template:
        assert self._root is not None  # noqa: S101  # the loader refuses files_dir without a directory
        try:
            read = read_directory(inside(self._root, files_dir))
            files = {path: text for path, text in read.files.items() if path not in _DOCUMENTS}
            config = launch_config.read(files.get(launch_config.CONFIG, ""))
        except PathRejected:
            self._refuse(document, f"files_dir '{files_dir}' leaves the directory of the organization")
            return Template(name=files_dir, files={}, config={}, left_out=[])
        except launch_config.InvalidConfigFile as problem:
            self._refuse(document, str(problem), file=f"{files_dir}/config.yaml")
            return Template(name=files_dir, files={}, config={}, left_out=[])
        self._warnings += [
            f"{document.name}: {files_dir}/{name} is not text, or too large" for name in read.left_out
        ]
        return Template(name=files_dir, files=files, config=config, left_out=read.left_out)

    def _directory(self, document: Workspace) -> str | None:
        if document.workspace_dir is None:
            return None
        path, missing = expand(document.workspace_dir, {**self._environment, **document.secrets})
        if missing:
            self._warnings.append(f"{document.name}: {', '.join(missing)} is not set; nothing is mounted")
            return None
        try:
            return workspace_directory(path)
        except InvalidWorkspaceDirectory:
            self._refuse(document, "workspace_dir must be an absolute path outside the system's directories")
            return None

    def _secrets(self, document: Workspace) -> dict[str, str]:
        """The values of the role; a value that is a whole `${NAME}` is looked up, others are literal."""
        literal = {name: text for name, text in document.secrets.items() if not _REFERENCE.fullmatch(text)}
        known = {**self._environment, **literal}
        found: dict[str, str] = {}
        for name, text in document.secrets.items():
            reference = _REFERENCE.fullmatch(text)
            value = text if reference is None else known.get(reference[1], "")
            if not value:
                self._warnings.append(
                    f"{document.name}: the secret {name} refers to {text}, which is not set"
                )
            elif problem := secret_problem(name, value):
                self._warnings.append(f"{document.name}: the secret {name} is left out: {problem}")
            else:
                found[name] = value
        return found

    def _files(
        self, document: Workspace, parent: Node | None, new: NewWorkspace, template: Template | None
    ) -> dict[str, str]:
        profile = launch_config.Profile(
            name=new.name,
            role=new.role,
            tier=new.tier,
            runtime=new.runtime,
            model=new.model,
            max_concurrent_tasks=new.max_concurrent_tasks,
            parent_name=parent.new.name if parent else None,
            extra=_explicit(document),
        )
        own = {launch_config.PROMPT: document.system_prompt + "\n"} if document.system_prompt else {}
        return launch_config.build(profile, template.files if template else {}, own)

    def _warn_of_what_is_not_kept(self, org: Org) -> None:
        if org.global_memories or any(document.initial_memories for document, _ in org.spawning()):
            self._warnings.append("this version keeps no memories; those of the template were not stored")
        plugins = dict.fromkeys(name for document, _ in org.spawning() for name in document.plugins)
        self._warnings += [f"plugin {name} not found" for name in plugins]

    def _refuse(self, document: Workspace, message: str, *, file: str = "") -> None:
        self._problems.append(Problem(message=message, path=document.path, role=document.name, file=file))


def _explicit(document: Workspace) -> dict[str, Any]:
    """What the document says beyond the row; only what it does say, so that templates keep the rest."""
    extra: dict[str, Any] = {}
    if document.initial_prompt:
        extra["initial_prompt"] = document.initial_prompt
    if document.idle_prompt:
        extra["idle_interval_seconds"] = document.idle_interval_seconds
        extra["idle_prompt"] = document.idle_prompt
    if document.plugins:
        extra["plugins"] = list(document.plugins)
    if document.category_routing:
        extra["category_routing"] = {key: list(roles) for key, roles in document.category_routing.items()}
    if document.approvals:
        extra["approvals"] = [{"action": rule.action, "reason": rule.reason} for rule in document.approvals]
    return extra


def _channels(document: Workspace) -> list[SkippedChannel]:
    return [
        SkippedChannel(
            workspace=document.name,
            type=channel.type,
            reason="unknown adapter" if channel.type else "empty type",
        )
        for channel in document.channels
    ]
