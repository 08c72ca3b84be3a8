"""From the body of `POST /workspaces` to a checked row (contract 02 §4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from molecule_ai.kernel import ssrf
from molecule_ai.kernel.clock import Ids
from molecule_ai.server.auth.presented import parse_uuid

from . import launch_config, resolution, rules, runtimes
from .errors import (
    InvalidTier,
    InvalidUrl,
    InvalidWorkspaceFields,
    InvalidWorkspacePayload,
    ParentNotFound,
    PlatformHasNoParent,
)
from .resolution import Choice, Resolver
from .schemas import MemoryInput, NewWorkspace, Notice, WorkspaceCreate
from .status import Status

DEFAULT_TIER = 3
NO_BACKEND = Notice("NO_BACKEND", "this server starts no agents; register one for this workspace yourself")


class Creation:
    """Checks and resolves one request; touches no database."""

    def __init__(self, ids: Ids, resolver: Resolver, urls: ssrf.UrlPolicy, *, has_backend: bool) -> None:
        self._ids = ids
        self._resolver = resolver
        self._urls = urls
        self.has_backend = has_backend

    async def prepare(self, data: WorkspaceCreate) -> tuple[NewWorkspace, list[Notice]]:
        """The row to insert and what its creator should know. Raises what is wrong with the request."""
        external = data.external or data.runtime == runtimes.EXTERNAL
        new = self._checked(data, external=external)
        choice = await self._resolver.choose(
            template=data.template, runtime=data.runtime, model=data.model, external=external
        )
        new.runtime, new.model, new.model_source = choice.runtime, choice.model, choice.model_source
        if external:
            await self._place_external(new, data)
        else:
            new.launch_files = self._files(new, choice)
        notices = [*choice.notices, *memory_notices(data.initial_memories or ())]
        if not (external or self.has_backend):
            notices.append(NO_BACKEND)
        return new, notices

    async def check_url(self, url: str) -> None:
        """Raise `InvalidUrl` for an address that no agent of this installation may have."""
        try:
            await ssrf.check_url(url, self._urls)
        except ssrf.UrlRefused as problem:
            raise InvalidUrl(detail=str(problem)) from problem

    def _checked(self, data: WorkspaceCreate, *, external: bool) -> NewWorkspace:
        """Everything that the request alone decides."""
        name, role = data.name.strip(), (data.role or "").strip()
        if not name:
            raise InvalidWorkspacePayload
        fields = {"name": name, "role": role, "model": data.model, "runtime": data.runtime}
        if problem := rules.complaint(fields):
            raise InvalidWorkspaceFields(detail=problem)
        directory = rules.directory(data.workspace_dir)
        if data.kind not in (None, "", "workspace", "platform") or data.delivery_mode not in _DELIVERY:
            raise InvalidWorkspacePayload
        parent_id = _parent(data.parent_id)
        if data.kind == "platform" and parent_id is not None:
            raise PlatformHasNoParent
        tier = data.tier or DEFAULT_TIER
        if not 1 <= tier <= 4:
            raise InvalidTier
        return NewWorkspace(
            id=self._ids.new(),
            name=name,
            role=role or None,
            tier=tier,
            kind=data.kind or "workspace",
            delivery_mode=data.delivery_mode or "push",
            parent_id=parent_id,
            template=data.template or None,
            workspace_dir=directory,
            workspace_access=rules.access(data.workspace_access, directory),
            max_concurrent_tasks=max(1, data.max_concurrent_tasks or 1),
            budget_limit=data.budget_limit,
            hibernation_idle_minutes=data.hibernation_idle_minutes or None,
            secrets=data.secrets or {},
            x=data.canvas.x if data.canvas else 0.0,
            y=data.canvas.y if data.canvas else 0.0,
        )

    async def _place_external(self, new: NewWorkspace, data: WorkspaceCreate) -> None:
        new.status = Status.AWAITING_AGENT
        if data.url:
            await self.check_url(data.url)
            new.url, new.status = data.url, Status.ONLINE

    @staticmethod
    def _files(new: NewWorkspace, choice: Choice) -> dict[str, str]:
        return resolution.files_of(choice, profile_of(new))


_DELIVERY = (None, "", "push", "poll")


def profile_of(new: NewWorkspace) -> launch_config.Profile:
    """What the new row says of the agent, for its config."""
    return launch_config.Profile(
        name=new.name,
        role=new.role,
        tier=new.tier,
        runtime=new.runtime,
        model=new.model,
        max_concurrent_tasks=new.max_concurrent_tasks,
    )


def memory_notices(memories: Sequence[MemoryInput]) -> list[Notice]:
    """There is no memory store yet, and nobody should believe that there is."""
    if not memories:
        return []
    return [Notice("MEMORY_NOT_STORED", "this version keeps no memories; initial_memories were not stored")]


def _parent(text: str | None) -> UUID | None:
    if not text:
        return None
    parent_id = parse_uuid(text)
    if parent_id is None:
        raise ParentNotFound
    return parent_id
