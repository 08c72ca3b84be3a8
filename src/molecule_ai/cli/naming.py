"""Workspaces by name: whoever types should not have to copy ids."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Annotated, Any

import typer

from .session import Session

_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_COMPLETION_SECONDS = 2.0


class NoSuchName(Exception):
    """A name that nobody or more than one workspace has."""


def workspace_id(session: Session, given: str) -> str:
    """The id of the workspace that is meant: its id, its name, or a path of names such as `Lead/Scout`.

    Raises `NoSuchName`, which says what there is instead.
    """
    return given if _ID.fullmatch(given) else str(workspace_row(session, given)["id"])


def workspace_row(session: Session, given: str) -> dict[str, Any]:
    """The same with all that is known of it."""
    if _ID.fullmatch(given):
        found: dict[str, Any] = session.call("GET", f"/workspaces/{given}")
        return found
    rows = session.call("GET", "/workspaces")
    paths = _paths(rows)
    for same in (_exactly, _whatever_case):
        found_rows = [row for row in rows if same(paths[row["id"]], given)]
        if len(found_rows) == 1:
            return dict(found_rows[0])
        if found_rows:
            choices = "".join(f"\n  {paths[row['id']]}  ({row['id']})" for row in found_rows)
            raise NoSuchName(f'"{given}" is the name of {len(found_rows)} workspaces; say which:{choices}')
    near = get_close_matches(given, {row["name"]: None for row in rows}, n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else "; see: molecule workspace list"
    raise NoSuchName(f'there is no workspace named "{given}"{hint}')


def complete(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Names that begin so, for the shell; without a server there are none."""
    from .session import settle

    try:
        session = settle(api_url="", token="", output="", verbose=False, config=None)
        rows = session.call("GET", "/workspaces", timeout=_COMPLETION_SECONDS)
    except Exception:  # whatever goes wrong, a shell in the middle of a line wants no message
        return []
    return [
        (row["name"], f"{row['status']} {row['role'] or ''}".strip())
        for row in rows
        if row["name"].lower().startswith(incomplete.lower())
    ]


Workspace = Annotated[str, typer.Argument(help="Name, path of names, or id.", autocompletion=complete)]


def _paths(rows: list[dict[str, Any]]) -> dict[str, str]:
    by_id = {row["id"]: row for row in rows}

    def path(row: dict[str, Any], depth: int = 0) -> str:
        above = by_id.get(row["parent_id"]) if depth < 32 else None
        return f"{path(above, depth + 1)}/{row['name']}" if above else str(row["name"])

    return {row["id"]: path(row) for row in rows}


def _exactly(path: str, given: str) -> bool:
    return f"/{path}".endswith(f"/{given}")


def _whatever_case(path: str, given: str) -> bool:
    return _exactly(path.casefold(), given.casefold())
