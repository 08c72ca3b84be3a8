"""One tree of an import in the database: who is there, who is new, and what comes with them."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

import asyncpg
from msgspec import UNSET, Struct, field

from molecule_ai.kernel.clock import Ids
from molecule_ai.kernel.db import Connection
from molecule_ai.server.approvals.schemas import ApprovalRule, Approver
from molecule_ai.server.approvals.service import Approvals
from molecule_ai.server.schedules.schemas import TemplateSchedule
from molecule_ai.server.schedules.service import Schedules
from molecule_ai.server.workspaces.schemas import NewWorkspace
from molecule_ai.server.workspaces.service import Workspaces

from . import placement, store
from .document import Workspace
from .errors import TreeChanged
from .plan import Node, Plan
from .schemas import ImportedWorkspace

_ATTEMPTS = 3


class Outcome(Struct, kw_only=True):
    """What an import did so far."""

    rows: list[ImportedWorkspace]
    created: int = 0
    skipped: int = 0
    error: str = ""
    warnings: list[str] = field(default_factory=list)


class Trees:
    """Writes whole trees; the rooms of their parts write what is theirs, in the same transaction."""

    def __init__(self, workspaces: Workspaces, schedules: Schedules, approvals: Approvals, ids: Ids) -> None:
        self._workspaces = workspaces
        self._schedules = schedules
        self._approvals = approvals
        self._ids = ids

    async def create(
        self,
        connection: Connection,
        tree: list[Node],
        spots: Mapping[int, placement.Spot],
        outcome: Outcome,
        *,
        actor: str,
    ) -> None:
        """One root with all below it, in one transaction; retried when somebody took a name meanwhile."""
        for _ in range(_ATTEMPTS):
            try:
                async with connection.transaction():
                    await self._workspaces.keep_shape(connection)
                    known = await _known(connection, tree)
                    fresh = self._fresh(tree, known, spots)
                    if not await self._workspaces.insert_many(connection, fresh, actor=actor):
                        raise TreeChanged
                    warnings = await self._add_parts(connection, tree, known)
                break
            except (TreeChanged, asyncpg.ForeignKeyViolationError):
                # Somebody took a name: that role, or the parent of others, was not inserted.
                continue
        else:
            raise TreeChanged
        for node in tree:
            found = known.get(id(node))
            outcome.rows.append(_row(node, node.new.id, was_there=found is not None))
        outcome.warnings += warnings
        outcome.created += len(fresh)
        outcome.skipped += len(tree) - len(fresh)

    def _fresh(
        self, tree: list[Node], known: Mapping[int, store.Known], spots: Mapping[int, placement.Spot]
    ) -> list[NewWorkspace]:
        fresh = []
        for node in tree:
            found = known.get(id(node))
            node.new.id = found.id if found else self._ids.new()
            if found is not None:
                continue
            spot = spots[id(node.document)]
            node.new.parent_id = node.parent.new.id if node.parent else None
            node.new.x, node.new.y = spot.x, spot.y
            node.new.position_in_event = (spot.relative_x, spot.relative_y)
            fresh.append(node.new)
        return fresh

    async def _add_parts(
        self, tx: Connection, tree: list[Node], known: Mapping[int, store.Known]
    ) -> list[str]:
        """Schedules are kept up to date also where the role was there; rules only come with a new one."""
        warnings: list[str] = []
        for node in tree:
            if node.document.schedules:
                report = await self._schedules.upsert_template(tx, node.new.id, _schedules(node.document))
                warnings += [f"{node.new.name}: {warning}" for warning in report.warnings]
            if node.document.approvals and id(node) not in known:
                await self._approvals.set_rules(tx, node.new.id, _rules(node.document))
        return warnings

    async def preview(self, connection: Connection, plan: Plan) -> Outcome:
        outcome = Outcome(rows=[])
        for tree in plan.roots:
            known = await _known(connection, tree)
            for node in tree:
                found = known.get(id(node))
                outcome.rows.append(_row(node, found.id if found else None, was_there=found is not None))
            outcome.skipped += len(known)
            outcome.created += len(tree) - len(known)
        return outcome


async def _known(connection: Connection, tree: list[Node]) -> dict[int, store.Known]:
    """Which roles are there already; below one that is not, none can be."""
    known: dict[int, store.Known] = {}
    level: list[tuple[Node, UUID | None]] = [(tree[0], None)]
    while level:
        found = await store.match(connection, [(parent, node.new.name) for node, parent in level])
        below: list[tuple[Node, UUID | None]] = []
        for position, (node, _) in enumerate(level):
            if position in found:
                known[id(node)] = found[position]
                below += [(child, found[position].id) for child in node.children]
        level = below
    return known


def _row(node: Node, workspace_id: UUID | None, *, was_there: bool) -> ImportedWorkspace:
    return ImportedWorkspace(
        id=workspace_id,
        name=node.new.name,
        tier=node.new.tier,
        channels_skipped=node.channels_skipped or UNSET,
        skipped=True if was_there else UNSET,
    )


def _schedules(document: Workspace) -> list[TemplateSchedule]:
    return [
        TemplateSchedule(
            name=schedule.name,
            cron_expr=schedule.cron_expr,
            timezone=schedule.timezone,
            prompt=schedule.prompt,
            enabled=schedule.is_enabled,
        )
        for schedule in document.schedules
    ]


def _rules(document: Workspace) -> list[ApprovalRule]:
    return [
        ApprovalRule(
            action=rule.action,
            approver=Approver(rule.approver),
            ttl_seconds=rule.ttl_minutes * 60,
            reason=rule.reason,
        )
        for rule in document.approvals
    ]
