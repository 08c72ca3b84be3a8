"""`molecule workspace restart` and its kin: the verbs of a life."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .naming import Workspace, workspace_id
from .session import Session
from .waiting import RUNNING, Timeout, Wait, watch


def restart(
    context: typer.Context,
    workspace: Workspace,
    template: Annotated[str | None, typer.Option(help="Apply this template over the configuration.")] = None,
    apply_template: Annotated[bool, typer.Option(help="Apply the template of its name or runtime.")] = False,
    rebuild_config: Annotated[
        bool, typer.Option(help="Write the configuration it was created with.")
    ] = False,
    reset: Annotated[bool, typer.Option(help="Forget the agent's session.")] = False,
    wait: Wait = False,
    timeout: Timeout = 120,
) -> None:
    """Stop a workspace's agent and start it afresh."""
    wish = {
        "template": template,
        "apply_template": apply_template,
        "rebuild_config": rebuild_config,
        "reset": reset,
    }
    session: Session = context.obj
    one = workspace_id(session, workspace)
    answer = session.call("POST", f"/workspaces/{one}/restart", body={k: v for k, v in wish.items() if v})
    _tell(session, "Restarting", watch(session, one, RUNNING, timeout) if wait else answer)


def pause(
    context: typer.Context,
    workspace: Workspace,
    alone: Annotated[bool, typer.Option("--alone", help="Leave those below it running.")] = False,
    wait: Wait = False,
    timeout: Timeout = 120,
) -> None:
    """Stop a workspace and everything below it."""
    session: Session = context.obj
    one = workspace_id(session, workspace)
    answer = session.call("POST", f"/workspaces/{one}/pause", cascade="false" if alone else None)
    _tell(session, "Pausing", watch(session, one, {"paused"}, timeout) if wait else answer)


def resume(
    context: typer.Context,
    workspace: Workspace,
    everybody: Annotated[bool, typer.Option("--all", help="Also those who were paused apart.")] = False,
    wait: Wait = False,
    timeout: Timeout = 120,
) -> None:
    """Start a paused workspace again, and who was paused with it."""
    session: Session = context.obj
    one = workspace_id(session, workspace)
    answer = session.call("POST", f"/workspaces/{one}/resume", all="true" if everybody else None)
    wanted = RUNNING | {"awaiting_agent"}
    _tell(session, "Resuming", watch(session, one, wanted, timeout) if wait else answer)


def hibernate(
    context: typer.Context,
    workspace: Workspace,
    force: Annotated[bool, typer.Option(help="Also in the middle of a task.")] = False,
    wait: Wait = False,
    timeout: Timeout = 120,
) -> None:
    """Stop an idle workspace; a message wakes it."""
    session: Session = context.obj
    one = workspace_id(session, workspace)
    answer = session.call("POST", f"/workspaces/{one}/hibernate", force="true" if force else None)
    _tell(session, "Hibernating", watch(session, one, {"hibernated"}, timeout) if wait else answer)


def wake(context: typer.Context, workspace: Workspace, wait: Wait = False, timeout: Timeout = 120) -> None:
    """Start a hibernated workspace."""
    session: Session = context.obj
    one = workspace_id(session, workspace)
    answer = session.call("POST", f"/workspaces/{one}/wake")
    _tell(session, "Waking", watch(session, one, RUNNING, timeout) if wait else answer)


def expand(context: typer.Context, workspace: Workspace) -> None:
    """Create the children that the workspace's config.yaml declares."""
    session: Session = context.obj
    answer = session.call("POST", f"/workspaces/{workspace_id(session, workspace)}/expand")
    names = [child["name"] for child in answer["children"]]
    session.show(answer, f"Expanded: {', '.join(names)}.")


def collapse(
    context: typer.Context,
    workspace: Workspace,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove the direct children with all below them."""
    session: Session = context.obj
    if not yes:
        typer.confirm(f"Remove everybody below {workspace}?", abort=True)
    answer = session.call("POST", f"/workspaces/{workspace_id(session, workspace)}/collapse")
    session.show(answer, f"Removed: {', '.join(answer['removed']) or 'nobody'}.")


def _tell(session: Session, doing: str, answer: dict[str, Any]) -> None:
    session.show(answer, f"{doing}: {answer['status']}")


def add_to(app: typer.Typer) -> None:
    for verb in (restart, pause, resume, hibernate, wake, expand, collapse):
        app.command()(verb)
