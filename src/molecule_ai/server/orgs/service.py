"""Importing a whole organization: all rows at once, the agents by the reconciler (contract 06 §3)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from msgspec import UNSET

from molecule_ai.kernel import failpoints, log
from molecule_ai.kernel.clock import Ids
from molecule_ai.kernel.db import AWAY, Connection, Database
from molecule_ai.kernel.errors import ApiError, DatastoreUnavailable, Unavailable
from molecule_ai.server.auth.principal import Principal
from molecule_ai.server.events.service import Events
from molecule_ai.server.secrets.service import Secrets
from molecule_ai.server.workspaces import runtimes
from molecule_ai.server.workspaces.creation import Creation

from . import loader, placement, store
from .body import Request
from .catalog import Catalog
from .document import EnvRequirement, Org
from .environment import unmet
from .errors import ImportRunning, MissingEnvironment, broken
from .plan import Plan, Planner
from .problems import InvalidOrg, Problem
from .schemas import OrgImported, OrgTemplate
from .trees import Outcome, Trees


class Orgs:
    """Brings organizations in, and lists those that can be."""

    def __init__(
        self,
        db: Database,
        events: Events,
        ids: Ids,
        secrets: Secrets,
        creation: Creation,
        catalog: Catalog,
        trees: Trees,
        *,
        planner: Callable[[Any], Planner],
    ) -> None:
        self._db = db
        self._events = events
        self._ids = ids
        self._secrets = secrets
        self._creation = creation
        self._catalog = catalog
        self._trees = trees
        self._planner = planner
        self._log = log.get()

    async def templates(self, *, include_invalid: bool) -> list[OrgTemplate]:
        """The organizations that can be imported by name."""
        return await asyncio.to_thread(self._catalog.templates, include_invalid=include_invalid)

    async def import_org(self, caller: Principal, request: Request) -> OrgImported:
        """Create what the document has and the organization has not.

        Everything that the document alone decides is decided before the first row: a refused
        document leaves nothing behind. Each root's tree is one transaction.
        """
        try:
            plan = await asyncio.to_thread(self._plan, request)
            await self._check_urls(plan)
        except InvalidOrg as problem:
            raise broken(problem) from problem
        if not request.force:
            await self._require_environment(plan)
        if request.dry_run:
            async with self._db.connection() as connection:
                return _answer(plan, request, await self._trees.preview(connection, plan))
        async with self._alone(), self._db.connection() as connection:
            outcome = await self._run(connection, plan, request, caller.label)
        return _answer(plan, request, outcome)

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Be the only import of the organization. Raises `ImportRunning`.

        The lock belongs to a connection of its own: it ends with it, whatever happens here.
        """
        try:
            holder = await self._db.connect()
        except AWAY as away:
            raise DatastoreUnavailable from away
        try:
            if not await store.try_lock(holder):
                raise ImportRunning
            yield
            # Before the connection goes, so that whoever imports next does not find it held.
            await store.unlock(holder)
        finally:
            holder.terminate()

    def _plan(self, request: Request) -> Plan:
        known = runtimes.names()
        directory = request.directory
        text = request.text
        if request.name_or_text is not None:
            if self._catalog.has(request.name_or_text):
                directory = request.name_or_text
            else:
                text = request.name_or_text
        if directory is not None:
            path = self._catalog.directory(directory)
            org = loader.load_directory(path, runtimes=known, strict=False)
            return self._planner(path).plan(org, directory)
        if text is not None:
            org = loader.load_text(text, runtimes=known, strict=False)
        else:
            org = loader.load_object(request.document, runtimes=known, strict=False)
        return self._planner(None).plan(org, org.name)

    async def _check_urls(self, plan: Plan) -> None:
        problems = []
        for node in plan.nodes:
            if node.new.url:
                try:
                    await self._creation.check_url(node.new.url)
                except ApiError as refused:
                    said = f"url: {refused.extra.get('detail', refused.text)}"
                    problems.append(Problem(message=said, path=node.document.path, role=node.new.name))
        if problems:
            raise InvalidOrg(problems)

    async def _require_environment(self, plan: Plan) -> None:
        """Contract 06 §3.5: what must have a value, org-wide or in every role that asks for it."""
        required = plan.org.required_env
        if not required:
            return
        async with self._db.connection() as connection:
            names = await self._secrets.global_names(connection)
        missing = [need for need in unmet(required, names) if not _supplied(plan, need)]
        if missing:
            raise MissingEnvironment(
                missing_env=[need.to_wire() for need in missing],
                required_env=[need.to_wire() for need in required],
                template=plan.org.name,
                suggestion="set them as org-wide secrets, or repeat with force=true",
            )

    async def _run(self, connection: Connection, plan: Plan, request: Request, actor: str) -> Outcome:
        import_id = self._ids.new()
        async with connection.transaction():
            await store.start(connection, import_id, plan.org.name, request.mode, actor)
            started = {"import_id": import_id, "org": plan.org.name, "mode": request.mode}
            await self._events.append(connection, "org.import.started", None, started, actor=actor)
        outcome = Outcome(rows=[])
        rightmost = await store.rightmost_x(connection)
        free_x = 0.0 if rightmost is None else rightmost + placement.WIDTH + placement.GUTTER
        spots = placement.place_roots(plan.org.workspaces, free_x)
        refusal: ApiError | None = None
        for tree in plan.roots:
            try:
                await self._trees.create(connection, tree, spots, outcome, actor=actor)
            except Unavailable:
                raise
            except ApiError as problem:
                refusal = problem
                outcome.error = f"failed to create {tree[0].new.name}: {problem.text}"
                break
            failpoints.reach("orgs.tree_imported")
        await self._finish(connection, import_id, plan, request, outcome, actor)
        if refusal is not None and not outcome.rows:
            raise refusal
        return outcome

    async def _finish(
        self,
        connection: Connection,
        import_id: UUID,
        plan: Plan,
        request: Request,
        outcome: Outcome,
        actor: str,
    ) -> None:
        async with connection.transaction():
            took = await store.finish(connection, import_id, outcome.created, outcome.skipped, outcome.error)
            payload = {
                "import_id": import_id,
                "org": plan.org.name,
                "mode": request.mode,
                "created_count": outcome.created,
                "skipped_count": outcome.skipped,
                "duration_ms": took,
                **({"error": outcome.error} if outcome.error else {}),
            }
            await self._events.append(connection, "org.import.completed", None, payload, actor=actor)
        self._log.info("org_imported", org=plan.org.name, created=outcome.created, duration_ms=took)


def _supplied(plan: Plan, need: EnvRequirement) -> bool:
    """Whether the document itself gives every role that declares the need one of its names."""
    members = set(need.any_of)
    declaring = [
        node for node in plan.nodes if any(set(own.any_of) == members for own in node.document.required_env)
    ]
    return all(members & node.new.secrets.keys() for node in declaring or plan.nodes)


def _answer(plan: Plan, request: Request, outcome: Outcome) -> OrgImported:
    org: Org = plan.org
    return OrgImported(
        org=org.name,
        workspaces=outcome.rows,
        count=len(outcome.rows),
        mode=request.mode,
        created_count=outcome.created,
        skipped_count=outcome.skipped,
        warnings=[*plan.warnings, *outcome.warnings],
        dry_run=True if request.dry_run else UNSET,
        error=outcome.error or UNSET,
    )
