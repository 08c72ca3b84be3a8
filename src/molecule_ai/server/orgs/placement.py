"""Where imported roles stand on the canvas (contract 06 §3.6; the canvas has the same numbers)."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from .document import Workspace

WIDTH, HEIGHT = 240.0, 130.0
GUTTER = 14.0
HEADER = 130.0
PADDING = 16.0
COLUMNS = 2


class Spot(Struct, frozen=True):
    """A place on the canvas, and the same seen from the parent."""

    x: float
    y: float
    relative_x: float
    relative_y: float


def place_roots(roots: Sequence[Workspace], first_free_x: float) -> dict[int, Spot]:
    """A spot for each role that spawns, by the identity of its document.

    Roots stand where the document wants them; those it says nothing of stand in a row, right of
    everything that is there already.
    """
    spots: dict[int, Spot] = {}
    x = first_free_x
    for root in roots:
        if not root.is_spawning:
            continue
        if root.canvas is not None:
            spot = Spot(root.canvas.x, root.canvas.y, root.canvas.x, root.canvas.y)
        else:
            spot = Spot(x, 0.0, x, 0.0)
            x += _size(root)[0] + GUTTER
        _place(root, spot, spots)
    return spots


def _place(workspace: Workspace, spot: Spot, spots: dict[int, Spot]) -> None:
    spots[id(workspace)] = spot
    children = [child for child in workspace.children if child.is_spawning]
    widest = max((_size(child)[0] for child in children), default=0.0)
    y = HEADER
    for start in range(0, len(children), COLUMNS):
        row = children[start : start + COLUMNS]
        for column, child in enumerate(row):
            x = PADDING + column * (widest + GUTTER)
            _place(child, Spot(spot.x + x, spot.y + y, x, y), spots)
        y += max(_size(child)[1] for child in row) + GUTTER


def _size(workspace: Workspace) -> tuple[float, float]:
    sizes = [_size(child) for child in workspace.children if child.is_spawning]
    if not sizes:
        return WIDTH, HEIGHT
    columns = min(COLUMNS, len(sizes))
    rows = [sizes[start : start + COLUMNS] for start in range(0, len(sizes), COLUMNS)]
    width = 2 * PADDING + max(size[0] for size in sizes) * columns + GUTTER * (columns - 1)
    height = HEADER + sum(max(size[1] for size in row) for row in rows) + GUTTER * (len(rows) - 1) + PADDING
    return width, height
