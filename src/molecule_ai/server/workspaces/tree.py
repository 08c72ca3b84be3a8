"""Who may talk to whom (contract 02 §12): the same rule as a statement and as a cache for fan-out."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from msgspec import Struct

from molecule_ai.kernel.db import Connection, Database, many

_MAX_LEVELS = 32

# One round trip whatever the depth: both chains of ancestors, then the rule.
CAN_COMMUNICATE = """
    WITH RECURSIVE
    up(start, id, parent_id, kind, level) AS (
        SELECT w.id, w.id, w.parent_id, w.kind, 0 FROM workspaces w
         WHERE w.id IN ($1, $2) AND w.status <> 'removed'
        UNION ALL
        SELECT up.start, w.id, w.parent_id, up.kind, up.level + 1
          FROM up JOIN workspaces w ON w.id = up.parent_id WHERE up.level < 32),
    a AS (SELECT parent_id, kind FROM up WHERE start = $1 AND level = 0),
    b AS (SELECT parent_id, kind FROM up WHERE start = $2 AND level = 0)
    SELECT EXISTS (SELECT 1 FROM a, b
                    WHERE $1::uuid = $2::uuid OR a.parent_id IS NOT DISTINCT FROM b.parent_id
                       OR a.kind = 'platform' OR b.kind = 'platform')
        OR (EXISTS (SELECT 1 FROM a) AND EXISTS (SELECT 1 FROM b)
            AND EXISTS (SELECT 1 FROM up WHERE (start = $1 AND id = $2) OR (start = $2 AND id = $1)))"""


async def can_communicate(connection: Connection, caller: UUID, target: UUID) -> bool:
    """The decision for one call, from the committed state."""
    return bool(await connection.fetchval(CAN_COMMUNICATE, caller, target))


IS_ABOVE = """
    WITH RECURSIVE up AS (
        SELECT w.parent_id, 0 AS level FROM workspaces w WHERE w.id = $2
        UNION ALL
        SELECT w.parent_id, up.level + 1 FROM up JOIN workspaces w ON w.id = up.parent_id WHERE up.level < 32)
    SELECT EXISTS (SELECT 1 FROM up WHERE parent_id = $1)"""


async def is_above(connection: Connection, upper: UUID, lower: UUID) -> bool:
    """Whether `upper` is a strict ancestor of `lower`, in the committed state."""
    return bool(await connection.fetchval(IS_ABOVE, upper, lower))


class Node(Struct, frozen=True):
    """What the tree keeps of a workspace."""

    id: UUID
    parent_id: UUID | None
    kind: str


LOAD = "SELECT id, parent_id, kind FROM workspaces WHERE status <> 'removed'"


class Chart:
    """The org chart at one moment."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self._nodes = {node.id: node for node in nodes}

    def can_communicate(self, one: UUID, other: UUID) -> bool:
        """The rule on this chart; False for unknown ids."""
        a, b = self._nodes.get(one), self._nodes.get(other)
        if a is None or b is None:
            return False
        if one == other or a.parent_id == b.parent_id or "platform" in (a.kind, b.kind):
            return True
        return self._is_above(a, b) or self._is_above(b, a)

    def _is_above(self, upper: Node, lower: Node) -> bool:
        current: Node | None = lower
        for _ in range(_MAX_LEVELS):
            if current is None or current.parent_id is None:
                return False
            if current.parent_id == upper.id:
                return True
            current = self._nodes.get(current.parent_id)
        return False


EMPTY = Chart(())


class Tree:
    """The org chart in memory, for fan-out only. Dropped on every structural event and after a gap."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._chart: Chart | None = None

    @property
    def known(self) -> Chart:
        """The chart that was read last; empty when it was dropped since."""
        return self._chart or EMPTY

    def drop(self) -> None:
        """Forget; the next reader loads afresh."""
        self._chart = None

    async def load(self) -> Chart:
        """The chart; read with one statement when it was dropped."""
        if self._chart is None:
            async with self._db.connection() as connection:
                self._chart = Chart(await many(connection, Node, LOAD))
        return self._chart
