"""Which files a restart writes over the agent's own (contract 02 §5.2)."""

from __future__ import annotations

import asyncio

from msgspec import Struct

from . import launch_config
from .errors import InvalidTemplate
from .lifecycle_schemas import Restart
from .lifecycle_store import Subject
from .templates import Template, Templates

EXISTING = "existing-volume"
CREATED_WITH = "created-with"


class RelaunchPlan(Struct, frozen=True):
    """The label that the caller is told, and the files to write; None keeps what is there."""

    label: str
    files: dict[str, str] | None


class Relaunch:
    """Chooses the template of a restart; without a flag nothing that a user edited is touched."""

    def __init__(self, templates: Templates) -> None:
        self._templates = templates

    async def plan(self, subject: Subject, wish: Restart) -> RelaunchPlan:
        """Raises `InvalidTemplate` when an explicit template does not exist."""
        return await asyncio.to_thread(self._plan, subject, wish)

    def _plan(self, subject: Subject, wish: Restart) -> RelaunchPlan:
        if wish.template:
            template = self._templates.find(wish.template)
            if template is None:
                raise InvalidTemplate
            return _from(template, subject)
        if wish.apply_template and (named := self._find(subject.name)) is not None:
            return _from(named, subject)
        if wish.rebuild_config and subject.launch_files:
            return RelaunchPlan(CREATED_WITH, subject.launch_files)
        if wish.apply_template and (default := self._find(f"{subject.runtime}-default")) is not None:
            return _from(default, subject)
        return RelaunchPlan(EXISTING, None)

    def _find(self, name: str) -> Template | None:
        try:
            return self._templates.find(name)
        except InvalidTemplate:
            return None  # a workspace may have a name that no directory can have


def _from(template: Template, subject: Subject) -> RelaunchPlan:
    profile = launch_config.Profile(
        name=subject.name,
        role=subject.role,
        tier=subject.tier,
        runtime=subject.runtime,
        model=subject.model,
        max_concurrent_tasks=subject.max_concurrent_tasks,
    )
    return RelaunchPlan(template.name, launch_config.build(profile, template.files))
