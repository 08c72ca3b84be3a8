"""The live picture in the terminal: the org chart with its states, and the flow of messages."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.layout import Layout
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from .tally import Tally

_STYLES = {
    "online": "green",
    "provisioning": "yellow",
    "degraded": "dark_orange",
    "offline": "red",
    "failed": "bold red",
    "paused": "blue",
    "hibernated": "magenta",
    "hibernating": "magenta",
}


class View:
    """Drawn anew for every refresh from the tally."""

    def __init__(self, tally: Tally, title: str) -> None:
        self._tally = tally
        self._title = title
        self._started = time.monotonic()
        self.step = "starting the server"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        height = options.max_height
        layout = Layout()
        layout.split_column(Layout(name="body"), Layout(self._footer(), size=3))
        layout["body"].split_row(
            Layout(Panel(self._tree(), title=self._title), ratio=2), Layout(self._flow(height - 5), ratio=3)
        )
        yield layout

    def _tree(self) -> Tree | Text:
        children: dict[str | None, list[dict[str, Any]]] = {}
        for row in self._tally.workspaces.values():
            children.setdefault(row["parent_id"], []).append(row)
        if None not in children:
            return Text("nobody yet", style="dim")
        root = children[None][0]
        tree = Tree(_label(root))
        self._grow(tree, root["id"], children)
        return tree

    def _grow(self, tree: Tree, parent: str, children: dict[str | None, list[dict[str, Any]]]) -> None:
        for row in children.get(parent, []):
            self._grow(tree.add(_label(row)), row["id"], children)

    def _flow(self, height: int) -> Panel:
        lines = list(self._tally.flow)[-max(1, height - 2) :]
        texts = [
            Text.assemble(
                (f"{line.at:6.1f} s  ", "dim"), (f"{line.who:<18.18} ", "bold"), " ".join(line.what.split())
            )
            for line in lines
        ]
        for text in texts:
            text.no_wrap = True
            text.overflow = "ellipsis"
        return Panel(Group(*texts), title="what happens")

    def _footer(self) -> Panel:
        tally = self._tally
        seconds = time.monotonic() - self._started
        counts = (
            f"{len(tally.online)}/{len(tally.workspaces)} online · {tally.messages} messages · "
            f"{tally.delegations_completed} delegations · {tally.schedule_runs} schedule runs · "
            f"{tally.approvals_decided} approvals · {len(tally.woken)} woken"
        )
        grid = Table.grid(expand=True)
        grid.add_column(ratio=1)
        grid.add_column(justify="right")
        grid.add_row(
            Text(self.step, style="bold", overflow="ellipsis", no_wrap=True), f"  {counts} · {seconds:.0f} s"
        )
        return Panel(grid)


def _label(row: dict[str, Any]) -> Text:
    status = row["status"]
    label = Text.assemble(("● ", _STYLES.get(status, "white")), (row["name"], "bold"), (f" {status}", "dim"))
    if task := row.get("current_task"):
        label.append(f" · {task[:30]}", style="cyan")
    return label
